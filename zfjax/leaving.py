"""Ctrl-C while the command `zfjax` still imports what it needs: one line, as nothing was begun.

Imported first of all. In every other program signals stay as they are.
"""

import os
import signal
import sys


def leave(number: int, _frame: object) -> None:
    """What Ctrl-C does until the command begins its work."""
    os.write(2, b"stopped; nothing was written\n")
    os._exit(128 + number)


def is_command() -> bool:
    """Whether this process is the command `zfjax`, or `python -m zfjax`, which has not looked for itself yet."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    by_module = name == "-m" and ("-m", "zfjax") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return name == "zfjax" or by_module


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)
