# %% [markdown]
# # 3. Is this picture about the unit?
#
# A projection can look like a dog because the unit looks for dogs, or because there is a dog in the image and the
# switches remember where its edges were. Nie et al. (2018) show that much is the second; Adebayo et al. (2018) say
# how to measure it: change what should matter, and see whether the picture changes. [The notebook](3_sanity.ipynb).

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
# This network has random weights. That is the point: it knows nothing, so whatever its pictures show of the images
# comes from the images. Does it matter *which* unit is carried down? Two units of one place of conv3, by two ways:


# %%
def picture(way, features_top, trace):
    """One way down of some activations of conv3, as an array."""
    return np.asarray(way(params, trace, features_top, layer="conv3", architecture=table))


up = jax.jit(partial(zfjax.forward, architecture=table))
_, trace = up(params, images)
strong, weak = sanity.neuron_tops(trace["conv3"].features)
alike = {}
for way in (zfjax.project, zfjax.guided_backprop, zfjax.gradient):
    name = way.__name__
    alike[name] = float(np.nanmean(sanity.cosine(picture(way, strong, trace), picture(way, weak, trace))))
    print(f"{name}: pictures of the strongest and the weakest unit of a place have a cosine of {alike[name]:.2f}")

# %% [markdown]
# The gradient tells the two units apart; the deconvnet, which sees only the switches and rectifies on its way, less
# so. So a gallery of deconvnet pictures is no proof that units differ: the difference between pictures of *one* image
# is what the units decide.

# %%
assert alike["project"] > alike["gradient"]

# %% [markdown]
# How much do the switches carry? Give each image those of another one, or none that mean anything:

# %%
own = picture(zfjax.project, strong, trace)
foreign = picture(zfjax.project, strong, sanity.exchanged(trace))
centred = picture(zfjax.project, strong, sanity.centered(trace, architecture=table))
print(f"switches of another image: {np.nanmean(sanity.cosine(own, foreign)):.2f}")
print(f"switches in the middle of their windows: {np.nanmean(sanity.cosine(own, centred)):.2f}")

# %% [markdown]
# And the weights, from the top down (the cascade of Adebayo et al.): a picture that survives new weights was not made
# by the old ones.

# %%
for layer, redrawn in sanity.cascade(params, jax.random.key(1), architecture=table):
    if layer in ("conv3", "conv2", "conv1"):  # what stands above conv3 plays no part in its pictures
        _, other = up(redrawn, images)
        top = zfjax.isolate(other["conv3"].features, channel=3)
        before = zfjax.project(params, trace, zfjax.Unit(3, layer="conv3"), architecture=table)
        after = zfjax.project(redrawn, other, top, layer="conv3", architecture=table)
        print(f"{layer} and above anew: {np.nanmean(sanity.cosine(np.asarray(before), np.asarray(after))):.2f}")

# %% [markdown]
# All of it at once, of any network, with edges as the picture that knows no network: `sanity.check_all`, or for a run
# `python -m experiments.sanity_checks --net runs/zfnet`.
