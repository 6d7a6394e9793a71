"""on_unknown by name and module path: each choice against the twin that has it written in."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ways_down import OWN, down

import zfjax
from zfjax.analyses import sanity
from zfjax.anymodel.rules import with_relu_rule
from zfjax.errors import UserError

RNG = np.random.default_rng(0)
KERNEL, OTHER = RNG.normal(size=(2, 5, 5)).astype(np.float32)
X, INCOMING = RNG.normal(size=(2, 3, 5)).astype(np.float32)


def with_rule(activation, rule):
    """The activation, with this rule on its way back."""

    @jax.custom_vjp
    def twin(x):
        return activation(x)

    twin.defvjp(lambda x: (activation(x), x), lambda x, incoming: (rule(incoming, x),))
    return twin


def outgoing(fn, *activations):
    return jax.jit(lambda x, incoming: jax.vjp(lambda x: fn(x, *activations), x)[1](incoming)[0])(X, INCOMING)


relu = with_rule(jax.nn.relu, zfjax.as_relu)


@jax.custom_jvp
def swish(x):
    return x * jax.nn.sigmoid(x)


swish.defjvp(lambda primals, tangents: (swish(*primals), 7 * tangents[0]))


@jax.jit
def by_hand(x):
    return jnp.where(x > 0, x, 0.3 * x)


def squared(x):
    with jax.named_scope("act"):
        return jax.nn.relu(x) ** 2 + 0.1 * x


ACTIVATIONS = {  # pattern, activation
    "gelu": jax.nn.gelu,
    "g?lu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "leaky_relu": jax.nn.leaky_relu,
    "hard_silu": jax.nn.hard_swish,
    "softplus": jax.nn.softplus,
    "swish": swish,
    "by_hand": by_hand,
    "act": squared,
    "*/act": squared,
    "act/*": squared,
    "tanh": jnp.tanh,
    "abs": jnp.abs,
}


@pytest.mark.parametrize("pattern", ACTIVATIONS)
def test_a_rule_goes_down_at_the_boundary_of_the_activation(pattern):
    def fn(x, activation=ACTIVATIONS[pattern], relu=jax.nn.relu):
        return relu(activation(x @ KERNEL) @ OTHER) @ KERNEL

    rule = lambda incoming, x: 2 * incoming + x  # noqa: E731
    expected = outgoing(fn, with_rule(ACTIVATIONS[pattern], rule), relu)
    found = down(fn, "deconvnet", "gradient", x=X, incoming=INCOMING, on_unknown={pattern: rule})
    np.testing.assert_allclose(found["deconvnet"][1], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["gradient"][1], found[OWN][1])
    with pytest.raises(ValueError, match="no rule covers"):
        with_relu_rule(fn, "deconvnet", on_unknown={pattern: "error"})(X)


@pytest.mark.parametrize("choices", [{"silu": "keep"}, {"silu": "gradient"}, (("silu", "keep"), ("*", "error"))])
def test_an_operation_that_is_kept_keeps_its_gradient_beside_a_ruled_rectifier(choices):
    def fn(x, relu=jax.nn.relu):
        return relu(jax.nn.silu(x @ KERNEL) @ OTHER) @ KERNEL

    found = down(fn, "deconvnet", x=X, incoming=INCOMING, on_unknown=choices)["deconvnet"][1]
    np.testing.assert_allclose(found, outgoing(fn, relu), rtol=1e-4, atol=1e-5)


READY = {
    "as_relu": (zfjax.as_relu, lambda g, x: np.maximum(g, 0)),
    "as_relu_guided": (zfjax.as_relu_guided, lambda g, x: np.maximum(g, 0) * (x > 0)),
    "leaky_relu_rule": (zfjax.leaky_relu_rule(0.2), lambda g, x: np.where(g > 0, g, 0.2 * g)),
    "prelu_rule": (zfjax.prelu_rule(KERNEL[:1]), lambda g, x: np.where(g > 0, g, KERNEL[:1] * g)),
    "elu_rule": (zfjax.elu_rule(2.0), lambda g, x: np.where(g > 0, g, 2 * np.expm1(np.minimum(g, 0)))),
    "silu_rule": (zfjax.silu_rule, lambda g, x: g / (1 + np.exp(-g))),
    "gelu_rule": (zfjax.gelu_rule, lambda g, x: g * jax.scipy.stats.norm.cdf(g)),
}


@pytest.mark.parametrize("name", READY)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_ready_rule_is_what_it_says(name, dtype):
    rule, expected = READY[name]
    incoming = jnp.asarray(INCOMING, dtype)
    found = jax.vjp(with_relu_rule(jax.nn.silu, "deconvnet", on_unknown={"silu": rule}), jnp.asarray(X, dtype))[1](
        incoming
    )[0]
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(np.asarray(found, np.float32), expected(INCOMING, X), rtol=tolerance, atol=tolerance)


class Gate(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(5)(x.mean(0, keepdims=True)))
        return x * nn.sigmoid(nn.Dense(5)(hidden))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(5)(x))
        x = Gate(name="se")(x)
        return nn.Dense(5)(nn.PReLU(name="bend")(x))


def test_modules_are_found_by_their_path():
    """The gate's product and sigmoid keep their gradient; a PReLU, written in several lines, gets a rule as a whole."""
    model = Block()
    variables = jax.jit(model.init)(jax.random.key(0), X)

    def fn(x):
        return model.apply(variables, x)

    with pytest.raises(ValueError, match="no rule covers\n  Block/bend: select_n [^\n]*\nWrite"):
        with_relu_rule(fn, "deconvnet", on_unknown={"*/se/*": "keep"})(X)
    choices = {"*/se/*": "keep", "*/bend": zfjax.as_relu}
    found = down(fn, "deconvnet", x=X, incoming=INCOMING, on_unknown=choices)["deconvnet"][1]
    p, bend = variables["params"], with_rule(lambda x: jnp.where(x >= 0, x, 0.01 * x), zfjax.as_relu)

    def twin(x):
        x = relu(x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"])
        se = p["se"]
        hidden = relu(x.mean(0, keepdims=True) @ se["Dense_0"]["kernel"])
        x = x * jax.nn.sigmoid(hidden @ se["Dense_1"]["kernel"])
        return bend(x) @ p["Dense_1"]["kernel"]

    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(found, outgoing(twin), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pattern", ["gleu", "*/se/*", "SILU", "net/silu"])
def test_a_pattern_that_fits_nothing_is_an_error_that_says_what_there_is(pattern):
    with jax.named_scope("head"):
        fn = lambda x: jax.nn.silu(x @ KERNEL)  # noqa: E731
        with pytest.raises(ValueError, match="fits no operation of fn; it may be one of: .*silu"):
            with_relu_rule(fn, "deconvnet", on_unknown={pattern: "keep"})(X)


def test_a_pattern_may_fit_what_is_not_on_the_way():
    """A lower layer than the one with the activation."""

    def fn(x):
        return (jax.nn.silu(h := jax.nn.relu(x @ KERNEL)), h)[1]

    with_relu_rule(fn, "deconvnet", on_unknown={"silu": "keep"})(X)


def test_a_pattern_may_fit_what_lies_above_the_layer():
    """One mapping for all layers of a model; a slip is an error at each."""
    model = nn.Sequential([nn.Dense(5), nn.relu, nn.Dense(5), nn.silu])
    variables = jax.jit(model.init)(jax.random.key(0), X)

    def fn(x):
        return model.apply(variables, x)

    layer = next(path for path in zfjax.layers(fn, X) if path.endswith("layers_0"))
    options = {"unit": 2, "layer": layer, "seed": "one"}
    picture = zfjax.project_fn(fn, X, on_unknown={"silu": "keep"}, **options)
    np.testing.assert_array_equal(picture, zfjax.project_fn(fn, X, **options))
    with pytest.raises(ValueError, match="'sulu': ...} fits no operation of fn"):
        zfjax.project_fn(fn, X, on_unknown={"sulu": "keep"}, **options)


@pytest.mark.parametrize(
    "on_unknown", [{"gelu": "kept"}, {"gelu": None}, {3: "keep"}, {"gelu": "rectifier"}, None, ["gelu"], (("gelu", 1),)]
)
def test_what_is_no_choice_is_named(on_unknown):
    with pytest.raises(ValueError, match=r"on_unknown=.*a mapping of names or module paths"):
        with_relu_rule(jax.nn.gelu, "deconvnet", on_unknown=on_unknown)


@pytest.mark.parametrize("maker", [zfjax.leaky_relu_rule, zfjax.prelu_rule, zfjax.elu_rule])
def test_what_makes_a_rule_is_told_to_be_called(maker):
    with pytest.raises(UserError, match=rf"it makes a rule, as in zfjax.{maker.__name__}\(0.1\)"):
        with_relu_rule(jax.nn.elu, "deconvnet", on_unknown={"elu": maker})


def test_a_rule_for_an_operation_of_two_arrays_is_refused():
    fn = lambda x: (x @ KERNEL) * (x @ OTHER)  # noqa: E731
    with pytest.raises(ValueError, match=r"rule for 'mul' at mul, .* one array of one of its shape is needed"):
        with_relu_rule(fn, "deconvnet", on_unknown={"mul": zfjax.as_relu})(X)


def test_two_activations_one_above_the_other_are_two():
    def fn(x, activation=jax.nn.silu):
        return activation(activation(x @ KERNEL))

    rule = lambda incoming, x: 3 * incoming  # noqa: E731
    found = down(fn, "deconvnet", x=X, incoming=INCOMING, on_unknown={"silu": rule})["deconvnet"][1]
    np.testing.assert_allclose(found, outgoing(fn, with_rule(jax.nn.silu, rule)), rtol=1e-5, atol=1e-5)

    with pytest.raises(ValueError, match="rule for 'gelu': two of them stand one above the other"):
        with_relu_rule(lambda x: fn(x, jax.nn.gelu), "deconvnet", on_unknown={"gelu": rule})(X)


def test_projections_take_choices_and_modules_of_nnx():
    model = nnx.Sequential(nnx.Linear(5, 5, rngs=nnx.Rngs(0)), nnx.gelu, nnx.Linear(5, 5, rngs=nnx.Rngs(1)))
    picture = zfjax.project_fn(model, X, unit=2, seed="one", on_unknown={"gelu": zfjax.as_relu})
    first, last = model.layers[0].kernel[...], model.layers[2].kernel[...]
    np.testing.assert_allclose(picture, np.maximum(last[:, 2], 0)[None].repeat(3, 0) @ first.T, rtol=1e-5)


@pytest.mark.parametrize("form", [dict, lambda pairs: tuple(dict(pairs).items())], ids=["mapping", "pairs"])
def test_a_net_takes_choices_in_every_form_and_its_sanity_checks_too(form):
    """Silu by the rule, gelu kept: both in a picture of the net and in that of its classes."""

    def fn(images):
        hidden = jax.nn.gelu(jax.nn.silu(images @ KERNEL[:3]) @ OTHER)
        return {"hidden": hidden, "logits": hidden.mean((1, 2))}

    choices = form({"silu": zfjax.as_relu, "gelu": "keep"})
    net = zfjax.FunctionNet(fn, image_size=2, class_names=tuple("abcde"), on_unknown=choices)
    images = RNG.normal(size=(2, 2, 2, 3)).astype(np.float32)
    options = {"seed": "one", "on_unknown": {"silu": zfjax.as_relu, "gelu": "keep"}}
    expected = zfjax.project_fn(fn, images, unit=zfjax.Unit(1, layer="logits"), **options)
    found = net.project(images, zfjax.Unit(1, layer="logits"), seed="one")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    top = np.tile(np.eye(5, dtype=np.float32)[1], (2, 1))
    by_sanity = sanity.ways_of(net, "hidden", images).down(top, "logits")["deconvnet"]
    np.testing.assert_allclose(by_sanity, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected).max() > 0 and hash(net.on_unknown)


def test_a_softmax_at_the_end_says_where_to_start():
    with pytest.raises(ValueError, match="a softmax. At a model's end start below it, from the logits"):
        with_relu_rule(lambda x: jax.nn.softmax(x @ KERNEL), "deconvnet")(X)
