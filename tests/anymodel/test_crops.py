"""A crop stands for the image where the engine can prove it, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from zfjax import Unit, max_pool, nets, project_fn
from zfjax.analyses.strongest import boxes_of
from zfjax.anymodel.crops import crop_of
from zfjax.architecture import ReceptiveField
from zfjax.nets import FunctionNet

SIDE = 40
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)
KERNELS = [RNG.normal(size=shape).astype(np.float32) / 5 for shape in [(3, 3, 3, 4), (3, 3, 4, 4), (2, 2, 4, 4)]]
EMBEDDING = RNG.normal(size=(SIDE // 2, SIDE // 2, 4)).astype(np.float32)


def conv(x, k, stride=1, padding="SAME"):
    return lax.conv_general_dilated(
        x, KERNELS[k], (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def pool(x, padding="VALID"):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


def below(x):
    return jax.nn.relu(conv(x, 0, stride=2) + np.full((1, 1, 1, 4), 0.1, np.float32))


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-3)


PROVEN = {
    "convolution": below,
    "pool with padding": lambda x: pool(below(x), "SAME"),
    "residual": lambda x: jax.nn.relu(below(x) + conv(below(x), 1)),
    "concatenation": lambda x: jnp.concatenate([below(x), conv(below(x), 1)], axis=-1),
    "norm at each place": lambda x: jax.nn.relu(conv(layer_norm(below(x)), 1)),
    "padded by hand": lambda x: jax.nn.relu(
        conv(jnp.pad(pool(below(x)), ((0, 0), (1, 0), (1, 0), (0, 0))), 2, 1, "VALID")
    ),
    "channels first": lambda x: jnp.moveaxis(jnp.moveaxis(below(x), 3, 1), 1, 3),
    "groups of channels": lambda x: below(x).reshape(*below(x).shape[:3], 2, 2).max(-1),
    "pool with switches": lambda x: max_pool(below(x)).values,  # its last window hangs over
    "colours turned round": lambda x: below(x[..., ::-1]),
    "maps in parts": lambda x: jnp.concatenate(jnp.split(below(x), 2, axis=3)[::-1], axis=3),
    "matrix product": lambda x: jax.nn.relu(below(x) @ KERNELS[1][0, 0]),
}
UNPROVEN = {
    "norm over the map": lambda x: below(x) - below(x).mean((1, 2), keepdims=True),
    "weights of places": lambda x: below(x) + EMBEDDING[None, : x.shape[1] // 2, : x.shape[2] // 2],
    "counted places": lambda x: below(x) * jnp.arange(x.shape[1] // 2, dtype=jnp.float32)[None, :, None, None],
    "the image's size": lambda x: below(x) * (1.0 / x.shape[1]),
    "a sum of counted places": lambda x: below(x) * jnp.arange(x.shape[1], dtype=jnp.float32).sum(),
    "a sum of ones": lambda x: below(x) / jnp.ones_like(x).sum(),
    "a product of ones": lambda x: below(x) * (jnp.ones(x.shape[1]) @ jnp.ones(x.shape[1])),
    "turned round": lambda x: below(x)[:, ::-1],
    "dense": lambda x: below(x) + (x.reshape(len(x), -1) @ np.ones((3 * SIDE**2, 4), np.float32))[:, None, None],
    "sees it all": lambda x: conv(conv(lax.reduce_window(x, 0.0, lax.add, (1, 37, 37, 1), (1, 1, 1, 1), "SAME"), 0), 1),
    "larger": lambda x: jnp.repeat(below(x), 2, axis=1),
    "padded after a cut": lambda x: conv(below(x)[:, 4:], 1),
    "a derivative of its own": lambda x: _own(below(x)),
}


@jax.custom_jvp
def _own(x):
    return x * 1.0


_own.defjvp(lambda x, t: (x[0], t[0]))


@pytest.mark.parametrize("name", PROVEN)
def test_pictures_of_crops_are_those_of_whole_images(name):
    fn = PROVEN[name]
    crop = crop_of(fn, IMAGES.shape[1:], np.float32)
    assert crop is not None and max(crop.size) < SIDE // 2
    net = FunctionNet(lambda images: {"map": fn(images)}, image_size=SIDE, units_at_once=3)
    of, channel = np.array([0, 1, 0, 1]), np.array([0, 1, 1, 0])
    inside = np.asarray(fn(IMAGES))[of, 3:-3, 3:-3, channel]
    row, column = (3 + of for of in np.unravel_index(inside.reshape(4, -1).argmax(axis=1), inside.shape[1:]))
    last = fn(IMAGES).shape[1] - 1
    row, column = np.append(row, [0, 0, last, last, last - 1]), np.append(column, [3, last, 0, last, 1])  # at borders
    of = np.resize(of, 9)
    channel = np.append(channel, np.asarray(fn(IMAGES))[of, row, column].argmax(axis=1)[4:])
    units = Unit(channel, (row, column))
    found = net.project(IMAGES, units, layer="map", of=of)
    expected = project_fn(fn, IMAGES[of], unit=units)
    assert np.any(expected[:4]) and np.any(expected[4:])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", [*PROVEN, "the image's size", "sees it all"])
def test_the_field_of_a_place_holds_the_pixels_that_change_it_and_no_other_rows(name):
    fn = {**PROVEN, **UNPROVEN}[name]
    net = FunctionNet(lambda images: {"map": fn(images), "mean": fn(images).mean((1, 2))}, image_size=SIDE)
    field = net.receptive_field("map")
    marked = np.repeat(IMAGES[:1], SIDE, axis=0)
    marked[np.arange(SIDE), np.arange(SIDE)] = np.nan  # row n of image n
    seen = np.asarray(fn(marked) != fn(np.repeat(IMAGES[:1], SIDE, axis=0))).any(axis=(2, 3))
    for place in (0, 1, seen.shape[1] // 2, seen.shape[1] - 1):
        top, bottom = np.clip(field.box((place, 0))[::2], 0, SIDE)
        np.testing.assert_array_equal(np.flatnonzero(seen[:, place]), np.arange(top, bottom))
    assert net.receptive_field("mean") is None


@pytest.mark.parametrize("name", ["norm over the map", "turned round", "dense", "larger", "a derivative of its own"])
def test_a_field_that_is_not_proved_is_not_known_unless_it_is_given(name):
    given = ReceptiveField(11, 2, 0)
    of_map = lambda images: {"map": UNPROVEN[name](images)}  # noqa: E731
    assert FunctionNet(of_map, image_size=SIDE).receptive_field("map") is None
    assert FunctionNet(of_map, image_size=SIDE, receptive_fields={"map": given}).receptive_field("map") is given


@pytest.mark.parametrize(
    ("preprocess", "size"),
    [
        (lambda crops: (crops - np.full((1, SIDE, SIDE, 3), 99.0, np.float32))[..., ::-1] / 58, 3),  # mean picture, BGR
        (lambda crops: crops[:, ::-1], None),
        (lambda crops: crops - crops.mean(axis=(1, 2), keepdims=True), None),
        (lambda crops: jax.image.resize(crops, (len(crops), 20, 20, 3), "linear"), None),
    ],
)
def test_fields_are_in_pictures_so_preprocessing_keeps_pixels_in_their_places(preprocess, size):
    net = FunctionNet(lambda images: {"map": below(images)}, image_size=SIDE, preprocess=preprocess)
    field = net.receptive_field("map")
    assert field == (None if size is None else ReceptiveField(size, 2, 0))


def test_rows_may_be_seen_otherwise_than_columns():
    """A pool of 3x5 places that stand 2x1 apart: the field, its boxes and Figure 2's are those of the program."""
    uneven = lambda images: lax.reduce_window(images, 0.0, lax.add, (1, 3, 5, 1), (1, 2, 1, 1), "SAME")  # noqa: E731
    field = FunctionNet(lambda images: {"map": uneven(images)}, image_size=SIDE).receptive_field("map")
    assert field == ReceptiveField(size=(3, 5), stride=(2, 1), offset=(0, -2)) and field.sides == (3, 5)
    slope = jax.grad(lambda image, place: uneven(image[None])[(0, *place)].sum())
    places = np.array([(2, 3), (7, 8), (4, 5)])
    of_places = boxes_of(field, (SIDE, SIDE), rows=places[:, :1], columns=places[:, 1:])
    for place, box in zip(places, of_places[:, 0], strict=True):
        rows, columns = np.nonzero(np.asarray(slope(IMAGES[0], tuple(place))).any(axis=2))
        assert field.box(place) == tuple(box) == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)


@pytest.mark.parametrize("name", UNPROVEN)
def test_what_does_not_prove_it_takes_the_whole_image(name):
    assert jax.eval_shape(UNPROVEN[name], jax.ShapeDtypeStruct(IMAGES.shape, np.float32)).ndim == 4
    assert crop_of(UNPROVEN[name], IMAGES.shape[1:], np.float32) is None


def test_a_crop_is_fed_where_it_is_enough(monkeypatch):
    fn, fed = PROVEN["pool with padding"], []
    project = nets.functions.projected_from
    spy = lambda fn, images, **rest: fed.append(images.shape) or project(fn, images, **rest)  # noqa: E731
    monkeypatch.setattr(nets.functions, "projected_from", spy)
    net = FunctionNet(lambda images: {"map": fn(images)}, image_size=SIDE)
    for place in ((4, 4), (0, 0), (9, 2)):  # inside, and over the border
        net.project(IMAGES[:1], Unit(0, place), layer="map")
    assert fed == [(1, *crop_of(fn, IMAGES.shape[1:], np.float32).size, 3)]  # one program for all


def test_windows_of_a_function_are_its_crops_and_its_pictures_hold_nothing_else():
    net = FunctionNet(lambda images: {"map": PROVEN["pool with padding"](images)}, image_size=SIDE)
    units = Unit(np.zeros(3, int), (np.array([4, 0, 9]), np.array([4, 0, 2])))
    (windows,) = nets.project_windows(net, IMAGES[:1], units, ways=("deconvnet",), layer="map").values()
    size = crop_of(PROVEN["pool with padding"], IMAGES.shape[1:], np.float32).size
    assert windows.pixels.shape == (3, *size, 3) and size[0] < SIDE
    whole = net.project(IMAGES[:1], units, layer="map")
    for picture, window, row, column in zip(whole, *windows, strict=True):
        beside = picture.copy()
        beside[row : row + size[0], column : column + size[1]] -= window
        assert picture.any() and not beside.any()


def test_a_crop_is_as_large_as_layers_above_need():
    def fn(images):
        maps = below(images)
        return {"map": maps, "above": maps[:, 8:9, 8:9].reshape(len(maps), 4)}  # which no image below 17 has

    crop = crop_of(lambda images: fn(images)["map"], IMAGES.shape[1:], np.float32)
    assert 17 <= crop.size[0] < SIDE
    net = FunctionNet(fn, image_size=SIDE)
    units = Unit(np.array([0, 1]), (np.array([0, 7]), np.array([9, 19])))
    found = net.project(IMAGES[:1], units, layer="map", of=np.zeros(2, int))
    expected = project_fn(below, IMAGES[[0, 0]], unit=units)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
