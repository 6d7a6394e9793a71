# %% [markdown]
# # 5. A wrong pooling rule, and how golden files catch it
#
# The paper's pools overlap: 3x3 windows, stride 2. A value can be the maximum of two windows at once. Going down,
# both send their value to the same place; the paper does not say what happens then. Read as linear algebra it is
# plain, they add. Public implementations let the last one win, and their pictures look fine. [The
# notebook](5_wrong_pooling.ipynb).

# %%
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import zfjax

SIZE = 48  # small: 24
table = zfjax.Architecture(
    "overlap",
    (
        zfjax.Conv("conv1", 8, kernel=3, padding=(1, 1), after=(zfjax.Pool(),)),
        zfjax.Conv("conv2", 8, kernel=3, padding=(1, 1), after=(zfjax.Pool(),)),
    ),
    image_size=SIZE,
)
images = jax.random.normal(jax.random.key(0), (2, SIZE, SIZE, 3))
net = zfjax.ConvNet(table, kernel_init=jax.nn.initializers.he_normal())
params = net.init(jax.random.key(1), images)["params"]


def picture():
    """All of conv2 carried down, by whatever unpooling stands there now."""
    _, trace = zfjax.forward(params, images, architecture=table)
    return np.asarray(zfjax.project(params, trace, trace["conv2"].features, layer="conv2", architecture=table))


# %% [markdown]
# A golden file is the right answer, kept. It is worth something only if it did not come from the code that it judges:
# those of this project come from slow loops written from the paper's words, and from other engines. Here, unpooling
# in two loops:


# %%
def slow_unpool(values, switches, *, shape, size=3, stride=2):
    """Every value to its switch; those that meet add."""
    values, switches = np.asarray(values), np.asarray(switches)
    below = np.zeros((len(values), *shape[:2], values.shape[3]), np.float32)
    for at in np.ndindex(values.shape):
        image, row, column, channel = at
        dy, dx = divmod(int(switches[at]), size)
        below[image, stride * row + dy, stride * column + dx, channel] += values[at]
    return below


maps = jax.random.normal(jax.random.key(2), (1, 9, 9, 2))
pooled, switches = zfjax.max_pool(maps)
golden = Path("golden_unpool.npz")
np.savez(golden, below=slow_unpool(pooled, switches, shape=(9, 9)))
np.testing.assert_allclose(zfjax.unpool(pooled, switches, shape=(9, 9)), np.load(golden)["below"], rtol=1e-6)
print("the library's unpooling is that of the loops")

# %% [markdown]
# The mistake, in a form in which it is often written:


# %%
def last_write_wins(values, switches, *, shape, size=3, stride=2):
    """The place keeps the value that was written last."""
    batch, rows, columns, channels = values.shape
    dy, dx = jnp.divmod(switches.astype(jnp.int32), size)
    row = stride * jnp.arange(rows)[None, :, None, None] + dy
    column = stride * jnp.arange(columns)[None, None, :, None] + dx
    image = jnp.arange(batch)[:, None, None, None]
    below = jnp.zeros((batch, *shape[:2], channels), values.dtype)
    return below.at[image, row, column, jnp.arange(channels)].set(values)


wrong = np.asarray(last_write_wins(pooled, switches, shape=(9, 9)))
difference = np.abs(wrong - np.load(golden)["below"]).max()
assert difference > 0.1
print(f"the golden file tells it apart: {difference:.2f}")

# %% [markdown]
# In the network the same: the picture is another one, by a good part of its length, though nothing crashed and a
# reader would see no fault in it.

# %%
right = picture()
with mock.patch("zfjax.deconvnet.unpool", last_write_wins):
    jax.clear_caches()
    mistaken = picture()
jax.clear_caches()
share = np.linalg.norm(mistaken - right) / np.linalg.norm(right)
cosine = float((mistaken * right).sum() / np.linalg.norm(mistaken) / np.linalg.norm(right))
print(f"distance {share:.0%} of the picture, cosine {cosine:.2f}")
assert share > 0.05

# %% [markdown]
# A golden file knows one input. An identity knows all of them: unpooling is the transpose of pooling's read, so
# <unpool(v), m> = <v, read(m)> for the very m that was pooled. It holds for the sum, and for no other rule.

# %%
inner = float((pooled * pooled).sum())
assert np.isclose(float((zfjax.unpool(pooled, switches, shape=(9, 9)) * maps).sum()), inner, rtol=1e-5)
assert not np.isclose(float((wrong * np.asarray(maps)).sum()), inner, rtol=1e-3)

# %% [markdown]
# In the suite each mistake seen in public implementations is a mutant that has to fail a test: last write wins, no
# switches, ReLU after the last filter, norm before pool, a forward mask in place of the ReLU, and so on
# (`tests/core/test_mutants.py`).
