"""Pictures and where their parts are, as an annotations file says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zfjax.data import ImageSet, Viewer, num_channels, pictures, sets
from zfjax.data.folder import UNKNOWN, FolderSource
from zfjax.errors import FailedError, NotThereError, UserError, naming
from zfjax.files import once


class AnnotatedSource(FolderSource):
    """Picture files whose examples say where their parts are: "parts", float64 [P, 2] (y, x) in pixels of the picture.

    Args:
      files, size, channels: as of a `FolderSource`; no class is known.
      parts: float64 [N, P, 2].
    """

    way_on = ""  # without one of them there is no set

    def __init__(self, files: Sequence[Path], parts: np.ndarray, *, size: int | tuple[int, int], channels: int = 3):
        super().__init__(files, np.full(len(files), UNKNOWN), size=size, channels=channels)
        self._parts = parts

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "parts": self._parts[index]}


def open_annotations(path: Path | str, net: Viewer) -> tuple[ImageSet, list[str]]:
    """(the annotated pictures, whose validation examples have "parts"; names of the parts).

    Args:
      path: a JSON file, {"faces": [{"file": "dog.jpg", "nose": [x, y], "left_eye": [x, y]}, ...]}: pictures, by their
        path from its folder, and places in pixels of the picture, x right and y down. A part is a key of the first
        picture with two numbers, and every picture has it.
      net: says how large its pictures are, and what of them it sees.

    Raises:
      UserError: a file that is not there or of another form, or a part that the net does not see.
      FailedError: a picture that is damaged.

    Examples:
      photos, parts = annotations.open_annotations("faces.json", net)
      photos.validation[0]["parts"].shape, parts  # (3, 2), ["left_eye", "nose", "right_eye"]
    """
    sets.check_channels(net)
    path = Path(path)
    stored, size = (np.broadcast_to(of, 2)[::-1] for of in (net.picture_size, net.image_size))  # (x, y)
    with naming("annotations", path, "a JSON file of pictures and their parts is needed"):
        text = path.read_bytes()
    try:
        faces = json.loads(text, object_pairs_hook=once)["faces"]
        files = [path.parent / face["file"] for face in faces]
        keys = [key for key, value in faces[0].items() if isinstance(value, list) and len(value) == 2]
        missing = [f"{key} of {face['file']}" for face in faces for key in keys if key not in face]
        if missing or not keys:
            raise KeyError(*missing[:1])
        places = np.array([[face[key] for key in keys] for face in faces], np.float64).reshape(-1, len(keys), 2)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        wanted = '{"faces": [{"file": PATH, PART: [x, y], ...}, ...]}, everywhere the same parts, is needed'
        raise UserError(f"annotations={str(path)!r}: {wanted} ({error!r})") from error
    for file, of_face in zip(files, places, strict=True):  # in place: to pixels of the stored picture
        try:
            with naming("annotations", path, "it names a picture that has to lie there"):
                whole = np.array(pictures.load(pictures.read(file)).size)
        except NotThereError:
            raise
        except UserError as error:
            raise FailedError(f"{file}: {error}") from error
        kept = np.rint(stored * (whole / stored).min()).astype(int)  # the photo's centre, as `pictures.preprocess` cuts
        of_face[:] = (of_face - (whole - kept) // 2) * (stored / kept)
        inside = of_face - (stored - size) // 2
        hidden = ~((inside >= 0) & (inside < size)).all(axis=1)
        if hidden.any():
            part = f"{keys[hidden.argmax()]} of {file.name}"
            raise UserError(f"annotations={str(path)!r}: {part} lies outside the centre, which the net sees")
    digest = hashlib.blake2b(text + b"".join(file.read_bytes() for file in files), digest_size=16).hexdigest()
    source = AnnotatedSource(files, places[..., ::-1], size=net.picture_size, channels=num_channels(net))
    data = ImageSet(path.stem, net.picture_size, (), None, source, None, None, digest)
    return data, [key.replace("_", " ") for key in keys]
