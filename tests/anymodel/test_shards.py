"""shard_map is followed like any other call: what a device does with its part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from zfjax import Unit, UserError, explain_rules, project_fn, with_relu_rule

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6)).astype(np.float32)
INCOMING = RNG.normal(size=(4, 6)).astype(np.float32)
KERNEL = RNG.normal(size=(6, 6)).astype(np.float32)
MESH = Mesh(np.array(jax.devices()[:2]), ("devices",))
IMAGES, CHANNELS = P("devices"), P(None, "devices")
RELUS = {
    "jax.nn.relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "mask": lambda x: x * (x > 0).astype(x.dtype),
    "clip": lambda x: jnp.clip(x, 0, 6),
    "zeros from outside": lambda x, zeros=jnp.zeros((1, 6)): jnp.maximum(x, zeros),  # noqa: B008
}


def sharded(fn, spec=IMAGES, **options):
    return jax.shard_map(fn, mesh=MESH, in_specs=spec, out_specs=spec, **options)


def way_back(fn, rule, **options):
    return jax.jit(lambda x, incoming: jax.vjp(with_relu_rule(fn, rule, **options), x)[1](incoming)[0])(X, INCOMING)


@pytest.mark.parametrize("form", RELUS)
def test_a_rectifier_on_every_device_follows_the_rule(form):
    def model(x):
        return RELUS[form](x @ KERNEL) @ KERNEL

    line, *_ = explain_rules(sharded(model), X)
    assert (line.rule, line.shape) == ("rectifier", "float32[2,6]")
    for rule in ("deconvnet", "guided"):
        np.testing.assert_allclose(way_back(sharded(model), rule), way_back(model, rule), rtol=1e-5, atol=1e-5)


def test_without_checked_types_and_with_channels_on_several_devices():
    model = sharded(lambda x: jax.nn.relu(x) * 2, CHANNELS, check_vma=False)
    expected = way_back(lambda x: jax.nn.relu(x) * 2, "deconvnet")
    np.testing.assert_allclose(way_back(model, "deconvnet"), expected, rtol=1e-6)


def test_what_is_unknown_inside_is_named_and_kept_alone():
    """on_unknown="keep" keeps the gradient of the tanh, not of the relu below it."""

    def model(x):
        return jnp.tanh(jax.nn.relu(x @ KERNEL))

    with pytest.raises(UserError, match=r"tanh in shard_map float32\[2,6\] at .*test_shards.py"):
        way_back(sharded(model), "deconvnet")
    kept = way_back(sharded(model), "deconvnet", on_unknown="keep")
    np.testing.assert_allclose(kept, way_back(model, "deconvnet", on_unknown="keep"), rtol=1e-4, atol=1e-5)
    assert np.abs(kept - way_back(model, "gradient")).max() > 0.1


def test_images_on_several_devices_are_alone_unless_their_statistics_are_joined():
    def alone(x):
        return jax.nn.relu(x @ KERNEL)

    def joined(x):
        return jax.nn.relu(x - jax.lax.pmean(x, "devices"))

    def joined_on_each(x):
        return jax.nn.relu(x - x.mean(axis=0, keepdims=True))

    pixels = jax.jit(lambda x: project_fn(sharded(alone), x, unit=Unit(1)))(X)
    np.testing.assert_allclose(pixels, project_fn(alone, X, unit=Unit(1)), rtol=1e-5)
    for model, words in ((joined, "of several devices"), (joined_on_each, "reduce_sum of float32\\[2, 6\\]")):
        with pytest.raises(UserError, match=words):
            project_fn(sharded(model), X, unit=Unit(1))


def test_what_every_device_makes_meets_what_it_is_made_of_outside():
    """A leaky rectifier of which one half runs in shard_map is refused; a residual with weights between is none."""
    relu = jax.nn.relu
    leaky = explain_rules(lambda x: sharded(relu)(z := x @ KERNEL) + 0.5 * z, X)
    assert [line.rule for line in leaky] == ["unclassified"]
    slope = explain_rules(lambda x: jnp.maximum(z := x @ KERNEL, sharded(lambda part: 0.1 * part)(z)), X)
    assert [line.rule for line in slope] == ["unclassified"]
    residual = explain_rules(lambda x: sharded(lambda part: relu(part) @ KERNEL)(z := x @ KERNEL) + z, X)
    assert [line.rule for line in residual] == ["rectifier"]
