"""with_relu_rule: what cannot be obeyed is named, and what to do about it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zfjax.anymodel.rules import with_relu_rule
from zfjax.errors import UserError

X, INCOMING = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)


def test_a_leaf_that_is_no_array_is_refused_as_jax_refuses_it():
    with pytest.raises(TypeError, match="as an abstract array"):
        with_relu_rule(lambda x, name: x, "deconvnet")(X, "conv1")


@pytest.mark.parametrize(
    ("fn", "arguments"), [(lambda x: x.at[x < 0].set(0.0), {}), (lambda x, train: x if train else -x, {"train": True})]
)
def test_a_function_that_jit_cannot_trace_is_told_so(fn, arguments):
    with pytest.raises((IndexError, TypeError)) as error:
        with_relu_rule(fn, "deconvnet")(X, **arguments)
    assert "zfjax traces fn as jax.jit does: it has to work under jit" in error.value.__notes__[-1]
    assert "functools.partial" in error.value.__notes__[-1]


@pytest.mark.skipif(not hasattr(jax, "new_ref"), reason="this JAX has no references")
@pytest.mark.parametrize("rounds", [None, 3])
def test_a_rectifier_that_is_written_in_place_is_not_passed_over(rounds):
    """Its value is read at another place, and would keep its gradient."""

    def fn(x):
        place = jax.new_ref(jnp.zeros_like(x))

        def write(row):
            place[row] = jax.nn.relu(x[row])

        write(...) if rounds is None else jax.lax.fori_loop(0, rounds, lambda row, _: write(row), None)
        return place[...]

    with pytest.raises(UserError, match=r"fn writes into an array in place, at .*test_relu_errors.py:\d+, .*\.at\["):
        with_relu_rule(fn, "deconvnet")(X)


def test_an_error_on_several_arguments_says_that_parameters_belong_inside():
    for fn, told in ((lambda w, x: x / w, True), (lambda w, x: x * w, None), (lambda w, x: jnp.tanh(x), True)):
        if told:
            with pytest.raises(ValueError, match="Every argument counts as input: what is none, such as parameters"):
                with_relu_rule(fn, "deconvnet")(INCOMING, X)
        else:
            with_relu_rule(fn, "deconvnet")(INCOMING, X)
    with pytest.raises(ValueError, match="on_unknown='keep'$"):
        with_relu_rule(jnp.tanh, "deconvnet")(X)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "deconv"}, r"rule='deconv': one of 'deconvnet', 'guided', 'gradient' or a function is needed"),
        ({"rule": None}, "rule=None: one of"),
        ({"rule": "guided", "on_unknown": "ignore"}, "on_unknown='ignore': one of 'error', 'keep' is needed"),
    ],
)
def test_a_wrong_argument_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        with_relu_rule(jax.nn.relu, **options)


@pytest.mark.parametrize(
    "rule", [lambda incoming, x: incoming.sum(), lambda incoming, x: incoming.astype(jnp.bfloat16), lambda *_: 0.0]
)
def test_a_rule_that_changes_the_shape_or_type_is_an_error(rule):
    with pytest.raises(ValueError, match=r"rule returned \w+\[.*\] for a rectifier of float32\[3, 5\]: the same shape"):
        jax.vjp(with_relu_rule(jax.nn.relu, rule), X)[1](INCOMING)
