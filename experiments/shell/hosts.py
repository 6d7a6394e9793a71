"""Several hosts under one command: who is waited for and why, and one line where one of them is lost.

JAX ends a process by an abort in C++ when another host is gone, with pages of addresses and no word of which host or
how to go on. So the work is done in a child process; its parent passes on signals and words, keeps back the abort's,
and says in one line what happened.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import selectors
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import jax

from zfjax import parallel
from zfjax.errors import FailedError
from zfjax.leaving import STOPPING

LOG = "host-{}.log"  # in a run's folder: what a host said last when another one was lost
TIMEOUT = 60  # seconds: how long the others are waited for, and after which one without a sign of life is lost

# What JAX's runtime logs of an error; with a fatal one ("F") its last words begin
_LOGGED = re.compile(rb"[EF]\d{4} \d\d:\d\d:\d\d|Additional GRPC error|:UNKNOWN:Error|The tasks have crashed")
_FATAL = re.compile(rb"(F\d{4} \d\d:\d\d:\d\d|\*\*\* |Fatal Python)")
_LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "Gloo", "NCCL", "heartbeat", "closed by peer")
_notes = -1  # where the child tells its parent what the last line needs


def add_flags(group: Any) -> None:
    """The flags of a command that several hosts share."""
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of host 0, outside a detected cluster")
    group.add_argument("--num-hosts", type=int, metavar="N", help="number of hosts, with --coordinator")
    group.add_argument("--host", type=int, metavar="I", help="number of this host, from 0, with --coordinator")
    group.add_argument(
        "--host-timeout",
        type=int,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"how long to wait for other hosts, and after which a silent one is lost ({TIMEOUT})",
    )


def join(chosen: argparse.Namespace) -> None:
    """Join the hosts that the flags name or a cluster announces; say first whom this waits for, and why.

    Where there are others this returns in a child process. UserError and FailedError: wrong flags, or nobody came.
    """
    if chosen.alone:
        return
    named = {name: getattr(chosen, name) for name in ("coordinator", "num_hosts", "host")}
    parallel.check_hosts(**named, timeout=chosen.host_timeout)
    announced = parallel.announced() if set(named.values()) == {None} else None
    if announced is None and None in named.values():
        parallel.connect_hosts(**named)  # nobody, a cluster that only JAX knows, or an error
        return
    number, total = (chosen.host, chosen.num_hosts) if announced is None else (announced.host, announced.num_hosts)
    if announced is not None and announced.num_hosts == 1:
        return
    if announced is not None and not announced.can_join:
        raise FailedError(
            f"{announced.by} announces {total} processes, which JAX cannot join without an address: add --coordinator "
            f"HOST:PORT --num-hosts {total} --host {number}, or --alone"
        )
    why = (
        f"--coordinator names {chosen.coordinator}"
        if announced is None
        else f"{announced.by} announces {total} processes"
    )
    print(
        f"host {number} of {total}: waiting up to {chosen.host_timeout} s for the others, as {why}; "
        "--alone goes on without them",
        flush=True,
    )
    _supervise(number, total, chosen.host_timeout)
    try:
        parallel.connect_hosts(**named, timeout=chosen.host_timeout)
    except (RuntimeError, ValueError) as error:
        raise FailedError(_missing(str(error), number=number, total=total, timeout=chosen.host_timeout)) from error
    note(joined=True)


def note(**facts: Any) -> None:
    """Tell the parent of a joined process what its last line is to say: folder, go_on."""
    if _notes >= 0:
        os.write(_notes, json.dumps({name: str(value) for name, value in facts.items()}).encode() + b"\n")


@contextlib.contextmanager
def losses(timeout: int) -> Iterator[None]:
    """Where another host is lost JAX may raise an error that names none: its abort, which does, is waited for."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, FailedError) as error:
        if parallel.host_count()[1] == 1 or not any(word in str(error) for word in _LOST):
            raise
        time.sleep(timeout + 5)
        os.write(2, f"error: another host is lost ({str(error).splitlines()[0]})\n".encode())
        os._exit(1)  # not through JAX's farewell, which waits for the lost one


def _supervise(number: int, total: int, timeout: int) -> None:
    """Go on in a child process; this one stays to pass on signals and words, and never returns from here."""
    global _notes
    words, notes, life = os.pipe(), os.pipe(), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads and fork: nothing runs yet
        child = os.fork()
    if child:
        for _, end in (words, notes):
            os.close(end)
        os.close(life[0])  # the other end falls with this process, however that ends
        _Parent(child, words[0], notes=notes[0], number=number, total=total, timeout=timeout).run()
    os.setpgid(0, 0)  # a terminal's Ctrl-C comes through the parent
    os.dup2(words[1], 2)
    for end in (*words, notes[0], life[1]):
        os.close(end)
    _notes = notes[1]
    os.set_inheritable(_notes, False)
    threading.Thread(target=_end_with_parent, args=(life[0],), daemon=True).start()


def _end_with_parent(life: int) -> None:
    os.read(life, 1)  # returns when the parent is gone
    os._exit(1)


class _Parent:
    """What the parent of a joined process does until that ends."""

    def __init__(self, child: int, words: int, *, notes: int, number: int, total: int, timeout: int):
        self._child, self._words, self._notes = child, words, notes
        self._number, self._total, self._timeout = number, total, timeout
        self._facts: dict[str, str] = {}
        self._line = b""  # begun, not yet ended
        self._kept: list[bytes] = []  # what the runtime logged of errors
        self._dying = self._told = False
        self._asked = 0

    def run(self) -> NoReturn:
        """Pass on until the child has ended, and end as it did, or in one line."""
        for signal_number in STOPPING:
            if signal.getsignal(signal_number) != signal.SIG_IGN:
                signal.signal(signal_number, self._forward)
        selector, unread = selectors.DefaultSelector(), b""
        for end in (self._words, self._notes):
            selector.register(end, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fd)
                elif key.fd == self._words:
                    self._hear(data)
                else:
                    *lines, unread = (unread + data).split(b"\n")
                    for line in lines:
                        self._facts |= json.loads(line)
        self._hear(b"", last=True)
        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        if status >= 0 and not self._dying:
            os._exit(status)
        if -status in (*STOPPING, signal.SIGKILL) and not self._dying and -status == self._asked:
            os._exit(128 - status)
        if not self._told:
            os.write(2, f"error: {self._last_words(status)}\n".encode())
        os._exit(1)

    def _forward(self, number: int, _frame: object) -> None:
        self._asked = number
        if "joined" not in self._facts:  # it waits in C++, where no signal reaches it
            os.write(2, b"stopped; nothing was written\n")
            os.kill(self._child, signal.SIGKILL)
            os._exit(128 + number)
        os.kill(self._child, number)

    def _hear(self, data: bytes, *, last: bool = False) -> None:
        """Pass on whole lines, and what is drawn over and over; keep what the runtime logs of errors."""
        *lines, self._line = re.split(rb"(?<=[\n\r])", self._line + data)
        for line in [*lines, self._line] if last else lines:
            self._dying = self._dying or bool(_FATAL.match(line))
            if self._dying or _LOGGED.match(line):
                self._kept.append(line)
            else:
                self._told = self._told or line.startswith(b"error: ")
                os.write(2, line)

    def _last_words(self, status: int) -> str:
        """What happened to the child, in one line."""
        said = b"".join(self._kept).decode(errors="replace")
        if status == -signal.SIGKILL and not self._dying:
            return f"host {self._number} was killed (out of memory?){self._go_on()}"
        if "joined" not in self._facts:
            return _missing(said, number=self._number, total=self._total, timeout=self._timeout)
        lost = sorted({int(task) for task in re.findall(r"task:(\d+)", said)} - {self._number})
        if not lost and self._total == 2:
            lost = [1 - self._number]
        elif not lost and self._number and re.search("leader|UNAVAILABLE|onnection", said):
            lost = [0]
        who = f"host {', '.join(map(str, lost))} is lost" if lost else "another host is lost"
        if not said:
            as_where = f" without a word, as where {who}" if status == -signal.SIGABRT else ""
            return f"host {self._number} ended by signal {-status}{as_where}{self._go_on()}"
        if folder := self._facts.get("folder"):
            kept = Path(folder) / LOG.format(self._number)
            with contextlib.suppress(OSError):
                kept.write_bytes(b"".join(self._kept))
        return f"{who} (no sign of life within {self._timeout} s, or its connection broke){self._go_on()}"

    def _go_on(self) -> str:
        return way_on(self._facts.get("folder"), self._facts.get("go_on"))


def way_on(folder: str | None, command: str | None) -> str:
    """What to do where a host is lost: go on by the command, where the folder of a run holds a checkpoint, or anew."""
    if folder and command and any(entry.name.isdigit() for entry in (Path(folder) / "checkpoints").glob("*")):
        return f"; what was saved stays; go on, on all hosts or on one: {command}"
    return "; nothing was saved yet: start the same command again, on all hosts or on one"


def software() -> dict[str, str]:
    """What hosts have to have alike: {"version of jax": ...}."""
    packages = ("zfjax", "jax", "jaxlib", "flax", "optax", "numpy", "grain")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return {f"version of {name}": value for name, value in versions.items()}


def _missing(said: str, *, number: int, total: int, timeout: int) -> str:
    """What to do where the hosts did not come together."""
    if "Unexpected task" in said:
        return f"host {number} of {total}: host 0 counts fewer hosts than {total}: give every host the same --num-hosts"
    others = [other for other in range(total) if other != number]
    came = {int(task) for task in re.findall(r"task:(\d+)", said)} - {number}
    whom = f"host {', '.join(map(str, sorted(came) or others))}" if number == 0 or came else "host 0"
    return (
        f"host {number} of {total}: {whom} did not come within {timeout} s: start the same command there with its own "
        f"--host and --num-hosts {total} (--host-timeout waits longer), or go on without others by --alone"
    )
