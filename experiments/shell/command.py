"""The command line of an experiment: flags in, a result or one line of error out.

Ctrl-C and SIGTERM are a request: a long run saves and leaves at a place of its own choice.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import tyro

from zfjax import parallel
from zfjax.errors import UserError


class Stopped(Exception):
    """A run left early on request, everything saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number  # as shells report a process that ended by this signal


class StopRequest:
    """While entered, `signal_number` is the first SIGINT or SIGTERM received, else 0. A second one acts as usual."""

    def __init__(self) -> None:
        self.signal_number = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, _frame: object) -> None:
        self.signal_number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # None: the handler was not installed from Python (with several hosts JAX installs one for SIGTERM)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._previous.clear()


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
    config: Any = tyro.cli(config_type, description=doc)
    try:
        parallel.connect_hosts()
        result = run(config)
    except (UserError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(f"stopped; {when_stopped}") from None
    if result:
        report(result)
