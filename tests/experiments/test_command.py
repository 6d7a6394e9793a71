"""The command line: one line for what a user can cause, a traceback for what is ours, the cache of programs."""

import dataclasses
import os
import subprocess
import sys

import jax
import pytest

from experiments.shell import command
from zfjax.errors import DivergedError, UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Do something."""

    number: int = 1
    """A number."""


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr("zfjax.parallel.connect_hosts", lambda *_: None)


def call(monkeypatch, run, *flags):
    monkeypatch.setattr(sys, "argv", ["something", *flags])
    command.main(Config, run, "Doc.", lambda result: print(f"value {result['value']}"))


def raising(error):
    def run(config):
        raise error

    return run


@pytest.mark.parametrize("error", [UserError("layer='x': no"), DivergedError("loss=nan"), OSError(28, "no space left")])
def test_what_a_user_can_cause_is_one_line(monkeypatch, error):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, raising(error))
    assert ended.value.code == f"error: {error}"


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
