"""The command line of an experiment: flags in, a result or one line of error out."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import tyro

from experiments import leave
from experiments.pages import words
from experiments.shell import hosts
from experiments.shell.stopping import Stopped as Stopped
from experiments.shell.stopping import StopRequest as StopRequest
from zfjax import shell
from zfjax.leaving import take_over
from zfjax.shell import CACHE_VARIABLE
from zfjax.shell import is_idle as is_idle
from zfjax.shell import use_compilation_cache as use_compilation_cache

Result = TypeVar("Result", bound=Mapping[str, Any])


def first_flags(*, joins: bool, compiles: bool = True) -> argparse.ArgumentParser:
    """The flags that are read before a command's own: where it runs, and what it keeps of programs that it compiles."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage="[first] [the others]")
    group = first.add_argument_group("first")
    if compiles:
        group.add_argument(
            "--compilation-cache",
            "--compilation_cache",
            metavar="DIR",
            help="folder for compiled programs, which later calls reuse, or off; by default "
            f"{CACHE_VARIABLE}, or else a folder in the user's cache",
        )
    group.add_argument("--alone", action="store_true", help=shell.ALONE)
    if joins:
        hosts.add_flags(group)
    return first


def split_flags(first: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """(what the first flags say, the other words) of this process's command line; an empty word ends it with a line."""
    shell.check_words(sys.argv[1:])
    return first.parse_known_args()


def described(doc: str | None, first: argparse.ArgumentParser) -> str:
    """What --help says before a command's own flags."""
    return f"{doc or ''}\n{first.format_help().partition('first:')[2]}"


@contextlib.contextmanager
def in_one_line(when_stopped: str = "nothing was written") -> Iterator[None]:
    """End the process in one line where a user or the system caused an error; a mistake of ours keeps its traceback.

    So do Ctrl-C and the other signals of `STOPPING`, by way of an exception, so that what was begun is put in order.

    Args:
      when_stopped: what they left behind, as "the same command resumes".
    """
    take_over(leave)
    with shell.in_one_line(when_stopped):
        yield


@shell.ending_with_reader()
def main(
    config_type: type[Any],
    run: Callable[[Any], Result | None],
    *,
    doc: str | None,
    report: Callable[[Result], None],
    when_stopped: str = "nothing was written",
    joins: bool = False,
) -> None:
    """Parse the flags into `config_type`, run, and let `report` print what came out.

    Args:
      config_type: frozen dataclass; its fields are the flags.
      run: config -> result; None on every host but the first, where there are several.
      doc: the module's docstring, shown by --help.
      report: prints a few lines of the result.
      when_stopped: what Ctrl-C, or a signal as SIGTERM, left behind.
      joins: whether several hosts share the work; else the first one does it, and the others leave.
    """
    first = first_flags(joins=joins)
    chosen, rest = split_flags(first)
    config: Any = tyro.cli(config_type, description=described(doc, first), args=rest)
    with in_one_line(when_stopped):
        use_compilation_cache(chosen.compilation_cache)
        if joins:
            hosts.join(chosen)
        elif is_idle(alone=chosen.alone):
            return
        with hosts.losses(chosen.host_timeout) if joins else contextlib.nullcontext():
            result = run(config)
    if result:
        report(result)
        if "folder" in result:
            print(f"written to {result['folder']}")


def print_left_out(parts: Mapping[str, str]) -> None:
    """Say which parts of a figure do not apply to a network, {part: reason}."""
    for sentence in words.left_out(parts):
        print(sentence)
