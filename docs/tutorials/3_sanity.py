# %% [markdown]
# # 3. Is this picture about the unit?
#
# A projection can look like a dog because the unit responds to dogs, or because the image shows a dog and the switches
# record where its edges were. Nie et al. (2018) show that the second accounts for much of it. Adebayo et al. (2018)
# measure it: change what should matter, and see whether the projection changes. [The notebook](3_sanity.ipynb).

# %%
from functools import partial

import jax
import numpy as np

import zfjax
from zfjax.analyses import sanity
from zfjax.data import demo

NUM_IMAGES, SIZE = 24, 64  # small: 4, 48
scenes = demo.demo_images(1, 0, NUM_IMAGES, size=SIZE)["image"]
weights = zfjax.ConvNet(
    zfjax.ZFNET.scaled(1 / 8).with_sizes(image=SIZE, fc8=10), kernel_init=jax.nn.initializers.he_normal()
)
table = weights.architecture
images = np.asarray(scenes, np.float32) - np.asarray(scenes, np.float32).mean(axis=0)
params = weights.init(jax.random.key(0), images)["params"]

# %% [markdown]
# This network has random weights on purpose: it has learnt nothing, so everything its projections show comes from the
# images. Does it matter *which* unit is projected? Compare two units at one place of conv3, by three ways:


# %%
def picture(way, features_top, trace):
    """Some activations of conv3 carried to pixels, as an array."""
    return np.asarray(way(params, trace, features_top, layer="conv3", architecture=table))


up = jax.jit(partial(zfjax.forward, architecture=table))
_, trace = up(params, images)
strong, weak = sanity.neuron_tops(trace["conv3"].features)
alike = {}
for way in (zfjax.project, zfjax.guided_backprop, zfjax.gradient):
    name = way.__name__
    alike[name] = float(np.nanmean(sanity.cosine(picture(way, strong, trace), picture(way, weak, trace))))
    print(f"{name}: cosine {alike[name]:.2f} between the strongest and the weakest unit of a place")

# %% [markdown]
# The gradient distinguishes the two units; the deconvnet, which uses only the switches and rectifies its signal,
# distinguishes them less. A gallery of projections therefore does not prove that units differ. What a unit contributes
# is the difference between projections of *one* image.

# %%
assert alike["project"] > alike["gradient"]

# %% [markdown]
# How much comes from the switches? Use those of another image, or the middle of each window:

# %%
own = picture(zfjax.project, strong, trace)
foreign = picture(zfjax.project, strong, sanity.exchanged(trace))
centred = picture(zfjax.project, strong, sanity.centered(trace, architecture=table))
print(f"switches of another image: {np.nanmean(sanity.cosine(own, foreign)):.2f}")
print(f"switches in the middle of their windows: {np.nanmean(sanity.cosine(own, centred)):.2f}")

# %% [markdown]
# And from the weights? Redraw them from the top layer down (the cascade of Adebayo et al.): a projection that survives
# new weights does not depend on the old ones.

# %%
for layer, redrawn in sanity.cascade(params, jax.random.key(1), architecture=table):
    if layer in ("conv3", "conv2", "conv1"):  # layers above conv3 do not affect its projections
        _, other = up(redrawn, images)
        top = zfjax.isolate(other["conv3"].features, channel=3)
        before = zfjax.project(params, trace, zfjax.Unit(3, layer="conv3"), architecture=table)
        after = zfjax.project(redrawn, other, top, layer="conv3", architecture=table)
        print(f"{layer} and above redrawn: {np.nanmean(sanity.cosine(np.asarray(before), np.asarray(after))):.2f}")

# %% [markdown]
# `sanity.check_all` runs all of these for any network, with an edge image, which depends on no network, as a control.
# The command for a run is `python -m experiments.sanity_checks --net runs/zfnet`.
