"""Requests to stop: a long run saves and leaves at a place of its own choice."""

from __future__ import annotations

import signal
import time

from zfjax.leaving import STOPPING


class Stopped(Exception):
    """A run left early on request, everything saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number  # as shells report a process that ended by this signal


ONE_REQUEST = 1.0  # seconds within which signals are one request: launchers pass on what also reached us directly


class StopRequest:
    """While entered, `signal_number` is the first of `STOPPING` received, else 0. A later second one acts as usual.

    SIGHUP that is ignored, as under nohup, stays so.
    """

    def __init__(self, *, one_request: float = ONE_REQUEST) -> None:
        self.signal_number, self._one_request = 0, one_request
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
        elif time.monotonic() - self._received > self._one_request:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # None: the handler was not installed from Python (with several hosts JAX installs one for SIGTERM)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._previous.clear()
