"""Demo pictures with ground truth, rendered from (seed, index): no download, any size.

A scene is one creature of ten classes, with random pose, colours and light, on a cluttered background.
The class shows only in shape, skin texture and parts; all else is drawn from keys that never see the label.

Coordinates: x right, y down, 0..1 over the picture; times `size` they are pixels, pixel (i, j) covering
[i, i + 1) x [j, j + 1). Edges are soft over one pixel, so that `size` only resamples the scene. Of a picture that is no
square the shorter side is 0..1 and the longer one goes on: creature and clutter keep their shapes, and stand all over.
"""

import contextlib
import hashlib
import io
import math
import threading
import zipfile
from collections.abc import Iterable
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from zfjax import files
from zfjax.architecture import Size
from zfjax.data import ImageSet, creatures
from zfjax.data.creatures import CLASS_NAMES, NUM_CLASSES, PART_NAMES
from zfjax.errors import UserError
from zfjax.pixels import as_size, size_of, size_words

__all__ = [
    "CLASS_NAMES",
    "NUM_CLASSES",
    "PART_NAMES",
    "DemoSource",
    "Scene",
    "demo_images",
    "demo_set",
    "render",
    "render_background",
    "scene_label",
]

MIN_SIZE = 16  # pixels; below this the eyes vanish
NUM_CLUTTER = 10  # distractors per scene
CLUTTER_SCALE = (0.12, 0.26)  # pictures per creature unit of a distractor
VERSION = 2  # changes when the pictures do
MEAN_SCENES = 512  # training scenes whose mean picture is subtracted
CHUNK = 64  # scenes per compiled call of demo_images
Number = int | jax.Array  # a seed or an index: Python's or traced
_RENDERING = threading.Lock()  # a loader's threads ask for their first examples at the same time

# Random numbers in 0..1 that each aspect of a scene takes; the label has a key of its own.
GRIDS = (5, 16)  # values a side of the coarse and of the fine noise of the ground

DRAWS = {
    "pose": (creatures.POSE_DRAWS,),
    "shape": (creatures.SHAPE_DRAWS,),
    "paint": (creatures.PAINT_DRAWS,),
    "ground": (creatures.COLOUR_DRAWS + 8,),
    "coarse": (GRIDS[0], GRIDS[0]),
    "fine": (GRIDS[1], GRIDS[1]),
    "clutter": (NUM_CLUTTER, 6 + creatures.POSE_DRAWS + creatures.COLOUR_DRAWS + creatures.SHAPE_DRAWS),
    "light": (6,),
}


class Scene(NamedTuple):
    """One rendered picture and its ground truth."""

    image: jax.Array | np.ndarray  # uint8 [H, W, 3]
    label: jax.Array | np.ndarray  # int32 []
    mask: jax.Array | np.ndarray  # bool [H, W]: the creature covers at least half of the pixel
    parts: jax.Array | np.ndarray  # float32 [3, 2]: (y, x) in pixels, in the order of PART_NAMES


def scene_label(seed: Number, index: Number) -> jax.Array:
    """The class of a scene, without rendering it: int32 [], uniform over the classes."""
    return jax.random.randint(_keys(seed, index)[0], (), 0, NUM_CLASSES, jnp.int32)


@partial(jax.jit, static_argnames="size")
def render(seed: Number, index: Number, *, size: Size) -> Scene:
    """Render one scene; the same (seed, index) is the same scene at every size of one shape.

    Args:
      seed, index: integers, Python's or traced ones (vmap over either).
      size: side of the picture, or its (height, width), in pixels, at least 16; static.

    Raises:
      UserError: size below 16.

    Examples:
      >>> from zfjax.data import demo
      >>> demo.render(0, 3, size=64).image.shape
      (64, 64, 3)
    """
    x, y = _pixel_centres(size)
    draws, label = _draws(seed, index), scene_label(seed, index)
    pose = _all_over(creatures.random_pose(draws["pose"]), size, draws["pose"][1:3])
    creature = creatures.individual(draws["shape"], label)
    canvas, cover = creatures.draw_creature(draws["paint"], _background(draws, x, y), creature, pose=pose, x=x, y=y)
    image = _expose(draws["light"], canvas, x=x, y=y)
    return Scene(image, label, cover >= 0.5, creatures.part_places(creature, pose) * min(size_of(size)))


@partial(jax.jit, static_argnames="size")
def render_background(seed: Number, index: Number, *, size: Size) -> jax.Array:
    """The same scene without its creature, uint8 [H, W, 3]: the control; arguments as in `render`."""
    x, y = _pixel_centres(size)
    draws = _draws(seed, index)
    return _expose(draws["light"], _background(draws, x, y), x=x, y=y)


def demo_images(seed: int, start: int, count: int, *, size: Size) -> dict[str, np.ndarray]:
    """Render scenes start .. start + count - 1, CHUNK at a time: the fields of `Scene`, stacked, as NumPy arrays.

    Raises:
      UserError: count below 1, or size below 16.

    Examples:
      >>> from zfjax.data import demo
      >>> scenes = demo.demo_images(1, 0, 2, size=64)
      >>> scenes["image"].shape, scenes["label"].shape
      ((2, 64, 64, 3), (2,))
    """
    if count < 1:
        raise UserError(f"count={count}: at least one scene must be asked for")
    chunks = []
    for first in _with_bar(range(start, start + count, CHUNK)):
        scenes = _render_chunk(seed, first, size=size)
        chunks.append(Scene(*(np.asarray(field)[: start + count - first] for field in scenes)))
    return {name: np.concatenate(fields) for name, fields in zip(Scene._fields, zip(*chunks, strict=True), strict=True)}


def _with_bar(starts: range) -> Iterable[int]:
    """With a bar, where there is more than one."""
    bar: Iterable[int] = tqdm(
        starts, desc="rendering the demo set", leave=False, disable=None if len(starts) > 1 else True
    )
    return bar


class DemoSource:
    """Scenes 0 .. count - 1 of a seed as a `zfjax.data.Source`, rendered CHUNK at a time when one of them is asked for.

    Where JAX keeps compiled programs (`jax_compilation_cache_dir`), rendered scenes are kept too: 26 kB each of 80
    pixels, by the version of JAX and the text of the renderer.

    An example has, besides image, label and index: "object" bool [H, W] and "parts" float32 [3, 2], the mask and
    parts of its `Scene`.

    Examples:
      >>> from zfjax.data import demo
      >>> source = demo.DemoSource(1, 4, 64)
      >>> sorted(source[0])
      ['image', 'index', 'label', 'object', 'parts']
    """

    part_names = PART_NAMES

    def __init__(self, seed: int, count: int, size: Size):
        self._seed, self._count, self._size = seed, count, size
        self._chunks: dict[int, dict[str, np.ndarray]] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._count:
            raise IndexError(f"index={index}: 0 to {self._count - 1} is needed")
        number, place = divmod(index, CHUNK)
        with _RENDERING:
            if number not in self._chunks:
                self._chunks[number] = _kept_chunk(self._seed, number, self._size)
        image, label, mask, parts = (self._chunks[number][name][place] for name in Scene._fields)
        return {"image": image, "label": label, "index": np.int32(index), "object": mask, "parts": parts}


def _kept_chunk(seed: int, number: int, size: Size) -> dict[str, np.ndarray]:
    """CHUNK scenes, read where they are kept, else rendered and kept."""
    folder = getattr(jax.config, "jax_compilation_cache_dir", None)
    if not folder:
        return demo_images(seed, number * CHUNK, CHUNK, size=size)
    path = Path(folder) / f"scenes-{_renderer()}" / f"{size_words(size)}-{seed}-{number}.npz"
    with (
        contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
        np.load(io.BytesIO(path.read_bytes())) as kept,
    ):
        return {name: kept[name] for name in Scene._fields}
    scenes = demo_images(seed, number * CHUNK, CHUNK, size=size)
    buffer = io.BytesIO()
    np.savez(buffer, **scenes)  # type: ignore[arg-type]  # the stub fears one named allow_pickle
    with contextlib.suppress(OSError):  # a cache that is full or not ours to write is none
        files.write_atomically(path, buffer.getvalue())
    return scenes


@cache
def _renderer() -> str:
    """What the pixels depend on, in short."""
    text = b"".join(Path(str(room)).read_bytes() for room in (__file__, creatures.__file__))
    words = f"{jax.__version__} {jax.default_backend()}".encode()
    return hashlib.blake2b(text + words, digest_size=8).hexdigest()


@lru_cache(maxsize=1)  # so that its scenes are rendered once in a process
def demo_set(size: Size = 80, num_train: int = 6144, num_validation: int = 1024, *, with_mean: bool = True) -> ImageSet:
    """The demo set as every experiment reads it: seed 0 to train on, fresh scenes of seed 1 to validate on.

    Args:
      size: side of the pictures, or their (height, width), in pixels, at least 16.
      num_train, num_validation: scenes in each split, at least 1.
      with_mean: whether its mean is rendered, which takes seconds and only training needs; else it is None.

    Returns:
      ImageSet; its mean is that of the first `MEAN_SCENES` training scenes.

    Examples:
      >>> from zfjax.data import demo
      >>> scenes = demo.demo_set(64, 8, 4, with_mean=False)
      >>> len(scenes.train), len(scenes.validation), len(scenes.class_names)
      (8, 4, 10)
    """
    size = as_size(size_of(size))
    for name, value, least in [
        ("size", min(size_of(size)), MIN_SIZE),
        ("num_train", num_train, 1),
        ("num_validation", num_validation, 1),
    ]:
        if value < least:
            raise UserError(f"{name}={value}: at least {least} is needed")
    first = demo_images(0, 0, min(MEAN_SCENES, num_train), size=size)["image"] if with_mean else None
    return ImageSet(
        name="demo",
        size=size,
        class_names=CLASS_NAMES,
        train=DemoSource(0, num_train, size),
        validation=DemoSource(1, num_validation, size),
        mean=None if first is None else first.mean(axis=0, dtype=np.float64).astype(np.float32),
        official_labels=None,
        fingerprint=f"demo-{VERSION}-{size_words(size)}-{num_train}-{num_validation}",
    )


@partial(jax.jit, static_argnames="size")
def _render_chunk(seed: Number, first: Number, *, size: Size) -> Scene:
    scenes: Scene = jax.vmap(lambda offset: render(seed, first + offset, size=size))(jnp.arange(CHUNK))
    return scenes


def _keys(seed: Number, index: Number) -> jax.Array:
    """Two independent keys: for the label, and for all else."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), index))


def _draws(seed: Number, index: Number) -> dict[str, jax.Array]:
    """The random numbers of a scene, as DRAWS lists them; none of them knows the label."""
    lengths = [math.prod(shape) for shape in DRAWS.values()]
    numbers = jax.random.uniform(_keys(seed, index)[1], (sum(lengths),), jnp.float32)
    pieces = jnp.split(numbers, np.cumsum(lengths)[:-1])
    return {name: piece.reshape(DRAWS[name]) for name, piece in zip(DRAWS, pieces, strict=True)}


def _pixel_centres(size: Size) -> tuple[jax.Array, jax.Array]:
    """x and y of the pixels' centres, each [H, W], 0..1 along the shorter side."""
    height, width = size_of(size)
    if min(height, width) < MIN_SIZE:
        raise UserError(f"size={size}: a scene needs at least {MIN_SIZE} pixels a side")
    down, across = ((jnp.arange(side, dtype=jnp.float32) + 0.5) / min(height, width) for side in (height, width))
    x, y = jnp.meshgrid(across, down)
    return x, y


def _all_over(pose: creatures.Pose, size: Size, draws: jax.Array) -> creatures.Pose:
    """The pose moved along the longer side of a picture that is no square, by draws [2] in 0..1 of (x, y)."""
    height, width = size_of(size)
    if height == width:
        return pose
    longer = np.array([width, height], np.float32) / min(height, width) - 1  # than the square that the pose is for
    return pose._replace(centre=pose.centre + draws * longer)


def _noise(values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Smooth noise [H, W] through `values` [cells, cells], brought to -1..1; the same field at every size."""
    resized: jax.Array = jax.image.resize(2 * values - 1, shape, "cubic", antialias=False)
    return resized


def _background(draws: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """Textured ground with NUM_CLUTTER distractors, [3, H, W], 0..1; it knows no label."""
    colours, (turn, cycles, strength, *weights) = draws["ground"][:-8], draws["ground"][-8:]
    first, second = creatures.colour_pair(colours)
    coarse, fine = _noise(draws["coarse"], x.shape), _noise(draws["fine"], x.shape)
    # Each kind of wave is absent from half of the scenes: stripes, checks, rings, mixtures of them, or noise alone.
    weights = [jnp.maximum(8 * weight - 4, 0) for weight in weights[:4]] + [4 * weights[4] - 2]
    skin = (np.pi * turn, 1.5 + 6 * cycles, 0.0, *weights)
    waves = creatures.pattern(x + 0.05 * coarse, y + 0.05 * coarse, skin=skin, pixel=1 / min(x.shape))
    share = jnp.clip((0.2 + 0.5 * strength) * waves + 0.5 * coarse, 0, 1)
    ground = (first + share[None] * (second - first)) * (1 + 0.15 * fine[None])
    return jax.lax.scan(lambda canvas, piece: (_distractor(piece, canvas, x=x, y=y), None), ground, draws["clutter"])[0]


def _distractor(draws: jax.Array, canvas: jax.Array, *, x: jax.Array, y: jax.Array) -> jax.Array:
    """A faceless head, a lone ear or a lone eye of some class's make: parts of creatures, never a whole one."""
    place, draws = draws[:6], draws[6:]
    pose, draws = creatures.random_pose(draws[: creatures.POSE_DRAWS]), draws[creatures.POSE_DRAWS :]
    colours, draws = creatures.colour_pair(draws[: creatures.COLOUR_DRAWS]), draws[creatures.COLOUR_DRAWS :]
    creature = creatures.individual(draws, jnp.int32(place[4] * NUM_CLASSES))
    kind = jnp.int32(place[5] * 3)
    low, high = CLUTTER_SCALE
    pose = pose._replace(centre=place[:2], scale=low + (high - low) * place[2], turn=2 * np.pi * place[3])
    pose = _all_over(pose, (x.shape[0], x.shape[1]), place[:2])
    u, v = creatures.to_creature(pose, x, y)
    pixel = 1 / (min(x.shape) * pose.scale)
    root, tip = creature.ears[:3], creature.ears[6:]
    size = 1.5 * creature.eyes[2:]
    head = creatures.blob(u, v, half=creature.head, lobes=creature.lobes)
    ear = creatures.cone(u, v, a=(0.0, root[1], root[2]), b=(0.0, -tip[1], tip[2]))
    eye = creatures.blob(u, v, half=size)
    distance = jnp.where(kind == 0, head, jnp.where(kind == 1, ear, eye))
    waves = creatures.pattern(u, v, skin=creature.skin, pixel=pixel)
    pupil = creatures.cover(creatures.blob(u, v, half=size * creature.pupil), pixel)
    first = jnp.where(kind == 2, creatures.WHITE, colours[0])
    second = jnp.where(kind == 2, creatures.INK, colours[1])
    skin = first + jnp.where(kind == 2, pupil, waves)[None] * (second - first)
    canvas = creatures.paint(canvas, creatures.INK, creatures.cover(distance - creatures.OUTLINE, pixel))
    return creatures.paint(canvas, skin, creatures.cover(distance, pixel))


def _expose(draws: jax.Array, canvas: jax.Array, *, x: jax.Array, y: jax.Array) -> jax.Array:
    """Light the scene (level, tint, a gradient in some direction) and store it: uint8 [H, W, 3]."""
    level, angle, fall = draws[:3]
    down, across = (side / min(x.shape) / 2 for side in x.shape)  # the middle
    gradient = 1 + 0.6 * fall * ((x - across) * jnp.cos(2 * np.pi * angle) + (y - down) * jnp.sin(2 * np.pi * angle))
    gain = (0.85 + 0.3 * level) * (0.92 + 0.16 * draws[3:])
    lit = canvas * gain[:, None, None] * gradient[None]
    return jnp.moveaxis(jnp.round(jnp.clip(lit, 0, 1) * 255).astype(jnp.uint8), 0, -1)
