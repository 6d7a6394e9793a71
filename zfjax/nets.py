"""Net: what every analysis, figure and page asks of a network, and the networks that answer it.

A trained run (`load_net("runs/x")`), an imported network, SqueezeNet and any JAX function (`FunctionNet`) are all
looked at in the same words: `net.prepare` makes the network's input of pictures, `net.features` gives a function of
images that every analysis takes, `net.project` carries single units down to pixels.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from zfjax import features as layer_features
from zfjax import schema
from zfjax.anymodel.choices import OnUnknown
from zfjax.anymodel.crops import Crop, crop_of, field_of
from zfjax.anymodel.names import features_of
from zfjax.anymodel.names import layers as layers_in
from zfjax.anymodel.rules import Rule, projected_from, with_relu_rule
from zfjax.architecture import ZFNET, Architecture, Conv, ReceptiveField, receptive_field
from zfjax.data import Source, archives, name_of
from zfjax.data import num_channels as num_channels
from zfjax.deconvnet import WAYS, Seed, Unit, Way, as_unit, check_seed, one_layer, warn_below_zero, windows_of_ways
from zfjax.errors import NotThereError, UserError, check_name
from zfjax.features import Features
from zfjax.files import digest, file_name
from zfjax.network import Params
from zfjax.pixels import Size as Size
from zfjax.pixels import center_crop, in_colours
from zfjax.pixels import size_of as size_of

if TYPE_CHECKING:
    from zfjax.training import checkpoints

_MODULE_AND_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
RUNS = Path("runs")  # where runs are written and looked for, below the current directory
_SHOWN = 8  # layers that a message names
LOOKED_AT_ONCE = 16  # images, to find the places of units that do not say theirs


class Net(Protocol):
    """A network to look at. Images are its input, float [B, H, W, C]; pictures are uint8, as they are stored.

    Examples:
      >>> import zfjax
      >>> net: zfjax.Net = zfjax.FunctionNet(lambda images: {"mean": images.mean((1, 2))}, image_size=8, name="mean")
      >>> net.name, net.layers, net.image_size
      ('mean', ('mean',), 8)
    """

    @property
    def name(self) -> str:
        """What it is called on pages and in results."""

    @property
    def image_size(self) -> Size:
        """Size of the images."""

    @property
    def picture_size(self) -> Size:
        """Size of the pictures that `prepare` takes, whose centre the images are."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that can be looked at, from the image up; where there are classes, the last one is the logits."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the logits; empty where the network has no classes or they have no names."""

    @property
    def fingerprint(self) -> str:
        """Changes with the weights."""

    def prepare(self, pictures: Any) -> jax.Array:
        """Pictures uint8 [B, *picture_size, C] -> images [B, *image_size, C]."""

    def features(self, layers: Sequence[str]) -> Features:
        """fn(images) -> {layer: [B, H, W, C] or [B, C]}; UserError for an unknown layer, or none at all."""

    def project(
        self,
        images: Any,
        units: Unit,
        *,
        layer: str | None = None,
        of: Any = None,
        way: Way = "deconvnet",
        seed: Seed = "value",
    ) -> np.ndarray:
        """One signed picture for each unit, each projected alone, from its own activation.

        Args:
          images: float [U, H, W, C], the network's input.
          units: a `Unit` whose channel, and place (y, x) or None for the strongest one, are numbers or [N].
          layer: where they stand, unless the units say it.
          of: int [N], the image of each unit; by default the one image, or unit n in image n.
          way: "deconvnet", or to compare "gradient" or "guided" backpropagation.
          seed: start from the activation's "value", which warns below 0, or from "one".

        Returns:
          [N, H, W, C], in the unit and type of the images. UserError for an unknown layer, or a unit that is not there.
        """

    def receptive_field(self, layer: str) -> ReceptiveField | None:
        """What one place of a layer sees of the images; None where that cannot be known."""


class Training(TypedDict):
    """What a network was trained on, and how long; None where that is not known."""

    num_classes: int | None
    num_images: int | None
    epochs: float | None  # 0 of one that is not trained
    width: float | None  # maps of its first layer over the paper's 96


def training_of(net: Net) -> Training:
    """What `net.training` says, of one that is described by a table at least its width."""
    known: Training | None = getattr(net, "training", None)
    if known is not None:
        return known
    width = width_of(net.architecture) if isinstance(net, OfTable) else None
    return {"num_classes": len(net.class_names) or None, "num_images": None, "epochs": None, "width": width}


def width_of(architecture: Architecture) -> float | None:
    """Maps of the first layer over those of the paper's; None where the first layer is no convolution."""
    first, papers = architecture.layers[0], ZFNET.layers[0]
    return first.features / papers.features if isinstance(first, Conv) and isinstance(papers, Conv) else None


def class_words(net: Net) -> tuple[str, ...]:
    """The classes as people call them: "golf ball" where the class is the synset n03445777.

    Examples:
      >>> import zfjax
      >>> fn = lambda images: {"logits": images.mean((1, 2))}
      >>> names = ("n02099601", "red fox", "b")
      >>> zfjax.nets.class_words(zfjax.FunctionNet(fn, image_size=8, class_names=names))
      ('golden retriever', 'red fox', 'b')
    """
    return archives.class_words(net.class_names)


def logits_layer(net: Net) -> str | None:
    """The layer of the logits: the last one; None where that has places, and so is none of classes."""
    last = net.layers[-1]
    return last if len(shapes_of(net, [last])[last]) == 1 else None


def logit_names(net: Net) -> tuple[str, ...]:
    """What the logits stand for: the classes in words, or "unit 7"; () where there are no logits."""
    if (logits := logits_layer(net)) is None:
        return ()
    return class_words(net) or tuple(f"unit {number}" for number in range(shapes_of(net, [logits])[logits][0]))


def hidden_layers(net: Net) -> tuple[str, ...]:
    """The layers whose units are features and no classes, from the image up; all where there are none below those."""
    classes = (logits_layer(net), *getattr(net, "class_maps", ()))
    return tuple(layer for layer in net.layers if layer not in classes) or net.layers


def shapes_of(net: Net, layers: Sequence[str] | None = None) -> dict[str, tuple[int, ...]]:
    """{layer: [H, W, C] or [C]}, the shape of each layer's features of one image; nothing is computed.

    Examples:
      >>> import zfjax
      >>> fn = lambda images: {"maps": images[:, ::2, ::2], "mean": images.mean((1, 2))}
      >>> zfjax.nets.shapes_of(zfjax.FunctionNet(fn, image_size=8, name="halves"))
      {'maps': (4, 4, 3), 'mean': (3,)}
    """
    layers = net.layers if layers is None else layers
    if isinstance(net, OfTable | FunctionNet):
        shapes = net.shapes
        return {check_layer(net, layer): shapes[layer] for layer in layers}
    picture = jax.ShapeDtypeStruct((1, *size_of(net.picture_size), num_channels(net)), np.uint8)
    fn = net.features(layers)
    features = jax.eval_shape(lambda pictures: fn(net.prepare(pictures)), picture)
    return {layer: tuple(features[layer].shape[1:]) for layer in layers}


def map_layers(net: Net) -> tuple[str, ...]:
    """The layers that have places (feature maps), from the image up.

    Examples:
      >>> import zfjax
      >>> fn = lambda images: {"maps": images[:, ::2, ::2], "mean": images.mean((1, 2))}
      >>> zfjax.nets.map_layers(zfjax.FunctionNet(fn, image_size=8, name="halves"))
      ('maps',)
    """
    return tuple(layer for layer, shape in shapes_of(net).items() if len(shape) == 3)


def unit_name(net: Net, layer: str, channel: int) -> str:
    """What a unit is called: the class of a logit, "map 7" where the layer has places, else "unit 7"."""
    channel = int(channel)
    shape = shapes_of(net, [layer])[layer]
    is_class = layer == net.layers[-1] or layer in getattr(net, "class_maps", ())
    kind = "map" if len(shape) == 3 else "unit"
    if is_class and len(net.class_names) == shape[-1]:
        return f"{class_words(net)[channel]}" if kind == "unit" else f"{kind} {channel}, {class_words(net)[channel]}"
    return f"{kind} {channel}"


def check_layer(net: Net, layer: str) -> str:
    """`layer`; UserError where the network has none of this name."""
    if layer not in net.layers:
        raise UserError(f"layer={layer!r}: one of {', '.join(net.layers)} of {net.name} is needed")
    return layer


def check_weights(net: Net) -> None:
    """UserError that names the first weights of the network which are not finite, before anything is computed.

    It looks at `net.params`, where there are any. In those of a function infinities may be meant, as in a mask.
    """
    for path, leaf in jax.tree.leaves_with_path(getattr(net, "params", None)):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            array = np.asarray(leaf)
            bad = np.isnan(array) if isinstance(net, FunctionNet) else ~np.isfinite(array)
            if bad.any():
                name = "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path) or "params"
                raise UserError(
                    f"net={net.name!r}: {bad.sum():,} of {bad.size:,} weights of {name} are not finite; a training "
                    "that diverged leaves such: take an earlier checkpoint, or train with a lower learning rate"
                )


def check_finite(net: Net, features: Any) -> Any:
    """{layer: array [N, ...]} as it is; UserError that names the network, and its first layer that is not finite."""
    return layer_features.check_finite(features, f"net={net.name!r}")


class OfTable:
    """The methods of a network that is an `Architecture` with parameters: its explicit forward pass and deconvnet."""

    architecture: Architecture
    params: Params
    mean: np.ndarray  # float32 [S, S, 3], or [3] of one colour

    if TYPE_CHECKING:  # what each kind of such a network says itself

        @property
        def name(self) -> str: ...  # noqa: D102
        @property
        def class_names(self) -> tuple[str, ...]: ...  # noqa: D102
        @property
        def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def image_size(self) -> Size:
        """Side of the images."""
        return self.architecture.image_size

    @property
    def picture_size(self) -> Size:
        """Side of the pictures; that of the mean."""
        return len(self.mean) if self.mean.ndim == 3 else self.architecture.image_size

    @property
    def channels(self) -> int:
        """Channels of images and pictures."""
        return self.architecture.channels

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers from the image up; the last one is the logits."""
        return self.architecture.layer_names

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{layer: shape of its features of one image}."""
        return {layer: size.output for layer, size in self.architecture.sizes().items()}

    def prepare(self, pictures: Any) -> jax.Array:
        """The centre of pictures uint8 [B, S, S, 3], minus the mean."""
        if self.mean.ndim == 3 and pictures.shape[1:] != self.mean.shape:
            raise UserError(
                f"pictures of shape {pictures.shape}: [B, {', '.join(map(str, self.mean.shape))}] is needed, "
                "the size of the mean picture"
            )
        mean = np.broadcast_to(self.mean, pictures.shape[1:])
        return center_crop(jnp.asarray(pictures), jnp.asarray(mean), self.architecture.image_size)

    def features(self, layers: Sequence[str]) -> Partial:
        """fn(images) -> {layer: features}."""
        return layer_features.layers_of(self.params, layers, architecture=self.architecture)

    def project(
        self,
        images: Any,
        units: Unit,
        *,
        layer: str | None = None,
        of: Any = None,
        way: Way = "deconvnet",
        seed: Seed = "value",
    ) -> np.ndarray:
        """One signed picture for each unit: see `Net.project`."""
        return self.project_ways(images, units, ways=(way,), layer=layer, of=of, seed=seed)[way]

    def project_ways(
        self,
        images: Any,
        units: Unit,
        *,
        ways: Sequence[Way],
        layer: str | None = None,
        of: Any = None,
        seed: Seed = "value",
    ) -> dict[Way, np.ndarray]:
        """{way: one signed picture for each unit}; each image goes up once: see `project_ways`."""
        layer = _layer_of(units, layer)
        self.architecture.layer(layer)
        images = np.asarray(images)
        places = places_of(units, images, of=of, fn=self.features([layer]), layer=layer)
        windows = windows_of_ways(
            self.params,
            images,
            {layer: places},
            architecture=self.architecture,
            ways=tuple(map(_checked, ways)),
            seed=seed,
        )
        return {way: windows[way][layer].paste(images.shape[1:3]) for way in ways}

    def receptive_field(self, layer: str) -> ReceptiveField:
        """What one place of a layer sees of the images, by the table."""
        return receptive_field(self.architecture, layer)

    @property
    def first_filters(self) -> np.ndarray | None:
        """float32 [h, w, C, N], the filters of the first layer; None where it has none."""
        row = self.architecture.layers[0]
        return np.asarray(self.params[row.name]["kernel"], np.float32) if isinstance(row, Conv) else None


@dataclass(frozen=True, eq=False)
class TrainedNet(OfTable):
    """The network of a run's checkpoint, and what belongs to it.

    Examples:
      >>> import zfjax
      >>> net = zfjax.load_net("runs/zfnet")  # doctest: +SKIP
      >>> net.architecture.name, net.layers[-1], net.params["conv1"]["kernel"].shape  # doctest: +SKIP
    """

    architecture: Architecture
    params: Params
    mean: np.ndarray  # float32 [S, S, 3], mean training picture
    path: Path  # of the checkpoint
    run: Path  # folder of the run
    data: str  # what it was trained on, for `zfjax.open_data`
    class_names: tuple[str, ...]  # of its logits
    fingerprint: str  # changes with the weights
    training: Training | None = None  # None where it is not known

    @property
    def name(self) -> str:
        """The run's folder and the checkpoint's step."""
        run = self.run.relative_to(Path.cwd()) if self.run.is_relative_to(Path.cwd()) else self.run
        return f"{run} at step {self.path.name}"

    @property
    def class_words(self) -> tuple[str, ...]:
        """The classes as people call them."""
        return class_words(self)


@dataclass(frozen=True, eq=False)
class FunctionNet:
    """Any JAX function as a `Net`, by the any-model engine: Flax Linen and NNX, Equinox, Haiku, Keras, or your own.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> def apply(params, images):
      ...     maps = jax.nn.relu(images[:, ::2, ::2] @ params)
      ...     return {"conv": maps, "logits": maps.mean((1, 2))}
      >>> net = zfjax.FunctionNet(apply, jnp.ones((3, 2)), image_size=(8, 12), class_names=("cat", "dog"))
      >>> net.layers, zfjax.nets.shapes_of(net)
      (('conv', 'logits'), {'conv': (4, 6, 2), 'logits': (2,)})
      >>> net.project(jnp.ones((1, 8, 12, 3)), zfjax.Unit(1, layer="conv")).shape
      (1, 8, 12, 3)

      Of a function of logits alone, by the paths of modules inside it:

        net = FunctionNet(model, image_size=64, layers=["block_1", "block_2", "logits"])

    Attributes:
      fn: fn(images) -> {layer: features [B, H, W, C] or [B, C]}, from the image up; or, with `params`,
        fn(params, images). It has to work under jit, and each image must be looked at by itself. Anything, where
        `layers` name what is inside it.
      params: any tree of arrays that `fn` takes first; None where `fn` holds them itself.
      image_size: side of the images, or (height, width), pixels.
      channels: of the pictures and images.
      picture_size: size of the pictures, at least that of the images; None: the same.
      preprocess: crops of pictures, float32 [B, *image_size, C] with values 0 to 255, -> images; None: divided by 255.
      class_names: of the last layer's features, its logits; empty where there are none.
      class_maps: layers whose maps are the classes too, as those below a mean over all places.
      name: what it is called.
      data: what it was trained on, for `zfjax.open_data`; None where a figure is to be told.
      mean_colour: of the training pictures, 0 to 255 for each channel, which an occluding square shows; None where it
        is not known.
      receptive_fields: {layer: ReceptiveField} of layers of which the program does not prove it.
      first_filters: float32 [h, w, C, N], the filters of the first layer, to be drawn; None where there are none.
      on_unknown: as for `zfjax.with_relu_rule`; of a mapping its pairs are kept, in their order.
      on_mixing: as for `zfjax.project_fn`.
      layers: from the image up; keys of what `fn` gives, paths of modules inside it, of those that `zfjax.layers`
        lists, and "logits" for what `fn` gives, if that is one array. None named: all that `fn` gives.
      training: what it was trained on, which claims about it are judged by; None where that is not known.
      units_at_once: projected together by `project`, which bounds the memory. Where `fn` takes images of other sizes
        and the engine can prove that a unit looks no further, `project` feeds a crop: the unit's receptive field.
    """

    fn: Callable[..., Any]
    params: Any = None
    image_size: Size = 224
    channels: int = 3
    picture_size: Size = 0
    preprocess: Callable[[jax.Array], jax.Array] | None = None
    class_names: tuple[str, ...] = ()
    class_maps: tuple[str, ...] = ()
    name: str = "function"
    data: str | None = None
    mean_colour: tuple[float, ...] | None = None
    receptive_fields: Mapping[str, ReceptiveField] | None = None
    first_filters: np.ndarray | None = None
    on_unknown: OnUnknown = "error"
    on_mixing: Literal["error", "keep"] = "error"
    layers: tuple[str, ...] = ()
    units_at_once: int = 16
    training: Training | None = None

    def __post_init__(self) -> None:
        size, picture = size_of(self.image_size), size_of(self.picture_size or self.image_size)
        if min(size) < 1 or picture[0] < size[0] or picture[1] < size[1]:
            raise UserError(f"image_size={self.image_size!r}, picture_size={picture}: 1 <= image_size <= picture_size")
        for name in ("channels", "units_at_once"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: at least 1 is needed")
        if isinstance(self.on_unknown, Mapping):
            object.__setattr__(self, "on_unknown", tuple(self.on_unknown.items()))  # can be hashed, as jit needs
        object.__setattr__(self, "picture_size", self.picture_size or self.image_size)
        object.__setattr__(self, "layers", tuple(self.layers) or self._keys())
        last = self.shapes[self.layers[-1]]
        if self.class_names and len(self.class_names) != last[-1]:
            raise UserError(
                f"class_names of {len(self.class_names)} classes: the last layer, {self.layers[-1]!r}, has {last[-1]}"
            )

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{layer: shape of its features of one image}."""
        shapes = jax.eval_shape(self._called, self.params, self._prepared_shape)
        for layer, array in shapes.items():
            if array.ndim not in (2, 4) or array.shape[0] != 1:
                raise UserError(
                    f"fn returns {array.shape} as {layer!r} for one image: features [B, H, W, C] or [B, C] are needed"
                )
        return {layer: tuple(array.shape[1:]) for layer, array in shapes.items()}

    def _keys(self) -> tuple[str, ...]:
        """The keys as `fn` inserts them: JAX sorts those of a dict."""
        keys: list[str] = []

        def watched(params: Any, images: jax.Array) -> Any:
            answer = self._function(params)(images)
            keys[:] = list(answer) if isinstance(answer, Mapping) else []
            return answer

        shapes = jax.eval_shape(watched, self.params, self._prepared_shape)
        if not keys:
            given = f"an array {list(shapes.shape)}" if hasattr(shapes, "shape") else str(jax.tree.structure(shapes))
            raise UserError(
                f"fn returns {given}: {{layer: features}} is needed, or layers=[...] of those that zfjax.layers(fn, "
                f"images) lists{self._modules_in_words()}"
            )
        return tuple(keys)

    def _modules_in_words(self) -> str:
        """Some of what `layers` could name: the modules that give features, and the last one."""
        inside = layers_in(self._function(self.params), self._prepared_shape)
        paths = [path for path, layer in inside.items() if layer.is_module and len(layer.shape) in (2, 4)]
        named = paths if len(paths) <= _SHOWN else [*paths[: _SHOWN - 1], "...", paths[-1]]
        return f" ({', '.join(named)}), and logits for what it returns" if named else ""

    @property
    def _prepared_shape(self) -> Any:
        image = jax.ShapeDtypeStruct((1, *size_of(self.image_size), self.channels), np.float32)
        return jax.eval_shape(self._preprocessed, image)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the program, its preprocessing included, and of every array in it."""
        image = jax.ShapeDtypeStruct((1, *size_of(self.image_size), self.channels), np.float32)
        program = jax.make_jaxpr(lambda params, crops: self._called(params, self._preprocessed(crops)))(
            self.params, image
        )
        arrays = digest([jax.tree.leaves(self.params), program.consts])
        return hashlib.blake2b(f"{arrays} {program.jaxpr}".encode(), digest_size=16).hexdigest()

    def with_params(self, params: Any) -> FunctionNet:
        """The same function with other parameters: another epoch, weights drawn anew. Their training is not known."""
        other = replace(self, params=params, training=None)
        object.__setattr__(other, "_compiled", self._compiled)  # the same function, so the same programs
        return other

    def prepare(self, pictures: Any) -> jax.Array:
        """The centre of pictures uint8 [B, *picture_size, C], preprocessed. UserError for pictures of another shape."""
        _check_shape("pictures", pictures, (*size_of(self.picture_size), self.channels), self.name)
        (height, width), (high, wide) = size_of(self.image_size), pictures.shape[1:3]
        top, left = (high - height) // 2, (wide - width) // 2
        crops = jnp.asarray(pictures)[:, top : top + height, left : left + width]
        return self._preprocessed(crops.astype(jnp.float32))

    def features(self, layers: Sequence[str], *, rule: Rule | None = None) -> Partial:
        """fn(images) -> {layer: features}.

        `rule`: of the way back through its rectifiers, as for `zfjax.with_relu_rule`; whatever else has a gradient of
        its own keeps that.
        """
        if not layers:
            raise UserError(f"layers={layers!r}: at least one of {', '.join(self.layers)} is needed")
        for layer in layers:
            check_layer(self, layer)
        return Partial(self._function_of(tuple(layers), rule), self.params)

    def features_of_pictures(self, layers: Sequence[str]) -> Partial:
        """fn(pictures) -> {layer: features}."""
        chosen = self.features(layers).func

        def prepared(params: Any, pictures: jax.Array) -> Any:
            return chosen(params, self.prepare(pictures))

        return Partial(self._compiled.setdefault(("pictures", tuple(layers)), prepared), self.params)

    def project(
        self,
        images: Any,
        units: Unit,
        *,
        layer: str | None = None,
        of: Any = None,
        way: Way = "deconvnet",
        seed: Seed = "value",
    ) -> np.ndarray:
        """One signed picture for each unit, by `zfjax.project_fn`: see `Net.project`."""
        return self.project_ways(images, units, ways=(way,), layer=layer, of=of, seed=seed)[way]

    def project_ways(
        self,
        images: Any,
        units: Unit,
        *,
        ways: Sequence[Way],
        layer: str | None = None,
        of: Any = None,
        seed: Seed = "value",
    ) -> dict[Way, np.ndarray]:
        """{way: one signed picture for each unit}; each image goes up once: see `project_ways`."""
        layer = check_layer(self, _layer_of(units, layer))
        ways = tuple(map(_checked, ways))
        images = np.asarray(images)
        _check_shape("images", images, self._prepared_shape.shape[1:], self.name)
        places = places_of(units, images, of=of, fn=self.features([layer]), layer=layer)
        num = len(places["image"])
        dtype = jax.dtypes.canonicalize_dtype(images.dtype)
        pictures = {way: np.zeros((num, *images.shape[1:]), dtype) for way in ways}
        check_seed(seed)
        step, starts = self._projection_of(layer, ways), np.zeros(num, np.float32)
        crop = self._crop_of(layer, images)
        place, size = np.stack([places["row"], places["column"]], axis=1).astype(np.int32), images.shape[1:3]
        corners = np.zeros_like(place)
        if crop is not None:
            size, (corners, place) = crop.size, crop.around(*place.T)
        for rows in layer_features.full_batches(num, self.units_at_once):
            fed = [
                images[n, y : y + size[0], x : x + size[1]]
                for n, (y, x) in zip(places["image"][rows], corners[rows], strict=True)
            ]
            some = [places["channel"][rows], *place[rows].T]
            drawn, starts[rows] = step(self.params, np.stack(fed), *some, seed == "one")
            for way, sheet in pictures.items():
                for n, picture, (y, x) in zip(rows, np.asarray(drawn[way]), corners[rows], strict=True):
                    sheet[n, y : y + size[0], x : x + size[1]] = picture
        warn_below_zero(starts, seed=seed)
        return pictures

    def receptive_field(self, layer: str) -> ReceptiveField | None:
        """What was said of it, or else what the program proves; None where neither is."""
        check_layer(self, layer)
        given = self.receptive_fields or {}
        if layer not in given and layer not in self._fields:
            known = len(self.shapes[layer]) == 3 and self._keeps_places
            shape = self._prepared_shape.shape[1:]
            self._fields[layer] = field_of(self._map_of(layer), shape, np.float32) if known else None
        return given[layer] if layer in given else self._fields[layer]

    @cached_property
    def _compiled(self) -> dict[Any, Callable[..., Any]]:
        return {}  # one function object for equal arguments, so that JAX finds what it compiled; kept as long as `self`

    @cached_property
    def _crops(self) -> dict[Any, Crop | None]:
        return {}  # by layer and type: what `crop_of` could prove

    @cached_property
    def _keeps_places(self) -> bool:
        """Whether a pixel of a picture changes the image at its own place alone: preprocessing may move pixels."""
        if self.preprocess is None:
            return True
        height, width = size_of(self.image_size)
        place = (height // 3, width // 4)
        black = jnp.zeros((1, height, width, self.channels), jnp.float32)
        before, after = (self._preprocessed(crops) for crops in (black, black.at[(0, *place)].set(255)))
        if np.shape(before)[:3] != (1, height, width):
            return False
        return np.argwhere(np.any(before != after, axis=(0, 3))).tolist() == [list(place)]

    @cached_property
    def _fields(self) -> dict[str, ReceptiveField | None]:
        return {}  # by layer: what `field_of` could prove

    def _map_of(self, layer: str) -> Callable[[jax.Array], jax.Array]:
        return lambda images: self._called(self.params, images, (layer,))[layer]

    def _function_of(self, layers: tuple[str, ...], rule: Rule | None = None) -> Callable[..., Any]:
        def chosen(params: Any, images: jax.Array) -> dict[str, jax.Array]:
            called = partial(self._called, params, layers=layers)
            return (called if rule is None else with_relu_rule(called, rule, on_unknown="keep"))(images)

        return self._compiled.setdefault((layers, rule), chosen)

    def _crop_of(self, layer: str, images: np.ndarray) -> Crop | None:
        """What of an image is enough for most units of the layer, where the engine can prove it."""
        if len(self.shapes[layer]) != 3 or images.shape[1:] != (*size_of(self.image_size), self.channels):
            return None
        dtype = jax.dtypes.canonicalize_dtype(images.dtype)
        if (layer, dtype) not in self._crops:
            self._crops[layer, dtype] = crop_of(self._map_of(layer), images.shape[1:], dtype)
        return self._crops[layer, dtype]

    def _projection_of(self, layer: str, ways: tuple[Way, ...]) -> Callable[..., Any]:
        is_dense = len(self.shapes[layer]) == 1

        @jax.jit
        def projected(params: Any, images: Any, channel: Any, row: Any, column: Any, from_one: Any) -> Any:
            unit = Unit(channel, None if is_dense else (row, column))
            pictures = {}
            for way in ways:  # XLA sees that all go up alike
                pictures[way], top = projected_from(
                    lambda images: self._called(params, images, (layer,))[layer],
                    images,
                    unit=unit,
                    rule=way,
                    on_unknown=self.on_unknown,
                    on_mixing=self.on_mixing,
                    from_one=from_one,
                )
            return pictures, top.reshape(len(top), -1).sum(axis=1)

        return self._compiled.setdefault((layer, ways), projected)

    def _function(self, params: Any) -> Callable[[jax.Array], Any]:
        return self.fn if self.params is None else partial(self.fn, params)

    def _called(self, params: Any, images: jax.Array, layers: Sequence[str] = ()) -> dict[str, jax.Array]:
        """The features of these layers, or of all."""
        fn, layers = self._function(params), layers or self.layers
        if self._inside:
            return features_of(fn, layers, images)
        every = fn(images)
        return {layer: every[layer] for layer in layers}

    @cached_property
    def _inside(self) -> bool:
        """Some of the layers are none that `fn` gives by their name."""
        shapes = jax.eval_shape(self._function(self.params), self._prepared_shape)
        return not isinstance(shapes, Mapping) or not shapes.keys() >= set(self.layers)

    def _preprocessed(self, crops: jax.Array) -> jax.Array:
        return crops / 255 if self.preprocess is None else self.preprocess(crops)


def places_of(units: Unit, images: np.ndarray, *, of: Any, fn: Features, layer: str) -> dict[str, np.ndarray]:
    """{"image", "channel", "row", "column"}, int32 [N] each, of units in images; UserError for one that is not there.

    Args:
      units, images, of, layer: as for `Net.project`.
      fn: the layer's features; run only where the units do not say their places.
    """
    units = as_unit(units)
    shape = jax.eval_shape(fn, jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype))[layer].shape[1:]
    if units.channel is None:
        raise UserError(f"units={units}: a channel is needed, to project each unit alone")
    given = [units.channel, *(units.position or ()), *(() if of is None else (of,))]
    if not all(np.issubdtype(np.asarray(value).dtype, np.integer) for value in given):
        raise UserError(f"units={units}, of={of}: whole numbers are needed")
    lengths = {len(value) for value in given if np.ndim(value)} or {1 if of is not None else len(images)}
    (num, *others) = sorted(lengths)
    if others:
        raise UserError(f"units of {sorted(lengths)} channels, places or images: one number each, or as many of each")
    if of is None and len(images) not in (1, num):
        raise UserError(f"images of shape {images.shape} for {num} units: one image, {num}, or `of` is needed")
    image = of if of is not None else np.arange(num) if len(images) == num else np.zeros(num, int)
    image, channel = (np.broadcast_to(np.asarray(value, np.int32), num) for value in (image, units.channel))
    _check_range("image", image, len(images), layer)
    _check_range("channel", channel, shape[-1], layer)
    zeros = np.zeros(num, np.int32)
    if len(shape) == 1:
        if units.position is not None:
            raise UserError(f"position={units.position}: layer {layer!r} is dense and has no places, only channels")
        row, column = zeros, zeros
    elif units.position is None:
        maps = layer_features.in_batches(fn, images, batch_size=LOOKED_AT_ONCE)[layer]
        own = maps.reshape(len(images), -1, shape[-1])[image, :, channel]
        row, column = (place.astype(np.int32) for place in np.unravel_index(own.argmax(axis=1), shape[:2]))
    else:
        row, column = (np.broadcast_to(np.asarray(value, np.int32), num) for value in units.position)
        _check_range("row", row, shape[0], layer)
        _check_range("column", column, shape[1], layer)
    return {"image": image, "channel": channel, "row": row, "column": column}


def project_ways(
    net: Net,
    images: Any,
    units: Unit,
    *,
    ways: Sequence[Way],
    layer: str | None = None,
    of: Any = None,
    seed: Seed = "value",
) -> dict[Way, np.ndarray]:
    """{way: `net.project` by it}; a network with a `project_ways` of its own lets each image go up once for all."""
    if not ways:
        raise UserError(f"ways={ways!r}: at least one of {', '.join(WAYS)} is needed")
    if (own := getattr(net, "project_ways", None)) is not None:
        pictures: dict[Way, np.ndarray] = own(images, units, ways=ways, layer=layer, of=of, seed=seed)
        return pictures
    asked: dict[str, Any] = {} if seed == "value" else {"seed": seed}  # which not every network can be
    return {way: net.project(images, units, layer=layer, of=of, way=way, **asked) for way in ways}


def _check_range(name: str, values: np.ndarray, limit: int, layer: str) -> None:
    if values.size and not (0 <= values.min() and values.max() < limit):
        raise UserError(f"{name} from {values.min()} to {values.max()} of layer {layer!r}: 0 to {limit - 1} is needed")


def features_of_pictures(net: Net, layers: Sequence[str]) -> Features:
    """fn(pictures uint8 [B, *picture_size, C]) -> {layer: features}, of their centres as `net.prepare` makes them.

    Examples:
      >>> import numpy as np, zfjax
      >>> net = zfjax.FunctionNet(lambda images: {"mean": images.mean((1, 2))}, image_size=8, name="a")
      >>> zfjax.nets.features_of_pictures(net, ["mean"])(np.full((1, 8, 8, 3), 255, np.uint8))
      {'mean': Array([[1., 1., 1.]], dtype=float32)}
    """
    if isinstance(net, OfTable) and net.mean.ndim == 3:
        return layer_features.layers_of_pictures(net.params, net.mean, layers, architecture=net.architecture)
    if isinstance(net, FunctionNet):
        return net.features_of_pictures(layers)
    fn = net.features(layers)
    return lambda pictures: fn(net.prepare(pictures))


def home_of(net: Net) -> Path:
    """The folder below which figures and scans of a network go: its run's, or one below `runs/` of its name."""
    run = getattr(net, "run", None)
    return run if isinstance(run, Path) else RUNS / file_name(net.name)


def newest_run() -> Path:
    """The run under `runs/` whose newest checkpoint is the youngest; FileNotFoundError naming how to make one."""
    folders = sorted(RUNS.glob("*/checkpoints/*/network"), key=lambda network: network.stat().st_mtime)
    if not folders:
        raise NotThereError(
            f"no trained network under {RUNS}/: make one with `python -m experiments.train_imagenet --preset demo`, "
            "or name its folder"
        )
    return folders[-1].parents[2]


def load_net(net: Path | str | None = None) -> Net:
    """A network by its name.

    Args:
      net: a run folder or a checkpoint; "squeezenet:DIR", the folder of SqueezeNet v1.0's weights;
        "torchvision:KIND:FILE", as "torchvision:resnet18:resnet18.pth"; "module:NAME", a
        Python object that is, or returns, a `Net`, or {epoch: Net}, of which the last is taken; None for the newest
        run under `runs/`.

    Raises:
      FileNotFoundError: no such run.
      UserError: a name that is none of these, or a checkpoint that is damaged.

    Examples:
      >>> import zfjax
      >>> zfjax.load_net("runs/none")
      Traceback (most recent call last):
      ...
      zfjax.errors.NotThereError: no checkpoint at ...none: a run's folder or one of its checkpoints/<step> is needed
    """
    kind, _, rest = str(net).partition(":")
    check_name("net", net) if net is not None else None
    if (
        net is None
        or Path(net).exists()
        or not (kind in ("squeezenet", "torchvision") or _MODULE_AND_NAME.fullmatch(str(net)))
    ):
        return _trained(net)
    if kind == "torchvision":
        from zfjax.pretrained import torchvision

        name, _, path = rest.partition(":")
        return torchvision(name, Path(path)).as_net()
    if kind == "squeezenet":
        from zfjax.pretrained import squeezenet

        return squeezenet(Path(rest)).as_net()
    return _of_module(kind, rest)


def load_epochs(net: Path | str | None) -> dict[int, Net] | None:
    """{epoch: net}, ascending, where `net` is "module:NAME" of what is, or returns, such a mapping; else None.

    UserError for a mapping of something else, or of nets that do not have the same layers.

    Examples:
      >>> import zfjax
      >>> epochs = zfjax.nets.load_epochs("runs/zfnet")  # doctest: +SKIP
      >>> sorted(epochs)  # doctest: +SKIP
    """
    if net is None or Path(net).exists() or not _MODULE_AND_NAME.fullmatch(str(net)):
        return None
    module, _, name = str(net).partition(":")
    value = _made(module, name)
    return _epochs_of(value, module, name) if isinstance(value, Mapping) else None


class _Settings(TypedDict):
    """What a checkpoint's settings say of a network, beside what training wants of them."""

    data: str
    class_names: list[str]
    config: NotRequired[dict[str, object]]


def _trained(net: Path | str | None) -> TrainedNet:
    from zfjax.training import checkpoints  # with Orbax, which only this needs

    path = checkpoints.find(newest_run() if net is None else Path(net))
    read = checkpoints.load(path)
    if (fault := next(schema.faults(read.settings, _Settings, "settings"), None)) is not None:
        raise UserError(f"checkpoint {path} was not written for looking at its network: {fault}; save it with that too")
    return TrainedNet(
        read.architecture,
        read.params,
        read.mean,
        path,
        path.parents[1],
        _data_of(read.settings, read.mean),
        tuple(read.settings["class_names"]),
        digest(dict(read.params)),
        _training_of(read),
    )


def _training_of(read: checkpoints.Checkpoint) -> Training:
    """What a checkpoint says of it; older ones did not write down the number of images, and count whole epochs."""
    num_images = read.settings.get("num_images")
    epochs = read.step / max(1, num_images // read.recipe.batch_size) if num_images else float(read.annealing.epoch)
    return {
        "num_classes": len(read.settings["class_names"]),
        "num_images": num_images,
        "epochs": None if "imported" in read.settings else epochs,
        "width": width_of(read.architecture),
    }


def _data_of(settings: Mapping[str, Any], mean: np.ndarray) -> str:
    """What a run was trained on; older ones did not write down the size where one was there, which the mean tells."""
    config, data = settings.get("config", {}), str(settings["data"])
    asked = config.get("data") == "imagenet" and config.get("data_size") is None
    return f"{data}:{len(mean)}" if asked else data


def object_of(net: str) -> Any:
    """What "module:NAME" names; UserError where there is no such module or name, or with the line that asks amiss."""
    if not _MODULE_AND_NAME.fullmatch(net):
        raise UserError(f"net={net!r}: module:NAME of a Python object is needed")
    module, _, name = net.partition(":")
    try:
        room = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        raise UserError(f"net={module}:{name}: there is no module {error.name!r} here") from error
    except UserError as error:  # of what the module itself asks of zfjax
        line = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"][-1]
        raise UserError(f"net={module}:{name}: {line.filename}, line {line.lineno}: {error}") from error
    if not hasattr(room, name):
        raise UserError(f"net={module}:{name}: module {module!r} has no attribute {name!r}")
    return getattr(room, name)


def _of_module(module: str, name: str) -> Net:
    value = _made(module, name)
    if isinstance(value, Mapping):
        return list(_epochs_of(value, module, name).values())[-1]
    return _checked_net(value, module, name)


def _made(module: str, name: str) -> Any:
    """What "module:NAME" names, or what it returns where it is a function."""
    value = object_of(f"{module}:{name}")
    if not callable(value) or hasattr(value, "prepare"):
        return value
    if needed := _arguments_of(value):
        raise UserError(
            f"net={module}:{name}: a {type(value).__name__} that takes {', '.join(needed)} is no Net; make "
            "one with zfjax.FunctionNet, or a function without arguments that returns one; `zfjax layers` and `zfjax "
            "explain` take a function of images with --image-size"
        )
    return value()


def _epochs_of(value: Mapping[Any, Any], module: str, name: str) -> dict[int, Net]:
    if not value or not all(isinstance(epoch, int) and epoch >= 0 for epoch in value):
        raise UserError(
            f"net={module}:{name}: {{epoch: net}} with whole numbers as epochs is needed, not {list(value)}"
        )
    by_epoch = {epoch: _checked_net(value[epoch], module, name) for epoch in sorted(value)}
    layers = {tuple(net.layers) for net in by_epoch.values()}
    if len(layers) > 1:
        raise UserError(
            f"net={module}:{name}: its nets have different layers, {' and '.join(map(str, sorted(layers)))}"
        )
    return by_epoch


def _checked_net(net: Any, module: str, name: str) -> Net:
    if isinstance(net, FunctionNet) and net.name == FunctionNet.name:  # it was not given one
        net = replace(net, name=f"{module}.{name}")
    needed = [attribute for attribute in vars(Net) if attribute[0] != "_"]
    if missing := [attribute for attribute in needed if not hasattr(net, attribute)]:
        raise UserError(
            f"net={module}:{name}: a {type(net).__name__} is no Net, as it has no {', '.join(missing)}; make one with "
            "zfjax.nets.FunctionNet"
        )
    checked: Net = net
    return checked


def _arguments_of(function: Callable[..., Any]) -> list[str]:
    """The arguments that have to be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in
        return []
    given = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.default is p.empty]
    return [parameter.name for parameter in given]


def _layer_of(units: Unit, layer: str | None) -> str:
    """The layer that `layer=` or the units name; UserError where neither does, or they disagree."""
    named = one_layer(as_unit(units), layer)
    if named is None:
        raise UserError("layer=None: say in which layer the units stand")
    return named


def _check_shape(argument: str, given: Any, needed: Sequence[int], net: str) -> None:
    """UserError for pictures or images [B, ...] that are not of the network's shape."""
    if tuple(given.shape[1:]) != tuple(needed):
        raise UserError(
            f"{argument} of shape {tuple(given.shape)}: [B, {', '.join(map(str, needed))}] is needed, as {net} takes "
            "them"
        )


def _checked(way: Way) -> Way:
    if way not in WAYS:
        raise UserError(f"way={way!r}: one of {', '.join(map(repr, WAYS))} is needed")
    return way


class Views(NamedTuple):
    """The centre crops of N examples, as the network and as a reader sees them; [h, w] is the net's image size."""

    images: np.ndarray  # float32 [N, h, w, C] the net's input
    pictures: np.ndarray  # uint8 [N, h, w, 3]
    labels: np.ndarray  # int32 [N]; -1 where the set does not say
    objects: np.ndarray | None  # bool [N, h, w] the pixel lies on the object; None where the set does not say
    parts: np.ndarray | None  # float32 [N, P, 2] (y, x) of the parts, pixels of the crop; None likewise
    names: tuple[str, ...] = ()  # [N] what each is called: its file's name, or its place in the split


def read_views(source: Source, indices: Sequence[int] | np.ndarray, net: Net) -> Views:
    """The examples at `indices` of a split whose pictures have the net's picture size.

    Examples:
      >>> import numpy as np, zfjax
      >>> from zfjax.data import demo
      >>> net = zfjax.FunctionNet(lambda images: {"mean": images.mean((1, 2))}, image_size=64, name="mean")
      >>> views = zfjax.nets.read_views(demo.DemoSource(1, 4, 64), np.array([0, 3]), net)
      >>> views.pictures.shape, views.labels.shape
      ((2, 64, 64, 3), (2,))
    """
    (height, width), stored_size = size_of(net.image_size), size_of(net.picture_size)
    with ThreadPoolExecutor() as pool:  # Pillow and JAX work without the interpreter's lock
        examples = list(pool.map(source.__getitem__, map(int, indices)))
    empty = np.zeros((0, *stored_size, num_channels(net)), np.uint8)
    stored = np.stack([example["image"] for example in examples]) if examples else empty
    top, left = (stored.shape[1] - height) // 2, (stored.shape[2] - width) // 2
    crop = np.s_[:, top : top + height, left : left + width]

    def known(name: str) -> np.ndarray | None:
        return np.stack([e[name] for e in examples]) if examples and all(name in e for e in examples) else None

    objects, parts = known("object"), known("parts")
    return Views(
        images=np.asarray(net.prepare(stored)),
        pictures=in_colours(stored[crop]),
        labels=np.array([example["label"] for example in examples], np.int32),
        objects=None if objects is None else objects[crop],
        parts=None if parts is None else parts - np.array([top, left], np.float32),
        names=tuple(name_of(source, int(index)) for index in indices),
    )
