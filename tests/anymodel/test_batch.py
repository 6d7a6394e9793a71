"""Images that look at each other: the line that mixes them is named, and nothing else is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from foreign_nets import equinox_net, linen_resnet, nnx_convnet
from jax import lax

from zfjax import FunctionNet, Unit, UserError, project_fn, with_relu_rule

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(4, 6, 6, 3)).astype(np.float32)
ROWS = RNG.normal(size=(4, 5)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
EYE = np.eye(5, dtype=np.float32)


def conv(x, kernel=KERNEL):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def project(fn, images, **options):
    return project_fn(fn, images, unit=Unit(0), on_unknown="keep", **{"seed": "one"} | options)


def flattened_norm(x):
    flat = x.reshape(-1, 3)
    return (flat - flat.mean(axis=0, keepdims=True)).reshape(x.shape)


def attention(x):
    heads = x.reshape(4, 36, 1, 3)
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", heads, heads))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, heads).reshape(x.shape)


def windows(x):
    """Swin's: attention inside 3x3 windows, with the windows of every image in the batch axis."""
    parts = x.reshape(4, 2, 3, 2, 3, 3).transpose(0, 1, 3, 2, 4, 5).reshape(16, 9, 3)
    parts = parts @ parts.swapaxes(1, 2) @ parts
    return parts.reshape(4, 2, 2, 3, 3, 3).transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)


def dynamic_kernels(image):
    return conv(image[None], KERNEL * image.mean())[0]


def flipped_copies(x):
    both = conv(jnp.concatenate([x, x[:, :, ::-1]]))
    return (both[:4] + both[4:]) / 2


def recurrent(x):
    steps = x.mean(axis=2).swapaxes(0, 1)
    return jax.lax.scan(lambda h, v: (jnp.tanh(h + v), h), jnp.zeros((4, 3)), steps)[1].swapaxes(0, 1)[:, :, None]


MIXED = {
    "batch norm": (lambda x: x - x.mean(axis=(0, 1, 2), keepdims=True), MAPS, "reduce_sum"),
    "batch norm of flattened maps": (flattened_norm, MAPS, "reduce_sum"),
    "batch norm of groups of images": (
        lambda x: (x.reshape(2, 2, 5) - x.reshape(2, 2, 5).mean(axis=1, keepdims=True)).reshape(4, 5),
        ROWS,
        "reduce_sum",
    ),
    "batch norm that lets no gradient through": (
        lambda x: x - jax.lax.stop_gradient(x.mean(axis=0, keepdims=True)),
        ROWS,
        "reduce_sum",
    ),
    "batch norm of a named axis": (
        jax.vmap(lambda x: x - jax.lax.pmean(x, "batch"), axis_name="batch"),
        ROWS,
        "psum",
    ),
    "batch norm in jit and remat": (
        jax.jit(jax.checkpoint(lambda x: x - x.mean(axis=0, keepdims=True))),
        ROWS,
        "reduce_sum",
    ),
    "batch norm of one image": (lambda x: x - x.mean(axis=0, keepdims=True), ROWS[:1], "reduce_sum"),
    "softmax over the batch": (lambda x: jax.nn.softmax(x, axis=0), ROWS, "reduce_max"),
    "similarities": (lambda x: x @ x.T, ROWS, "dot_general"),
    "attention between images": (lambda x: (x @ x.T) @ x, ROWS, "dot_general"),
    "distances": (lambda x: jnp.abs(x[:, None] - x[None]).sum(axis=-1), ROWS, "sub"),
    "running sum": (lambda x: jnp.cumsum(x, axis=0), ROWS, "cumsum"),
    "sorted": (lambda x: jnp.sort(x, axis=0), ROWS, "sort"),
    "rolled": (lambda x: jnp.roll(x, 1, axis=0), ROWS, "concatenate"),
    "turned round": (lambda x: x[::-1], ROWS, "rev"),
    "permuted": (lambda x: x[jnp.array([1, 0, 3, 2])], ROWS, "gather"),
    "mixup with the first": (lambda x: x + x[:1], ROWS, "add"),
    "stacked in another order": (lambda x: jnp.stack([EYE @ x[i] for i in (1, 0, 2, 3)]), ROWS, "stack"),
    "one beside each": (lambda x: jnp.stack([x[i] + x[0] for i in range(4)]), ROWS, "add"),
    "halves in another order": (lambda x: jnp.concatenate([x[2:], x[:2]]), ROWS, "concatenate"),
    "the first for all": (lambda x: x * x[0][None], ROWS, "mul"),
    "mean of the first two": (lambda x: x - x[:2].mean(axis=0, keepdims=True), ROWS, "reduce_sum"),
    "each with the next": (lambda x: jnp.stack([x[i] for i in range(3)] + [x[2]]), ROWS, "stack"),
    "from image to image": (lambda x: jax.lax.scan(lambda h, v: (h + v, h), x[0] * 0, x)[1], ROWS, "carry"),
    "a branch that one image chooses": (
        lambda x: jnp.stack([lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x[i]) for i in range(4)]),
        ROWS,
        "cond",
    ),
    "window of one image in steps of two": (
        lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1), (2, 1), ((0, 3), (0, 0))),
        ROWS,
        "reduce_window_max",
    ),
    "window over images": (
        lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2, 1), (1, 1), "SAME"),
        ROWS,
        "reduce_window_max",
    ),
}

ALONE = {
    "edges repeated": (lambda x: jnp.pad(x, ((0, 0), (1, 1), (2, 0), (0, 0)), mode="edge"), MAPS),
    "convolution": (conv, MAPS),
    "convolution under vmap": (jax.vmap(lambda image: conv(image[None])[0]), MAPS),
    "kernels of each image's own": (jax.vmap(dynamic_kernels), MAPS),
    "pooling": (lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), MAPS),
    "dense of flattened maps": (lambda x: (x.reshape(-1, 3) @ np.ones((3, 2), np.float32)).reshape(4, 6, 6, 2), MAPS),
    "dense under vmap": (jax.vmap(lambda x: EYE @ x + 1), ROWS),
    "layer norm": (lambda x: x - x.mean(axis=1, keepdims=True), ROWS),
    "group norm": (
        lambda x: (lambda y: (y - y.mean((1, 3), keepdims=True)).reshape(x.shape))(x.reshape(4, 36, 3, 1)),
        MAPS,
    ),
    "attention": (attention, MAPS),
    "attention in windows": (windows, MAPS),
    "rolled maps": (lambda x: jnp.roll(x, 1, axis=1), MAPS),
    "resized maps": (lambda x: jax.image.resize(x, (4, 12, 12, 3), "bilinear"), MAPS),
    "read at each image's own place": (lambda x: x[jnp.arange(4), jnp.argmax(x, axis=1)][:, None], ROWS),
    "written at each image's own place": (
        lambda x: jnp.zeros_like(x).at[jnp.arange(4), jnp.argmax(x, axis=1)].set(x.max(axis=1)),
        ROWS,
    ),
    "sorted channels": (lambda x: jnp.take_along_axis(x, jnp.argsort(x, axis=1), axis=1), ROWS),
    "copies side by side": (lambda x: jnp.tile(x, (2, 2))[4:, :5], ROWS),
    "an empty part": (lambda x: jnp.concatenate([x[:, :0], x], axis=1), ROWS),
    "squares of matrices": (lambda x: jnp.linalg.cholesky(x[:, :, None] * x[:, None] + EYE[None])[:, :, 0], ROWS),
    "image by image": (lambda x: jax.lax.map(lambda row: EYE @ row, x), ROWS),
    "two images at a time": (lambda x: jax.lax.map(lambda row: EYE @ row, x, batch_size=2), ROWS),
    "three images at a time": (lambda x: jax.lax.map(lambda row: EYE @ row, x, batch_size=3), ROWS),
    "a loop and a stack": (lambda x: jnp.stack([EYE @ row for row in x]), ROWS),
    "a loop and rows above each other": (lambda x: jnp.vstack([EYE @ row for row in x]), ROWS),
    "a loop over single batches": (lambda x: jnp.concatenate([x[i : i + 1] @ EYE for i in range(4)]), ROWS),
    "halves": (lambda x: jnp.concatenate([part @ EYE for part in jnp.split(x, 2)]), ROWS),
    "parts of other sizes": (lambda x: jnp.concatenate([x[:1] @ EYE, x[1:] * 2]), ROWS),
    "unstacked": (lambda x: jnp.stack([EYE @ row for row in jnp.unstack(x)]), ROWS),
    "maps of each, flattened": (lambda x: jnp.concatenate([x[i].reshape(1, -1) for i in range(4)]), MAPS),
    "branches": (lambda x: jnp.stack([lax.cond(row[0] > 0, jnp.sin, jnp.cos, row) for row in x]), ROWS),
    "recurrent over rows": (recurrent, MAPS),
    "mean of flipped copies": (flipped_copies, MAPS),
    "statistics that nothing reads": (lambda x: (x.mean(axis=0), 2 * x)[1], ROWS),
    "the one image of a batch": (lambda x: (EYE @ x[0])[None], ROWS[:1]),
}


@pytest.mark.parametrize("form", MIXED)
def test_what_mixes_the_images_is_refused_with_its_line_and_done_on_request(form):
    fn, images, operation = MIXED[form]

    def model(x):
        return fn(x)

    with pytest.raises(UserError, match="Batch norm in training mode") as error:
        project(model, images)
    assert f"{operation} of " in str(error.value) and "test_batch.py" in str(error.value)
    assert jax.eval_shape(lambda x: project(model, x, on_mixing="keep"), images).shape == images.shape


@pytest.mark.parametrize("form", ALONE)
def test_images_that_are_looked_at_alone_are_not_refused(form):
    """And indeed each image's picture is that of a batch in which the others are different."""
    fn, images = ALONE[form]
    picture = jax.jit(lambda x: project(fn, x))
    others = images.copy()
    others[1:] = others[1:][::-1] + 1
    np.testing.assert_allclose(picture(others)[0], picture(images)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [linen_resnet, nnx_convnet, equinox_net])
def test_common_nets_are_not_refused(make):
    net = make()
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)
    features = net.features(["logits"])
    assert jax.eval_shape(lambda x: project(lambda x: features(x)["logits"], x), images).shape == images.shape


def test_the_picture_of_a_mixed_batch_is_that_of_all_images():
    """What on_mixing='keep' lets through: the way back of the same function without a batch of its own."""

    def model(x):
        return jax.nn.relu((x - x.mean(axis=0, keepdims=True)) @ EYE)

    own = project(model, ROWS, on_mixing="keep", seed="value")
    features, down = jax.vjp(with_relu_rule(model, "deconvnet"), ROWS)
    top = jnp.zeros_like(features).at[:, 0].set(features[:, 0])
    np.testing.assert_array_equal(own, down(top)[0])
    np.testing.assert_allclose(own[:, 0], features[:, 0] - features[:, 0].mean(), rtol=1e-5)


def test_features_with_the_images_on_another_axis_are_refused():
    with pytest.raises(UserError, match=r"fn returns \(4, 4\) with the images on another axis"):
        project(lambda x: x[:, :4].T, ROWS)


PERMUTED = {
    "by a turn": lambda x: x.reshape(2, 2, 5).swapaxes(0, 1).reshape(x.shape),
    "by a turn and back, but for a reshape": lambda x: x.reshape(2, 2, 5).transpose(2, 1, 0).reshape(5, 4).T,
    "of maps": lambda x: x.reshape(2, 2, 5, 1).transpose(1, 0, 3, 2).reshape(x.shape) * 2,
}


@pytest.mark.parametrize("form", PERMUTED)
def test_images_in_another_order_are_refused(form):
    """For the picture of image 1 would be made of image 2."""
    with pytest.raises(UserError, match=r"fn returns \(4, 5\) with the images in another order along the first axis"):
        project(PERMUTED[form], ROWS)


def test_images_that_come_back_to_their_order_are_not_refused():
    turned = PERMUTED["by a turn"]
    np.testing.assert_array_equal(project(lambda x: turned(turned(x) * 3), ROWS)[:, 0], np.full(4, 3))


def by_ragged_dot(x):
    return jax.lax.ragged_dot(x, np.ones((1, 5, 5), np.float32), jnp.array([4]))


def by_a_loop(x):
    return jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] * 2), (0, x))[1]


def by_solving(x):
    return jnp.linalg.solve(2 * EYE, x.T).T


def by_a_callback(x):
    return x + jax.pure_callback(lambda x: np.asarray(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x)


UNFOLLOWED = {
    "ragged_dot_general": by_ragged_dot,
    "while": by_a_loop,
    "custom_linear_solve": by_solving,
    "pure_callback": by_a_callback,
}


@pytest.mark.parametrize("operation", UNFOLLOWED)
@pytest.mark.parametrize("after", [lambda x: x, lambda x: x - x.mean(axis=0, keepdims=True)], ids=["alone", "norm"])
def test_where_the_batch_cannot_be_followed_its_line_is_named(operation, after):
    """Whatever comes after it: batch norm would not be seen there."""
    with pytest.raises(UserError, match="the batch cannot be followed") as error:
        project(lambda x: after(UNFOLLOWED[operation](x)), ROWS)
    assert f"{operation} of " in str(error.value) and "test_batch.py:" in str(error.value)
    assert "on_mixing='keep' allows it" in str(error.value)


def test_what_nothing_reads_need_not_be_followed():
    assert project(lambda x: (by_a_loop(x), 2 * x)[1], ROWS).any()


def test_linen_in_training_mode_names_its_module_and_says_what_to_do():
    model = nn.Sequential([nn.Dense(4), nn.BatchNorm(use_running_average=False), nn.relu])
    variables = model.init(jax.random.key(0), ROWS)

    def trained(x):
        return model.apply(variables, x, mutable=["batch_stats"])[0]

    with pytest.raises(UserError, match=r"layers_1, .*test_batch.py:\d+: is over the images") as error:
        project(trained, ROWS)
    assert "use_running_average=True" in str(error.value)
    with pytest.raises(UserError, match="batch_stats.*: .*use_running_average=True"):
        project(lambda x: model.apply(variables, x), ROWS)


def test_nnx_in_training_mode_is_told_of_eval():
    model = nnx.Sequential(nnx.Linear(5, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0)), nnx.relu)
    with pytest.raises(UserError, match=r"trace level.*: .*model\.eval\(\)"):
        project(model, ROWS)
    model.eval()
    assert project(model, ROWS).any()


def test_nnx_under_its_own_jit_is_told_of_clone():
    class Jitted(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))

        @nnx.jit
        def __call__(self, images):
            return {"conv": nnx.relu(self.conv(images))}

    model = Jitted()
    with pytest.raises(UserError, match=r"make the model again.*nnx\.clone\(model\)\(images\)"):
        FunctionNet(lambda images: model(images), image_size=6)
    model = Jitted()
    net = FunctionNet(lambda images: nnx.clone(model)(images), image_size=6)
    plain = FunctionNet(lambda images: {"conv": nnx.relu(model.conv(images))}, image_size=6)
    assert net.project(MAPS, Unit(1), layer="conv").any()
    np.testing.assert_array_equal(*(of.project(MAPS, Unit(1), layer="conv") for of in (net, plain)))


def test_a_net_of_a_function_is_refused_as_well_and_told_how_to_go_on():
    def model(images):
        return {"hidden": jax.nn.relu(conv(images) - conv(images).mean(axis=(0, 1, 2), keepdims=True))}

    net = FunctionNet(model, image_size=6)
    with pytest.raises(UserError, match="on_mixing='error'"):
        net.project(MAPS, Unit(1), layer="hidden")
    assert FunctionNet(model, image_size=6, on_mixing="keep").project(MAPS, Unit(1), layer="hidden").any()


def test_another_word_than_error_and_keep_is_refused():
    with pytest.raises(UserError, match="on_mixing='allow'"):
        project(conv, MAPS, on_mixing="allow")


COUNTED = {  # and what it hands on
    "read": lambda x: lax.fori_loop(0, 4, lambda i, a: a.at[i].set(jax.nn.relu(x[i - 1])), jnp.zeros_like(x)),
    "written": lambda x: lax.scan(lambda c, row: ((c[0] + 1, c[1].at[c[0]].set(row)), None), (1, 0 * x), x)[0][1],
}


@pytest.mark.parametrize("form", COUNTED)
def test_a_loop_that_takes_another_image_than_it_writes_is_told_so(form):
    with pytest.raises(
        UserError, match="A loop over the images. The round that writes an image must read that image alone"
    ):
        project_fn(COUNTED[form], np.ones((4, 3, 3, 2), np.float32), unit=0)


def test_a_loop_that_counts_rows_is_followed():
    def fn(x):
        return lax.fori_loop(0, 3, lambda i, a: a.at[:, i].set(jax.nn.relu(x[:, i])), jnp.zeros_like(x))

    np.testing.assert_array_equal(project_fn(fn, np.ones((4, 3, 3, 2), np.float32), unit=(1, (2, 0)))[:, 2, 0, 1], 1)


def test_a_while_loop_is_told_what_has_a_derivative():
    with pytest.raises(UserError, match=r"while of float32\[4, 3\](.|\n)*lax.fori_loop with bounds that are numbers"):
        project_fn(lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x), np.ones((4, 3)), unit=0)
