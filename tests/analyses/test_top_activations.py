"""The streaming choice of the strongest images, against a plain sort of everything in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets

import zfjax
from zfjax import features
from zfjax.analyses import top_activations
from zfjax.pixels import center_crop

NET = zfjax.Architecture(
    name="tiny",
    layers=(
        zfjax.Conv("conv1", 6, kernel=3, stride=2, after=(zfjax.Pool(), zfjax.ContrastNorm())),
        zfjax.Conv("conv2", 5, kernel=3, padding=(1, 1)),
        zfjax.Dense("fc6", 7),
        zfjax.Dense("fc7", 3, hidden=False),
    ),
    image_size=20,
)

LAYERS = ("conv1", "conv2", "fc6")
update = jax.jit(top_activations.update)
NUM, SIDE, K = 22, 24, 4


@functools.cache
def _params():
    net = zfjax.ConvNet(NET, kernel_init=jax.nn.initializers.normal(0.1))
    return jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 20, 20, 3)))["params"]


def _pictures():
    pictures = np.random.default_rng(0).integers(0, 256, (NUM, SIDE, SIDE, 3), np.uint8)
    pictures[[7, 13]] = pictures[2]  # three equal images tie in every map
    return pictures


MEAN = np.full((SIDE, SIDE, 3), 120, np.float32)


def _batches(batch_size, order=None):
    pictures, order = _pictures(), np.arange(NUM) if order is None else order
    for start in range(0, len(order), batch_size):
        index = np.full(batch_size, -1, np.int32)
        index[: len(order[start : start + batch_size])] = order[start : start + batch_size]
        yield {"image": np.where((index >= 0)[:, None, None, None], pictures[index], np.uint8(255)), "index": index}


NUM_MAPS = {layer: NET.layer(layer).features for layer in LAYERS}


def _scan(batches, state=None, **options):
    fn = features.layers_of_pictures(_params(), MEAN, LAYERS, architecture=NET)
    return top_activations.scan(fn, batches, state or top_activations.init(NUM_MAPS, K), **options)


def _trace(images):
    return tiny_nets.forward(_params(), images, architecture=NET)[1]


def _network_input():
    return center_crop(jnp.asarray(_pictures()), jnp.asarray(MEAN), NET.image_size)


def _sorted(features, indices, k):
    """All images of each map by a plain sort: (values, images, rows, columns), each [C, k]."""
    features = np.asarray(features).reshape(len(indices), *features.shape[1:-1], features.shape[-1])
    width = features.shape[2] if features.ndim == 4 else 1
    flat = features.reshape(len(indices), -1, features.shape[-1])
    found = []
    for channel in range(flat.shape[-1]):
        best = [(-flat[b, :, channel].max(), i, flat[b, :, channel].argmax()) for b, i in enumerate(indices) if i >= 0]
        best = sorted(best)[:k]
        found.append([[-v for v, _, _ in best], [i for _, i, _ in best], *zip(*(divmod(p, width) for *_, p in best))])  # noqa: B905
    return [np.array([row[field] for row in found]) for field in range(4)]


def _assert_same(top, expected, rtol=1e-5):
    np.testing.assert_allclose(top.values, expected[0], rtol=rtol)
    for found, wanted in zip(top[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(found, wanted)


def _map(values):
    """The features of one map, conv1, with these values [B, H, W]."""
    return {"conv1": jnp.asarray(values, jnp.float32)[..., None]}


def _state(k, channels=1):
    return top_activations.init({"conv1": channels}, k)


def test_nine_different_images():
    """One image with many strong places stands once, however strong they are."""
    values = np.ones((12, 4, 4), np.float32) + np.arange(12, dtype=np.float32)[:, None, None] / 100
    values[5] += 50 + np.arange(16, dtype=np.float32).reshape(4, 4)
    top = update(_state(9), _map(values), jnp.arange(12, dtype=jnp.int32))["conv1"]
    np.testing.assert_array_equal(top.images[0], [5, 11, 10, 9, 8, 7, 6, 4, 3])
    assert (int(top.rows[0, 0]), int(top.columns[0, 0])) == (3, 3)


def test_strongest_first():
    """Values descend from the strongest of all images; the weakest are not kept."""
    values = np.random.default_rng(1).permutation(40).astype(np.float32).reshape(10, 2, 2)
    top = update(_state(3), _map(values), jnp.arange(10, dtype=jnp.int32))["conv1"]
    best = values.reshape(10, 4).max(axis=1)
    np.testing.assert_array_equal(top.values[0], np.sort(best)[::-1][:3])
    np.testing.assert_array_equal(top.images[0], np.argsort(-best)[:3])


def test_ties_go_to_the_lower_image_in_any_order():
    values = np.full((6, 2, 2), 3.0, np.float32)
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 5, 0, 4, 2, 1]):
        state = _state(4)
        for start in (0, 3):
            indices = jnp.array(order[start : start + 3], jnp.int32)
            state = update(state, _map(values[start : start + 3]), indices)
        np.testing.assert_array_equal(state["conv1"].images[0], [0, 1, 2, 3])
        np.testing.assert_array_equal(state["conv1"].rows[0], [0, 0, 0, 0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_strongest_place_is_the_same_by_turns_and_by_reduction(dtype):
    flat = np.random.default_rng(0).integers(-3, 3, (5, 7, 400)).astype(np.float32)  # many are equal
    for place, value in enumerate([np.nan, np.inf, -np.inf, np.nan]):
        flat[place, place :: place + 1, place::9] = value
    turns, reduced = (
        fn(jnp.asarray(flat, dtype))
        for fn in (top_activations.strongest_by_turns, top_activations.strongest_by_reduction)
    )
    for one, other in zip(turns, reduced, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(turns[1], flat.argmax(axis=1))


def test_merging_is_a_stable_sort_of_what_is_held_and_offered():
    rng = np.random.default_rng(0)
    state = top_activations.init(6, 4)
    held: list[list[tuple]] = [[] for _ in range(6)]
    for batch in range(5):
        values = rng.integers(0, 3, (3, 2, 2, 6)).astype(np.float32)
        values[rng.random(values.shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
        indices = rng.permutation(3) + 3 * (4 - batch)  # later batches have lower indices
        state = update(state, jnp.asarray(values), jnp.asarray(indices, jnp.int32))
        for channel, image in np.ndindex(6, 3):
            flat = values[image, :, :, channel].ravel()
            place = int(flat.argmax())
            held[channel].append((flat[place], indices[image], *divmod(place, 2)))
    for channel, offered in enumerate(held):
        wanted = sorted(offered, key=lambda entry: (-np.inf if np.isnan(entry[0]) else -entry[0], entry[1]))[:4]
        for field, want in zip(state, zip(*wanted, strict=True), strict=True):
            np.testing.assert_array_equal(field[channel], want)


def test_fewer_images_than_k_leave_empty_places():
    top = update(_state(4), _map([[[1.0]], [[9.0]], [[2.0]]]), jnp.array([8, -1, 4], jnp.int32))["conv1"]
    np.testing.assert_array_equal(top.images[0], [4, 8, -1, -1])
    np.testing.assert_array_equal(top.values[0], [2.0, 1.0, -np.inf, -np.inf])


def test_a_map_without_a_positive_activation_is_dead():
    values = jnp.stack([jnp.zeros((3, 2, 2)), jnp.ones((3, 2, 2))], axis=-1)
    top = update(_state(2, 2), {"conv1": values}, jnp.arange(3, dtype=jnp.int32))["conv1"]
    np.testing.assert_array_equal(top_activations.alive(top), [False, True])
    np.testing.assert_array_equal(top_activations.alive(_state(2, 2)["conv1"]), [False, False])


@pytest.mark.parametrize(("batch_size", "seed"), [(4, None), (8, 1), (24, 2)])
def test_scan_is_the_sort_of_the_whole_set(batch_size, seed):
    """Whatever the batches, their order, the padding and the split over four devices."""
    assert jax.local_device_count() == 4
    order = None if seed is None else np.random.default_rng(seed).permutation(NUM)
    state = _scan(_batches(batch_size, order))
    trace = _trace(_network_input())
    for layer in LAYERS:
        _assert_same(state[layer], _sorted(trace[layer].features, range(NUM), K))


def test_any_function_of_images_can_be_scanned():
    """The brightest pixel of each colour, of a model that is no network of ours."""
    state = top_activations.scan(lambda images: {"pixels": images}, _batches(8), top_activations.init({"pixels": 3}, K))
    _assert_same(state["pixels"], _sorted(_pictures().astype(np.float32), range(NUM), K))


def test_one_array_of_features_is_scanned_as_such_and_a_tree_as_a_tree():
    expected = _sorted(_pictures().astype(np.float32), range(NUM), K)
    _assert_same(top_activations.scan(lambda images: images, _batches(8), top_activations.init(3, K)), expected)
    pictures, indices = jnp.asarray(_pictures(), jnp.float32), jnp.arange(NUM, dtype=jnp.int32)
    _assert_same(update(top_activations.init(3, K), pictures, indices), expected)
    state = top_activations.init((3, {"red": 1}), K)
    first, rest = top_activations.scan(lambda images: (images, {"red": images[..., :1]}), _batches(8), state)
    _assert_same(first, expected)
    _assert_same(rest["red"], [field[:1] for field in expected])


def test_update_on_one_device_is_the_scan_on_four():
    state = top_activations.init(NUM_MAPS, K)
    images = _network_input()
    for start in range(0, NUM, 11):
        indices = jnp.arange(start, start + 11, dtype=jnp.int32)
        trace = _trace(images[start : start + 11])
        state = update(state, {layer: trace[layer].features for layer in LAYERS}, indices)
    for layer, top in _scan(_batches(8)).items():
        _assert_same(top, [np.asarray(field) for field in state[layer]])


def test_a_resumed_scan_is_the_uninterrupted_one():
    seen = []
    whole = _scan(_batches(4), on_batch=seen.append)
    assert len(seen) == 6
    saved = jax.tree.map(np.asarray, seen[2])
    resumed = _scan(list(_batches(4))[3:], state=saved)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_the_state_does_not_grow_with_the_set():
    shapes = []
    _scan(_batches(4), on_batch=lambda state: shapes.append(jax.tree.map(lambda field: field.shape, state)))
    assert all(shape == shapes[0] for shape in shapes)
    assert shapes[0]["conv1"].values == (6, K) and shapes[0]["fc6"].images == (7, K)


@pytest.mark.filterwarnings("ignore:seed='value'")  # logits below 0
@pytest.mark.parametrize("layer", ["conv1", "conv2", "fc6", "fc7"])
def test_projected_together_is_projected_alone(layer):
    """More images and places than one chunk, images shared by several maps, in no order."""
    images, rng = np.asarray(_network_input()), np.random.default_rng(3)
    *sides, channels = NET.sizes()[layer].output
    limits = {"image": NUM, "channel": channels, "row": (sides or [1])[0], "column": (sides or [1])[0]}
    places = {name: rng.integers(0, limit, 40) for name, limit in limits.items()}
    found = top_activations.project_strongest(_params(), images, places, layer=layer, architecture=NET)
    for n in [0, 1, 17, 39]:
        trace = _trace(images[places["image"][n]][None])
        position = (int(places["row"][n]), int(places["column"][n])) if sides else None
        top = zfjax.isolate(trace[layer].features, channel=int(places["channel"][n]), position=position)
        alone = zfjax.project(_params(), trace, top, layer=layer, architecture=NET)[0]
        np.testing.assert_allclose(found[n], alone, rtol=1e-4, atol=1e-5)
    assert np.abs(found).max() > 0


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="k=0: at least 1"):
        top_activations.init(NUM_MAPS, 0)
    with pytest.raises(ValueError, match=r"num_maps={}: at least one layer"):
        top_activations.init({})
    with pytest.raises(ValueError, match=r"indices of shape \(3,\).*2 images"):
        top_activations.update(_state(2), _map(np.ones((2, 1, 1))), jnp.arange(3, dtype=jnp.int32))
    with pytest.raises(ValueError, match="state of {'conv1': 2} maps: the features have {'conv1': 1}"):
        top_activations.update(_state(2, 2), _map(np.ones((2, 1, 1))), jnp.arange(2, dtype=jnp.int32))
    with pytest.raises(ValueError, match="state of {'fc9': 2} maps: the features have {}"):
        _scan(_batches(4), state=top_activations.init({"fc9": 2}))
    with pytest.raises(ValueError, match="state of 2 maps: the features have {'pixels': 3}"):
        top_activations.scan(lambda images: {"pixels": images}, _batches(4), top_activations.init(2, K))
    with pytest.raises(ValueError, match="state of {'conv1': 2} maps: the features have 3"):
        top_activations.scan(lambda images: images, _batches(4), _state(2, 2))
    places = {"image": np.array([0]), "channel": np.array([6]), "row": np.array([0]), "column": np.array([0])}
    with pytest.raises(ValueError, match=r"places\['channel'\] from 6 to 6: 0 to 5 is needed"):
        top_activations.project_strongest(_params(), np.zeros((1, 20, 20, 3)), places, layer="conv1", architecture=NET)


@pytest.mark.parametrize("shape", [(2, 2, 3, 4, 1), (2, 3, 1)])
def test_features_without_places_y_x_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[B, H, W, C\] or \[B, C\] is needed; put all places into two axes"):
        top_activations.update(top_activations.init(1, 1), jnp.zeros(shape), jnp.arange(2))


def test_a_place_of_a_map_that_is_not_square_is_its_row_and_column():
    maps = np.zeros((1, 3, 7, 1), np.float32)
    maps[0, 2, 5, 0] = 1
    top = update(top_activations.init(1, 1), jnp.asarray(maps), jnp.arange(1))
    assert (int(top.rows[0, 0]), int(top.columns[0, 0])) == (2, 5)
