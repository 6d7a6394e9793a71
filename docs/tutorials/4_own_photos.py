# %% [markdown]
# # 4. Reproduce a figure on your own photos
#
# Figure 2 shows, for some maps of a layer, the images of *your* folder with the strongest activation, the projection of
# that activation, and the patch in its receptive field. The command is `python -m experiments.deconv_figures --data
# PHOTOS`; this tutorial shows its parts, for any network. [The notebook](4_own_photos.ipynb).

# %%
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import zfjax
from zfjax.analyses import strongest, top_activations
from zfjax.data import demo
from zfjax.data.sets import open_images

NUM_PHOTOS, BATCH = 96, 16  # small: 12, 4
PHOTOS, PICTURES = Path("PHOTOS"), Path("tutorial_pictures")
PICTURES.mkdir(exist_ok=True)

# %% [markdown]
# Without a folder, scenes of the demo set take the place of your photos. Pictures may have any size and common format.

# %%
if not PHOTOS.exists():
    PHOTOS.mkdir()
    for number, image in enumerate(demo.demo_images(2, 0, NUM_PHOTOS, size=96)["image"]):
        Image.fromarray(np.asarray(image)).save(PHOTOS / f"{number:03}.png")

# %% [markdown]
# The network can be `zfjax.load_net("runs/...")`, `zfjax.load_net("torchvision:resnet18:FILE")`, or a function. Here it
# is a first layer of oriented edge filters and a second layer with random weights, so nothing has to be downloaded.

# %%
angles = np.arange(8) * np.pi / 4
y, x = np.mgrid[-3:4, -3:4] / 3
edges = np.stack([np.sin(3 * (np.cos(a) * x + np.sin(a) * y)) * np.exp(-(x**2 + y**2)) for a in angles], axis=-1)
first = jnp.asarray(edges[:, :, None, :] * np.array([1.0, 0.9, 0.8])[:, None], jnp.float32)
second = jax.random.normal(jax.random.key(0), (3, 3, 8, 6)) / 8


def conv(maps, kernel, stride):
    """A convolution of NHWC maps."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(maps, kernel, (stride, stride), "SAME", dimension_numbers=numbers)


def fn(images):
    """{layer: features}."""
    low = jax.nn.relu(conv(images - 0.5, first, 2))
    pooled = jax.lax.reduce_window(low, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    return {"edges": low, "corners": jax.nn.relu(conv(pooled, second, 1))}


fields = {"edges": zfjax.architecture.ReceptiveField(7, 2, -2), "corners": zfjax.architecture.ReceptiveField(17, 4, -6)}
net = zfjax.FunctionNet(fn, image_size=64, name="edges", receptive_fields=fields)

# %% [markdown]
# One streaming pass over the folder finds the strongest images of every map; memory does not grow with the folder.

# %%
photos = open_images(str(PHOTOS), net).validation
layer = "corners"
num_maps = zfjax.nets.shapes_of(net)[layer][-1]


def batches():
    """The folder in batches, the last one filled up with -1."""
    for start in range(0, len(photos), BATCH):
        index = np.arange(start, start + BATCH)
        there = np.minimum(index, len(photos) - 1)
        pictures = np.stack([photos[int(place)]["image"] for place in there])
        yield {"image": pictures, "index": np.where(index < len(photos), index, -1).astype(np.int32)}


state = top_activations.init({layer: num_maps}, k=4)
top = top_activations.scan(zfjax.nets.features_of_pictures(net, [layer]), batches(), state)[layer]
maps = strongest.choose_maps(top, 3, seed=0)
print("maps", maps, "strongest images", np.asarray(top.images)[maps].tolist())

# %% [markdown]
# Each of these activations is projected alone, and cut to its receptive field like the patch of the photo.

# %%
found = strongest.project_and_cut(net, photos, top, maps=maps, layer=layer)
assert found.projections.shape[:2] == (3, 4) and len(set(found.images[0].tolist())) == 4  # four different images
rows = []
for number in range(len(maps)):
    rows += [*zfjax.pixels.signed_pictures(found.projections[number], found.scales[number]), *found.patches[number]]
sheet = Image.fromarray(zfjax.pixels.mosaic(np.stack(rows), columns=8))
sheet.resize((sheet.width * 4, sheet.height * 4), 0).save(PICTURES / "4_own_photos.png")

# %% [markdown]
# ![Three maps: four projections, and the patches beside them](4_own_photos.png)
#
# Each row is a map. `zfjax.atlas.build(net, open_images("PHOTOS", net), "atlas")` makes such a page for every unit.
