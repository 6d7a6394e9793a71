"""Compiled steps live as long as the functions that they were compiled for, and no longer."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from zfjax import Unit, features, nets
from zfjax.analyses import correspondence, invariance, maximization, occlusion, sanity, top_activations
from zfjax.programs import compiled

IMAGE = np.ones((4, 4, 3), np.float32)
CORNERS = occlusion.places(4, 2, 2)


def _maps(fn):
    return lambda images: fn(images)[:, None]


def _scan(fn):
    batch = {"image": np.stack([IMAGE] * 4), "index": np.arange(4)}
    top_activations.scan(_maps(fn), [batch], top_activations.init(1, 1))


def _net_of(fn):
    return nets.FunctionNet(lambda images: {"maps": images, "logits": jnp.stack([fn(images)] * 2, 1)}, image_size=4)


def _project(fn):
    _net_of(fn).project(IMAGE[None], Unit(1), layer="logits")


def _sanity(fn):
    ways = sanity.ways_of(_net_of(fn), "maps", IMAGE[None])
    ways.down(jnp.ones((1, 2)), "logits")


ANALYSES = {
    "in_batches": lambda fn: features.in_batches(fn, IMAGE[None]),
    "sweep": lambda fn: occlusion.sweep(fn, IMAGE, CORNERS, square=2, fill=0.0),
    "batch_size_within": lambda fn: occlusion.batch_size_within(fn, IMAGE, memory=8),
    "scan": _scan,
    "maximize": lambda fn: maximization.maximize(_maps(fn), IMAGE[None], jax.random.key(0), channel=0, steps=1),
    "curves": lambda fn: invariance.curves(
        fn, IMAGE[None], transform=invariance.TRANSFORMS["scale"], amounts=[1.0], size=4
    ),
    "sign_changes": lambda fn: correspondence.sign_changes(fn, IMAGE[None], np.full((1, 1, 2), 2.0), side=1),
    "project": _project,
    "sanity": _sanity,
}


@pytest.mark.parametrize("analysis", ANALYSES)
def test_no_analysis_keeps_a_function_that_is_gone(analysis):
    left = []
    for weight in (2.0, 3.0):
        fn = lambda images, weight=weight: jnp.float32(weight) * images.sum((1, 2, 3))  # noqa: E731
        ANALYSES[analysis](fn)
        left.append(weakref.ref(fn))
    del fn
    gc.collect()
    assert [ref() for ref in left] == [None, None]


class Model:
    """Counts how often it is traced."""

    traces = 0

    def method(self, images):
        self.traces += 1
        return images.sum((1, 2, 3))


class Slim:
    """Nothing can refer to it weakly."""

    __slots__ = ("weight",)

    def __call__(self, images):
        return images.sum((1, 2, 3)) * self.weight


def test_the_same_function_or_method_is_compiled_once():
    model = Model()
    bound = functools.partial(lambda of, images: of.method(images), model)
    for fn in (model.method, model.method, bound, bound, Partial(bound), Partial(bound)):
        features.in_batches(fn, IMAGE[None])
    assert model.traces == 2  # as a method, and inside the partial


def test_what_cannot_be_held_weakly_is_compiled_at_every_call():
    fn = Slim()
    for fn.weight in (jnp.float32(1), jnp.float32(2)):
        np.testing.assert_array_equal(features.in_batches(fn, IMAGE[None]), [48 * fn.weight])


def test_functions_inside_functions_and_trees_are_filled_in_again():
    @compiled
    def step(tree, x):
        return tree["outer"](x) + tree["offset"]

    def scaled(inner, weight, x):
        return inner(x) * weight

    tree = {"outer": Partial(scaled, Partial(jnp.sin), jnp.float32(3)), "offset": jnp.float32(1)}
    np.testing.assert_allclose(step(tree, jnp.float32(0.5)), 3 * np.sin(0.5) + 1, rtol=1e-6)
    assert step.lower(tree, jnp.float32(0.5)).compile() is not None
