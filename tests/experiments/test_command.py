"""The command line: one line for what a user can cause, a traceback for what is ours, the cache of programs."""

import dataclasses
import errno
import importlib.util
import io
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from experiments import benchmark, prepare_imagenet, train_imagenet
from experiments.shell import command, stopping
from zfjax import cli, leaving
from zfjax.errors import DivergedError, FailedError, UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Do something."""

    number: int = 1
    """A number."""


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr("zfjax.parallel.connect_hosts", lambda *_, **__: None)


def test_a_name_without_letters_for_the_terminal_ends_no_command(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    call(monkeypatch, lambda config: {"value": 1, "folder": Path(os.fsdecode(b"no \xff letters"))})
    terminal.seek(0)
    assert terminal.read().endswith("written to no \\udcff letters\n")


@pytest.mark.parametrize(
    "words",
    [
        ["experiments.layer_analysis", "--help"],
        ["experiments.prepare_imagenet", "--help"],
        ["experiments.train_imagenet", "--help"],
        ["experiments.benchmark", "--help"],
        ["zfjax", "--help"],
    ],
)
def test_a_reader_that_leaves_ends_a_command_in_silence(words):
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as nobody:
        done = subprocess.run([sys.executable, "-m", *words], stdout=nobody, stderr=subprocess.PIPE, check=False)
    assert done.returncode in (141, 0) and done.stderr == b""  # 0: argparse ends in its own way


def test_a_result_that_nobody_reads_any_more_ends_in_silence_and_another_pipe_does_not(monkeypatch):
    reads, writes = os.pipe()
    os.close(reads)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writes, "w", buffering=1))
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, lambda config: {"value": 1})
    assert ended.value.code == 141
    sys.stdout.close()  # what was left went nowhere

    reads, writes = os.pipe()
    with os.fdopen(reads), os.fdopen(writes, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(BrokenPipeError):
            call(monkeypatch, raising(BrokenPipeError(errno.EPIPE, "of a socket")))


def call(monkeypatch, run, *flags):
    monkeypatch.setattr(sys, "argv", ["something", *flags])
    command.main(Config, run, doc="Doc.", report=lambda result: print(f"value {result['value']}"))


def raising(error):
    def run(config):
        raise error

    return run


@pytest.mark.parametrize("error", [UserError("layer='x': no"), DivergedError("loss=nan"), FailedError("it failed")])
def test_what_a_user_can_cause_is_one_line(monkeypatch, error):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, raising(error))
    assert ended.value.code == f"error: {error}"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "out/page.png: No space left on device; make room there, or name another place"),
        (errno.EACCES, "out/page.png: Permission denied; let this user read and write there, or name another place"),
        (errno.EROFS, "out/page.png: Read-only file system; name a place that can be written"),
        (errno.EMFILE, "out/page.png: Too many open files; let it open more files at once (ulimit -n)"),
    ],
)
def test_what_the_system_causes_is_one_line_with_the_way_on(monkeypatch, number, words):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, raising(OSError(number, os.strerror(number), "out/page.png")))
    assert ended.value.code == f"error: {words}"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST])
def test_a_bad_name_that_no_user_gave_is_a_mistake_of_ours(monkeypatch, number):
    with pytest.raises(OSError, match="a/b.png"):
        call(monkeypatch, raising(OSError(number, os.strerror(number), "a/b.png")))


@pytest.mark.parametrize("error", [ValueError("shapes"), KeyError("x"), TypeError("x"), FloatingPointError("x")])
def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, error):
    with pytest.raises(type(error)):
        call(monkeypatch, raising(error))


def test_the_report_and_the_folder_are_printed(monkeypatch, capsys):
    call(monkeypatch, lambda config: {"value": config.number, "folder": "here"}, "--number", "7")
    assert capsys.readouterr().out == "value 7\nwritten to here\n"


@pytest.mark.parametrize("words", ["--compilation-cache x --number 3", "--number 3 --compilation-cache=x"])
def test_the_cache_flag_stands_beside_the_others(monkeypatch, capsys, words):
    folders = []
    monkeypatch.setattr(command, "use_compilation_cache", folders.append)
    call(monkeypatch, lambda config: {"value": config.number}, *words.split())
    assert folders == ["x"] and capsys.readouterr().out == "value 3\n"


@pytest.mark.parametrize("main", [prepare_imagenet.main, benchmark.main, train_imagenet.main, cli.main])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data-dir", ""], "--data-dir is given an empty word"),
        (["--number", "3", "--resume="], "--resume is given an empty word"),
        (["", "--number"], "the command holds an empty word"),
    ],
)
def test_an_empty_word_is_no_folder(monkeypatch, main, words, said):
    monkeypatch.setattr(sys, "argv", ["it", *words])
    with pytest.raises(SystemExit, match=f"^error: {said}, as where a variable of the shell is unset; give a value"):
        main()


def test_help_names_the_cache_flag(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, raising(AssertionError), "--help")
    assert "--compilation-cache" in capsys.readouterr().out


PROGRAM = """
import jax, jax.numpy as jnp
from experiments.shell import command
command.use_compilation_cache()
print(float(jax.jit(lambda x: jnp.linalg.eigh(x @ x.T)[0].sum())(jnp.ones((30, 30)))))
"""


def run_program(folder, cache):
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "ZFJAX_COMPILATION_CACHE": cache}
    if not cache:
        del environment["ZFJAX_COMPILATION_CACHE"]
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)


def test_programs_are_kept_in_the_users_cache_and_found_again(tmp_path):
    first = run_program(tmp_path, "").stdout
    kept = {path.name for path in (tmp_path / "zfjax" / "xla").iterdir()}
    assert kept and run_program(tmp_path, "").stdout == first
    programs = {name for name in kept if name.endswith("-cache")}
    assert {name for name in os.listdir(tmp_path / "zfjax" / "xla") if name.endswith("-cache")} == programs


def test_the_variable_moves_the_cache_or_turns_it_off(tmp_path):
    run_program(tmp_path / "home", "off")
    assert not (tmp_path / "home").exists()
    run_program(tmp_path / "home", str(tmp_path / "elsewhere"))
    assert any((tmp_path / "elsewhere").iterdir()) and not (tmp_path / "home").exists()


def test_off_leaves_jax_as_it_is():
    before = jax.config.jax_compilation_cache_dir
    command.use_compilation_cache("off")
    assert jax.config.jax_compilation_cache_dir == before


def test_where_the_users_cache_cannot_be_made_nothing_is_kept_and_a_line_says_so(tmp_path, monkeypatch, capsys):
    before = jax.config.jax_compilation_cache_dir
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ZFJAX_COMPILATION_CACHE", raising=False)
    command.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before
    folder = tmp_path / "home" / "zfjax" / "xla"
    words = f"compiled programs are not cached: {folder} cannot be made: Not a directory\n"
    assert capsys.readouterr() == ("", words)


def test_a_folder_that_is_named_for_the_cache_and_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    words = "compilation_cache=.*file': what lies there is no folder; name another folder, or off"
    with pytest.raises(UserError, match=words):
        command.use_compilation_cache(str(tmp_path / "file"))


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(("process", "flags", "runs"), [("0", [], True), ("2", [], False), ("2", ["--alone"], True)])
def test_of_several_processes_the_first_makes_a_figure_and_the_others_leave_with_a_line(
    monkeypatch, capsys, process, flags, runs
):
    monkeypatch.setattr("zfjax.parallel.connect_hosts", lambda *_, **__: pytest.fail("a figure waits for nobody"))
    for name, value in {**SLURM, "SLURM_PROCID": process}.items():
        monkeypatch.setenv(name, value)
    call(monkeypatch, lambda config: {"value": config.number}, *flags)
    said = capsys.readouterr().out
    assert said == "value 1\n" if runs else said.startswith("process 2 of 4 (Slurm): this command runs in process 0")


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (benchmark.main, ["benchmark", "forward"]),
        (prepare_imagenet.main, ["prepare_imagenet", "--data-dir", "nowhere"]),
        (cli.main, ["zfjax", "atlas", "nowhere"]),
    ],
)
def test_of_several_processes_the_others_leave_whatever_the_command(monkeypatch, capsys, tmp_path, main, words):
    monkeypatch.chdir(tmp_path)
    for name, value in {**SLURM, "SLURM_PROCID": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", words)
    main()
    assert capsys.readouterr().out.startswith("process 3 of 4 (Slurm): this command runs in process 0 only; --alone")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("main", [prepare_imagenet.main, cli.main])
def test_alone_a_command_runs_in_any_process(monkeypatch, tmp_path, main):
    monkeypatch.chdir(tmp_path)
    for name, value in {**SLURM, "SLURM_PROCID": "3"}.items():
        monkeypatch.setenv(name, value)
    words = {prepare_imagenet.main: ["prepare_imagenet", "--data-dir", "x"], cli.main: ["zfjax", "layers", "nowhere"]}
    monkeypatch.setattr(sys, "argv", [*words[main], "--alone"])
    with pytest.raises(SystemExit, match="^error: "):
        main()


def joining(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["something", *flags])
    command.main(
        Config, lambda config: {"value": 3}, doc="Doc.", report=lambda result: print(result["value"]), joins=True
    )


@pytest.mark.parametrize("environment", [{"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_STEPID": "4294967290"}])
def test_a_step_of_one_process_waits_for_nobody(monkeypatch, capsys, environment):
    monkeypatch.setattr("zfjax.parallel.connect_hosts", lambda *_, **__: pytest.fail("it is alone"))
    for name, value in {**SLURM, "SLURM_PROCID": "0", **environment}.items():
        monkeypatch.setenv(name, value)
    joining(monkeypatch)
    assert capsys.readouterr().out == "3\n"


def test_those_who_are_not_found_by_jax_are_told_how_to_join_or_to_stay_alone(monkeypatch, capsys):
    for name, value in {"PMI_RANK": "1", "PMI_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=r"MPI announces 2 processes.*--num-hosts 2 --host 1, or --alone"):
        joining(monkeypatch)
    joining(monkeypatch, "--alone")
    assert capsys.readouterr().out == "3\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "words"),
    [("SIGABRT", "ended by signal 6 without a word, as where host 1 is lost; "), ("SIGSEGV", "ended by signal 11; ")],
)
def test_an_abort_without_a_word_is_told_as_the_one_that_a_lost_host_brings(number, words):
    """JAX's own abort says which host is lost, but on a machine with much to do may end before it has said so."""
    die = f"hosts.note(joined=True); os.kill(os.getpid(), signal.{number})"
    program = f"import os, signal; from experiments.shell import hosts; hosts._supervise(0, 2, 10); {die}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"error: host 0 {words}nothing was saved yet"), done.stderr


def test_a_host_that_nobody_joins_says_whom_it_waits_for_and_ends_in_one_line():
    flags = ["--coordinator", "localhost:1", "--num-hosts", "2", "--host", "1", "--host-timeout", "1"]
    command = [sys.executable, "-m", "experiments.evaluate_imagenet", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert ended.returncode == 1
    assert ended.stdout.startswith("host 1 of 2: waiting up to 1 s for the others, as --coordinator names localhost:1")
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "host 1 of 2: host 0 did not come within 1 s" in errors[0]
    assert "Traceback" not in ended.stderr and "***" not in ended.stderr


# Sends itself a signal where the module is about to be imported
INTERRUPTING = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.{signal})
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.slow
@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("SIGINT", "zfjax.leaving"),
        ("SIGINT", "jax"),
        ("SIGINT", "tyro"),
        ("SIGHUP", "jax._src.interpreters.partial_eval"),
        ("SIGTERM", "jax"),
        ("SIGUSR1", "numpy"),
    ],
)
@pytest.mark.parametrize(
    "program",
    [
        ("experiments.architecture_diagram",),
        ("experiments.train_imagenet",),
        ("experiments.prepare_imagenet", "--source", "x", "--data-dir", "y"),
        ("experiments.benchmark", "forward"),
        ("zfjax", "layers", "nowhere"),
    ],
)
def test_a_signal_while_a_command_imports_is_one_line(program, name, module, tmp_path):
    if program[0] == "zfjax":
        module = {"zfjax.leaving": "zfjax.anymodel", "tyro": "zfjax.nets"}.get(module, module)
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING.format(module=module, signal=name))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    run = [sys.executable, "-m", *program]
    ended = subprocess.run(run, env=environment, cwd=tmp_path, capture_output=True, text=True)
    status = 128 + getattr(signal, name)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "", "stopped; nothing was written\n")


@pytest.mark.parametrize(
    ("words", "is_command"),
    [
        (["/usr/bin/zfjax", "layers"], True),
        (["-m", "layers"], True),
        (["train.py", "zfjax"], False),
        ([""], False),
        ([], False),
    ],
)
def test_only_the_command_takes_ctrl_c_while_it_imports(monkeypatch, words, is_command):
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "zfjax", "layers"])
    assert leaving.is_command() == is_command


def test_a_program_of_a_users_keeps_its_ctrl_c():
    program = (
        "import signal; usual = signal.default_int_handler; signal.signal(signal.SIGINT, usual)\n"
        "import zfjax; print(signal.getsignal(signal.SIGINT) is usual)"
    )
    run = [sys.executable, "-c", program]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "True\n"


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_the_signals_of_launchers_are_requests_of_which_two_at_once_are_one(number):
    before = signal.getsignal(number)
    with command.StopRequest() as stop:
        signal.raise_signal(number)
        signal.raise_signal(number)
    assert stop.signal_number == number and signal.getsignal(number) == before


@pytest.mark.usefixtures("usual_signals")
def test_a_later_second_signal_acts_as_usual():
    with command.StopRequest(one_request=-1.0):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"])
def test_a_signal_ends_a_command_in_one_line_after_it_was_put_in_order(monkeypatch, capsys, name):
    number, order = getattr(signal, name), []

    def run(config):
        try:
            signal.raise_signal(number)
        finally:
            order.append("put in order")

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, run)
    assert (ended.value.code, order) == (128 + number, ["put in order"])
    assert capsys.readouterr().err == "stopped; nothing was written\n" and signal.getsignal(number) == before


def test_where_a_system_lacks_a_signal_the_others_are_requests(monkeypatch):
    for name in ("SIGUSR1", "SIGHUP"):
        monkeypatch.delattr(signal, name)
    spec = importlib.util.spec_from_file_location("leaving_of_windows", leaving.__file__)
    of_windows = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(of_windows)
    assert of_windows.STOPPING == [signal.SIGINT, signal.SIGTERM]
    monkeypatch.setattr(stopping, "STOPPING", of_windows.STOPPING)
    with of_windows.interrupting(), stopping.StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop.signal_number == signal.SIGTERM


def test_under_nohup_a_closed_connection_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with command.StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.signal_number == 0
    finally:
        signal.signal(signal.SIGHUP, before)


_TWICE = """
import ctypes, resource, sys
from zfjax import shell
if sys.argv[1] == "kept":
    shell.keep_freed_memory()
libc, size = ctypes.CDLL(None), 2**26
libc.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a page is 4,096 bytes
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the options are glibc's")
@pytest.mark.parametrize(("how", "cleared_again"), [("kept", False), ("as it is", True)])
def test_a_freed_block_is_taken_again_without_the_system(how: str, cleared_again: bool) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    run = subprocess.run([sys.executable, "-c", _TWICE, how], env=env, capture_output=True, text=True, check=True)
    assert (int(run.stdout) > 1000) == cleared_again  # of 16,384 pages


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_callback_is_not_lost(number):
    """Python drops what is raised in one."""
    dying = [type("Dying", (), {"__del__": lambda _: signal.raise_signal(number)})()]

    def work():
        dying.clear()
        time.sleep(20)

    with leaving.interrupting(), pytest.raises(KeyboardInterrupt):
        work()
