"""The deconvnet of a model of yours, in the words of four frameworks: each example is short, runs, and sees its unit.

The examples are those of the guide to any model.
"""

import pathlib

import jax
import numpy as np
import pytest

import zfjax

GUIDE = (pathlib.Path(__file__).parents[2] / "docs/guides/own_model.md").read_text()

EXAMPLES = {
    "flax.linen": """\
model = nn.Sequential([nn.Conv(16, (3, 3)), nn.relu, nn.LayerNorm(), nn.Conv(8, (3, 3)), nn.relu])
params = model.init(jax.random.key(0), images)
fn = lambda images: model.apply(params, images)  # any images -> features [B, H, W, C] or [B, C]
print(zfjax.explain_rules(fn, images))  # every non-linear operation, its source line and its backward rule
pixels = jax.jit(lambda images: zfjax.project_fn(fn, images, unit=5))(images)
""",
    "flax.nnx": """\
class Model(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(16, 8, (3, 3), rngs=rngs)
    def __call__(self, images):
        return jnp.maximum(self.conv2(nnx.relu(self.conv1(images))), 0)
fn = Model(nnx.Rngs(0))
pixels = jax.jit(lambda images: zfjax.project_fn(fn, images, unit=5))(images)
""",
    "equinox": """\
conv1, conv2 = (eqx.nn.Conv2d(n, m, 3, padding=1, key=jax.random.key(n)) for n, m in [(3, 16), (16, 8)])
norm = zfjax.skipped_on_the_way_down(eqx.nn.GroupNorm(4, 16))  # the identity on the way down
def model(image):  # [C, H, W]
    return jax.nn.relu(conv2(norm(jax.nn.relu(conv1(image)))))
fn = lambda images: jnp.moveaxis(jax.vmap(model)(jnp.moveaxis(images, 3, 1)), 1, 3)
pixels = jax.jit(lambda images: zfjax.project_fn(fn, images, unit=5))(images)
""",
    "haiku": """\
layers = lambda: [hk.Conv2D(16, 3), jax.nn.relu, hk.Conv2D(8, 3), lambda x: jnp.where(x > 0, x, 0)]
model = hk.without_apply_rng(hk.transform(lambda images: hk.Sequential(layers())(images)))
params = model.init(jax.random.key(0), images)
fn = lambda images: model.apply(params, images)
pixels = jax.jit(lambda images: zfjax.project_fn(fn, images, unit=5))(images)
""",
}

IMPORTS = {
    "flax.linen": "import flax.linen as nn",
    "flax.nnx": "from flax import nnx",
    "equinox": "import equinox as eqx",
    "haiku": "import haiku as hk",
}

IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)


@pytest.mark.parametrize("framework", EXAMPLES)
def test_the_example_projects_its_unit_to_what_the_unit_sees(framework):
    """Two filters of 3x3: something within two pixels of the unit's place in each image, nothing beyond."""
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    names: dict = {"images": IMAGES, "zfjax": zfjax}
    exec("import jax, jax.numpy as jnp\n" + IMPORTS[framework] + "\n" + EXAMPLES[framework], names)
    features, pixels = np.asarray(jax.jit(names["fn"])(IMAGES)), np.asarray(names["pixels"])
    assert features.shape == (2, 16, 16, 8) and pixels.shape == IMAGES.shape
    for maps, image in zip(features, pixels, strict=True):
        row, column = np.unravel_index(maps[..., 5].argmax(), maps.shape[:2])
        seen = np.zeros((16, 16), bool)
        seen[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = True
        assert np.all(image[seen].any(axis=1)) and not image[~seen].any()
    rules = [line.rule for line in zfjax.explain_rules(names["fn"], IMAGES)]
    assert rules.count("rectifier") == 2 and "unclassified" not in rules


@pytest.mark.parametrize("framework", EXAMPLES)
def test_the_example_is_under_ten_lines(framework):
    assert EXAMPLES[framework].count("\n") + 1 < 10  # and one line of imports


@pytest.mark.parametrize("framework", EXAMPLES)
def test_the_guide_shows_the_example(framework):
    assert EXAMPLES[framework] in GUIDE
