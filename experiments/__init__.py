"""One module for each figure and table of the paper: `python -m experiments.NAME`, or its `run(config)`."""

import os
import signal
import sys


def leave(number: int, _frame: object) -> None:
    """What Ctrl-C does until a command takes over, as while it imports: nothing was begun, so nothing is cleaned up."""
    os.write(2, b"stopped; nothing was written\n")
    os._exit(128 + number)


if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # python -m experiments.X
    signal.signal(signal.SIGINT, leave)

from zfjax import extras, shell  # noqa: E402  after the handler above: importing is what may be stopped

try:
    extras.check("figures")
except extras.MissingExtraError as error:
    if sys.argv[:1] != ["-m"]:
        raise
    raise SystemExit(f"error: {error}") from None

shell.use_quick_kernels()
shell.keep_freed_memory()
