"""Small seeded nets, each with another way of writing its rectifiers; `torch_twins` has the same nets in PyTorch.

Images are NHWC, kernels HWIO, dense kernels [in, out] with `in` flattened from NHWC. Each function takes (params,
images [B, 17, 17, 3]) to logits [B, 5].
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zfjax.anymodel.rules import with_relu_rule

FOLDER = pathlib.Path(__file__).parent / "golden"
RULES = ("deconvnet", "guided", "gradient")

SHAPES = {  # of the kernels; every layer has a bias, but for those that a batch norm follows
    "strided": {"conv1": (5, 5, 3, 6), "conv2": (3, 3, 6, 8), "fc1": (200, 10), "fc2": (10, 5)},
    "pools": {"conv1": (3, 3, 3, 6), "conv2": (3, 3, 6, 8), "fc1": (72, 5)},
    "residual": {
        "conv1": (3, 3, 3, 6),
        "conv2": (3, 3, 6, 6),
        "conv3": (3, 3, 6, 6),
        "conv4": (3, 3, 6, 8),
        "conv5": (3, 3, 8, 8),
        "shortcut": (1, 1, 6, 8),
        "fc1": (8, 5),
    },
    "batch_norm": {"conv1": (3, 3, 3, 6), "conv2": (3, 3, 6, 8), "fc1": (72, 5)},
    "concatenation": {
        "conv1": (3, 3, 3, 6),
        "squeeze": (1, 1, 6, 4),
        "expand1": (1, 1, 4, 5),
        "expand3": (3, 3, 4, 5),
        "conv2": (1, 1, 10, 5),
    },
    "recurrent": {"conv1": (3, 3, 3, 6), "conv2": (3, 3, 3, 6), "fc1": (6, 5)},
}


def draw(name):
    """(params, images) of a net, float64; the seed is the net's place in the table."""
    rng = np.random.default_rng(list(SHAPES).index(name))
    params = {}
    for layer, shape in SHAPES[name].items():
        params[f"{layer}/kernel"] = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        params[f"{layer}/bias"] = rng.normal(size=shape[-1]) * 0.3
        if name == "batch_norm" and layer != "fc1":
            params[f"{layer}/scale"] = rng.normal(1, 0.5, shape[-1])  # some negative
            params[f"{layer}/mean"] = rng.normal(size=shape[-1])
            params[f"{layer}/variance"] = rng.uniform(0.5, 2, shape[-1])
    return params, rng.normal(size=(2, 17, 17, 3))


def conv(params, layer, maps, stride=1, padding=0, groups=1):
    filtered = lax.conv_general_dilated(
        maps,
        params[f"{layer}/kernel"],
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return filtered + params[f"{layer}/bias"][None, None, None]


def dense(params, layer, values):
    return values.reshape(len(values), -1) @ params[f"{layer}/kernel"] + params[f"{layer}/bias"][None]


def pool(maps):
    """Overlapping windows, 3x3/2."""
    return lax.reduce_window(maps, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def strided(params, images):
    maps = jax.nn.relu(conv(params, "conv1", images, stride=2, padding=2))
    maps = jax.nn.relu(conv(params, "conv2", maps, stride=2, padding=1))
    return dense(params, "fc2", jax.nn.relu(dense(params, "fc1", maps)))


@jax.jit
def pools(params, images):
    zero = jnp.zeros((), images.dtype)
    maps = pool(jnp.maximum(conv(params, "conv1", images, padding=1), zero))
    return dense(params, "fc1", pool(jnp.maximum(zero, conv(params, "conv2", maps, padding=1))))


def residual(params, images):
    """Two blocks, each with its memory freed on the way up; the second one halves the map."""

    @jax.checkpoint
    def first(maps):
        return positive(conv(params, "conv3", positive(conv(params, "conv2", maps, padding=1)), padding=1) + maps)

    @jax.checkpoint
    def second(maps):
        inside = conv(params, "conv5", positive(conv(params, "conv4", maps, stride=2, padding=1)), padding=1)
        return positive(inside + conv(params, "shortcut", maps, stride=2))

    maps = second(first(positive(conv(params, "conv1", images, padding=1))))
    return dense(params, "fc1", maps.mean((1, 2)))


def positive(x):
    return jnp.where(x > 0, x, 0)


def batch_norm(params, images):
    """In evaluation: the running statistics are constants."""
    for layer in ("conv1", "conv2"):
        maps = conv(params, layer, images, stride=2)
        spread = lax.rsqrt(params[f"{layer}/variance"] + 1e-5) * params[f"{layer}/scale"]
        maps = (maps - params[f"{layer}/mean"][None, None, None]) * spread[None, None, None]
        images = maps * (maps > 0).astype(maps.dtype)
    return dense(params, "fc1", images)


def concatenation(params, images):
    """The fire module of SqueezeNet, and its end: a rectified convolution, averaged."""
    maps = pool(jnp.clip(conv(params, "conv1", images), 0))
    squeezed = jnp.clip(conv(params, "squeeze", maps), 0)
    wide = [jnp.clip(conv(params, name, squeezed, padding=pad), 0) for name, pad in (("expand1", 0), ("expand3", 1))]
    maps = jnp.clip(conv(params, "conv2", pool(jnp.concatenate(wide, axis=3))), 0)
    return maps.mean((1, 2))


def recurrent(params, images):
    """One grouped convolution three times over, its rounds a scan."""
    maps = jax.nn.relu(conv(params, "conv1", images, stride=2))

    def again(maps, _):
        return jax.jit(jax.nn.relu)(conv(params, "conv2", maps, padding=1, groups=2) + maps), None

    maps, _ = lax.scan(again, maps, None, length=3)
    return dense(params, "fc1", maps.mean((1, 2)))


NETS = dict(zip(SHAPES, (strided, pools, residual, batch_norm, concatenation, recurrent), strict=True))


def by_rule(name, golden, rule, dtype):
    """{"logits": ..., rule: what comes down from the golden's target} by `with_relu_rule`."""
    params = {key: value.astype(dtype) for key, value in golden.items() if "/" in key}
    top = np.eye(golden["logits"].shape[1], dtype=dtype)[golden["target"]]

    @jax.jit
    def both(images, top):
        logits, down = jax.vjp(with_relu_rule(lambda images: NETS[name](params, images), rule), images)
        return logits, down(top)[0]

    logits, pixels = both(golden["images"].astype(dtype), top)
    return {"logits": logits, rule: pixels}
