"""One place opens pictures: formats of a list, a limit of pixels, and no program is started."""

import io
import json
import struct
import sys
import types
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny_photos import photo

from zfjax.data import folder, pictures
from zfjax.data.annotations import open_annotations
from zfjax.errors import FailedError, UserError


def claiming(width, height):
    """A PNG whose header says this size, and which holds nothing of it."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def annotated(path, name):
    face = {"file": name, "nose": [9.0, 9.0]}
    (path / "faces.json").write_text(json.dumps({"faces": [face]}))
    net = types.SimpleNamespace(picture_size=16, image_size=16, channels=3)
    return open_annotations(path / "faces.json", net)


READERS = {"folder": lambda path, name: folder.open_folder(path / name, 16).train[0], "annotations": annotated}
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n%%EOF\n"


def test_a_path_may_be_text(tmp_path):
    (tmp_path / "a.png").write_bytes(photo(0))
    annotated(tmp_path, "a.png")
    net = types.SimpleNamespace(picture_size=16, image_size=16, channels=3)
    assert len(folder.open_folder(str(tmp_path), 16).validation) == 1
    assert len(open_annotations(str(tmp_path / "faces.json"), net)[0].validation) == 1


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (POSTSCRIPT, "no readable picture"),
        (b"hello", "no readable picture"),
        (photo(0)[:300], "no readable picture"),
        (claiming(60000, 60000), "more than 134 million pixels"),
        (claiming(12000, 12000), "more than 134 million pixels"),
    ],
    ids=["postscript", "text", "cut", "60000", "12000"],
)
def test_what_is_no_picture_is_named_and_starts_no_program(tmp_path, monkeypatch, reader, data, words):
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\necho 10.0\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=":")
    (tmp_path / "bad.jpg").write_bytes(data)
    with pytest.raises((UserError, FailedError), match=rf"bad.jpg: .*{words}"):
        READERS[reader](tmp_path, "bad.jpg")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("name", [name for name in pictures.FORMATS if name not in ("GIF", "JPEG2000", "AVIF", "WEBP")])
def test_formats_of_the_list_are_opened(name):
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).save(buffer, name)
    assert abs(int(pictures.preprocess(buffer.getvalue(), 8).mean()) - 200) <= 1


@pytest.mark.parametrize("side", [1, 7, 16, 33, 256])
def test_stored_photos_have_the_same_pixels_by_both_decoders(side):
    pytest.importorskip("simplejpeg")
    assert pictures.decoder() is not pictures.decode_by_pillow
    rng = np.random.default_rng(side)
    for pixels in (rng.integers(0, 256, (side, side, 3), np.uint8), pictures.preprocess(photo(side), side)):
        stored = pictures.encode(pixels)
        decoded = pictures.decode(stored)
        assert decoded.dtype == np.uint8 and np.array_equal(decoded, pictures.decode_by_pillow(stored))


def test_without_the_fast_decoder_pillow_decodes(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    pictures.decoder.cache_clear()
    assert pictures.decoder() is pictures.decode_by_pillow
    pictures.decoder.cache_clear()


@pytest.mark.parametrize("decode", [pictures.decoder(), pictures.decode_by_pillow])
@pytest.mark.parametrize("length", [0, 300, -2])
def test_bytes_that_are_cut_are_no_picture(decode, length):
    stored = pictures.encode(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises((ValueError, OSError)):
        decode(stored[:length])
