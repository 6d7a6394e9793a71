"""Worker processes that end when the process that started them does."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """In a worker: ends it as soon as its parent is gone, even one that was killed (-9) and could not tell it."""
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
