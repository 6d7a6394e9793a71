# %% [markdown]
# # 1. From a photo to a projection
#
# This tutorial trains a small network of the paper's kind on the demo set, which is rendered locally. Then it computes
# the activations of a few pictures, keeps one activation, and projects it to the pixels with the deconvnet. [The
# notebook](1_projection.ipynb).

# %%
import shutil
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import zfjax
from zfjax.data import demo
from zfjax.training import Recipe, loop

NUM_IMAGES, NUM_EPOCHS = 1536, 8  # small: 128, 1
PICTURES = Path("tutorial_pictures")
PICTURES.mkdir(exist_ok=True)

# %% [markdown]
# Each scene of the demo set comes with its class and the mask of its creature. A table defines the network; sizes and
# receptive fields are derived from it.

# %%
scenes = demo.demo_set(56, NUM_IMAGES, 64)
table = zfjax.Architecture(
    "tutorial",
    (
        zfjax.Conv("conv1", 16, kernel=5, stride=2, padding=(2, 2), after=(zfjax.Pool(), zfjax.ContrastNorm())),
        zfjax.Conv("conv2", 32, kernel=3, padding=(1, 1), after=(zfjax.Pool(),)),
        zfjax.Conv("conv3", 48, kernel=3, padding=(1, 1)),
        zfjax.Dense("fc4", len(scenes.class_names), hidden=False),
    ),
    image_size=48,
    input_scale=7 / 58,
)
for name, size in table.sizes().items():
    print(name, size.output, zfjax.receptive_field(table, name))

# %% [markdown]
# Training is a generator of events. `folder=` stores checkpoints, so that `zfjax.load_net` can open the run.

# %%
shutil.rmtree("tutorial_run", ignore_errors=True)  # from an earlier call
run = loop.Run(
    architecture=table,
    recipe=Recipe(batch_size=32, num_epochs=NUM_EPOCHS, initialization="he", annealing="cosine", crops="random"),
    train=scenes.train,
    validation=scenes.validation,
    mean=scenes.mean,
    folder=Path("tutorial_run"),
    settings={"data": f"demo:56:{NUM_IMAGES}:64", "class_names": list(scenes.class_names)},
)
for event in loop.train(run):
    if isinstance(event, loop.EpochDone):
        print(f"epoch {event.epoch}: {event}"[:120])

# %% [markdown]
# The forward pass returns the logits and, for every layer, features and switches.

# %%
net = zfjax.load_net("tutorial_run")
pictures = np.stack([scenes.validation[index]["image"] for index in range(6)])
images = net.prepare(pictures)
logits, trace = zfjax.forward(net.params, images, architecture=net.architecture)
print([net.class_names[label] for label in logits.argmax(axis=1)])
print({name: layer.features.shape for name, layer in trace.items()})

# %% [markdown]
# Take the map of conv3 with the largest sum of maxima over these pictures. In each picture keep its strongest
# activation, and set all other activations of the layer to zero.

# %%
channel = int(np.asarray(trace["conv3"].features).max(axis=(1, 2)).sum(axis=0).argmax())
top = zfjax.isolate(trace["conv3"].features, channel=channel)
assert int((top != 0).sum()) <= len(images)

# %% [markdown]
# The deconvnet unpools with the switches, rectifies, and applies the transposed filters, layer by layer down to signed
# pixels. Zero is mid-grey.

# %%
pixels = zfjax.project(net.params, trace, top, layer="conv3", architecture=net.architecture)
assert pixels.shape == images.shape
scale = zfjax.pixels.symmetric_scale(np.asarray(pixels))
seen = zfjax.pixels.signed_pictures(np.asarray(pixels), scale)
shown = np.concatenate([pictures[:, 4:52, 4:52], seen])
Image.fromarray(zfjax.pixels.mosaic(shown, columns=6)).resize((600, 200), 0).save(PICTURES / "1_projection.png")

# %% [markdown]
# ![Six scenes, and the projection of one map of conv3 for each](1_projection.png)
#
# The projection is zero outside the receptive field.

# %%
field = zfjax.receptive_field(net.architecture, "conv3")
rows = np.flatnonzero(np.abs(np.asarray(pixels[0])).sum(axis=(1, 2)))
assert len(rows) <= field.size, (len(rows), field)
print(f"{len(rows)} of {len(pixels[0])} rows are not zero; the receptive field has {field.size}")

# %% [markdown]
# `project_windows` projects several units of one image, each inside its receptive field only.

# %%
units = zfjax.Unit(np.arange(8), layer="conv3")
one = jax.tree.map(lambda array: array[:1], trace)
windows = zfjax.project_windows(net.params, one, units, architecture=net.architecture)
whole = zfjax.project(net.params, one, zfjax.Unit(3, layer="conv3"), architecture=net.architecture)
np.testing.assert_allclose(windows.paste((48, 48))[3], whole[0], atol=1e-4 * float(np.abs(whole).max() + 1e-6))
