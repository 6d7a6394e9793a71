"""The folder in which a set is prepared: one preparation at a time, and nothing half done is taken for a set."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second preparation out of `folder`; the lock falls with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another preparation is writing into {folder}") from None
        yield


def clear(folder: Path, replaced: Path) -> None:
    """Remove what unfinished preparations left beside `folder`; a set that one was about to replace comes back."""
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)
    for rest in folder.parent.glob("incomplete.*"):
        shutil.rmtree(rest)
