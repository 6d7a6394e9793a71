"""Packages that only some rooms need, by the extra of zfjax that brings them: `pip install 'zfjax[train]'`."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

from zfjax.errors import UserError

# {extra: packages as they are imported}
EXTRAS = {
    "train": ("grain", "array_record", "tensorflow_datasets", "importlib_resources"),  # training, and prepared sets
    "figures": ("matplotlib", "tyro"),  # the commands of experiments/, which is a checkout's
    "h5": ("h5py",),  # weights of Keras
    "onnx": ("onnx",),  # weights as ONNX
    "bench": ("torch", "captum"),  # what benchmarks compare with
    "tpu": ("libtpu",),  # the compiler of TPUs, which plans for them anywhere
}
# {extra: packages that it brings besides, for which something slower stands in}
FASTER = {"train": ("simplejpeg",)}


class MissingExtraError(UserError, ImportError):
    """A package that is not installed, and the extra that brings it."""


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """The imports within need an extra: one line that names it where a package of it is not installed.

        with extra("train"):
            import grain

    Args:
      name: one of `EXTRAS`.

    Raises:
      MissingExtraError: a package of this extra is missing. Any other import that fails is raised as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS[name]:
            raise
        raise _missing(package, name) from error


def check(name: str) -> None:
    """MissingExtraError where a package of an extra is not installed; nothing is imported."""
    for package in EXTRAS[name]:
        if importlib.util.find_spec(package) is None:
            raise _missing(package, name)


def _missing(package: str, name: str) -> MissingExtraError:
    return MissingExtraError(
        f"{package} is not installed: `pip install 'zfjax[{name}]'` brings it, or in a checkout "
        f"`pip install -e '.[{name}]'`"
    )
