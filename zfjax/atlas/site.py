"""The files of an atlas: a page, a script, a style, data as scripts, pictures; and a manifest that names them all.

Browsers that open a page from a folder load scripts and pictures and nothing else, so data are scripts that hand over
one value each. Everything that a stranger wrote, names of classes and files, is text there and text on the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypedDict

import jinja2

from zfjax import files
from zfjax.errors import UserError

MANIFEST = "manifest.json"
PAGE = "index.html"
STATIC = ("atlas.js", "atlas.css")
COMPARED = "compare"  # folder of the second network's site
# What stands at the top of a site, and what the command that makes it says of it
OWN = {PAGE, MANIFEST, *STATIC, COMPARED, "data", "img", "arrays", "scan", "result.json"}


class _Manifest(TypedDict):
    """What is read of a manifest of before."""

    files: dict[str, object]


def script(name: str, value: Any) -> bytes:
    """A script that hands `value` to the page under `name`; no text in it can end the script or begin a tag."""
    plain = json.dumps([name, files.plain(value)], allow_nan=False, separators=(",", ":"))  # beyond ASCII as \uXXXX
    for letter in "<>&":
        plain = plain.replace(letter, f"\\u{ord(letter):04x}")
    return f"atlas(...{plain});\n".encode()


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(loader=jinja2.PackageLoader("zfjax.atlas", "templates"), autoescape=True)


def page(template: str, **values: Any) -> str:
    """A template filled in; values are escaped."""
    return _templates().get_template(template).render(**values)


def static(name: str) -> bytes:
    """A file of the package's `static`."""
    return (resources.files("zfjax.atlas") / "static" / name).read_bytes()


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a site; UserError where it is damaged."""
    manifest: dict[str, Any] = files.read_json(folder / MANIFEST, _Manifest, "remove it, and build the atlas again")
    return manifest


def check_free(folder: Path) -> None:
    """UserError for a file, or a folder that is no atlas, nor one that was begun, and holds what no atlas writes."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={str(folder)!r}: it is a file; give a folder")
    if not folder.is_dir() or (folder / MANIFEST).exists():
        return
    if (folder / PAGE).exists() and not (folder / "data" / "net.js").exists():
        raise UserError(f"out={str(folder)!r}: it holds an {PAGE} that is no atlas; give another folder")
    others = sorted(path.name for path in folder.iterdir() if path.name not in OWN and not files.is_hidden(path.name))
    if others:
        raise UserError(
            f"out={str(folder)!r}: it holds {files.printable(others[0])}, and no atlas; give another folder"
        )


class Site:
    """A folder that an atlas is written into, file by file; `close` writes the manifest and removes what is left over.

    Args:
      folder: made if it is not there. UserError where it holds what no atlas wrote: see `check_free`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        check_free(folder)
        self._before = set(self._manifest())
        self._written: dict[str, dict[str, Any]] = {}

    def _manifest(self) -> Mapping[str, object]:
        path = self.folder / MANIFEST
        if not path.exists():
            return {}
        named: Mapping[str, object] = files.read_json(path, _Manifest, "remove it, or give another folder")["files"]
        return {
            name: facts for name, facts in named.items() if not (Path(name).is_absolute() or ".." in Path(name).parts)
        }

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        files.write_atomically(self.folder / name, data)
        self._note(name, data)

    def keep(self, name: str) -> bool:
        """Whether a file is there already; then it belongs to the site."""
        path = self.folder / name
        if path.exists():
            self._note(name, path.read_bytes())
            return True
        return False

    def has(self, name: str) -> bool:
        """Whether the file was written, or kept, by now."""
        return name in self._written

    def _note(self, name: str, data: bytes) -> None:
        self._written[name] = {"bytes": len(data), "blake2b": files.hash_of(data)}

    def close(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the manifest; returns what it holds."""
        manifest = {**facts, "files": dict(sorted(self._written.items()))}
        files.save_json(self.folder / MANIFEST, manifest)
        for name in self._before - set(self._written):
            (self.folder / name).unlink(missing_ok=True)
        return manifest


def sheet_of(number: int, channel: int, kind: str) -> str:
    """The sheet of a unit of layer `number`: of its "patch"es, or of a way."""
    return f"img/{number}/{channel}-{kind}.webp"


def image_of(index: int) -> str:
    """A whole image."""
    return f"img/whole/{index}.webp"


def arrays_of(number: int) -> str:
    """The numbers of layer `number`."""
    return f"arrays/{number}.npz"
