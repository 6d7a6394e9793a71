"""How a command leaves that Ctrl-C, or another signal, stops: in one line, also while it still imports what it needs.

Imported first of all, by the command `zfjax`. In every other program signals stay as they are.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

# What a terminal, Slurm (--signal=USR1@300), a scheduler and a closed connection send; Windows has the first two alone
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]


def leave(number: int, _frame: object) -> None:
    """What Ctrl-C, or another signal, does until the command begins its work."""
    os.write(2, b"stopped; nothing was written\n")
    os._exit(128 + number)


def is_command() -> bool:
    """Whether this process is the command `zfjax`, or `python -m zfjax`, which has not looked for itself yet."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    by_module = name == "-m" and ("-m", "zfjax") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return name == "zfjax" or by_module


def take_over(handler: object) -> None:
    """Signals that `handler` met, as while the command imported, do again what they usually do: the work begins."""
    for number in STOPPING:
        if signal.getsignal(number) is handler:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


if is_command():
    for _number in STOPPING:
        if signal.getsignal(_number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(_number, leave)


class Interrupted(KeyboardInterrupt):
    """One of `STOPPING` came where no run is there to save; it is met as Ctrl-C is."""

    def __init__(self, signal_number: int):
        super().__init__()
        self.signal_number = signal_number


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """While entered, and outside of a `StopRequest`, the signals of `STOPPING` raise as Ctrl-C does: `Interrupted`.

    Those that are met otherwise already, as under nohup, stay so. Where one comes within a callback, as of the garbage
    collector, Python drops what is raised there: then it is sent again.
    """
    loud = sys.unraisablehook

    def interrupt(number: int, _frame: object) -> NoReturn:
        raise Interrupted(number)

    def send_again(unraisable: "sys.UnraisableHookArgs") -> None:
        error = unraisable.exc_value
        if isinstance(error, KeyboardInterrupt):
            number = error.signal_number if isinstance(error, Interrupted) else signal.SIGINT
            threading.Timer(0.01, os.kill, (os.getpid(), number)).start()  # when the callback is over
        else:
            loud(unraisable)

    is_main = threading.current_thread() is threading.main_thread()  # which alone can say what a signal does
    others = [number for number in STOPPING if is_main and signal.getsignal(number) == signal.SIG_DFL]
    for number in others:
        signal.signal(number, interrupt)
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        if sys.unraisablehook is send_again:
            sys.unraisablehook = loud
        for number in others:
            signal.signal(number, signal.SIG_DFL)
