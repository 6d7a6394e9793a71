"""Training as sec. 3 describes it: one step of SGD with momentum and renormalisation, and the annealing rule.

A run is a pure function of (recipe, seed, data). Every random draw of a step is made from the seed, the step and the
image's place in the global batch, never from the device, so one device, four, and two hosts make the same draws.
`renormalize` is sec. 3's remedy against a few first-layer filters that dominate.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from zfjax import pixels
from zfjax.architecture import Architecture
from zfjax.errors import UserError
from zfjax.network import ConvNet, Params, forward
from zfjax.parallel import AXIS

InitializationName = Literal["paper", "he", "he_even"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the paper's (sec. 3).

    Examples:
      >>> from zfjax.training import Recipe
      >>> Recipe(batch_size=64, num_epochs=10, initialization="he", annealing="cosine").learning_rate
      0.01
    """

    batch_size: int = 128  # images per step, over all devices of all hosts
    num_epochs: int = 70
    learning_rate: float = 1e-2  # at the start
    momentum: float = (
        0.9  # Paper is silent on its form: v = momentum v + gradient, w -= rate v, without Nesterov's step
    )
    weight_decay: float = 0.0  # Paper is silent: it mentions none; of every parameter, biases too
    # Paper is silent on when it annealed "by hand when the validation error plateaus": see `anneal`
    annealing: Literal["plateau", "cosine"] = "plateau"
    patience: int = 3  # plateau: epochs without a better validation error before a drop
    # How the weights begin; a pair with Architecture.input_scale: see INITIALIZATIONS
    initialization: InitializationName = "paper"
    renormalize_radius: float | None = 0.1  # None trains without renormalisation, for comparison
    # "ten": one of the paper's fixed sub-crops (corners and centre, mirrored or not), the default because it is the
    # paper's; "random": anywhere, mirrored or not, for small sets, which it keeps from being learnt by heart
    crops: pixels.Crops = "ten"
    compute_dtype: Literal["float32", "bfloat16"] = "float32"  # parameters stay float32
    seed: int = 0

    def __post_init__(self) -> None:
        radius = self.renormalize_radius
        rules = {
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "num_epochs": (self.num_epochs >= 1, "at least 1"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a finite number above 0"),
            "momentum": (0 <= self.momentum < 1, "0 or more and below 1"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "a finite number of 0 or more"),
            "patience": (self.patience >= 1, "at least 1"),
            "renormalize_radius": (radius is None or radius > 0, "a number above 0, or None"),
            "seed": (0 <= self.seed < 2**32, "0 or more and below 2**32"),
            "annealing": (self.annealing in ("plateau", "cosine"), "'plateau' or 'cosine'"),
            "initialization": (self.initialization in INITIALIZATIONS, " or ".join(map(repr, INITIALIZATIONS))),
            "crops": (self.crops in ("ten", "random"), "'ten' or 'random'"),
            "compute_dtype": (self.compute_dtype in ("float32", "bfloat16"), "'float32' or 'bfloat16'"),
        }
        _check(self, rules)


def _check(row: object, rules: Mapping[str, tuple[bool, str]]) -> None:
    for field, (holds, rule) in rules.items():
        if not holds:
            raise UserError(f"{field}={getattr(row, field)!r}: {rule} is needed")


class TrainState(NamedTuple):
    """The state that a training step updates."""

    step: jax.Array | np.ndarray  # int32 [], steps done
    params: Params
    optimizer: Any  # optax state; its hyperparams hold the learning rate


class Metrics(NamedTuple):
    """Sums over the global batch of one step."""

    loss: jax.Array  # summed cross-entropy, nats
    correct: jax.Array  # number of images whose most probable class is the true one
    count: jax.Array  # type: ignore[assignment]  # number of images; hides tuple.count
    gradient_norm: jax.Array  # Euclidean norm of the mean gradient, before the update


class Initialization(NamedTuple):
    """How the kernels begin; biases begin at 0."""

    kernel: nn.initializers.Initializer
    first_layer: float  # factor on the first layer's kernel
    input_scale: float  # factor on mean-subtracted pixels (standard deviation about 58) that goes with it
    last_layer: float = 1.0  # factor on the last layer's kernel


# "paper": "initialised to 1e-2", read as a standard deviation, on raw pixels; nets of reduced width do not train so.
# "he": there they do. The first layer begins at a seventh of He's scale, on pixels seven times larger: the same
# function, but at He's own scale renormalisation's radius holds the filters at the noise that they began with.
# "he_even": the same, where all classes begin about equally probable. He's own logits begin at a size of 2, alike for
# all images; with hundreds of classes the first steps at a rate of 1e-2 undo that by switching off most maps for good.
_HE = Initialization(nn.initializers.he_normal(), first_layer=1 / 7, input_scale=7 / 58)
INITIALIZATIONS: dict[InitializationName, Initialization] = {
    "paper": Initialization(nn.initializers.normal(1e-2), first_layer=1.0, input_scale=1.0),
    "he": _HE,
    "he_even": _HE._replace(last_layer=1 / 20),
}


def make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """SGD with momentum; the learning rate is state, so that it can be annealed and set by hand."""

    def sgd(learning_rate: jax.Array) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(recipe.weight_decay)
        return optax.chain(decay, optax.sgd(learning_rate, recipe.momentum))

    return optax.inject_hyperparams(sgd)(learning_rate=recipe.learning_rate)


def init_params(key: jax.Array, *, architecture: Architecture, initialization: InitializationName) -> Params:
    """Fresh parameters by one of `INITIALIZATIONS`; also under jit, vmap and `jax.eval_shape`."""
    is_traced = isinstance(jnp.zeros(()), jax.core.Tracer)  # by jit or eval_shape, where a key may be a constant
    make = _init_params if is_traced else _compiled_init_params
    return make(key, architecture=architecture, initialization=initialization)


def _init_params(key: jax.Array, *, architecture: Architecture, initialization: InitializationName) -> Params:
    rule = INITIALIZATIONS[initialization]
    images = jnp.zeros((1, *architecture.image_shape), jnp.float32)
    params = dict(ConvNet(architecture, kernel_init=rule.kernel).init(key, images)["params"])
    layers = architecture.layer_names
    for name, factor in ((layers[0], rule.first_layer), (layers[-1], rule.last_layer)):
        params[name] = {**params[name], "kernel": params[name]["kernel"] * factor}
    return params


# XLA takes 13 s of CPU time to optimise these random numbers for speed, and 2 s to compile them as they are.
# A compiled function with options of its own cannot be called inside another.
_compiled_init_params = jax.jit(
    _init_params,
    static_argnames=("architecture", "initialization"),
    compiler_options={"xla_backend_optimization_level": 1},
)


def init_state(recipe: Recipe, architecture: Architecture) -> TrainState:
    """Initial parameters by the recipe's rule and seed, and the initial optimizer state.

    Examples:
      >>> import zfjax
      >>> from zfjax.training import Recipe, init_state
      >>> small = (zfjax.Conv("conv1", 4, kernel=3), zfjax.Dense("fc2", 2, hidden=False))
      >>> table = zfjax.Architecture("small", small, image_size=8)
      >>> init_state(Recipe(), table).params["fc2"]["kernel"].shape
      (144, 2)
    """
    key = jax.random.key(recipe.seed)
    params = init_params(key, architecture=architecture, initialization=recipe.initialization)
    at_rest = jax.jit(make_optimizer(recipe).init)(params)  # one program, not one for each shape
    return TrainState(jnp.zeros((), jnp.int32), params, at_rest)


def learning_rate(state: TrainState) -> float:
    """The learning rate that the next step uses, as the shortest decimal number that is it in float32."""
    return float(str(np.float32(state.optimizer.hyperparams["learning_rate"])))


def with_learning_rate(state: TrainState, value: float) -> TrainState:
    """The same state, whose next step uses another learning rate."""
    old = state.optimizer.hyperparams["learning_rate"]
    new = jax.device_put(np.asarray(value, old.dtype), getattr(old, "sharding", None))
    return state._replace(optimizer=state.optimizer._replace(hyperparams={"learning_rate": new}))


def make_train_step(
    recipe: Recipe, architecture: Architecture, mean: np.ndarray
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """One step on one device's share of the batch, for `parallel.data_parallel`.

    The step crops, mirrors and mean-subtracts on the device, takes the gradient of the mean cross-entropy over the
    global batch, updates by SGD with momentum, and renormalises the filters.

    Args:
      recipe: batch size, dtype, crops, seed and optimizer.
      architecture: the table.
      mean: float32 [H, W, C], mean image of the training split; no smaller than the images of the table.

    Returns:
      step(state, batch) -> (state, Metrics), with batch = {"image": uint8 [b, H, W, C], "label": int32 [b],
      "position": int32 [b] place of the row in the global batch}. UserError for a table without logits.

    Examples:
      step = zfjax.parallel.data_parallel(make_train_step(recipe, architecture, mean), donate_state=True)
      state, metrics = step(zfjax.parallel.replicate(state), zfjax.parallel.split(batch))
    """
    if not architecture.num_classes:
        raise UserError(f"architecture {architecture.name!r}: to be trained it needs a last Dense layer, of logits")
    optimizer = make_optimizer(recipe)

    def loss_of(
        params: Params, images: jax.Array, *, labels: jax.Array, dropout_keys: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        dtype = jnp.dtype(recipe.compute_dtype)
        logits, _ = forward(params, images, architecture=architecture, dropout_key=dropout_keys, compute_dtype=dtype)
        logits = logits.astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.sum() / recipe.batch_size, (losses.sum(), (logits.argmax(axis=1) == labels).sum())

    def step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(recipe.seed), state.step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["position"])
        crop_keys, dropout_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        images = pixels.training_crops(
            batch["image"], jnp.asarray(mean), crop_keys, size=architecture.image_size, crops=recipe.crops
        )
        gradient_of = jax.grad(loss_of, has_aux=True)
        gradient, (loss, correct) = gradient_of(state.params, images, labels=batch["label"], dropout_keys=dropout_keys)
        gradient = lax.psum(gradient, AXIS)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        if recipe.renormalize_radius is not None:
            params = renormalize(params, recipe.renormalize_radius)
        sums = lax.psum((loss, correct, jnp.asarray(batch["label"].shape[0])), AXIS)
        metrics = Metrics(*sums, optax.tree.norm(gradient))  # type: ignore[call-arg]  # loses `count`
        return TrainState(state.step + 1, params, optimizer_state), metrics

    return step


@dataclass(frozen=True)
class Annealing:
    """Where the annealing of the learning rate stands after a number of epochs."""

    learning_rate: float
    epoch: int = 0  # epochs whose validation error has been seen
    best_error: float = math.inf  # lowest validation top-1 error since the last drop, share of images
    epochs_since_best: int = 0

    def __post_init__(self) -> None:
        rules = {
            "learning_rate": (0 <= self.learning_rate < math.inf, "a finite number of 0 or more"),
            "epoch": (self.epoch >= 0, "0 or more"),
            "best_error": (self.best_error >= 0, "a share of images, or infinity"),
            "epochs_since_best": (self.epochs_since_best >= 0, "0 or more"),
        }
        _check(self, rules)

    @staticmethod
    def start(recipe: Recipe) -> Annealing:
        """Before the first epoch."""
        return Annealing(recipe.learning_rate)


def anneal(annealing: Annealing, error: float, recipe: Recipe) -> Annealing:
    """The annealing after one more epoch with this validation top-1 error (share of images).

    "plateau": divide by 10 after `patience` epochs in a row without an error at least 0.1 percentage points below
    the best one, at most down to a thousandth of the recipe's rate; then the best error counts anew.
    "cosine": along half a cosine that ends at zero after the recipe's epochs, whatever the error.

    Examples:
      >>> from zfjax.training import Recipe, step
      >>> annealing = step.Annealing(learning_rate=0.01)
      >>> for error in (0.5, 0.5, 0.5, 0.5):
      ...     annealing = step.anneal(annealing, error, recipe=Recipe())
      >>> annealing.learning_rate
      0.001
    """
    return {"plateau": _anneal_on_plateau, "cosine": _anneal_by_cosine}[recipe.annealing](annealing, error, recipe)


def _anneal_on_plateau(annealing: Annealing, error: float, recipe: Recipe) -> Annealing:
    epoch = annealing.epoch + 1
    if error <= annealing.best_error - 1e-3:
        return dataclasses.replace(annealing, epoch=epoch, best_error=error, epochs_since_best=0)
    waited = annealing.epochs_since_best + 1
    lowered = annealing.learning_rate / 10
    if waited < recipe.patience or lowered < recipe.learning_rate / 1001:
        return dataclasses.replace(annealing, epoch=epoch, epochs_since_best=waited)
    return Annealing(lowered, epoch=epoch)


def _anneal_by_cosine(annealing: Annealing, error: float, recipe: Recipe) -> Annealing:
    done = annealing.epoch + 1
    before, after = (1 + math.cos(math.pi * epoch / recipe.num_epochs) for epoch in (done - 1, done))
    rate = annealing.learning_rate * after / before  # so that a rate given by hand falls on from there
    return Annealing(rate, epoch=done, best_error=min(error, annealing.best_error))


def replanned(annealing: Annealing, recipe: Recipe, num_epochs: int) -> Annealing:
    """Where the annealing stands once a run of `recipe` is to have `num_epochs` epochs.

    "cosine": the rate that the longer or shorter curve has by now, in the proportion to its own of the rate so far.
    Of a curve at its end, which is zero, no proportion is left: the rate is the new curve's. "plateau": as it is.
    """
    if recipe.annealing != "cosine" or num_epochs <= annealing.epoch or recipe.num_epochs == num_epochs:
        return annealing
    before, after = (1 + math.cos(math.pi * annealing.epoch / total) for total in (recipe.num_epochs, num_epochs))
    rate = annealing.learning_rate * after / before if before else recipe.learning_rate * after / 2
    return dataclasses.replace(annealing, learning_rate=rate)


def renormalize(params: Params, radius: float = 0.1) -> Params:
    """Scale each convolutional filter whose RMS exceeds `radius` back to that RMS (sec. 3); change nothing else.

    The RMS of a filter is taken over its height, width and input maps. Biases and dense layers are not touched.

    Args:
      params: any tree; its 4-D leaves are HWIO kernels.
      radius: above 0, in units of the weights.

    Returns:
      The same tree. UserError for a radius that is not above 0.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> params = {"conv1": {"kernel": jnp.full((3, 3, 1, 2), jnp.array([0.05, 0.4])), "bias": jnp.ones(2)}}
      >>> zfjax.renormalize(params, radius=0.1)["conv1"]["kernel"][0, 0, 0]
      Array([0.05, 0.1 ], dtype=float32)
    """
    if not radius > 0:
        raise UserError(f"radius={radius!r}: a number above 0 is needed")
    renormalized: Params = jax.tree.map(
        lambda leaf: _renormalize_kernel(leaf, radius) if leaf.ndim == 4 else leaf, params
    )
    return renormalized


def filter_rms(kernel: jax.Array | np.ndarray) -> jax.Array:
    """Root mean square of each filter of an HWIO kernel. -> [O]

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.training.step.filter_rms(np.full((3, 3, 2, 4), 0.5, np.float32))
      Array([0.5, 0.5, 0.5, 0.5], dtype=float32)
    """
    return jnp.sqrt(jnp.mean(kernel * kernel, axis=(0, 1, 2)))


def _renormalize_kernel(kernel: jax.Array, radius: float) -> jax.Array:
    rms = filter_rms(kernel)
    scale = jnp.where(rms > radius, radius / jnp.maximum(rms, radius), 1.0)
    return kernel * scale.astype(kernel.dtype)[None, None, None]
