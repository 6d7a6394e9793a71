# %% [markdown]
# # 5. A wrong pooling rule, and how golden files catch it
#
# The paper's pools overlap: windows of 3x3 with stride 2. One value can be the maximum of several windows. When
# unpooling, these windows send their values to the same place, and the paper does not say what happens then. As the
# transpose of pooling, they add. In some public implementations the last value wins, and their pictures look fine. [The
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
    """The projection of all of conv2, with the unpooling that the library has at the moment."""
    _, trace = zfjax.forward(params, images, architecture=table)
    return np.asarray(zfjax.project(params, trace, trace["conv2"].features, layer="conv2", architecture=table))


# %% [markdown]
# A golden file stores the correct answer. It must not come from the code that it checks: those of this project come
# from slow loops written from the paper's text, and from other engines. Here is unpooling as a plain loop:


# %%
def slow_unpool(values, switches, *, shape, size=3, stride=2):
    """Each value goes to its switch; values at one place add."""
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
print("the library's unpooling agrees with the loop")

# %% [markdown]
# The mistake, as it is often written:


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
print(f"largest difference from the golden file: {difference:.2f}")

# %% [markdown]
# In a network, the projection changes by a considerable part of its norm, although nothing crashes and no fault is
# visible.

# %%
right = picture()
with mock.patch("zfjax.deconvnet.unpool", last_write_wins):
    jax.clear_caches()
    mistaken = picture()
jax.clear_caches()
share = np.linalg.norm(mistaken - right) / np.linalg.norm(right)
cosine = float((mistaken * right).sum() / np.linalg.norm(mistaken) / np.linalg.norm(right))
print(f"relative distance {share:.0%}, cosine {cosine:.2f}")
assert share > 0.05

# %% [markdown]
# A golden file covers one input, an identity all inputs. Unpooling is the transpose of pooling's read, so
# <unpool(v), m> = <v, read(m)> for the m that was pooled. It holds if values add, and for no other rule.

# %%
inner = float((pooled * pooled).sum())
assert np.isclose(float((zfjax.unpool(pooled, switches, shape=(9, 9)) * maps).sum()), inner, rtol=1e-5)
assert not np.isclose(float((wrong * np.asarray(maps)).sum()), inner, rtol=1e-3)

# %% [markdown]
# The test suite contains each mistake seen in public implementations as a mutant that must fail a test: last write
# wins, no switches, ReLU after the last filter, norm before pool, a forward mask instead of the ReLU, and others
# (`tests/core/test_mutants.py`).
