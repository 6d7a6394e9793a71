"""Training: one step is the formula of sec. 3, whatever the devices; annealing follows its rule; the paper's recipe."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zfjax
from zfjax import parallel, pixels, training
from zfjax.training import Recipe

SIZE = 10

TINY = zfjax.Architecture(
    name="tiny",
    layers=(
        zfjax.Conv("conv1", 4, kernel=3, stride=2, after=(zfjax.Pool(), zfjax.ContrastNorm())),
        zfjax.Dense("fc6", 12),
        zfjax.Dense("fc7", 5, hidden=False),
    ),
    image_size=9,
    input_scale=1 / 32,
)

RECIPE = Recipe(batch_size=8, learning_rate=0.5, weight_decay=0.01, crops="random", seed=3)


@functools.lru_cache
def data():
    """(mean, a batch of eight pictures of five brightnesses as the step wants it)"""
    rng = np.random.default_rng(0)
    labels = (np.arange(8) % 5).astype(np.int32)
    noise = rng.integers(0, 100, (8, SIZE, SIZE, 3))
    image = (noise + 30 * labels[:, None, None, None]).astype(np.uint8)
    batch = {"image": image, "label": labels, "position": np.arange(8, dtype=np.int32)}
    return image.mean(axis=0, dtype=np.float32), batch


@functools.lru_cache
def parameters():
    """Filters on both sides of the radius."""
    rng = np.random.default_rng(1)
    return {
        name: {
            "kernel": (rng.normal(0, 0.1, size.kernel) * np.linspace(0.5, 1.5, size.kernel[-1])).astype("f4"),
            "bias": np.zeros(size.kernel[-1], np.float32),
        }
        for name, size in TINY.sizes().items()
    }


def fresh(recipe):
    params = jax.tree.map(np.array, parameters())
    return training.TrainState(np.int32(0), params, training.make_optimizer(recipe).init(params))


@functools.lru_cache
def compiled(recipe):
    return parallel.data_parallel(training.make_train_step(recipe, TINY, data()[0]))


def steps(recipe, count, rate=RECIPE.learning_rate, **changes):
    """(state, metrics of each step) after `count` steps on the four devices."""
    state, metrics = parallel.replicate(training.with_learning_rate(fresh(recipe), rate)), []
    for _ in range(count):
        state, measured = compiled(recipe)(state, parallel.split(data()[1] | changes))
        metrics.append(jax.device_get(measured))
    return jax.device_get(state), metrics


def reference_steps(recipe, count):
    """The same by plain jax.grad on one device, and numpy for the update."""
    mean, batch = data()
    params, losses = jax.tree.map(np.array, parameters()), []
    velocity = jax.tree.map(np.zeros_like, params)
    for t in range(count):
        key = jax.random.fold_in(jax.random.key(recipe.seed), t)
        pairs = [jax.random.split(jax.random.fold_in(key, row)) for row in range(8)]
        crop_keys, dropout_keys = (jnp.stack([pair[i] for pair in pairs]) for i in (0, 1))
        images = pixels.training_crops(batch["image"], mean, crop_keys, size=TINY.image_size, crops="random")

        def loss_of(params, images=images, keys=dropout_keys):
            logits, _ = zfjax.forward(params, images, architecture=TINY, dropout_key=keys)
            true = jnp.take_along_axis(logits, batch["label"][:, None], axis=1)[:, 0]
            return jnp.mean(jax.scipy.special.logsumexp(logits, axis=1) - true)

        loss, gradient = jax.value_and_grad(loss_of)(params)
        losses.append(float(loss))
        for name, layer in params.items():
            for part in layer:
                decayed = np.asarray(gradient[name][part]) + np.float32(recipe.weight_decay) * layer[part]
                velocity[name][part] = np.float32(recipe.momentum) * velocity[name][part] + decayed
                layer[part] = layer[part] - np.float32(recipe.learning_rate) * velocity[name][part]
        kernel = params["conv1"]["kernel"]
        rms = np.sqrt((kernel**2).mean(axis=(0, 1, 2)))
        if recipe.renormalize_radius is not None:
            assert rms.min() < 0.1 < rms.max()
            params["conv1"]["kernel"] = kernel * np.minimum(1, np.float32(0.1) / rms)
    return params, velocity, losses


def close(tree, expected, rtol=1e-4, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), tree, expected)


def test_three_steps_on_four_devices_are_the_formulas_on_one():
    params, velocity, losses = reference_steps(RECIPE, 3)
    state, metrics = steps(RECIPE, 3)
    close(state.params, params)
    close(state.optimizer.inner_state[1][0].trace, velocity)
    np.testing.assert_allclose([m.loss / m.count for m in metrics], losses, rtol=1e-5)
    assert state.step == 3 and all(m.count == 8 for m in metrics)


def test_a_radius_of_none_trains_without_renormalisation():
    recipe = dataclasses.replace(RECIPE, renormalize_radius=None)
    close(steps(recipe, 1)[0].params, reference_steps(recipe, 1)[0])


def test_bfloat16_computes_in_bfloat16_keeps_float32_parameters_and_trains():
    recipe = dataclasses.replace(RECIPE, compute_dtype="bfloat16")
    state, metrics = steps(recipe, 40, rate=0.05)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}
    assert np.mean([m.loss for m in metrics[-5:]]) < 0.8 * np.mean([m.loss for m in metrics[:5]])
    short, exact = (steps(each, 1, rate=0.05)[0].params["fc6"]["kernel"] for each in (recipe, RECIPE))
    assert 0 < np.abs(short - exact).max() < 0.01


def test_another_place_in_the_global_batch_draws_another_crop_and_mask():
    loss = steps(RECIPE, 1)[1][0].loss
    assert abs(steps(RECIPE, 1, position=np.arange(8, 16, dtype=np.int32))[1][0].loss - loss) > 1e-3


def test_a_learning_rate_set_by_hand_is_that_of_the_next_step():
    state = training.with_learning_rate(fresh(RECIPE), 0.125)
    assert training.learning_rate(fresh(RECIPE)) == 0.5 and training.learning_rate(state) == 0.125


def test_an_indivisible_batch_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="batch_size=6: a multiple of the number of devices, 4"):
        parallel.check_batch_size(6)
    with pytest.raises(ValueError, match="batch of 6 rows: a multiple of the 4 local devices"):
        parallel.split({"label": np.zeros(6)})


def test_the_first_of_several_hosts_needs_to_know_how_many_there_are():
    with pytest.raises(ValueError, match="coordinator='a:1' needs num_hosts and host"):
        parallel.connect_hosts("a:1", num_hosts=2, host=2)


def test_the_recipe_by_default_is_the_papers():
    recipe = Recipe()
    assert (recipe.batch_size, recipe.num_epochs, recipe.learning_rate, recipe.momentum) == (128, 70, 0.01, 0.9)
    assert (recipe.weight_decay, recipe.annealing, recipe.renormalize_radius) == (0.0, "plateau", 0.1)
    assert (recipe.initialization, recipe.crops) == ("paper", "ten")
    assert training.INITIALIZATIONS["paper"].input_scale == zfjax.ZFNET.input_scale == 1.0


def test_the_smaller_first_layer_of_he_reads_pixels_as_much_larger():
    rule = training.INITIALIZATIONS["he"]
    assert rule.first_layer * rule.input_scale == pytest.approx(1 / 58)


@pytest.mark.parametrize(("rule", "gain"), [("paper", None), ("he", 2.0), ("he_even", 2.0)])
def test_kernels_begin_as_the_rule_says_and_biases_at_zero(rule, gain):
    wide = TINY.with_sizes(conv1=256, fc6=64)
    params = training.init_state(Recipe(initialization=rule), wide).params
    for name, size in wide.sizes().items():
        deviation = 0.01 if gain is None else math.sqrt(gain / np.prod(size.kernel[:-1]))
        deviation *= training.INITIALIZATIONS[rule].first_layer if name == "conv1" else 1
        deviation *= training.INITIALIZATIONS[rule].last_layer if name == wide.layer_names[-1] else 1
        assert np.std(params[name]["kernel"]) == pytest.approx(deviation, rel=0.06)
        assert not np.any(params[name]["bias"])


def test_he_even_begins_with_all_classes_about_equally_probable():
    images = np.random.default_rng(0).normal(0, 58, (16, *TINY.image_shape)).astype(np.float32)
    spread = {}
    for rule in ("he", "he_even"):
        table = dataclasses.replace(TINY, input_scale=training.INITIALIZATIONS[rule].input_scale)
        logits, _ = zfjax.forward(init(jax.random.key(0), rule), images, architecture=table)
        spread[rule] = float(jnp.std(logits))
    assert spread["he_even"] == pytest.approx(spread["he"] / 20, rel=1e-3)
    assert spread["he_even"] < 0.1 < spread["he"]


def init(key, rule="he"):
    return training.init_params(key, architecture=TINY, initialization=rule)


@pytest.mark.parametrize("rule", training.INITIALIZATIONS)
def test_fresh_parameters_are_the_same_inside_another_jit(rule):
    key = jax.random.key(4)
    expected = init(key, rule)
    close(jax.jit(functools.partial(init, rule=rule))(key), expected, rtol=1e-6, atol=0)
    close(jax.jit(lambda: init(key, rule))(), expected, rtol=1e-6, atol=0)  # where the key is a constant


def test_the_shapes_of_fresh_parameters_are_told_without_making_them():
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), jax.eval_shape(init, jax.random.key(4)))
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), parameters())


def test_many_networks_are_begun_by_vmap_each_from_its_own_key():
    keys = jax.random.split(jax.random.key(4), 2)
    both = jax.vmap(init)(keys)
    for row, key in enumerate(keys):
        close(jax.tree.map(lambda leaf, row=row: leaf[row], both), init(key), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 0), ("num_epochs", 0), ("learning_rate", 0.0), ("learning_rate", math.inf), ("momentum", 1.0)]
    + [("weight_decay", -1e-4), ("patience", 0), ("renormalize_radius", 0.0), ("seed", -1), ("annealing", "linear")]
    + [("initialization", "zeros"), ("crops", "five"), ("compute_dtype", "int8")],
)
def test_a_setting_out_of_range_is_an_error_that_names_it(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r}"):
        Recipe(**{field: value})
