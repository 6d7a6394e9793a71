"""What surrounds any command: errors in one line, programs and memory that are kept, the CPU's kernels."""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from zfjax import leaving, parallel
from zfjax.errors import FailedError, UserError, naming, of_the_system
from zfjax.jax_versions import quick_kernels

CACHE_VARIABLE = "ZFJAX_COMPILATION_CACHE"
ALONE = "run in this process, even as one of several of a cluster job"  # of a flag


def use_compilation_cache(folder: str | None = None) -> None:
    """Keep compiled programs between processes, several of which may use it at once.

    Args:
      folder: where; "off" for nowhere; None for what the variable ZFJAX_COMPILATION_CACHE says, or else a folder of the
        user's cache: where that cannot be made, a line says so, and nothing is kept.

    Raises:
      UserError: a folder that was named and cannot be made.
    """
    named = os.environ.get(CACHE_VARIABLE) if folder is None else folder
    if named == "off":
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = str(home / "zfjax" / "xla") if named is None else named
    try:
        if "://" not in place:  # as gs://bucket, which JAX opens itself
            os.makedirs(place, exist_ok=True)
    except OSError as error:
        if named is None:
            print(f"compiled programs are not cached: {place} cannot be made: {error.strerror}", file=sys.stderr)
            return
        with naming("compilation_cache", named, "name another folder, or off"):
            raise
    jax.config.update("jax_compilation_cache_dir", place)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a figure has many small ones
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def is_idle(*, alone: bool = False) -> bool:
    """Whether this process has nothing to do, as of several the first one does it all; then it says so."""
    announced = None if alone else parallel.announced()
    if announced is None or announced.host == 0:
        return False
    print(
        f"process {announced.host} of {announced.num_hosts} ({announced.by}): this command runs in process 0 only; "
        "--alone runs it here too"
    )
    return True


def use_quick_kernels() -> None:
    """Tell XLA, before it starts, to leave convolutions on CPU to Eigen, where its own are slower: `quick_kernels`."""
    given = os.environ.get("XLA_FLAGS", "")
    if (chosen := quick_kernels()) is not None and chosen[0] not in given:
        os.environ["XLA_FLAGS"] = f"{given} --{'='.join(chosen)}".strip()


# Of glibc's malloc.h: its options, and what they become
_KEEP = {
    -4: 0,  # M_MMAP_MAX: no block is one of the system's own, which would be given back with it
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: bytes that stay free at the end of the heap
    -2: 2**26,  # M_TOP_PAD: bytes by which the heap grows at least
}


def keep_freed_memory() -> None:
    """Let the C library keep what a step frees, so that the system need not clear it again for the next one.

    glibc gives large blocks back at once. To get them again took a fifth of the processor time of the demo net's
    training. Its own variables (MALLOC_...) go before, and other C libraries have no such options.
    """
    if not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        with contextlib.suppress(AttributeError, OSError, TypeError):  # TypeError: of Windows
            mallopt = ctypes.CDLL(None).mallopt
            for option, value in _KEEP.items():
                mallopt(option, value)


def check_words(words: Sequence[str]) -> None:
    """End the process where a word of its command line is empty, which as a path would mean the folder it runs in."""
    for before, word in itertools.pairwise(["", *words]):
        flag = before if not word else word[:-1] if word.startswith("--") and word.endswith("=") else None
        if flag is not None:
            where = f"{flag} is given" if flag.startswith("--") else "the command holds"
            raise SystemExit(
                f"error: {where} an empty word, as where a variable of the shell is unset; give a value, or leave "
                "it out"
            )


@contextlib.contextmanager
def ending_with_reader() -> Iterator[None]:
    """End the process without a word where what reads its output has left, as `| head` does. A decorator, too."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # Windows has another error, and no word for it
        poll = select.poll()
        poll.register(sys.stdout, 0)  # of a pipe without a reader it says POLLERR at once
        if not poll.poll(0):
            raise  # another pipe
        # else the interpreter, which flushes once more when it ends, would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None


@contextlib.contextmanager
def in_one_line(when_stopped: str = "nothing was written") -> Iterator[None]:
    """End the process in one line where a user or the system caused an error; a mistake of ours keeps its traceback.

    So do Ctrl-C and the other signals of `leaving.STOPPING`, as exceptions, so that what was begun is put in order.

    Args:
      when_stopped: what they left behind, as "the same command resumes".
    """
    leaving.take_over(leaving.leave)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal has no letters for ends no work
    try:
        with leaving.interrupting():
            yield
    except KeyboardInterrupt as error:
        print(f"stopped; {when_stopped}", file=sys.stderr)
        number = error.signal_number if isinstance(error, leaving.Interrupted) else signal.SIGINT
        raise SystemExit(128 + number) from None
    except (UserError, FailedError) as error:
        raise SystemExit(f"error: {error}") from error
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = str(error).strip().split("\n")[0]
        said = f" ({first})" if first else ""  # Python itself says nothing
        raise SystemExit(
            f"error: memory ran out{said}; fewer images at once (--batch-size), or smaller ones, take less"
        ) from error
    except OSError as error:
        if (words := of_the_system(error)) is None:  # a name of ours, or no word of the system's
            raise
        raise SystemExit(f"error: {words}") from error
