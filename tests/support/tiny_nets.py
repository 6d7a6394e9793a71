"""Small nets, parameters and images that the tests share; every number is drawn from a fixed seed."""

from dataclasses import replace
from functools import lru_cache

import jax
import numpy as np
import reference

import zfjax

WIDTHS = {"conv1": 4, "conv2": 6, "conv3": 6, "conv4": 8, "conv5": 4, "fc6": 8, "fc7": 6, "fc8": 5}

# Every feature of the tables at a tenth of the cost: stride, lopsided padding, groups, both orders of pool and norm,
# a pool whose last window hangs over, two hidden dense layers.
MINI = zfjax.Architecture(
    name="mini",
    layers=(
        zfjax.Conv("conv1", 4, kernel=5, stride=2, padding=(1, 0), after=(zfjax.Pool(), zfjax.ContrastNorm())),
        zfjax.Conv("conv2", 6, kernel=3, padding=(1, 1), groups=2, after=(zfjax.ContrastNorm(), zfjax.Pool())),
        zfjax.Conv("conv3", 6, kernel=3, padding=(0, 1)),
        zfjax.Dense("fc6", 8),
        zfjax.Dense("fc7", 6),
        zfjax.Dense("fc8", 5, hidden=False),
    ),
    image_size=34,
    channels=3,
    input_scale=0.5,
)

# Dense layers alone, for what happens to them in training.
DENSE = zfjax.Architecture(
    name="dense",
    layers=(zfjax.Dense("fc6", 64), zfjax.Dense("fc7", 48), zfjax.Dense("fc8", 5, hidden=False)),
    image_size=4,
)

TABLES = {
    "mini": MINI,
    "mini-40x27": MINI.with_sizes(image=(40, 27)),
    "zfnet-112": zfjax.ZFNET.with_sizes(image=112, **WIDTHS),
    "zfnet-113": zfjax.ZFNET.with_sizes(image=113, **WIDTHS),
    "zfnet-224": zfjax.ZFNET.with_sizes(**WIDTHS),
    "alexnet-112": zfjax.ALEXNET.with_sizes(image=112, **WIDTHS),
}


def without_norm(table: zfjax.Architecture) -> zfjax.Architecture:
    """The table with its contrast norms left out, where the deconvnet is a VJP."""
    pools = [tuple(s for s in getattr(layer, "after", ()) if isinstance(s, zfjax.Pool)) for layer in table.layers]
    layers = (
        replace(layer, after=kept) if isinstance(layer, zfjax.Conv) else layer
        for layer, kept in zip(table.layers, pools, strict=True)
    )
    return replace(table, layers=tuple(layers))


def random_table(seed, image_size=48, *dense):
    """Strides, lopsided paddings, groups, pools that hang over or skip pixels, norms before and after them."""
    rng = np.random.default_rng(seed)
    rows = []
    for depth in range(3):
        pool = zfjax.Pool(int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        stages = [(), (pool,), (pool, zfjax.ContrastNorm(3, alpha=1e-3)), (zfjax.ContrastNorm(5, alpha=1e-2), pool)]
        kernel = int(rng.integers(1, 6))
        rows.append(
            zfjax.Conv(
                f"conv{depth}",
                features=6,
                kernel=kernel,
                stride=int(rng.integers(1, 4)) if depth < 2 else 1,
                padding=tuple(rng.integers(0, 3, 2).tolist()),
                groups=int(rng.choice([1, 3])) if depth else 1,
                after=stages[rng.integers(len(stages))],
            )
        )
    try:
        return zfjax.Architecture(f"random-{seed}", (*rows, *dense), image_size=image_size, input_scale=0.5)
    except zfjax.UserError:  # the image is too small for its strides
        return random_table(seed + 1000, image_size, *dense)


@lru_cache
def params(table: zfjax.Architecture, seed: int = 0, positive: bool = False) -> dict:
    """Weights of the right size to keep the scale of the signal, and biases that silence many units."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, size in table.sizes().items():
        kernel = rng.normal(size=size.kernel) * np.sqrt(2 / np.prod(size.kernel[:-1]))
        bias = rng.normal(-5, 10, size.kernel[-1])
        drawn[name] = {"kernel": np.abs(kernel) if positive else kernel, "bias": np.abs(bias) if positive else bias}
    return jax.tree.map(lambda x: x.astype(np.float32), drawn)


@lru_cache
def images(size: zfjax.nets.Size, batch: int = 2, seed: int = 0) -> np.ndarray:
    """Mean-subtracted pixels as the network reads them: float32 in about [-128, 128]."""
    return np.random.default_rng(seed).normal(0, 60, (batch, *zfjax.nets.size_of(size), 3)).astype(np.float32)


forward = jax.jit(zfjax.forward, static_argnames=("architecture", "compute_dtype"))


@lru_cache
def run(table: zfjax.Architecture) -> tuple:
    """(logits, trace) of the two shared images: only for tests that are about something further down."""
    return forward(params(table), images(table.image_size), architecture=table)


@lru_cache
def reference_run(table: zfjax.Architecture) -> dict:
    """The reference's trace of the same two images."""
    return reference.forward(params(table), images(table.image_size), table)


def one_unit(features: np.ndarray, channel: int = 1) -> np.ndarray:
    """The strongest place of one map kept for each image: `zfjax.isolate` written once more, in numpy."""
    features = np.asarray(features)
    top = np.zeros_like(features)
    for b, feature in enumerate(features):
        place = np.unravel_index(feature[..., channel].argmax(), feature.shape[:-1])
        top[b][*place, channel] = feature[*place, channel]
    return top


def relative_error(value, expected) -> float:
    """Largest difference over largest value."""
    expected = np.asarray(expected, np.float64)
    return float(np.abs(np.asarray(value, np.float64) - expected).max() / np.abs(expected).max())
