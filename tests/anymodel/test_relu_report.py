"""explain_rules: what depends on the input is listed with its line, what does not is not."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ways_down import OWN, down

from zfjax.anymodel.rules import explain_rules, with_relu_rule

RNG = np.random.default_rng(0)
X, INCOMING = RNG.normal(size=(2, 3, 5)).astype(np.float32)
KERNEL = RNG.normal(size=(5, 5)).astype(np.float32)


def test_a_rectifier_of_what_does_not_depend_on_the_input_is_not_touched():
    def fn(x):
        gate = jax.nn.relu(KERNEL)
        return x @ gate

    found = down(fn, "deconvnet", x=X, incoming=INCOMING)
    np.testing.assert_array_equal(found["deconvnet"][1], found[OWN][1])
    assert explain_rules(fn, X) == ()


def test_arguments_are_inputs_and_whole_numbers_are_not():
    """The same relu of a parameter is listed where the parameter is an argument."""
    assert [line.operation for line in explain_rules(lambda w, x: jax.nn.relu(w) @ x, KERNEL, X.T)] == [
        "max in relu",
        "dot_general",
    ]
    assert explain_rules(lambda x, labels: x * jax.nn.relu(labels).astype(x.dtype), X, np.ones((3, 5), np.int32)) == ()


def test_the_report_is_a_table_with_the_lines_of_the_model():
    def model(x):
        x = jnp.where(x @ KERNEL > 0, 1.0, 2.0) * x
        x = jnp.tanh(x)
        return jax.nn.relu(x)

    first = model.__code__.co_firstlineno
    report = explain_rules(model, X)
    assert [(line.operation, line.rule) for line in report] == [
        ("mul", "unclassified"),
        ("tanh", "unclassified"),
        ("max in relu", "rectifier"),
    ]
    assert [line.source.split("/")[-1] for line in report] == [f"test_relu_report.py:{first + k}" for k in (1, 2, 3)]
    assert {line.shape for line in report} == {"float32[3,5]"}
    header, *lines = str(report).splitlines()
    assert header.split() == ["operation", "shape", "source", "rule", "reason"]
    assert [line.index("float32") for line in lines] == [header.index("shape")] * 3
    assert lines[1].split() == ["tanh", "float32[3,5]", report[1].source, "unclassified", *report[1].reason.split()]


def test_operations_alike_are_one_line_with_the_modules_first():
    def model(x):
        for name in ("first", "second"):
            with jax.named_scope("block"), jax.named_scope(name):
                x = jax.nn.relu(x @ KERNEL)
        return jnp.tanh(x[:, :2])

    report = explain_rules(model, X)
    assert [line.module for line in report] == ["block/first", "block/second", ""]
    header, relus, tanh = str(report).splitlines()
    assert header.split() == ["module", "operation", "shape", "source", "rule", "reason"]
    assert relus.split()[:5] == ["×2", "block/*", "max", "in", "relu"] and "float32[3,5]" in relus
    assert tanh.split()[:2] == ["tanh", "float32[3,2]"]


def test_an_error_counts_operations_alike_too():
    def model(x):
        for _ in range(30):
            x = jnp.tanh(x)
        return x

    with pytest.raises(ValueError, match=r"tanh float32\[3,5\] at .* \(×30\)") as error:
        with_relu_rule(model, "deconvnet")(X)
    assert str(error.value).count("tanh") == 1


def test_inside_a_frameworks_jit_the_line_is_that_of_the_call():
    """Equinox's own jit cuts the way back to the model's line; the call of it has one."""
    eqx = pytest.importorskip("equinox")
    model = eqx.filter_jit(eqx.nn.Sequential([eqx.nn.Linear(5, 2, key=jax.random.key(0)), eqx.nn.Lambda(jax.nn.relu)]))

    def fn(x):
        return jax.vmap(model)(x)

    line = f"test_relu_report.py:{fn.__code__.co_firstlineno + 1}"
    assert [found.source.split("/")[-1] for found in explain_rules(fn, X)] == [line]


def test_a_model_of_a_frameworks_parts_alone_has_the_frameworks_lines():
    assert {line.source.split("/")[-2] for line in explain_rules(nnx.LayerNorm(5, rngs=nnx.Rngs(0)), X)} == {"nn"}


def test_a_report_on_whole_numbers_is_refused():
    with pytest.raises(ValueError, match="arguments of type int32: a floating one"):
        explain_rules(jax.nn.relu, np.arange(3, dtype=np.int32))


def _calls(function, *args):
    """How many functions of the any-model engine a call of a function enters."""
    entered = 0

    def count(frame, event, _):
        nonlocal entered
        entered += event == "call" and "anymodel" in frame.f_code.co_filename

    sys.setprofile(count)
    try:
        function(*args)
    finally:
        sys.setprofile(None)
    return entered


def _residual_norms(num):
    def model(x):
        for _ in range(num):
            centred = x - x.mean(axis=-1, keepdims=True)
            norm = centred * jax.lax.rsqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
            x = x + jax.nn.relu(norm @ KERNEL)
        return x

    return model


def _dense_blocks(num):
    def model(x):
        for _ in range(num):
            x = jnp.concatenate([x, jnp.maximum(x, 0) @ jnp.ones((x.shape[-1], 2))], axis=-1)
            x = jnp.where(x > 0, x, 0)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2, 1), (1, 1), "VALID")

    return model


@pytest.mark.parametrize(
    ("model", "num", "bend"),
    [(_residual_norms, 15, 1.05), pytest.param(_dense_blocks, 30, 1.1, marks=pytest.mark.slow)],
)
def test_the_work_of_a_report_grows_with_the_program_alone(model, num, bend):
    few, more, many = (_calls(explain_rules, model(times * num), X) for times in (1, 2, 3))
    assert 0 < many - more < bend * (more - few)


def test_parameters_as_arguments_cost_no_walk_each():
    def work(num):
        weights = [KERNEL] * num
        return _calls(explain_rules, lambda weights, x: [jax.nn.relu(x @ w) for w in weights], weights, X)

    few, more, many = map(work, (10, 20, 30))
    assert 0 < many - more < 1.01 * (more - few)
