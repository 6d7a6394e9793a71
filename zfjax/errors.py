"""The errors that a user can cause, each a line that says what to do. Every other exception is a mistake of ours."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
import re
import shlex
import string
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar


class UserError(ValueError):
    """An invalid argument, file or folder; the message names it, its value, the rule and what to do.

    A command shows it in one line. Everything else keeps its traceback.

    Examples:
      >>> import zfjax
      >>> try:
      ...     zfjax.receptive_field(zfjax.ZFNET, "conv9")
      ... except zfjax.UserError as error:
      ...     print(error)
      unknown layer 'conv9': zfnet has conv1, conv2, conv3, conv4, conv5, fc6, fc7, fc8
    """


class NotThereError(UserError, FileNotFoundError):
    """A missing file, folder or set; the message says how to make it."""


class HeldError(UserError):
    """A folder that another process is writing into."""


class FailedError(OSError):
    """A failed operation on files, with the reason; no ValueError, because no argument is at fault."""


class DivergedError(UserError, FloatingPointError):
    """A training whose loss or gradient stopped being finite."""


Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def saying_keywords(fn: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """The same function, which says in words which arguments are keywords where more than what flows is by position."""
    parameters = inspect.signature(fn).parameters.values()
    flowing = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    keywords = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]

    @functools.wraps(fn)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        if (beyond := len(args) - len(flowing)) > 0:
            name, named = fn.__name__, [f"{keyword}=" for keyword in keywords[: max(beyond, 2)]]
            first = flowing[1:] if flowing[:1] == ["self"] else flowing
            raise UserError(
                f"{name}({', '.join(first)}) and {beyond} more by position: {' and '.join(named)} "
                f"{'are keywords' if len(named) > 1 else 'is a keyword'}, as in "
                f"{name}({', '.join([*first, *(f'{keyword}{keyword[:-1]}' for keyword in named)])})"
            )
        return fn(*args, **kwargs)

    return called


def warn(message: str) -> None:
    """A warning that points at the line outside of zfjax which asked for what it is about."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "zfjax":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def command_line(program: str, *words: object) -> str:
    """A command as a shell reads it, for a user to copy: "python -m experiments.NAME" and what follows, quoted.

    It is one line of printable characters, whatever the names in it, and a name that begins with "-" is no flag in it.
    """
    return " ".join((program, *map(_quoted, words)))


def _quoted(word: object) -> str:
    text = str(word)
    if text.startswith("-") and not (isinstance(word, str) and _FLAG.fullmatch(text)):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    kept = {ord(character): character for character in string.printable.strip() if character not in "'\\"} | {32: " "}
    return "$'" + "".join(kept.get(byte, f"\\x{byte:02x}") for byte in os.fsencode(text)) + "'"


_FLAG = re.compile("--[a-z][a-z0-9-]*")


# What the system says of a name that it cannot open. A name is the user's where the user gave it, else ours
_OF_NAMES = {
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a step of its path is a file and no folder",
    errno.EISDIR: "it is a folder, and a file is needed",
    errno.EEXIST: "what lies there is no folder",
    errno.ENAMETOOLONG: "a name of this length is none for the system",
    errno.ELOOP: "its links lead back to themselves",
    errno.EINVAL: "the system takes no such name",
}
# What the system says that has to do with no name: the way on
_OF_THE_SYSTEM = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there, or name another place"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "let this user read and write there, or name another place"),
    errno.EROFS: "name a place that can be written",
    errno.EFBIG: "its file system takes no file of this size; name another place",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "let it open more files at once (ulimit -n)"),
    errno.ENOMEM: "give it more memory, or ask for less at once",
    errno.EBUSY: "wait for what uses it, or name another place",
    errno.ETXTBSY: "wait for what uses it, or name another place",
    **dict.fromkeys((errno.EIO, errno.ENXIO, errno.ENODEV), "see to its disk, or name another place"),
    **dict.fromkeys((errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO), "see to its disk, which lies on another machine"),
}


def of_the_system(error: OSError) -> str | None:
    """The line for an error that the system caused, as a full disk; None for what says nothing but that a name is bad.

    A bad name that a user gave is a `UserError` already, by `naming`: what is left is a name of our own making.
    """
    way_on = None if error.errno is None else _OF_THE_SYSTEM.get(error.errno)
    if way_on is None:
        return None
    where = "" if error.filename is None else f"{_shortened(str(error.filename))}: "
    return f"{where}{error.strerror}; {way_on}"


@contextlib.contextmanager
def naming(argument: str, value: Any, way_on: str) -> Iterator[None]:
    """Lets what the system says of a name that a user gave be the user's error: argument, value, what is wrong, way on.

    Only the opening of what was named belongs within; a disk that is full, and the like, pass as they are.

    Args:
      argument: what the user calls it, as "out".
      value: what was given.
      way_on: what to do, as "name another folder".
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, UserError) or error.errno not in _OF_NAMES:
            raise
        file, given = str(error.filename), str(value)
        where = "" if error.filename is None or file == given else f"{_shortened(file)}: "
        kind = NotThereError if error.errno == errno.ENOENT else UserError
        raise kind(f"{argument}={_shortened(given)!r}: {where}{_OF_NAMES[error.errno]}; {way_on}") from error
    except ValueError as error:  # a name with a NUL, or with half a surrogate: Python does not ask the system at all
        is_of_the_name = isinstance(error, UnicodeEncodeError) or "null byte" in str(error)
        if isinstance(error, UserError) or not is_of_the_name:
            raise
        raise UserError(f"{argument}={_shortened(str(value))!r}: {_OF_NAMES[errno.EINVAL]}; {way_on}") from error


def check_name(argument: str, value: Any) -> None:
    """UserError where the system takes no file or folder of this name; whether there is one, is not asked."""
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{argument}={value!r}: a name, as text or a path, is needed")
    with naming(argument, value, "give another"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.stat(value)


def check_utf8(argument: str, path: str | os.PathLike[str]) -> None:
    """UserError where a path, made absolute, is not UTF-8: what is written in C++ takes no other, as Orbax does."""
    absolute = os.path.abspath(path)
    try:
        absolute.encode()
    except UnicodeEncodeError as error:
        in_words = absolute.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise UserError(
            f"{argument}='{_shortened(in_words)}': its name is not UTF-8, which checkpoints and prepared sets need; "
            "rename it, or all by convmv -t utf8"
        ) from error


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:60]}...{text[-20:]} ({len(text):,} characters)"


_LONGEST = 160  # characters of a name that are shown whole
