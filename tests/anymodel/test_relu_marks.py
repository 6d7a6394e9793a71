"""Functions that a model marks as skipped or kept on the way down, and those with a derivative of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ways_down import OWN, compiled_operations, down

from zfjax.anymodel.rules import explain_rules, kept_on_the_way_down, skipped_on_the_way_down, with_relu_rule

X, INCOMING = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)


def norm(x):
    return x / jnp.sqrt(1 + (x * x).sum(-1, keepdims=True))


def test_a_skipped_function_is_the_identity_on_the_way_down():
    skipped = skipped_on_the_way_down(norm)
    for fn, times in {
        lambda x: skipped(3 * x): 3,
        lambda x: skipped(skipped(3 * x)): 3,
        lambda x: skipped(x) + skipped(2 * x): 3,
        lambda x: skipped(y := skipped(3 * x)) + y: 6,
        jax.vmap(lambda row: skipped(3 * row)): 3,
        jax.jit(lambda x: jax.jit(skipped)(3 * x)): 3,
        lambda x: lax.map(jax.checkpoint(lambda row: skipped(3 * row)), x): 3,
        lambda x: skipped_on_the_way_down(jax.jit(norm))(3 * x): 3,
    }.items():
        found = down(fn, "deconvnet", "guided", "gradient", x=X, incoming=INCOMING)
        np.testing.assert_allclose(found["deconvnet"][1], times * INCOMING, rtol=1e-6)
        for rule in ("guided", "gradient"):  # these two are derivatives
            np.testing.assert_array_equal(found[rule][1], found[OWN][1])
        assert np.abs(found[OWN][1] - times * INCOMING).max() > 0.1
        assert {line.rule for line in explain_rules(fn, X)} == {"skipped"}


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda x: x.sum(1), r"float32\[3\] of float32\[3, 5\]"),
        (lambda x: (2 * (y := x + 1), y), r"float32\[3, 5\], float32\[3, 5\] of float32\[3, 5\]"),
        (lambda x: x.astype(jnp.bfloat16) + 1, r"bfloat16\[3, 5\] of float32\[3, 5\]"),
    ],
)
def test_a_skipped_function_has_to_keep_the_shape(fn, words):
    marked = skipped_on_the_way_down(fn)
    for on_unknown in ("error", "keep"):
        with pytest.raises(ValueError, match=f"marked as skipped, but makes {words}: one array of one"):
            with_relu_rule(marked, "deconvnet", on_unknown=on_unknown)(X)
    assert [line.rule for line in explain_rules(marked, X)] == ["unclassified"]


def test_a_skipped_function_of_two_arrays_is_refused():
    marked = skipped_on_the_way_down(lambda x, y: x / y)
    with pytest.raises(ValueError, match="of float32"):
        with_relu_rule(lambda x: marked(2 * x, 3 * x), "deconvnet")(X)


def test_a_kept_function_keeps_its_own_gradient_rectifiers_included():
    @kept_on_the_way_down
    def attention(x):
        return jax.nn.softmax(x @ x.T) @ jax.nn.relu(x)

    found = down(attention, "deconvnet", x=X, incoming=INCOMING)
    np.testing.assert_array_equal(found["deconvnet"][1], found[OWN][1])
    assert {(line.operation, line.rule) for line in explain_rules(attention, X)} == {
        ("kept_on_the_way_down", "own gradient")
    }


def test_a_custom_derivative_without_a_rectifier_stays():
    """Gradient reversal is linear going up: listed, for nobody would see it otherwise, and obeyed."""

    @jax.custom_vjp
    def reversal(x):
        return x

    reversal.defvjp(lambda x: (x, None), lambda _, incoming: (-incoming,))
    found = down(lambda x: jax.nn.relu(reversal(2 * x)), "deconvnet", x=X, incoming=INCOMING)
    np.testing.assert_array_equal(found["deconvnet"][1], -2 * np.maximum(INCOMING, 0))
    assert [line.operation for line in explain_rules(lambda x: reversal(2 * x), X)] == ["reversal"]


def test_a_mark_changes_nothing_of_the_compiled_program():
    marked, counts = skipped_on_the_way_down(norm), compiled_operations(norm, X)
    assert compiled_operations(marked, X) == counts and sum(counts.values()) > 5
    np.testing.assert_array_equal(jax.jit(marked)(X), jax.jit(norm)(X))
