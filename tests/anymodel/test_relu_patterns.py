"""Every way of writing a rectifier is found wherever it stands; what only looks like one is not taken for one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ways_down import OWN, down

from zfjax.anymodel.rules import explain_rules, with_relu_rule

X = np.array([[-2.5, -0.5, -0.0, 0.0, 0.5], [1.5, 2.5, 6.5, 6.0, -7.0]], np.float32)
INCOMING = np.random.default_rng(0).normal(size=X.shape).astype(np.float32)
ZERO = np.zeros((), np.float32)


def mask_times(x):
    with jax.numpy_dtype_promotion("standard"):
        return x * (x > 0)


FORMS = {
    "jax.nn.relu": jax.nn.relu,
    "maximum(x, 0)": lambda x: jnp.maximum(x, 0),
    "maximum(0, x)": lambda x: jnp.maximum(0.0, x),
    "lax.max": lambda x: lax.max(x, jnp.zeros_like(x)),
    "max with a constant array": lambda x: jnp.maximum(x, np.zeros(X.shape, np.float32)),
    "where >": lambda x: jnp.where(x > 0, x, 0),
    "where >=": lambda x: jnp.where(x >= 0, x, jnp.zeros_like(x)),
    "where <": lambda x: jnp.where(x < 0, 0.0, x),
    "where <=": lambda x: jnp.where(x <= 0, 0, x),
    "where 0 <": lambda x: jnp.where(0 < x, x, 0),
    "where signbit": lambda x: jnp.where(jnp.signbit(x), 0, x),
    "x * not signbit": lambda x: x * (~jnp.signbit(x)).astype(x.dtype),
    "select": lambda x: jnp.select([x > 0], [x], 0.0),
    "select <": lambda x: jnp.select([x < 0], [jnp.zeros_like(x)], x),
    "where not": lambda x: jnp.where(~(x > 0), 0, x),
    "where of a rounded copy": lambda x: jnp.where(x.astype(jnp.bfloat16) > 0, x, 0),
    "x * (x > 0)": mask_times,
    "mask * x": lambda x: (x > 0).astype(x.dtype) * x,
    "x * fixed mask": lambda x: x * lax.stop_gradient((x > 0).astype(x.dtype)),
    "x * where": lambda x: x * jnp.where(x > 0, 1.0, 0.0),
    "x * where not": lambda x: x * jnp.where(x <= 0, 0.0, 1.0),
    "clip": lambda x: jnp.clip(x, 0, None),
    "where in vmap over columns": jax.vmap(lambda c: jnp.where(c > 0, c, 0), in_axes=1, out_axes=1),
    "mask turned there and back": lambda x: jnp.where((x.T > 0).T, x, 0),
    "mask flat and back": lambda x: jnp.where((x.ravel() > 0).reshape(x.shape), x, 0),
    "min keyword": lambda x: jnp.clip(x, min=ZERO),
}

OF_FLOAT32 = ("max with a constant array", "min keyword")

BOUNDED = {  # with an upper bound at 6 beside the rectifier
    "relu6": jax.nn.relu6,
    "clip": lambda x: jnp.clip(x, 0, 6),
    "clamp": lambda x: lax.clamp(0.0, x, 6.0),
    "minimum first": lambda x: jax.nn.relu(jnp.minimum(x, 6)),
    "minimum last": lambda x: jnp.minimum(jnp.where(x > 0, x, 0), 6.0),
}


@jax.custom_jvp
def with_jvp(x):
    return jnp.maximum(x, 0)


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), 7 * tangents[0]))


@jax.custom_vjp
def with_vjp(x):
    return jnp.where(x > 0, x, 0)


with_vjp.defvjp(lambda x: (with_vjp(x), None), lambda _, incoming: (7 * incoming,))


def in_scan(x, relu=jax.nn.relu):
    """The rows one after the other; relu reads a constant from outside the scan too."""
    return lax.scan(lambda carry, row: (carry, relu(row)), 0, x)[1]


def in_carry(x):
    """relu(relu(relu(x))), the rounds of a scan."""
    return lax.scan(lambda carry, _: (jnp.maximum(carry, 0), None), x, None, length=3)[0]


def zero_from_outside(x):
    zero = jnp.zeros(x.shape[1:])
    return lax.map(lambda row: jnp.maximum(row, zero), x)


PLACES = {
    "jit": jax.jit(lambda x: jnp.maximum(x, 0)),
    "zero is an operand of jit": lambda x: jax.jit(jnp.maximum)(x, jnp.zeros(())),
    "mask is an operand of jit": lambda x: jax.jit(lambda m, y, z: jnp.where(m, y, z))(x > 0, x, 0.0),
    "mask comes out of jit": lambda x: jnp.where(jax.jit(lambda y: y > 0)(x), x, 0),
    "jit in jit": jax.jit(lambda x: jax.jit(jax.nn.relu)(x)),
    "remat": jax.checkpoint(lambda x: jax.nn.relu(x)),
    "scan": in_scan,
    "scan's carry": in_carry,
    "zero from outside a scan": zero_from_outside,
    "cond": lambda x: lax.cond(jnp.array(True), jax.nn.relu, lambda y: y, x),
    "the first of three branches": lambda x: lax.switch(jnp.array(0), [jax.nn.relu, jnp.negative, lambda y: y], x),
    "custom_jvp": with_jvp,
    "custom_vjp": with_vjp,
    "vmap": jax.vmap(jax.nn.relu),
    "all of them": jax.jit(jax.checkpoint(functools.partial(in_scan, relu=lambda row: jax.jit(with_vjp)(row)))),
    "another rule inside": with_relu_rule(jax.nn.relu, lambda incoming, x: 7 * incoming),
}


@pytest.mark.parametrize("form", [*FORMS, *PLACES])
def test_every_form_at_every_place_follows_the_rules_and_keeps_its_results(form):
    fn = (FORMS | PLACES)[form]
    found = down(fn, "deconvnet", "guided", "gradient", x=X, incoming=INCOMING)
    for results, _ in found.values():
        np.testing.assert_array_equal(results, found[OWN][0])
    np.testing.assert_array_equal(found["deconvnet"][1], np.maximum(INCOMING, 0))
    np.testing.assert_array_equal(found["guided"][1], np.maximum(INCOMING, 0) * (X > 0))
    np.testing.assert_array_equal(found["gradient"][1], found[OWN][1])
    inlined = [line.operation for line in explain_rules(fn, X) if line.rule == "inlined"]
    assert [line.rule for line in explain_rules(fn, X)][len(inlined) :] == ["rectifier"]
    assert bool(inlined) == (form in ("custom_jvp", "custom_vjp", "all of them", "another rule inside"))


def written_gradient(incoming, x):
    return jnp.where(x > 0, incoming, 0.0)


@pytest.mark.parametrize("form", BOUNDED)
def test_what_an_upper_bound_clips_passes_nothing_under_any_rule(form):
    """ "gradient", and a rule that writes it out, are jax.grad; the deconvnet rectifies below the bound alone."""
    expected = {
        "deconvnet": np.maximum(INCOMING, 0) * (X < 6),
        "guided": np.maximum(INCOMING, 0) * (X < 6) * (X > 0),
        written_gradient: INCOMING * (X < 6) * (X > 0),
    }
    found = down(BOUNDED[form], "gradient", *expected, x=X, incoming=INCOMING)
    np.testing.assert_array_equal(found["gradient"][1], found[OWN][1])
    no_tie = X != 6  # there JAX halves the derivative of a minimum
    for rule, value in expected.items():
        np.testing.assert_array_equal(found[rule][0], found[OWN][0])
        np.testing.assert_array_equal(found[rule][1][no_tie], value[no_tie])
    off_bounds = no_tie & (X != 0)
    np.testing.assert_array_equal(found[written_gradient][1][off_bounds], found[OWN][1][off_bounds])


def test_a_mask_that_comes_back_to_other_places_is_no_rectifiers():
    square = X[:, :2]
    for fn in (lambda x: jnp.where((x > 0).T, x, 0), lambda x: jnp.where((x.T > 0).reshape(2, 2), x, 0)):
        assert [line.rule for line in explain_rules(fn, square)] == ["unclassified"]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("form", [form for form in FORMS if form not in OF_FLOAT32])
def test_forms_are_found_in_other_floating_types(form, dtype):
    incoming = INCOMING.astype(dtype)
    found = down(FORMS[form], "deconvnet", x=X.astype(dtype), incoming=incoming)
    np.testing.assert_array_equal(found["deconvnet"][1], jnp.maximum(incoming, 0))


def test_double_precision(double_precision):
    incoming = INCOMING.astype(np.float64)
    for form in ("where >", "x * where", "clip", "zero is an operand of jit", "scan"):
        fn = (FORMS | PLACES)[form]
        results, found = down(fn, "deconvnet", x=X.astype(np.float64), incoming=incoming)["deconvnet"]
        assert results.dtype == found.dtype == np.float64
        np.testing.assert_array_equal(found, np.maximum(incoming, 0))
