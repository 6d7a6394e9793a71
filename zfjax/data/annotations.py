"""Pictures and where their parts are, as an annotations file says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from zfjax.data import ImageSet
from zfjax.data.folder import UNKNOWN, FolderSource
from zfjax.errors import UserError

if TYPE_CHECKING:
    from zfjax.nets import Net, Views


def open_annotations(path: Path, net: Net) -> tuple[ImageSet, Sequence[str], Views]:
    """(the annotated pictures, names of the parts, what the net sees).

    Args:
      path: a JSON file, {"faces": [{"file": "dog.jpg", "nose": [x, y], "left_eye": [x, y]}, ...]}: pictures, by their
        path from its folder, and places in pixels of the picture, x right and y down. A part is a key of the first
        picture with two numbers, and every picture has it.
      net: says how large its pictures are, and what of them it sees.

    Raises:
      UserError: a file of another form, or a part that the net does not see.
      OSError: a picture that cannot be read.
    """
    from zfjax import nets  # which itself stands on the rooms of data

    stored, size = (np.array(nets.size_of(of)[::-1]) for of in (net.picture_size, net.image_size))  # (x, y)
    text = path.read_bytes()
    try:
        faces = json.loads(text)["faces"]
        files = [path.parent / face["file"] for face in faces]
        keys = [key for key, value in faces[0].items() if isinstance(value, list) and len(value) == 2]
        missing = [f"{key} of {face['file']}" for face in faces for key in keys if key not in face]
        if missing or not keys:
            raise KeyError(*missing[:1])
        places = np.array([[face[key] for key in keys] for face in faces], np.float64).reshape(-1, len(keys), 2)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        wanted = '{"faces": [{"file": PATH, PART: [x, y], ...}, ...]}, everywhere the same parts, is needed'
        raise UserError(f"annotations={str(path)!r}: {wanted} ({error!r})") from error
    for file, of_face in zip(files, places, strict=True):  # in place: to pixels of the net's input
        with Image.open(file) as image:
            whole = np.array(ImageOps.exif_transpose(image).size)
        kept = np.rint(stored * (whole / stored).min()).astype(int)  # the photo's centre, as `pictures.preprocess` cuts
        of_face[:] = (of_face - (whole - kept) // 2) * (stored / kept) - (stored - size) // 2
        hidden = ~((of_face >= 0) & (of_face < size)).all(axis=1)
        if hidden.any():
            part = f"{keys[hidden.argmax()]} of {file.name}"
            raise UserError(f"annotations={str(path)!r}: {part} lies outside the centre, which the net sees")
    digest = hashlib.blake2b(text + b"".join(file.read_bytes() for file in files), digest_size=16).hexdigest()
    channels = nets.num_channels(net)
    source = FolderSource(files, np.full(len(files), UNKNOWN), net.picture_size, channels)
    views = nets.read_views(source, range(len(files)), net)
    data = ImageSet(path.stem, net.picture_size, (), None, source, None, None, digest)
    names = [key.replace("_", " ") for key in keys]
    return data, names, views._replace(parts=places[..., ::-1].astype(np.float32))
