"""What can be asked of any network: shapes, names, classes, training, finite weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zfjax import features as layer_features
from zfjax.architecture import ZFNET, Architecture, Conv
from zfjax.data import archives, num_channels
from zfjax.deconvnet import WAYS, Way
from zfjax.errors import UserError
from zfjax.features import Features
from zfjax.files import file_name
from zfjax.nets.functions import FunctionNet
from zfjax.nets.protocol import Net, Training, check_layer
from zfjax.nets.tables import OfTable
from zfjax.pixels import size_of
from zfjax.units import Seed, Unit
from zfjax.windows import Windows

RUNS = Path("runs")  # where runs are written and looked for, below the current directory


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
    """Readable names of the classes: "golf ball" where the class is the synset n03445777.

    Examples:
      >>> import zfjax
      >>> fn = lambda images: {"logits": images.mean((1, 2))}
      >>> names = ("n02099601", "red fox", "b")
      >>> zfjax.nets.class_words(zfjax.FunctionNet(fn, image_size=8, class_names=names))
      ('golden retriever', 'red fox', 'b')
    """
    return archives.class_words(net.class_names)


def logits_layer(net: Net) -> str | None:
    """The layer of the logits: the last one, where it is dense and the network says that its units are classes.

    A network says so by `class_names`, or by `num_classes` where they have no names. A function that gives
    {..., "logits": ...} says so by that name. None without: the last layer may be an embedding, or features.

    Examples:
      >>> import zfjax
      >>> fn = lambda images: {"maps": images[:, ::2, ::2], "mean": images.mean((1, 2))}
      >>> nets = [zfjax.FunctionNet(fn, image_size=8, num_classes=num) for num in (3, 0, None)]
      >>> [zfjax.nets.logits_layer(net) for net in nets]
      ['mean', None, None]
    """
    last = net.layers[-1]
    return last if _says_classes(net) and len(shapes_of(net, [last])[last]) == 1 else None


def _says_classes(net: Net) -> bool | None:
    """Whether the units of its last layer are classes; None where it does not say."""
    if len(net.class_names):
        return True
    if (num := getattr(net, "num_classes", None)) is not None:
        return bool(num > 0)
    return True if isinstance(net, FunctionNet) and net.gives_logits else None


def num_classes(net: Net) -> int:
    """Units of the layer of the logits; 0 where there is none."""
    logits = logits_layer(net)
    return 0 if logits is None else shapes_of(net, [logits])[logits][0]


def why_no_classes(net: Net) -> str | None:
    """Why nothing of this network can be said of classes, in words; None of one with classes."""
    last = net.layers[-1]
    if logits_layer(net) is not None:
        return None
    if len(shapes_of(net, [last])[last]) == 3:
        return f"the last layer of {net.name}, {last}, has feature maps and no classes"
    if _says_classes(net) is None:
        return (
            f"{net.name} does not say that the units of its last layer, {last}, are classes, as its class_names= or "
            "num_classes= would"
        )
    return f"{net.name} has no classes, by its num_classes"


def logit_names(net: Net) -> tuple[str, ...]:
    """What the logits stand for: the classes in words, or "unit 7" without names; () where there are no logits."""
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


def why_no_way_down(net: Net, layers: Sequence[str]) -> str | None:
    """Why the deconvnet and guided backpropagation do not lead down from all of these layers; None where they do.

    A function may hold an activation that no rule covers; the gradient leads down from there all the same.

    Examples:
      >>> import jax, zfjax
      >>> net = zfjax.FunctionNet(lambda images: {"maps": jax.nn.silu(images)}, image_size=8)
      >>> zfjax.nets.why_no_way_down(net, ["maps"]).split(" at ")[0]
      'no rule covers silu'
    """
    ask = getattr(net, "why_no_way_down", None)
    reasons = map(ask, layers) if ask is not None else ()
    return next((reason for reason in reasons if reason is not None), None)


def ways_down(net: Net, layers: Sequence[str]) -> tuple[Way, ...]:
    """Those of the three ways down that a network has from all of these layers: see `why_no_way_down`."""
    return ("deconvnet", "guided", "gradient") if why_no_way_down(net, layers) is None else ("gradient",)


def check_way_down(net: Net, layers: Sequence[str]) -> None:
    """UserError that says why, where the deconvnet does not lead down from all of these layers."""
    if (reason := why_no_way_down(net, layers)) is not None:
        raise UserError(f"net={net.name!r}: {reason}")


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
    if not ways or isinstance(ways, str):
        raise UserError(f"ways={ways!r}: a list of at least one of {', '.join(WAYS)} is needed")
    if (own := getattr(net, "project_ways", None)) is not None:
        pictures: dict[Way, np.ndarray] = own(images, units, ways=ways, layer=layer, of=of, seed=seed)
        return pictures
    asked: dict[str, Any] = {} if seed == "value" else {"seed": seed}  # which not every network can be
    return {way: net.project(images, units, layer=layer, of=of, way=way, **asked) for way in ways}


def project_windows(
    net: Net,
    images: Any,
    units: Unit,
    *,
    ways: Sequence[Way],
    layer: str | None = None,
    of: Any = None,
    seed: Seed = "value",
) -> dict[Way, Windows]:
    """`project_ways` without what is zero of each picture, where the network knows that: else of whole pictures.

    Pasted into sheets of the images' size these are the pictures; into smaller ones, parts of them.
    """
    own = getattr(net, "project_windows", None)
    if own is not None and ways:
        windows: dict[Way, Windows] = own(images, units, ways=ways, layer=layer, of=of, seed=seed)
        return windows
    pictures = project_ways(net, images, units, ways=ways, layer=layer, of=of, seed=seed)
    corner = {way: np.zeros(len(of_way), np.int32) for way, of_way in pictures.items()}
    return {way: Windows(of_way, corner[way], corner[way]) for way, of_way in pictures.items()}


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
