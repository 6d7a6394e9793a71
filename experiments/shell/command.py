"""The command line of an experiment: flags in, a result or one line of error out.

Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP are a request: a long run saves and leaves at a place of its own choice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import tyro

from zfjax import parallel
from zfjax.errors import FailedError, UserError


class Stopped(Exception):
    """A run left early on request, everything saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number  # as shells report a process that ended by this signal


# What a terminal, Slurm (--signal=USR1@300), a scheduler and a closed connection send; Windows has the first two alone
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
ONE_REQUEST = 1.0  # seconds within which signals are one request: launchers pass on what also reached us directly


class StopRequest:
    """While entered, `signal_number` is the first of `STOPPING` received, else 0. A later second one acts as usual.

    SIGHUP that is ignored, as under nohup, stays so.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._received = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in STOPPING:
            if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, _frame: object) -> None:
        if not self.signal_number:
            self.signal_number, self._received = number, time.monotonic()
        elif time.monotonic() - self._received > ONE_REQUEST:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # None: the handler was not installed from Python (with several hosts JAX installs one for SIGTERM)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._previous.clear()


CACHE_VARIABLE = "ZFJAX_COMPILATION_CACHE"
CACHE_HELP = f"""
Compiled programs are kept in a folder of the user's cache, so that the next call starts at once:
--compilation-cache DIR (or {CACHE_VARIABLE}=DIR) names another folder, --compilation-cache off turns it off.
"""


def use_compilation_cache(folder: str | None = None) -> None:
    """Keep compiled programs between processes, several of which may use it at once.

    Args:
      folder: where; "off" for nowhere; None for what the variable ZFJAX_COMPILATION_CACHE says, or else a folder of the
        user's cache.
    """
    folder = os.environ.get(CACHE_VARIABLE) if folder is None else folder
    if folder == "off":
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(home / "zfjax" / "xla" if folder is None else Path(folder)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a figure has many small ones
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _without_cache_flag(flags: list[str]) -> tuple[list[str], str | None]:
    """(the other flags, the value of --compilation-cache)."""
    rest, cache = [], None
    words = iter(flags)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--compilation-cache", "--compilation_cache"):
            cache = value if equals else next(words, None)
            if cache is None:
                raise SystemExit("error: --compilation-cache: a folder, or off, is needed")
        else:
            rest.append(word)
    return rest, cache


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """End the process in one line where a user or the system caused an error; a mistake of ours keeps its traceback."""
    try:
        yield
    except (UserError, FailedError) as error:
        raise SystemExit(f"error: {error}") from error
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        words = str(error).strip().split("\n")[0]
        raise SystemExit(f"error: memory ran out ({words}); a smaller --batch-size takes less") from error
    except OSError as error:
        if error.errno is None:  # no word of the system's, as that a disk is full
            raise
        raise SystemExit(f"error: {error}") from error


def main(
    config_type: type[Any],
    run: Callable[[Any], dict[str, Any]],
    doc: str | None,
    report: Callable[[dict[str, Any]], None],
    *,
    when_stopped: str = "nothing was written",
) -> None:
    """Parse the flags into `config_type`, run, and let `report` print what came out.

    Args:
      config_type: frozen dataclass; its fields are the flags.
      run: config -> result; empty on every host but the first, where there are several.
      doc: the module's docstring, shown by --help.
      report: prints a few lines of the result.
      when_stopped: what Ctrl-C left behind.
    """
    flags, cache = _without_cache_flag(sys.argv[1:])
    config: Any = tyro.cli(config_type, description=f"{doc or ''}{CACHE_HELP}", args=flags)
    use_compilation_cache(cache)
    try:
        with in_one_line():
            parallel.connect_hosts()
            result = run(config)
    except KeyboardInterrupt:
        raise SystemExit(f"stopped; {when_stopped}") from None
    if result:
        report(result)
        if "folder" in result:
            print(f"written to {result['folder']}")
