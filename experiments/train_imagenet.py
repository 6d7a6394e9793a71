"""Train the paper's network (sec. 3) on ImageNet, or a narrow one on the generated demo set.

    python -m experiments.train_imagenet --preset demo                   about 2 minutes on two CPU cores
    python -m experiments.train_imagenet --data-dir DIR                  the paper: 70 epochs of 1.28 M photos
    python -m experiments.train_imagenet --preset reduced --data-dir DIR half width at 112 pixels, for CPUs
    python -m experiments.train_imagenet --resume [RUN]                  resume RUN, or the newest run

DIR is the output of `python -m experiments.prepare_imagenet`. On several hosts run the same command on each. Slurm, MPI
and TPU pods are detected; elsewhere add `--coordinator HOST:PORT --num-hosts N --host I`. A host that does not start,
or is lost, ends the others within `--host-timeout` seconds; `--alone` disables the detection.

A run's folder (`--out`, default runs/DATA-TIME) holds `config.json`, `metrics.jsonl`, `curves.png` and
`checkpoints/`: the latest three, and those of epochs 1, 2, 5, 10, 20, 30, 40, 64 and 70. On Ctrl-C, SIGTERM, SIGUSR1
and SIGHUP the run is saved. The same command with the same `--out` starts a run or resumes it, and says so if it is
complete, so a queue can restart the command unchanged. The paper annealed by hand: `--resume RUN --learning-rate 1e-3`
resumes with another rate.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import tyro

from experiments.shell import hosts
from experiments.shell.command import Stopped, first_flags, in_one_line, split_flags, use_compilation_cache
from experiments.shell.training_run import PRESETS, Config, run
from zfjax import nets, shell
from zfjax.data import ImageSet
from zfjax.errors import UserError, command_line


@shell.ending_with_reader()
def main(data: ImageSet | None = None) -> None:
    """Command line: --preset or --resume choose the settings that the other flags start from. `data` as for `run`."""
    first = own_flags()
    chosen, rest = split_flags(first)
    if {"-h", "--help"} & set(rest):
        print(first.format_help())
    try:
        with in_one_line("what was saved before stays"), hosts.losses(chosen.host_timeout):
            use_compilation_cache(chosen.compilation_cache)
            hosts.join(chosen)
            if chosen.resume is None:
                config = parse(PRESETS[chosen.preset or "paper"], rest)
                record = run(config, data=data)
            else:
                if chosen.preset:
                    raise UserError(f"preset={chosen.preset!r}: a continued run keeps its own settings")
                folder = Path(chosen.resume) if chosen.resume else nets.newest_run()
                record = run(lambda stored: parse(stored, rest), folder, data=data)
    except Stopped as stopped:
        print(stopped)
        raise SystemExit(stopped.exit_status) from None
    top1 = record["validation_top1_error"]
    print(f"done: validation top-1 error {top1:.1%} (accuracy {1 - top1:.1%}); the run is in {record['folder']}")
    print(f"look at it: {command_line('python -m experiments.deconv_figures', '--net', Path(record['folder']))}")


def own_flags() -> argparse.ArgumentParser:
    """The flags that are read before the settings: where these start from, and the other hosts."""
    first = first_flags(joins=True)
    group = first.add_argument_group("where the settings start from")
    group.add_argument("--preset", choices=sorted(PRESETS), help="settings that the other flags modify (paper)")
    group.add_argument("--resume", nargs="?", const="", metavar="RUN", help="resume a run; without RUN the newest")
    return first


def parse(default: Config, arguments: list[str]) -> Config:
    """`default` with the flags in `arguments`."""
    return tyro.cli(Config, default=default, args=arguments, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))


if __name__ == "__main__":
    main()
