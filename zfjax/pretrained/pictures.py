"""Pictures as the networks of others read them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from zfjax.errors import UserError


def resized(pictures: np.ndarray, side: int) -> np.ndarray:
    """Square pictures, uint8 [B, S, S, 3], with sides of `side`; bilinear, and those of this size keep their pixels."""
    pictures = np.asarray(pictures)
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (*pictures.shape[1:2] * 2, 3):
        raise UserError(f"pictures of {pictures.dtype} {pictures.shape}: uint8 [B, S, S, 3] is needed")
    return np.stack([np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.BILINEAR)) for p in pictures])
