"""The zoo: nets in the words of five frameworks, what the engine says of each, and how its pictures are checked."""

import importlib.util
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras_nets
import numpy as np
import other_nets
import twins
import weights

import zfjax


class Animal(NamedTuple):
    """A net, and what is known of it beforehand."""

    framework: str  # the package that it needs
    build: Callable[[], Callable[[Any], Any]]  # -> function of images
    rectifiers: int  # its ReLUs
    refused: dict[str, int] = {}  # {operation: how often it stands there} of what no rule covers
    size: int = 64  # of its images
    torch: str | None = None  # its function in `captum_twins`
    on_unknown: Any = "error"  # with which its picture is made
    twin: dict[str, Callable[..., Any]] = twins.RELUS  # its activations on the other road


def keras(name, rectifiers, refused=(), size=64, options=None, **known):
    build = partial(keras_nets.build, name, size, **(options or {}))
    return Animal("keras", build, rectifiers, dict(refused), size, **known)


BARE = {"include_preprocessing": False}
HARD = {  # MobileNetV3's
    "on_unknown": {"hard_silu": zfjax.as_relu, "relu6": "keep", "mul": "keep"},  # relu6 stands in hard sigmoids alone
    "twin": {"relu": twins.RELUS["relu"], "hard_silu": twins.AS_RELU["hard_silu"]},
}
SMOOTH = {  # EfficientNet's, with gates as well
    "on_unknown": {"silu": zfjax.as_relu, "logistic": "keep", "mul": "keep"},
    "twin": {"silu": twins.AS_RELU["silu"]},
}
GAUSSIAN = {"on_unknown": {"gelu": zfjax.as_relu}, "twin": {"gelu": twins.AS_RELU["gelu"]}}
ATTENTIVE = {**GAUSSIAN, "on_unknown": {"gelu": zfjax.as_relu, "*/MultiHeadDotProductAttention_*": "keep"}}

NETS = {
    "Keras VGG16": keras("VGG16", 15, torch="vgg16"),
    "Keras ResNet50": keras("ResNet50", 49, torch="resnet50"),
    "Keras ResNet50V2": keras("ResNet50V2", 49),
    "Keras MobileNetV2": keras("MobileNetV2", 35),
    "Keras DenseNet121": keras("DenseNet121", 121),
    "Keras InceptionV3": keras("InceptionV3", 94, size=75),  # the smallest that it takes
    "Keras NASNetMobile": keras("NASNetMobile", 192),
    "Haiku ResNet50": Animal("haiku", other_nets.haiku_resnet50, 49),
    "Haiku ResNet18 v2": Animal("haiku", other_nets.haiku_resnet18_v2, 17),
    "Haiku MobileNetV1": Animal("haiku", other_nets.haiku_mobilenet_v1, 27),
    "Linen ResNet18": Animal("flax", other_nets.linen_resnet18, 17),
    "NNX SqueezeNet": Animal("flax", other_nets.nnx_squeezenet, 14),
    "Equinox ResNet": Animal("equinox", other_nets.equinox_resnet, 7),
    "Keras MobileNetV3Small": keras(
        "MobileNetV3Small", 14, {"hard_silu": 19, "max": 9, "mul": 9}, options=BARE, **HARD
    ),
    "Keras MobileNetV3Large": keras(
        "MobileNetV3Large", 19, {"hard_silu": 21, "max": 8, "mul": 8}, options=BARE, **HARD
    ),
    "Keras EfficientNetB0": keras("EfficientNetB0", 0, {"silu": 49, "logistic": 16, "mul": 16}, **SMOOTH),
    "Keras ConvNeXtTiny": keras("ConvNeXtTiny", 0, {"erfc": 18, "mul": 18}, options=BARE, **GAUSSIAN),
    "Linen ViT": Animal(
        "flax",
        other_nets.linen_vit,
        0,
        {"dot_general": 4, "exp": 2, "integer_pow": 2, "tanh": 2, "mul": 2},
        **ATTENTIVE,
    ),
}


class Measured(NamedTuple):
    """What the engine says of a net, and does with it."""

    rules: Counter  # {rule: operations}
    refused: Counter  # {operation: how often}
    refusal: str  # what project_fn says of a net that is refused
    error: float  # of the picture against the twin's, relative
    from_gradient: float  # the same distance between the twin's picture and the gradient
    from_captum: float | None  # of the picture against Captum's, where a net has a twin in PyTorch
    seconds: float  # of the processor, for the first call of project_fn under jit
    gradient_seconds: float  # likewise of jax.grad


def measure(name):
    """Verdicts and pictures of one net; the first calls are timed one after the other, in a warm framework."""
    net = NETS[name]
    fn, images = net.build(), weights.images_for(net.size)
    report = zfjax.explain_rules(fn, images)
    rules = Counter(line.rule for line in report)
    refused = Counter(line.operation.split()[0] for line in report if line.rule == "unclassified")
    logits = jax.jit(lambda images: fn(images))(images)
    channel = int(logits.min(axis=0).argmax())  # positive in both images, as a way down begins
    assert logits[:, channel].min() > 0
    project = partial(zfjax.project_fn, fn, unit=channel, on_unknown=net.on_unknown)
    picture, seconds = timed(lambda images: project(images), images)
    gradient, gradient_seconds = timed(jax.grad(lambda images: (fn(images)[:, channel] ** 2).sum() / 2), images)
    twin = jax.jit(lambda images: twins.picture(fn, images, channel, net.twin))(images)
    captum = by_captum(net, fn, images, channel)
    return Measured(
        rules,
        refused,
        refusal_of(fn, images) if refused else "",
        error=distance(picture, twin),
        from_gradient=distance(gradient, twin),
        from_captum=None if captum is None else distance(picture, captum),
        seconds=seconds,
        gradient_seconds=gradient_seconds,
    )


def refusal_of(fn, images):
    """What project_fn says where a net has operations that no rule covers."""
    try:
        jax.eval_shape(lambda images: zfjax.project_fn(fn, images, unit=0), images)
    except zfjax.UserError as error:
        return str(error)
    return ""


def by_captum(net, fn, images, channel):
    """The picture by Captum on the net's twin in PyTorch; None without twin or Captum."""
    if net.torch is None or importlib.util.find_spec("captum") is None:
        return None
    import captum_twins

    return captum_twins.picture(getattr(captum_twins, net.torch), fn.func, images, channel)


def timed(fn, images):
    """(result, processor seconds) of the first call of fn under jit: tracing, compiling, running."""
    start = time.process_time()
    result = jax.block_until_ready(jax.jit(fn)(images))
    return result, time.process_time() - start


def distance(found, right):
    return float(jnp.linalg.norm(found - right) / np.linalg.norm(right))
