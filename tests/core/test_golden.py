"""Golden values made with PyTorch in float64, independent of this project: agreement to float32 rounding.

The two small files (one image of whole numbers, projections at every 4th pixel) are committed; the large one lies
beside the checkout where there is one.
"""

import functools
import pathlib

import numpy as np
import pytest
import tiny_nets

import zfjax

HERE = pathlib.Path(__file__).parents[1] / "support"
LARGE = HERE.parents[2] / "shared" / "reference" / "zfnet.npz"

FILES = {
    "zfnet_small": ("ZFNET", HERE / "golden" / "zfnet_small.npz"),
    "alexnet_small": ("ALEXNET", HERE / "golden" / "alexnet_small.npz"),
    "zfnet": ("ZFNET", LARGE),
}

CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5")
LAYERS = (*CONVS, "fc6", "fc7", "fc8")


@functools.lru_cache
def read(file):
    """{key: array} of a golden file."""
    path = FILES[file][1]
    if not path.exists():
        pytest.skip(f"the large golden file is not here: no shared/reference/{path.name} beside the checkout")
    with np.load(path) as arrays:
        return dict(arrays)


def table_of(file):
    """The table as it is now (a mutant may have changed it), with the file's widths."""
    golden = read(file)
    widths = {name: golden[f"params/{name}/bias"].size for name in LAYERS}
    return getattr(zfjax, FILES[file][0]).with_sizes(**widths)


@functools.lru_cache
def golden_forward(file, table):
    """(params, trace of each image), image by image, so that the files share what is compiled."""
    params = {n: {p: read(file)[f"params/{n}/{p}"] for p in ("kernel", "bias")} for n in table.layer_names}
    images = read(file)["images"].astype(np.float32)
    return params, [tiny_nets.forward(params, image[None], architecture=table)[1] for image in images]


def stacked(traces, layer, part="features"):
    return np.concatenate([getattr(trace[layer], part) for trace in traces])


def sampled(pixels, expected):
    """Every 4th pixel, as the small files keep them."""
    step = pixels.shape[1] // expected.shape[1]
    return np.asarray(pixels)[:, ::step, ::step]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("file", FILES)
def test_features_agree(file, layer):
    _, traces = golden_forward(file, table_of(file))
    assert tiny_nets.relative_error(stacked(traces, layer), read(file)[f"features/{layer}"]) < 1e-5


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv5"])
@pytest.mark.parametrize("file", FILES)
def test_switches_agree(file, layer):
    """Theirs count row * width + column in the pool's input plane; ours dy * 3 + dx in the window."""
    table = table_of(file)
    _, traces = golden_forward(file, table)
    dy, dx = np.divmod(stacked(traces, layer, "switches").astype(int), 3)
    _, i, j, _ = np.indices(dy.shape)
    width = table.sizes()[layer].filtered[1]
    found, expected = (2 * i + dy) * width + 2 * j + dx, read(file)[f"switches/{layer}"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("file", FILES)
def test_projections_of_single_units_agree(file, layer):
    table, golden = table_of(file), read(file)
    params, traces = golden_forward(file, table)
    for b, (trace, unit) in enumerate(zip(traces, golden[f"units/{layer}"], strict=True)):
        top = np.zeros_like(trace[layer].features)
        top[0][tuple(unit)] = trace[layer].features[0][tuple(unit)]
        found = zfjax.project(params, trace, top, layer=layer, architecture=table)
        expected = golden[f"projection/{layer}"][b : b + 1]
        assert tiny_nets.relative_error(sampled(found, expected), expected) < 1e-4


@pytest.mark.parametrize("file", FILES)
def test_projection_of_every_activation_of_conv3_agrees(file):
    table, expected = table_of(file), read(file)["projection_all/conv3"]
    params, traces = golden_forward(file, table)
    for b, trace in enumerate(traces):
        found = zfjax.project(params, trace, trace["conv3"].features, layer="conv3", architecture=table)
        assert tiny_nets.relative_error(sampled(found, expected[b : b + 1]), expected[b : b + 1]) < 1e-4
