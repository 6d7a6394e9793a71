"""Net: trained runs, any function and their units in the same words."""

import dataclasses
import re

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets

import zfjax
from zfjax import nets
from zfjax.architecture import Dense
from zfjax.errors import UserError
from zfjax.nets import FunctionNet
from zfjax.units import Unit

MINI = tiny_nets.MINI


class Table(nets.OfTable):
    """A net of a table that is no run."""

    name, class_names, fingerprint = "mini", ("a", "b", "c", "d", "e"), "mini"

    def __init__(self):
        self.architecture, self.params = MINI, tiny_nets.params(MINI)
        self.mean = np.full((MINI.image_size + 4, MINI.image_size + 4, 3), 7, np.float32)


TABLE = Table()
# the same network as any function: the two have to agree
FUNCTION = FunctionNet(
    lambda params, images: {
        layer: of.features for layer, of in zfjax.forward(params, images, architecture=MINI)[1].items()
    },
    TABLE.params,
    image_size=MINI.image_size,
    picture_size=MINI.image_size + 4,
    preprocess=lambda crops: crops - 7,
    class_names=TABLE.class_names,
)
PICTURES = np.random.default_rng(0).integers(0, 256, (3, MINI.image_size + 4, MINI.image_size + 4, 3), np.uint8)


@pytest.fixture(scope="module")
def images():
    return np.asarray(TABLE.prepare(PICTURES))


def test_a_net_is_printed_in_one_line():
    net = FunctionNet(lambda images: {"a": images, "b": images.mean((1, 2))}, image_size=(4, 6), name="mine")
    assert repr(net) == "<FunctionNet 'mine': layers a to b, images of 4x6 pixels>"
    assert repr(TABLE) == "<Table 'mini': layers conv1 to fc8, images of 34 pixels>"


def test_both_kinds_of_net_prepare_pictures_alike(images):
    np.testing.assert_array_equal(np.asarray(FUNCTION.prepare(PICTURES)), images)
    np.testing.assert_array_equal(images, PICTURES[:, 2:-2, 2:-2].astype(np.float32) - 7)


def _two_layers(images, last):
    return {"maps": images, last: images.mean((1, 2))}


@pytest.mark.parametrize(
    ("last", "options", "num"),
    [
        ("embedding", {}, 0),  # nobody says that these are classes
        ("embedding", {"num_classes": 3}, 3),
        ("embedding", {"class_names": ("a", "b", "c")}, 3),
        ("logits", {}, 3),  # the function says it
        ("logits", {"num_classes": 0}, 0),
        ("embedding", {"layers": ("embedding", "maps"), "class_names": ("a", "b", "c")}, 0),  # a class has no places
    ],
)
def test_the_units_of_a_dense_last_layer_are_classes_where_the_network_says_so(last, options, num):
    net = FunctionNet(lambda images: _two_layers(images, last), image_size=4, name="mine", **options)
    assert nets.logits_layer(net) == (last if num else None) and nets.num_classes(net) == num
    assert len(nets.logit_names(net)) == num and (nets.why_no_classes(net) is None) == bool(num)
    assert (last in nets.hidden_layers(net)) == (not num)


def test_what_a_function_gives_is_called_logits_by_us_which_says_nothing_of_classes():
    net = FunctionNet(lambda images: images.mean((1, 2)), image_size=4, layers=["logits"], name="mine")
    assert nets.logits_layer(net) is None
    assert "mine does not say that the units of its last layer, logits, are classes" in nets.why_no_classes(net)
    assert nets.logits_layer(dataclasses.replace(net, num_classes=3)) == "logits"


def test_the_last_dense_layer_of_a_table_is_its_classes_with_names_or_without():
    net = Table()
    net.class_names = ()
    assert nets.logits_layer(net) == "fc8" and nets.num_classes(net) == 5
    net.architecture = MINI.upto("conv3")
    assert nets.why_no_classes(net) == "the last layer of mini, conv3, has feature maps and no classes"


def test_layers_stand_in_the_order_of_the_function():
    assert FUNCTION.layers == TABLE.layers == ("conv1", "conv2", "conv3", "fc6", "fc7", "fc8")


@pytest.mark.parametrize("transform", [jax.jit, lambda fn: jax.vmap(lambda image: _without_batch(fn(image[None])))])
def test_layers_whose_keys_jax_sorts_stand_in_the_order_of_the_program(transform):
    def fn(images):
        stem = jax.nn.relu(images @ jnp.ones((3, 4)))
        block = jax.nn.relu(stem @ jnp.ones((4, 5)))
        return {"stem": stem, "block": block.swapaxes(1, 2), "all": block.mean((1, 2))}

    assert nets.FunctionNet(transform(fn), image_size=4).layers == ("stem", "block", "all")


def _without_batch(features):
    return jax.tree.map(lambda of: of[0], features)


def test_both_kinds_of_net_have_the_same_features_and_shapes(images):
    layers = ("conv2", "fc8")
    ours, theirs = TABLE.features(layers)(images), FUNCTION.features(layers)(images)
    for layer in layers:
        np.testing.assert_allclose(theirs[layer], ours[layer], rtol=1e-5, atol=1e-5)
    assert nets.shapes_of(TABLE) == nets.shapes_of(FUNCTION)
    assert nets.map_layers(FUNCTION) == ("conv1", "conv2", "conv3")
    pictured = nets.features_of_pictures(FUNCTION, layers)(PICTURES)
    np.testing.assert_allclose(pictured["fc8"], ours["fc8"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["deconvnet", "gradient", "guided"])
@pytest.mark.parametrize("layer", ["conv2", "fc7"])
def test_both_kinds_of_net_project_alike(images, layer, way):
    """By the explicit deconvnet and by the any-model engine: the strongest place of a unit, each in its own image."""
    shape = nets.shapes_of(TABLE, [layer])[layer]
    channels = np.asarray(TABLE.features([layer])(images)[layer]).reshape(3, -1, shape[-1]).max(axis=1).argmax(axis=1)
    ours, theirs = (net.project(images, Unit(channels), layer=layer, way=way) for net in (TABLE, FUNCTION))
    assert ours.shape == images.shape and np.abs(ours).max() > 0
    assert tiny_nets.relative_error(theirs, ours) < 1e-5


def test_several_units_of_one_image_are_those_one_by_one(images):
    units = Unit(np.array([0, 3, 5]), (np.array([1, 0, 2]), np.array([0, 2, 1])))
    for net in (TABLE, FUNCTION):
        together = net.project(images[:1], units, layer="conv2")
        for n in range(3):
            alone = Unit(int(units.channel[n]), (int(units.position[0][n]), int(units.position[1][n])))
            np.testing.assert_allclose(
                net.project(images[:1], alone, layer="conv2")[0], together[n], rtol=1e-5, atol=1e-5
            )


def test_units_say_in_which_image_they_stand(images):
    channels, of = np.array([2, 2, 4]), np.array([2, 0, 2])
    together = TABLE.project(images, Unit(channels), layer="conv3", of=of)
    apart = TABLE.project(images[of], Unit(channels), layer="conv3")
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)


WRONG = [
    ({"units": Unit(0)}, "layer=None: say in which layer"),
    ({"units": Unit(0, layer="conv1"), "layer": "conv2"}, "layer='conv2' and Unit(layer='conv1'): name one layer"),
    ({"units": Unit(99), "layer": "conv2"}, "channel from 99 to 99 of layer 'conv2': 0 to 5"),
    ({"units": Unit(0, (0, 99)), "layer": "conv2"}, "column from 99 to 99 of layer 'conv2'"),
    ({"units": Unit(0, (0, 0)), "layer": "fc7"}, "layer 'fc7' is dense and has no places"),
    ({"units": Unit(None, (0, 0)), "layer": "conv2"}, "a channel is needed"),
    ({"units": Unit(np.array([0, 1])), "layer": "conv2"}, "for 2 units: one image, 2, or `of` is needed"),
    ({"units": Unit(0), "layer": "conv2", "way": "up"}, "way='up': one of 'deconvnet', 'gradient', 'guided'"),
    ({"units": Unit(0), "layer": "conv9"}, "conv9"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
@pytest.mark.parametrize("net", [TABLE, FUNCTION], ids=["table", "function"])
def test_a_unit_that_is_not_there_is_refused_in_words(net, arguments, words, images):
    with pytest.raises(UserError, match=re.escape(words)):
        net.project(images, **arguments)


def test_images_need_be_neither_square_nor_in_colours():
    net, pictures = foreign_nets.GREY, np.zeros((2, 20, 28, 1), np.uint8)
    pictures[:, 5:9, 3:7] = 200
    images = np.asarray(net.prepare(pictures))
    picture = net.project(images, Unit(1, (3, 3)), layer="conv2")
    assert images.shape == picture.shape == (2, 20, 28, 1) and picture.dtype == np.float32
    assert nets.shapes_of(net)["conv2"] == (5, 7, 6)


def test_units_are_called_by_their_class_their_map_or_their_number():
    net = foreign_nets.SMALL
    assert [nets.unit_name(net, *of) for of in (("conv1", 3), ("logits", 1))] == ["map 3", "dog"]
    assert nets.unit_name(TABLE, "fc6", 2) == "unit 2" and nets.unit_name(TABLE, "fc8", 0) == "a"


def test_the_fingerprint_changes_with_weights_and_program():
    net = foreign_nets.SMALL
    other = net.with_params(jax.tree.map(lambda leaf: leaf + 1, net.params))
    twice = FunctionNet(lambda p, x: {k: 2 * v for k, v in net.fn(p, x).items()}, net.params, image_size=(20, 28))
    darker = dataclasses.replace(net, preprocess=lambda crops: crops / 510)
    assert len({of.fingerprint for of in (net, other, twice, darker)}) == 4
    assert net.fingerprint == foreign_nets.SMALL.with_params(net.params).fingerprint


def test_other_parameters_compile_nothing_anew():
    net = foreign_nets.SMALL
    other = net.with_params(jax.tree.map(lambda leaf: leaf + 1, net.params))
    assert net.features(["conv1"]).func is other.features(["conv1"]).func


BAD_FUNCTIONS = [
    (lambda images: images.mean(), {}, "fn returns .*: {layer: features} is needed"),
    (lambda images: {"a": images.mean()}, {}, "fn returns \\(\\) as 'a' for one image"),
    (lambda images: {"a": images}, {"class_names": ("x",)}, "class_names of 1 classes: the last layer, 'a', has 3"),
    (lambda images: {"a": images}, {"num_classes": 2}, "num_classes=2: the last layer, 'a', has 3 units"),
    (lambda images: {"a": images}, {"class_names": ("x", "y", "z"), "num_classes": 0}, "num_classes=0: the last layer"),
    (
        lambda images: images,
        {"image_size": 8, "layers": "logits"},
        r"layers='logits': a list of names is needed, as \['",
    ),
    (lambda images: {"a": images}, {"image_size": 8, "picture_size": 4}, "1 <= image_size <= picture_size"),
    (lambda images: {"a": images}, {"channels": 0}, "channels=0: at least 1"),
]


@pytest.mark.parametrize(("fn", "options", "words"), BAD_FUNCTIONS)
def test_a_function_that_is_no_net_says_what_is_needed(fn, options, words):
    with pytest.raises(UserError, match=words):
        FunctionNet(fn, **{"image_size": 8, **options})


def test_a_module_and_a_name_are_opened():
    assert nets.load_net("foreign_nets:SMALL") is foreign_nets.SMALL
    assert nets.load_net("foreign_nets:nnx_convnet").layers == ("conv1", "conv2", "logits")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:NET", "there is no module 'no_such_module' here"),
        ("foreign_nets:NOTHING", "has no attribute 'NOTHING'"),
        ("foreign_nets:CLASS_NAMES", "a tuple is no Net, as it has no name, image_size.*FunctionNet"),
    ],
)
def test_what_is_no_net_is_refused_in_words(name, words):
    with pytest.raises(UserError, match=words):
        nets.load_net(name)


def test_a_bug_in_a_users_module_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "broken_net.py").write_text("import a_module_that_is_missing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_missing"):
        nets.load_net("broken_net:NET")


def test_what_a_users_module_asks_amiss_is_told_with_its_line(tmp_path, monkeypatch):
    (tmp_path / "asks_amiss.py").write_text("import zfjax\nNET = zfjax.FunctionNet(lambda x: x, image_size=8)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"net=asks_amiss:NET: .*asks_amiss\.py, line 2: fn returns an array"):
        nets.load_net("asks_amiss:NET")


def test_a_table_without_dense_layers_is_an_architecture_too():
    table = zfjax.Architecture("maps", MINI.layers[:3], image_size=MINI.image_size)
    assert table.num_classes == 0 and not any(isinstance(row, Dense) for row in table.layers)
    params = {name: of for name, of in TABLE.params.items() if name in table.layer_names}
    images = jnp.asarray(PICTURES[:1, 2:-2, 2:-2], jnp.float32)
    top, trace = tiny_nets.forward(params, images, architecture=table)
    np.testing.assert_array_equal(top, trace["conv3"].features)
    whole = tiny_nets.forward(TABLE.params, images, architecture=MINI)[1]
    scaled = tiny_nets.forward(params, images * MINI.input_scale, architecture=table)[1]
    np.testing.assert_allclose(scaled["conv3"].features, whole["conv3"].features, rtol=1e-5, atol=1e-5)
    strongest = int(trace["conv3"].features.max(axis=(0, 1, 2)).argmax())
    picture = zfjax.project(params, trace, Unit(strongest, layer="conv3"), architecture=table)
    assert picture.shape == images.shape and jnp.abs(picture).max() > 0


def test_what_a_network_was_trained_on_is_told_as_far_as_it_is_known():
    training = {"num_classes": 5, "num_images": 40, "epochs": 2.0, "width": 1.0}
    known = dataclasses.replace(FUNCTION, training=training)
    assert nets.training_of(known) == training
    unknown = {"num_classes": 5, "num_images": None, "epochs": None}
    assert nets.training_of(known.with_params(FUNCTION.params)) == {**unknown, "width": None}
    assert nets.training_of(TABLE) == {**unknown, "width": MINI.layers[0].features / 96}


def test_the_width_is_that_of_the_first_layer_beside_the_papers():
    assert nets.width_of(zfjax.ZFNET) == nets.width_of(zfjax.ALEXNET) == 1
    assert nets.width_of(zfjax.ZFNET.scaled(0.5)) == 0.5


@pytest.mark.parametrize(
    "shape", [(1, 4, 4, 3), (1, 7, 12, 3), (1, 8, 12, 1), (1, 12, 8, 3), (8, 12, 3), (1, 9, 12, 3)]
)
def test_a_function_takes_pictures_and_images_of_its_own_shape_alone(shape):
    net = nets.FunctionNet(lambda params, x: {"a": x[:, ::2, ::2] @ params}, np.ones((3, 2)), image_size=(8, 12))
    with pytest.raises(zfjax.UserError, match=r"pictures of shape .*: \[B, 8, 12, 3\] is needed"):
        net.prepare(np.zeros(shape, np.uint8))
    with pytest.raises(zfjax.UserError, match=r"images of shape .*: \[B, 8, 12, 3\] is needed"):
        net.project(np.zeros(shape, np.float32), Unit(0), layer="a")


def test_the_pictures_of_a_function_may_be_larger_than_its_images():
    net = nets.FunctionNet(lambda images: {"a": images}, image_size=(2, 3), picture_size=(4, 5), channels=1)
    pictures = np.arange(20, dtype=np.uint8).reshape(1, 4, 5, 1)
    np.testing.assert_allclose(net.prepare(pictures)[..., 0] * 255, [[[6, 7, 8], [11, 12, 13]]], rtol=1e-6)
    with pytest.raises(zfjax.UserError, match=r"pictures of shape .*: \[B, 4, 5, 1\] is needed"):
        net.prepare(pictures[:, 1:-1, 1:-1])


UNITS = [Unit(1, layer="a"), Unit(0, layer="a")]


def _ways_to_name_units():
    """What takes units of a net of one 1x1 layer, and its answer."""
    net = nets.FunctionNet(lambda params, x: {"a": x @ params}, jnp.arange(6.0).reshape(3, 2), image_size=2)
    image = jnp.arange(12.0).reshape(1, 2, 2, 3)
    return {
        "isolate": lambda units: zfjax.isolate(image @ net.params, units),
        "project_fn": lambda units: zfjax.project_fn(net.features(["a"]), image, unit=units),
        "Net.project": lambda units: net.project(image, units),
    }


@pytest.mark.parametrize("takes", ["isolate", "project_fn", "Net.project"])
def test_a_list_of_units_is_one_unit_of_them_all(takes):
    answer = _ways_to_name_units()[takes]
    assert np.any(answer(UNITS))
    np.testing.assert_array_equal(answer(UNITS), answer(Unit(np.array([1, 0]), layer="a")))
    placed = [unit._replace(position=(n, 1)) for n, unit in enumerate(UNITS)]
    np.testing.assert_array_equal(answer(placed), answer(Unit(np.array([1, 0]), (np.arange(2), 1), "a")))


def test_isolate_takes_the_units_of_one_layer():
    with pytest.raises(zfjax.UserError, match="all of one layer"):
        zfjax.isolate(np.ones((1, 2, 2, 2)), [Unit(1, layer="a"), Unit(1, layer="b")])


@pytest.mark.parametrize("takes", ["isolate", "project_fn", "Net.project"])
@pytest.mark.parametrize(
    "units",
    [
        [Unit(1), Unit(0, (0, 0))],
        [Unit(np.arange(2))],
        [Unit(1), 2],
        [Unit(None, (0, 0))],
    ],
)
def test_a_list_of_units_that_are_no_row_of_one_layer_says_how_to_name_them(takes, units):
    with pytest.raises(zfjax.UserError, match=r"Unit\(\[1, 2\], layer=...\) is two units"):
        _ways_to_name_units()[takes](units)


@pytest.mark.parametrize("size", [[8, 12], np.array([8, 12]), (np.int64(8), np.int32(12))], ids=str)
def test_a_size_is_any_two_whole_numbers(size):
    table = zfjax.Architecture("small", [zfjax.Conv("conv1", np.int64(4), kernel=3, padding=[1, 1])], image_size=size)
    plain = zfjax.Architecture("small", (zfjax.Conv("conv1", 4, kernel=3, padding=(1, 1)),), image_size=(8, 12))
    assert table == plain and hash(table) == hash(plain) and type(table.layers[0].features) is int
    net = nets.FunctionNet(lambda x: {"a": x}, image_size=size, picture_size=size)
    assert net.image_size == net.picture_size == (8, 12) and type(net.image_size[0]) is int
    one = nets.FunctionNet(lambda x: {"a": x}, image_size=np.int64(8))
    assert type(one.image_size) is int and one.image_size == one.picture_size == 8


SEVERAL = [Unit(1, layer="b"), Unit(0, (1, 0), "a"), Unit(0, layer="b")]


def _down_two_layers(way):
    """(images -> pictures of units, each alone or in a list, `of`) of a net with a map below a dense layer."""
    weights = {"a": jnp.arange(6.0).reshape(3, 2), "b": jnp.arange(8.0).reshape(2, 4)}
    apply = lambda params, x: {"a": (maps := x @ params["a"]), "b": maps.mean((1, 2)) @ params["b"]}  # noqa: E731
    net = nets.FunctionNet(apply, weights, image_size=2)
    if way == "Net.project":
        return net.project
    return lambda images, units: zfjax.project_fn(net.features(["a", "b"]), images, unit=units)


@pytest.mark.parametrize("way", ["project_fn", "Net.project"])
def test_units_of_several_layers_are_projected_in_their_order(way):
    down, images = _down_two_layers(way), jnp.arange(36.0).reshape(3, 2, 2, 3)
    of_one_image, each_of_its_own = down(images[:1], SEVERAL), down(images, SEVERAL)
    assert len(of_one_image) == len(each_of_its_own) == 3
    for n, unit in enumerate(SEVERAL):
        np.testing.assert_allclose(of_one_image[n], down(images[:1], unit)[0], rtol=1e-6)
        np.testing.assert_allclose(each_of_its_own[n], down(images[n : n + 1], unit)[0], rtol=1e-6)
    with pytest.raises(zfjax.UserError, match="ways='deconvnet': a list of at least one of deconvnet"):
        nets.project_ways(None, None, zfjax.Unit(0), ways="deconvnet")
    with pytest.raises(zfjax.UserError, match="3 units of several layers on 2 images"):
        down(images[:2], SEVERAL)


def test_units_of_several_layers_say_their_images_by_of():
    down, images = _down_two_layers("Net.project"), np.arange(24.0, dtype=np.float32).reshape(2, 2, 2, 3)
    pictures = down(images, SEVERAL, of=[1, 0, 1])
    for n, unit in enumerate(SEVERAL):
        np.testing.assert_allclose(pictures[n], down(images, unit, of=[(1, 0, 1)[n]])[0], rtol=1e-6)
    with pytest.raises(zfjax.UserError, match=r"of=\[1, 0\]: the image of each of 3 units"):
        down(images, SEVERAL, of=[1, 0])
    with pytest.raises(zfjax.UserError, match="name one layer"):
        down(images, SEVERAL, of=0, layer="a")


def test_units_of_several_layers_go_down_a_table():
    images = np.random.default_rng(0).normal(size=(2, MINI.image_size, MINI.image_size, 3)).astype(np.float32)
    trace = tiny_nets.forward(TABLE.params, images, architecture=MINI)[1]
    units = [Unit(1, layer="fc6"), Unit(0, layer="conv2")]
    pictures = zfjax.gradient(TABLE.params, trace, units, architecture=MINI)
    for n, unit in enumerate(units):
        alone = zfjax.gradient(TABLE.params, trace, unit, architecture=MINI)[n]
        np.testing.assert_allclose(pictures[n], alone, rtol=1e-5, atol=1e-7)


def test_a_list_of_units_goes_down_a_table_too():
    images = np.random.default_rng(0).normal(size=(1, MINI.image_size, MINI.image_size, 3)).astype(np.float32)
    trace = tiny_nets.forward(TABLE.params, images, architecture=MINI)[1]
    down = lambda units: zfjax.project(TABLE.params, trace, units, layer="conv2", architecture=MINI)  # noqa: E731
    np.testing.assert_array_equal(down([Unit(1), Unit(0)]), down(Unit(np.array([1, 0]))))
