"""SqueezeNet v1.0 (Iandola et al. 2016): trained on ImageNet, and small; its fire modules branch and concatenate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from zfjax.architecture import ReceptiveField
from zfjax.data.archives import official_synsets
from zfjax.errors import UserError, naming
from zfjax.nets import FunctionNet, Training
from zfjax.network import Params
from zfjax.pixels import center_crop
from zfjax.pretrained import caffe
from zfjax.pretrained.pictures import resized
from zfjax.pretrained.weights import read_arrays, take

TABLE, WEIGHTS = "architecture.json", "squeezenet_v1.0.npz"
_FIRES = {f"fire{n}": f"fire{n}/concat" for n in range(2, 10)}

# What its authors call a layer -> what the table calls the map that the layer hands on, after ReLU
LAYERS = {"conv1": "conv1", "pool1": "pool1"} | _FIRES | {"conv10": "conv_final", "logits": "pool_final"}

# ImageNet 2012; 85,000 steps of 1,024 images, as its authors' solver has it. Its layers are not the paper's, also not
# at another width, though the first has 96 maps: no accuracy of it is held against the paper's.
TRAINING: Training = {"num_classes": 1000, "num_images": 1_281_167, "epochs": 68.0, "width": None}


class CaffeNet(NamedTuple):
    """A network of Caffe's with its weights, for the analyses that take any function of images."""

    table: caffe.Table
    params: Params  # {convolution: {"kernel": HWIO, "bias": [C]}}, NumPy arrays
    maps: tuple[tuple[str, str], ...]  # (layer, its map in the table), from the image up
    mean: np.ndarray  # float32 [3], RGB: images are pixels minus this
    image_size: int  # side of the input, pixels
    picture_size: int  # side of the picture whose centre the input is, pixels
    class_names: tuple[str, ...]  # of the logits

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that can be looked at, from the image up."""
        return tuple(layer for layer, _ in self.maps)

    @property
    def fn(self) -> Partial:
        """fn(images) -> {layer: features} of every layer; see `layers_of`."""
        return self.layers_of(self.layers)

    def layers_of(self, layers: Sequence[str]) -> Partial:
        """fn(images) -> {layer: features} of these layers, as `zfjax.features.layers_of`."""
        return Partial(_function_of(self.table, self._named(layers), self.image_size), self.params)

    def features(self, params: Params, images: jax.Array, layers: Sequence[str]) -> dict[str, jax.Array]:
        """What these layers hand on, a pure function of all that it reads.

        Args:
          params: as `self.params`.
          images: float [B, image_size, image_size, 3], RGB pixels minus `mean`; turned to Caffe's BGR inside.
          layers: some of `self.layers`.

        Returns:
          {layer: [B, H, W, C] after ReLU and pool}; logits [B, classes], before the softmax. UserError for images of
          another size, an unknown layer, or none.
        """
        return _function_of(self.table, self._named(layers), self.image_size)(params, images)

    def preprocess(self, pictures: np.ndarray) -> np.ndarray:
        """Square pictures, uint8 [B, S, S, 3], as images: resized to `picture_size`, centre crop, minus the mean.

        The filter is bilinear, as Caffe's users have it; a picture of `picture_size` keeps its pixels.
        -> float32 [B, image_size, image_size, 3]
        """
        side = self.picture_size
        mean = np.broadcast_to(self.mean, (side, side, 3))
        return np.asarray(center_crop(jnp.asarray(resized(pictures, side)), jnp.asarray(mean), self.image_size))

    def as_net(self) -> FunctionNet:
        """The network as a `zfjax.nets.Net`, for every figure: its way down is that of `zfjax.project_fn`."""
        known = caffe.receptive_fields(self.table)
        return FunctionNet(
            _function_of(self.table, self.maps, None),  # of crops too
            self.params,
            image_size=self.image_size,
            picture_size=self.picture_size,
            preprocess=Partial(_minus, self.mean),
            class_names=self.class_names,
            class_maps=("conv10",),
            name="squeezenet",
            mean_colour=tuple(self.mean.tolist()),
            receptive_fields={layer: known[name] for layer, name in self.maps if name in known},
            first_filters=np.asarray(self.params["conv1"]["kernel"])[:, :, ::-1],  # Caffe reads BGR
            training=TRAINING,
        )

    def receptive_field(self, layer: str) -> ReceptiveField:
        """The pixels of the images that one place of a layer sees; UserError for the logits, which see all."""
        fields = caffe.receptive_fields(self.table)
        ((_, name),) = self._named([layer])
        if name not in fields:
            raise UserError(f"layer {layer!r} stands above a global pool and sees the whole image")
        return fields[name]

    def _named(self, layers: Sequence[str]) -> tuple[tuple[str, str], ...]:
        names = dict(self.maps)
        unknown = [layer for layer in layers if layer not in names]
        if unknown or not layers:
            raise UserError(f"layers={tuple(layers)}: at least one of {', '.join(names)} is needed, and no other")
        return tuple((layer, names[layer]) for layer in layers)


def squeezenet(path: Path | str) -> CaffeNet:
    """Open SqueezeNet from a folder with `architecture.json` (Caffe's terms) and `squeezenet_v1.0.npz` (OIHW).

    It reads 227 x 227 pixels, the centre of a picture of 256, minus (123, 117, 104); its pools count by the ceil rule.

    Raises:
      UserError: a file that is not there (then a FileNotFoundError too), is damaged or holds another network, saying
        what was expected and what was found.

    Examples:
      net = squeezenet("models/squeezenet_v1.0")
      net.layers_of(["fire8"])(images)["fire8"].shape
    """
    path = Path(path)
    with naming("weights", path, f"a folder with {TABLE} and {WEIGHTS} is needed"):
        table = caffe.read_table(path / TABLE)
    _check_table(path / TABLE, table)
    kernels = caffe.kernel_shapes(table)
    shapes = {f"{name}/w": (shape[3], shape[2], *shape[:2]) for name, shape in kernels.items()}
    shapes |= {f"{name}/b": shape[3:] for name, shape in kernels.items()}
    weights = take(path / WEIGHTS, read_arrays(path / WEIGHTS), shapes)
    params: dict[str, Any] = {
        name: {"kernel": np.ascontiguousarray(weights[f"{name}/w"].transpose(2, 3, 1, 0)), "bias": weights[f"{name}/b"]}
        for name in kernels
    }
    mean = np.array([123, 117, 104], np.float32)
    return CaffeNet(table, params, tuple(LAYERS.items()), mean, 227, 256, official_synsets())


def _minus(mean: np.ndarray, crops: jax.Array) -> jax.Array:
    return crops - mean[None, None, None]


def _check_table(path: Path, table: caffe.Table) -> None:
    """UserError naming the first row that is not SqueezeNet's."""
    known = tuple(_known_rows())
    for number, (row, expected) in enumerate(zip(table, known, strict=False)):
        for field in dataclasses.fields(expected):
            given, needed = getattr(row, field.name), getattr(expected, field.name)
            if given != needed and (field.name, needed) != ("num_output", None):
                raise UserError(
                    f"{path} is not SqueezeNet v1.0: row {number}, {row.name!r}, has {field.name}={given!r}, where "
                    f"{needed!r} is expected"
                )
    if len(table) != len(known):
        raise UserError(f"{path} is not SqueezeNet v1.0: it has {len(table)} rows, where {len(known)} are expected")


def _known_rows() -> Iterator[caffe.CaffeLayer]:
    """SqueezeNet v1.0 from the image up; how many filters stand where num_output is None, the weights say."""

    def filters(
        name: str, bottom: str, kernel: int, *, num_output: int | None = None, stride: int = 1, pad: int = 0
    ) -> Iterator[caffe.CaffeLayer]:
        yield caffe.CaffeLayer(name, "Convolution", (bottom,), (name,), num_output, kernel, stride, pad)
        folder, slash, last = name.rpartition("/")
        yield caffe.CaffeLayer(f"{folder}{slash}relu_{last}", "ReLU", (name,), (name,))

    def pool(name: str, bottom: str) -> caffe.CaffeLayer:
        return caffe.CaffeLayer(name, "Pooling", (bottom,), (name,), kernel=3, stride=2, pool="MAX")

    yield from filters("conv1", "data", 7, stride=2)
    yield pool("pool1", "conv1")
    below = "pool1"
    for n in range(2, 10):
        squeezed, *branches = (f"fire{n}/{name}" for name in ("conv1x1_1", "conv1x1_2", "conv3x3_2"))
        yield from filters(squeezed, below, 1)
        yield from filters(branches[0], squeezed, 1)
        yield from filters(branches[1], squeezed, 3, pad=1)
        below = f"fire{n}/concat"
        yield caffe.CaffeLayer(below, "Concat", tuple(branches), (below,))
        if n in (4, 8):
            yield pool(f"pool{n}", below)
            below = f"pool{n}"
    yield caffe.CaffeLayer("drop9", "Dropout", (below,), (below,))
    yield from filters("conv_final", below, 1, pad=1, num_output=1000)
    yield caffe.CaffeLayer("pool_final", "Pooling", ("conv_final",), ("pool_final",), pool="AVE", global_pooling=True)


@cache
def _function_of(
    table: caffe.Table, named: tuple[tuple[str, str], ...], size: int | None
) -> Callable[[Params, jax.Array], dict[str, jax.Array]]:
    """One function object for equal arguments, so that JAX finds what it compiled; `size`: None for images of any."""
    side = "H, W" if size is None else f"{size}, {size}"

    def features(params: Params, images: jax.Array) -> dict[str, jax.Array]:
        fits = images.ndim == 4 and images.shape[3] == 3 and (size is None or images.shape[1:3] == (size, size))
        if not fits or not jnp.issubdtype(images.dtype, jnp.floating):
            raise UserError(
                f"images of {images.dtype} {images.shape}: floating point [B, {side}, 3], pixels minus the mean, is "
                "needed"
            )
        maps = caffe.run(table, params, images[..., ::-1])  # Caffe reads pictures with OpenCV, whose colours are BGR
        return {layer: maps[name] for layer, name in named}

    return features
