"""Images that are taken one by one, turned, padded or masked, and come back to their rows, are followed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from zfjax import UserError, project_fn, skipped_on_the_way_down

RNG = np.random.default_rng(0)
B = 4
ROWS = RNG.normal(size=(B, 5)).astype(np.float32)
WEIGHTS = RNG.normal(size=(5, 5)).astype(np.float32)
ORDER = np.array([2, 0, 3, 1])
BACK = np.argsort(ORDER)
TURN = np.eye(B, dtype=np.float32)[ORDER]


def f(x):
    return jax.nn.relu(x @ WEIGHTS)


def picture(fn, images=ROWS):
    return project_fn(fn, images, unit=1, seed="one")


def loop(x, *, written=lambda i: i, read=lambda i: i):
    outputs = jnp.zeros_like(x)
    for i in range(len(x)):
        outputs = outputs.at[written(i)].set(f(x[read(i)]))
    return outputs


def fori(x, *, written=lambda i: i, read=lambda i: i):
    def step(i, outputs):
        return outputs.at[written(i)].set(f(x[read(i)]))

    return lax.fori_loop(0, len(x), step, jnp.zeros_like(x))


def updated(x, *, read):
    def step(i, outputs):
        return lax.dynamic_update_index_in_dim(outputs, f(lax.dynamic_index_in_dim(x, read(i))), i, axis=0)

    return lax.fori_loop(0, len(x), step, jnp.zeros_like(x))


def counted(x, *, first):
    def step(carry, row):
        at, outputs = carry
        return (at + 1, outputs.at[at].set(f(row))), None

    return lax.scan(step, (first, jnp.zeros_like(x)), x)[0][1]


def handed_on(x, *, kept):
    return lax.scan(lambda h, row: (f(row), f(row) + kept * h), jnp.zeros(5), x)[1]


def masked(x, *, read=lambda i: i):
    outputs = jnp.zeros_like(x)
    for i in range(len(x)):
        outputs = jnp.where((jnp.arange(len(x)) == i)[:, None], f(x[read(i)]), outputs)
    return outputs


def one_hot(x, *, read=lambda i: i):
    return sum(jnp.outer(jax.nn.one_hot(i, B), f(jax.nn.one_hot(read(i), B) @ x)) for i in range(B))


def padded(x, *, norm=lambda y: y, start=0):
    return norm(f(jnp.pad(x, ((start, 3), (0, 0)))))[:B]


def in_parts(x, *, norm=lambda y: y):
    """Three images at a time."""
    parts = jnp.pad(x, ((0, -len(x) % 3), (0, 0))).reshape(-1, 3, 5)
    return lax.map(lambda part: norm(f(part)), parts).reshape(-1, 5)[: len(x)]


def centred(x):
    return x - x.mean(axis=0, keepdims=True)


PAIRS = {  # of what leaves the images alone, and a twin that does not
    "rows set": (loop, lambda x: loop(x, read=lambda i: i - 1)),
    "rows set in another order": (
        lambda x: loop(x, written=lambda i: B - 1 - i, read=lambda i: B - 1 - i),
        lambda x: loop(x, written=lambda i: B - 1 - i),
    ),
    "fori_loop": (fori, lambda x: fori(x, read=lambda i: i - 1)),
    "fori_loop by a table": (
        lambda x: fori(x, written=lambda i: jnp.array(ORDER)[i], read=lambda i: jnp.array(ORDER)[i]),
        lambda x: fori(x, written=lambda i: jnp.array(ORDER)[i], read=lambda i: jnp.array(BACK)[i]),
    ),
    "fori_loop of updates": (
        lambda x: updated(x, read=lambda i: i),
        lambda x: updated(x, read=lambda i: i + 1),
    ),
    "scan that counts": (lambda x: counted(x, first=0), lambda x: counted(x, first=1)),
    "scan over numbers": (
        lambda x: lax.map(lambda i: f(x[i]), jnp.arange(B)),
        lambda x: lax.map(lambda i: f(x[(i + 1) % B]), jnp.arange(B)),
    ),
    "vmap over numbers": (
        lambda x: jax.vmap(lambda i: f(x[i]))(jnp.arange(B)),
        lambda x: jax.vmap(lambda i: f(x[i]))(jnp.array(ORDER)),
    ),
    "carry multiplied by nothing": (lambda x: handed_on(x, kept=0.0), lambda x: handed_on(x, kept=0.5)),
    "masks": (masked, lambda x: masked(x, read=lambda i: i - 1)),
    "one-hot rows": (one_hot, lambda x: one_hot(x, read=lambda i: (i + 1) % B)),
    "identity matrix": (lambda x: f(jnp.eye(B) @ x), lambda x: f((jnp.eye(B) + 1e-3) @ x)),
    "permutation matrix": (lambda x: TURN.T @ f(TURN @ x), lambda x: TURN @ f(TURN @ x)),
    "permutation": (lambda x: f(x[ORDER])[BACK], lambda x: f(x[ORDER])[ORDER]),
    "permutation, norm": (
        lambda x: f(x[ORDER])[np.argsort(ORDER)],
        lambda x: centred(f(x[ORDER]))[BACK],
    ),
    "permutation, scattered back": (
        lambda x: jnp.zeros_like(x).at[ORDER].set(f(x[ORDER])),
        lambda x: jnp.zeros_like(x).at[BACK].set(f(x[ORDER])),
    ),
    "scattered sums": (
        lambda x: jax.ops.segment_sum(f(x[ORDER]), jnp.array(ORDER), num_segments=B),
        lambda x: jax.ops.segment_sum(f(x), jnp.arange(B) // 2, num_segments=B),
    ),
    "roll": (lambda x: jnp.roll(f(jnp.roll(x, 1, axis=0)), -1, axis=0), lambda x: jnp.roll(f(x), 1, axis=0)),
    "flip": (lambda x: f(x[::-1])[::-1], lambda x: f(x[::-1])),
    "even and odd": (
        lambda x: jnp.stack([f(x[0::2]), f(x[1::2])], axis=1).reshape(x.shape),
        lambda x: jnp.concatenate([f(x[0::2]), f(x[1::2])]),
    ),
    "halves turned": (
        lambda x: jnp.roll(f(jnp.concatenate([x[2:], x[:2]])), 2, axis=0),
        lambda x: jnp.roll(f(jnp.concatenate([x[1:], x[:1]])), 2, axis=0),
    ),
    "padding": (padded, lambda x: padded(x, norm=centred)),
    "padding, and places that each image chooses": (
        lambda x: padded(x, norm=jax.vmap(lambda y: y.at[jnp.argmax(y)].set(y[jnp.argmax(y)]))),
        lambda x: padded(x, norm=lambda y: y.at[jnp.argmax(y[:, 0])].set(y[jnp.argmax(y[:, 0])])),
    ),
    "padding in front": (lambda x: padded(x, start=2, norm=lambda y: y[2:]), lambda x: padded(x, start=2)),
    "three images at a time": (in_parts, lambda x: in_parts(x, norm=centred)),
}


@pytest.mark.parametrize("form", PAIRS)
def test_the_picture_is_that_of_the_function_without_a_detour(form):
    alone, _ = PAIRS[form]
    np.testing.assert_allclose(picture(alone), picture(f), rtol=1e-6)


@pytest.mark.parametrize("form", PAIRS)
def test_a_twin_that_mixes_the_images_is_refused(form):
    _, mixed = PAIRS[form]
    with pytest.raises(UserError, match="images look at each other|images in another order"):
        picture(mixed)


@pytest.mark.parametrize("form", ["padding", "three images at a time", "flip"])
def test_one_image_is_judged_as_two_are(form):
    alone, _ = PAIRS[form]
    np.testing.assert_allclose(picture(lambda x: alone(x)[: len(x)], ROWS[:1]), picture(f, ROWS[:1]), rtol=1e-6)


def test_places_that_an_image_chooses_are_those_of_all():
    with pytest.raises(UserError, match="images look at each other"):
        picture(lambda x: fori(x, read=lambda i: jnp.argmax(x[i]) % B))


def test_a_function_under_jit_is_followed_too():
    np.testing.assert_allclose(jax.jit(lambda x: picture(fori, x))(ROWS), picture(f), rtol=1e-6)


def test_a_loop_over_images_in_a_net_of_maps():
    kernel = RNG.normal(size=(3, 3, 3, 2)).astype(np.float32)
    maps = RNG.normal(size=(B, 6, 6, 3)).astype(np.float32)

    def net(x):
        features = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return lax.reduce_window(jax.nn.relu(features), -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def one_by_one(x):
        start = jnp.zeros((B, 3, 3, 2))
        return lax.fori_loop(0, B, lambda i, features: features.at[i].set(net(x[i][None])[0]), start)

    np.testing.assert_allclose(picture(one_by_one, maps), picture(net, maps), rtol=1e-5, atol=1e-6)


def test_a_part_that_the_way_down_skips_leaves_the_images_where_they_are():
    """For it is the identity there, and what undoes its order is not."""
    norm = skipped_on_the_way_down(lambda h: h / jnp.linalg.norm(h, axis=1, keepdims=True))
    turned = skipped_on_the_way_down(lambda h: h[::-1] / 2)
    np.testing.assert_array_equal(picture(lambda x: norm(padded(x))), picture(lambda x: norm(f(x))))
    np.testing.assert_array_equal(picture(lambda x: padded(x, norm=norm)), picture(lambda x: norm(f(x))))
    with pytest.raises(UserError, match="images look at each other"):
        picture(lambda x: turned(f(x))[::-1])
