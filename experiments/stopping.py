"""Ctrl-C and SIGTERM as a request: the loop saves and leaves at a place of its own choice."""

from __future__ import annotations

import signal


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
