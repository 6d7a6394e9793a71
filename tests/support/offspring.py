"""The processes that a process started, and whether they have ended; by Linux's /proc."""

import time
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="follows processes through Linux's /proc")


def children(pid):
    """Process ids of `pid`'s children, whichever of its threads started them."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text().split()]


def wait_for_end(pids):
    """Returns when none of `pids` runs any more; a test that hangs here has found orphans."""
    while any(map(_runs, pids)):
        time.sleep(0.01)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
