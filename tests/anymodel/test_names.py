"""zfjax.layers: every intermediate by its module's path; a model cut there is the model up to there."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

import zfjax
from zfjax import FunctionNet, Unit, UserError, layers, project_fn
from zfjax.anymodel.names import features_at, features_of
from zfjax.anymodel.tracing import traced

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
ROWS = RNG.normal(size=(2, 5)).astype(np.float32)
EYE = np.eye(5, dtype=np.float32)


def at(fn, path, images):
    """What `fn` gives at a path, and the picture of its first channel."""
    features = features_at(traced(fn, (images,), {})[0], images, paths=[path])[path]
    return features, project_fn(fn, images, unit=Unit(0), layer=path, seed="one")


def assert_cut(fn, path, part, images):
    """The model cut at a path is the sub-model `part`, to the bit, and so is its picture."""
    features, pixels = at(fn, path, images)
    found = layers(fn, images)[path]
    assert (found.shape, found.dtype) == (features.shape, features.dtype)
    np.testing.assert_array_equal(features, part(images))
    np.testing.assert_array_equal(pixels, project_fn(part, images, unit=Unit(0), seed="one"))


class Block(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(self.width, (3, 3))(x)))
        return x + nn.Conv(self.width, (3, 3), name="second")(y)


class LinenNet(nn.Module):
    def setup(self):
        self.stem = nn.Conv(4, (3, 3))
        self.shared = nn.Conv(4, (1, 1))
        self.block = Block(4)
        self.again = nn.remat(Block)(4)
        self.head = nn.Dense(3)

    def up_to_block(self, x):
        return self.block(self.shared(nn.relu(self.shared(nn.relu(self.stem(x))))))

    def up_to_again(self, x):
        return self.again(self.up_to_block(x))

    def __call__(self, x):
        return self.head(self.up_to_again(x).mean(axis=(1, 2)))


LINEN = LinenNet()
VARIABLES = LINEN.init(jax.random.key(0), IMAGES)


def linen(x):
    return LINEN.apply(VARIABLES, x)


@pytest.mark.parametrize(("path", "method"), [("block", "up_to_block"), ("again", "up_to_again")])
def test_a_linen_module_is_cut_after_its_last_operation(path, method):
    (name,) = [found for found in layers(linen, IMAGES) if found.split("/")[-1] == path]
    assert_cut(linen, name, lambda x: LINEN.apply(VARIABLES, x, method=method), IMAGES)


def test_a_linen_net_has_the_paths_of_its_parameters():
    found = [path for path, layer in layers(linen, IMAGES).items() if layer.is_module]
    assert [path.split(".up_to_block/")[-1] for path in found if "up_to_block/" in path] == [
        "stem",
        "shared",
        "shared:2",
        "block/Conv_0",
        "block/BatchNorm_0",
        "block/second",
        "block",
    ]


def test_an_operation_of_its_own_is_named_by_its_module_and_its_function():
    found = layers(linen, IMAGES)
    first, second = [path for path in found if path.endswith(("up_to_block/relu", "up_to_block/relu:2"))]
    conv = next(path for path in found if path.endswith("stem"))
    features = features_at(traced(linen, (IMAGES,), {})[0], IMAGES, paths=[first, conv])
    np.testing.assert_array_equal(features[first], jax.nn.relu(features[conv]))
    assert found[first].operation == found[second].operation == "max"
    assert "test_names.py" in found[first].source


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.stages = nnx.Sequential(nnx.Conv(4, 4, (3, 3), rngs=rngs), nnx.relu, nnx.BatchNorm(4, rngs=rngs))
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.stages(nnx.relu(self.conv(x))).mean(axis=(1, 2)))


def test_nnx_modules_are_named_by_their_attributes():
    model = Nnx(nnx.Rngs(0))
    model.eval()
    graph, state = nnx.split(model)
    held = {"itself": model, "a variable around": lambda x: model(x), "jit": nnx.jit(model)}
    held |= {"its parts": lambda x: nnx.merge(graph, state)(x)}
    for fn in held.values():
        modules = [path for path, layer in layers(fn, IMAGES).items() if layer.is_module]
        assert modules == ["conv", "stages/layers/0", "stages/layers/2", "stages", "head"]
    assert_cut(model, "stages", lambda x: model.stages(nnx.relu(model.conv(x))), IMAGES)
    assert_cut(held["its parts"], "stages", lambda x: model.stages(nnx.relu(model.conv(x))), IMAGES)
    assert not any(kind.__call__.__code__.co_name == "named" for kind in (Nnx, nnx.Conv))  # classes are as they were


def test_equinox_modules_are_named_by_their_classes_and_images_come_first():
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0))
    first, second = eqx.nn.Linear(5, 4, key=keys[0]), eqx.nn.Linear(4, 3, key=keys[1])

    def model(x):
        return jax.vmap(lambda row: second(jax.nn.relu(first(row))))(x)

    assert [path for path, layer in layers(model, ROWS).items() if layer.is_module] == [
        "eqx.nn.Linear",
        "eqx.nn.Linear:2",
    ]
    assert_cut(model, "eqx.nn.Linear", jax.vmap(first), ROWS)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_users_equinox_modules_are_named_by_their_classes_too(compiled):
    """As those of eqx.nn are; the model itself has no name, and classes are afterwards as they were."""
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0), 3)

    class Base(eqx.Module):
        linear: eqx.nn.Linear

        def __call__(self, row):
            return self.linear(row)

    class Block(Base):
        def __call__(self, row):
            return jax.nn.relu(super().__call__(row)) + row

    class Net(eqx.Module):
        blocks: list
        head: eqx.nn.Linear

        def __call__(self, row):
            for block in self.blocks:
                row = block(row)
            return self.head(row)

    net = Net([Block(eqx.nn.Linear(5, 5, key=key)) for key in keys[:2]], eqx.nn.Linear(5, 3, key=keys[2]))
    before = vars(Block)["__call__"]
    model = jax.vmap(eqx.filter_jit(net) if compiled else net)
    assert [path for path, layer in layers(model, ROWS).items() if layer.is_module] == [
        *("Block/eqx.nn.Linear", "Block", "Block:2/eqx.nn.Linear", "Block:2", "eqx.nn.Linear")
    ]
    assert vars(Block)["__call__"] is before
    assert_cut(model, "Block:2", jax.vmap(lambda row: net.blocks[1](net.blocks[0](row))), ROWS)
    assert [path for path in layers(jax.vmap(net.blocks[0]), ROWS) if "Block" in path] == []


def test_channels_come_last_where_a_layer_is_looked_at():
    eqx = pytest.importorskip("equinox")
    conv = eqx.nn.Conv2d(3, 4, 3, padding=1, key=jax.random.key(0))

    def model(x):
        return jax.vmap(lambda image: jax.nn.relu(conv(jnp.moveaxis(image, 2, 0))).sum(axis=(1, 2)))(x)

    def part(x):
        return jnp.moveaxis(jax.vmap(lambda image: jax.nn.relu(conv(jnp.moveaxis(image, 2, 0))))(x), 1, 3)

    assert layers(model, IMAGES)["relu"].shape == (2, 4, 8, 8)
    unit = Unit(2, (5, 6))
    np.testing.assert_array_equal(
        project_fn(model, IMAGES, unit=unit, layer="relu", seed="one"), project_fn(part, IMAGES, unit=unit, seed="one")
    )
    np.testing.assert_array_equal(features_of(model, ["relu"], IMAGES)["relu"], part(IMAGES))


def test_a_net_of_a_function_of_logits_takes_its_layers_by_name():
    net = FunctionNet(
        lambda variables, x: LINEN.apply(variables, x),
        VARIABLES,
        image_size=8,
        layers=["LinenNet/LinenNet.up_to_again/again", "logits"],
        class_names=("cat", "dog", "owl"),
    )
    assert net.layers == ("LinenNet/LinenNet.up_to_again/again", "logits")
    assert net.shapes == {net.layers[0]: (8, 8, 4), "logits": (3,)}
    features = net.features(net.layers)(IMAGES)
    np.testing.assert_array_equal(features[net.layers[0]], LINEN.apply(VARIABLES, IMAGES, method="up_to_again"))
    np.testing.assert_array_equal(features["logits"], linen(IMAGES))
    own = net.project(IMAGES, Unit(np.array([1, 2])), layer=net.layers[0], seed="one")
    part = FunctionNet(lambda x: {"again": LINEN.apply(VARIABLES, x, method="up_to_again")}, image_size=8)
    np.testing.assert_allclose(own, part.project(IMAGES, Unit(np.array([1, 2])), layer="again", seed="one"), rtol=1e-5)
    other = net.with_params(jax.tree.map(lambda leaf: 2 * leaf, VARIABLES))
    assert other.layers == net.layers and other.fingerprint != net.fingerprint


def test_a_net_of_a_function_names_what_is_missing():
    with pytest.raises(UserError, match=r"layer='agian': fn has none of this name \(.*again"):
        FunctionNet(linen, image_size=8, layers=["agian"])
    named = r"layers=\[\.\.\.\] of .* lists \(LinenNet/.*\), and logits for what it returns"
    with pytest.raises(UserError, match=rf"fn returns an array \[1, 3\]: .*{named}"):
        FunctionNet(linen, image_size=8)
    with pytest.raises(UserError, match=r"fn returns PyTreeDef.*\[\*, \*\].*layers=\[\.\.\.\]"):
        FunctionNet(lambda x: [x, x], image_size=8)
    net = FunctionNet(lambda x: {"a": x[:, 0, 0], "b": x}, image_size=8, layers=["b"])
    assert (net.layers, net.shapes) == (("b",), {"b": (8, 8, 3)})


def scopes(x):
    for _ in range(2):
        with jax.named_scope("block"), jax.named_scope("dense"):
            x = jax.nn.relu(x @ EYE) * 2

    @jax.jit
    def inner(x):
        with jax.named_scope("inner"):
            return jnp.maximum(x, 0) @ EYE

    with jax.named_scope("outer"):
        x = inner(x)
        x = jax.checkpoint(inner)(x)
        x = jax.lax.scan(lambda c, k: (inner(c) * (k + 1), c), x, jnp.arange(3.0))[0]
        return jax.lax.cond(x.sum() > 0, inner, lambda x: x, x)


def test_each_time_a_scope_is_entered_it_has_a_name_of_its_own():
    modules = [path for path, layer in layers(scopes, ROWS).items() if layer.is_module]
    assert modules == [
        *("block/dense", "block", "block:2/dense", "block:2"),
        *("outer/inner", "outer/inner:2", "outer/inner:3", "outer/inner:4", "outer/inner:5", "outer"),
    ]


@pytest.mark.parametrize(("path", "factors"), [("", []), (":2", [1]), (":3", [1, 1]), (":5", [1, 1, 1, 2])])
def test_cuts_inside_jit_remat_and_the_rounds_of_a_scan(path, factors):
    def part(x):
        for _ in range(2):
            x = jax.nn.relu(x @ EYE) * 2
        for factor in factors:
            x = jnp.maximum(x, 0) @ EYE * factor
        return jnp.maximum(x, 0) @ EYE

    assert_cut(scopes, f"outer/inner{path}", part, ROWS)


def test_scans_that_run_backwards_and_what_they_stack():
    def model(x):
        def step(carry, k):
            with jax.named_scope("step"):
                carry = carry * k
            return carry, carry

        return jax.lax.scan(step, x, jnp.array([2.0, 3.0, 5.0]), reverse=True)[1][0]

    for path, factor in {"step": 5, "step:2": 15, "step:3": 30}.items():
        np.testing.assert_allclose(at(model, path, ROWS)[0], factor * ROWS, rtol=1e-6)


def test_what_a_module_leaves_unused_or_makes_of_constants_is_none_of_its_results():
    def model(x):
        with jax.named_scope("module"):
            y = 2 * x
            jnp.tanh(y)
            jnp.sqrt(jnp.ones(5))
        return y.sum(axis=1, keepdims=True)

    found = layers(model, ROWS)
    assert list(found) == ["module/mul", "module", "reduce_sum", "broadcast_in_dim"]
    np.testing.assert_array_equal(at(model, "module", ROWS)[0], 2 * ROWS)


def test_what_stands_above_a_layer_is_not_run_and_needs_no_rule():
    def model(x):
        with jax.named_scope("features"):
            x = jax.nn.relu(x @ EYE)
        return jnp.tanh(x)

    assert project_fn(model, ROWS, unit=Unit(0), layer="features").any()
    with pytest.raises(UserError, match="tanh"):
        project_fn(model, ROWS, unit=Unit(0))


def test_no_name_is_that_of_two_layers():
    def fn(x):
        for name in ("s", "s:2", "s", "s/neg", "s:2"):
            with jax.named_scope(name):
                x = -x * 2
        return x

    modules = [path for path, layer in layers(fn, ROWS).items() if layer.is_module]
    assert modules == ["s", "s:2", "s:3", "s/neg", "s:2:2"]
    for path, factor in zip(modules, (-2, 4, -8, 16, -32), strict=True):
        np.testing.assert_array_equal(at(fn, path, ROWS)[0], factor * ROWS)
    assert at(fn, "s/neg:2", ROWS)[0].tolist() == (-ROWS).tolist()  # the operation in the first s


def test_an_unknown_layer_is_told_the_nearest_ones_and_where_all_are():
    with pytest.raises(UserError, match=r"layer='block/dens': .*'block/dense'.*zfjax.layers\(fn, images\) lists"):
        project_fn(scopes, ROWS, unit=Unit(0), layer="block/dens")


LOOPS = {
    "a while loop": lambda block, x: lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, block(s[1])), (0, x))[1],
    "a branch of lax.cond": lambda block, x: lax.cond(x.sum() > 0, block, lambda x: x, x),
    "loops of more than": lambda block, x: lax.scan(lambda c, _: (block(c), None), x, None, length=4097)[0],
    "shard_map": lambda block, x: jax.shard_map(
        block, mesh=jax.sharding.Mesh(jax.devices()[:1], "d"), in_specs=P("d"), out_specs=P("d")
    )(x),
}


@pytest.mark.parametrize("words", LOOPS)
def test_a_module_inside_a_loop_or_branch_is_refused_with_the_reason(words):
    def block(x):
        with jax.named_scope("block"):
            return jax.nn.relu(x @ EYE)

    def model(x):
        with jax.named_scope("net"):
            return LOOPS[words](block, x)

    inner = layers(model, ROWS)
    assert "net/block" not in inner and "net" in inner and list(inner.unnamed) == ["net/block"]
    assert f"no layer: net/block stands in {words}" in str(inner)
    for layer in ("net/block", "net/block:2", "net/block/relu"):
        with pytest.raises(
            UserError, match=rf"layer='{layer}': it stands in {words}.*, at .*test_names.py:\d+; let fn"
        ):
            project_fn(model, ROWS, unit=Unit(0), layer=layer)


def test_a_layer_that_fn_gives_itself_comes_first_and_may_not_differ_from_the_units():
    def model(x):
        return {"logits": x @ EYE, "twice": 2 * x}

    np.testing.assert_array_equal(
        project_fn(model, ROWS, unit=Unit(0), layer="twice", seed="one"),
        project_fn(model, ROWS, unit=Unit(0, layer="twice"), seed="one"),
    )
    with pytest.raises(UserError, match=r"layer='logits' and Unit\(layer='twice'\): name one layer"):
        project_fn(model, ROWS, unit=Unit(0, layer="twice"), layer="logits")


def test_layers_print_as_a_table_of_modules():
    header, *lines, rest = str(layers(scopes, jax.ShapeDtypeStruct(ROWS.shape, ROWS.dtype))).splitlines()
    assert header.split() == ["layer", "shape", "source"]
    assert lines[0].split()[:3] == ["block/dense", "float32[2,", "5]"] and "test_names.py" in lines[0]
    assert rest.startswith("and ") and "'block/dense/dot_general'" in rest


def test_the_name_is_public():
    assert zfjax.layers is zfjax.anymodel.layers


def test_keras_layers_are_named_and_cut_as_its_sub_models(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    x = first = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="c1")(x)
    x = part = keras.layers.Conv2D(5, 3, activation="relu", name="c2")(x)
    model = keras.Model(first, keras.layers.GlobalAveragePooling2D()(x), name="functional")
    sub = keras.Model(first, part)
    assert_cut(lambda x: model(x, training=False), "functional/c2", lambda x: sub(x, training=False), IMAGES)


def test_haiku_modules_are_named_by_their_paths():
    haiku = pytest.importorskip("haiku")

    def forward(x, whole=True):
        x = jax.nn.relu(haiku.Conv2D(4, 3, name="c1")(x))
        x = haiku.Conv2D(4, 3, name="c2")(x)
        return jax.nn.relu(x).mean(axis=(1, 2)) if whole else x

    net = haiku.without_apply_rng(haiku.transform(forward))
    params = net.init(jax.random.key(0), IMAGES)
    assert_cut(lambda x: net.apply(params, x), "c2", lambda x: net.apply(params, x, whole=False), IMAGES)


def test_scopes_of_haiku_stand_in_names_as_in_those_of_parameters():
    haiku = pytest.importorskip("haiku")

    def forward(x):
        with haiku.name_scope("stem"):
            x = jax.nn.relu(haiku.Linear(4)(x))
            with haiku.name_scope("inner/most"):
                x = haiku.Linear(4)(x)
        return haiku.Linear(3)(x)

    net = haiku.without_apply_rng(haiku.transform(forward))
    params = net.init(jax.random.key(0), ROWS)
    own = haiku.name_scope
    modules = [path for path, layer in layers(lambda x: net.apply(params, x), ROWS).items() if layer.is_module]
    assert set(params) <= set(modules) and "stem/inner/most/linear" in params
    assert haiku.name_scope is own
