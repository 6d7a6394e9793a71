"""One module for each figure and table of the paper: `python -m experiments.NAME`, or its `run(config)`."""

import os
import signal
import sys


def leave(number: int, _frame: object) -> None:
    """What Ctrl-C, or another signal, does until a command takes over, as while it imports: nothing was begun."""
    os.write(2, b"stopped; nothing was written\n")
    os._exit(128 + number)


if sys.argv[:1] == ["-m"]:  # python -m experiments.X
    for _name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):  # as `zfjax.leaving.STOPPING`, which is imported below
        _number = getattr(signal, _name, None)  # Windows has the first two alone
        if _number and signal.getsignal(_number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(_number, leave)

from zfjax import extras, shell  # noqa: E402  after the handler above: importing is what may be stopped

try:
    extras.check("figures")
except extras.MissingExtraError as error:
    if sys.argv[:1] != ["-m"]:
        raise
    raise SystemExit(f"error: {error}") from None

shell.use_quick_kernels()
shell.keep_freed_memory()
