"""Pictures and where their parts are, as an annotations file says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from zfjax import nets
from zfjax.data import ImageSet
from zfjax.data.folder import UNKNOWN, FolderSource
from zfjax.errors import UserError


def open_annotations(path: Path, net: nets.Pictured) -> tuple[ImageSet, Sequence[str], nets.Views]:
    """(the annotated pictures, names of the parts, what the net sees).

    The file is as `part_correspondence` says; UserError for another, or a part that the net does not see. Of `net` its
    image size and the size of its mean are read.
    """
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
        scale, margin = len(net.mean) / whole.min(), (len(net.mean) - net.architecture.image_size) // 2
        of_face[:] = (of_face - (whole - whole.min()) // 2) * scale - margin
        hidden = ~((of_face >= 0) & (of_face < net.architecture.image_size)).all(axis=1)
        if hidden.any():
            part = f"{keys[hidden.argmax()]} of {file.name}"
            raise UserError(f"annotations={str(path)!r}: {part} lies outside the centre, which the net sees")
    digest = hashlib.blake2b(text + b"".join(file.read_bytes() for file in files), digest_size=16).hexdigest()
    source = FolderSource(files, np.full(len(files), UNKNOWN), len(net.mean))
    views = nets.read_views(source, range(len(files)), net)
    data = ImageSet(path.stem, len(net.mean), (), None, source, None, None, digest)
    names = [key.replace("_", " ") for key in keys]
    return data, names, views._replace(parts=places[..., ::-1].astype(np.float32))
