"""The tables: parameter counts and sizes of the paper, variants, receptive fields, no JAX inside."""

import dataclasses
import importlib
import sys
import types

import pytest

import zfjax

FIG3_WIDE = {"conv3": 512, "conv4": 1024, "conv5": 512}
NARROW, WIDE = {"fc6": 2048, "fc7": 2048}, {"fc6": 8192, "fc7": 8192}

# Table 3's models at 1000 classes: table, layers left out, widths, parameters.
TABLE_3 = [
    ("ZFNET", (), {}, 62_357_608),
    ("ZFNET", (), NARROW, 28_848_232),
    ("ZFNET", (), WIDE, 154_542_184),
    ("ZFNET", (), FIG3_WIDE, 107_627_624),
    ("ZFNET", (), FIG3_WIDE | WIDE, 237_560_936),
    ("ALEXNET", (), {}, 60_965_224),
    ("ALEXNET", ("conv3", "conv4"), {}, 59_268_712),
    ("ALEXNET", ("fc7",), {}, 44_183_912),
    ("ALEXNET", ("fc6", "fc7"), {}, 11_551_080),
    ("ALEXNET", ("conv3", "conv4", "fc6", "fc7"), {}, 9_854_568),
    ("ALEXNET", (), NARROW, 27_455_848),
    ("ALEXNET", (), WIDE, 153_149_800),
]

# Fig. 3 and Krizhevsky et al. 2012: side of each layer's map after the filters, and of what it hands on.
SIDES = {
    "ZFNET": {"conv1": (110, 55), "conv2": (26, 13), "conv3": (13, 13), "conv4": (13, 13), "conv5": (13, 6)},
    "ALEXNET": {"conv1": (55, 27), "conv2": (27, 13), "conv3": (13, 13), "conv4": (13, 13), "conv5": (13, 6)},
}


@pytest.mark.parametrize(("table", "gone", "widths", "count"), TABLE_3)
def test_parameter_counts_are_those_of_table_3(table, gone, widths, count):
    assert getattr(zfjax, table).without(*gone).with_sizes(**widths).num_parameters() == count


@pytest.mark.parametrize("table", SIDES)
def test_map_sizes_are_those_of_the_figure(table):
    sizes = getattr(zfjax, table).sizes()
    for name, (filtered, output) in SIDES[table].items():
        channels = getattr(zfjax, table).layer(name).features
        assert sizes[name].filtered == (filtered, filtered, channels)
        assert sizes[name].output == (output, output, channels)
    assert sizes["fc6"].input == (6, 6, 256) and sizes["fc6"].kernel == (9216, 4096)


@pytest.mark.parametrize(("table", "stages"), [("ZFNET", "pool, norm"), ("ALEXNET", "norm, pool")])
def test_order_of_pool_and_norm(table, stages):
    kinds = {zfjax.Pool: "pool", zfjax.ContrastNorm: "norm"}
    after = [[kinds[type(stage)] for stage in layer.after] for layer in getattr(zfjax, table).layers[:5]]
    assert after == [stages.split(", "), stages.split(", "), [], [], ["pool"]]


def test_contrast_norm_has_krizhevskys_constants():
    assert zfjax.ContrastNorm() == zfjax.ContrastNorm(num_maps=5, k=2.0, alpha=1e-4, beta=0.75)


def test_dropout_is_half_in_both_hidden_layers():
    hidden = [layer for layer in zfjax.ZFNET.layers if isinstance(layer, zfjax.Dense) and layer.hidden]
    assert [(layer.name, layer.dropout) for layer in hidden] == [("fc6", 0.5), ("fc7", 0.5)]


def test_copied_summary_with_pool_and_norm_after_conv3_can_be_written():
    layers = list(zfjax.ZFNET.layers)
    layers[2] = dataclasses.replace(layers[2], after=(zfjax.Pool(), zfjax.ContrastNorm()))
    summary = dataclasses.replace(zfjax.ZFNET, name="summary", layers=tuple(layers))
    sides = [summary.sizes()[f"conv{k}"].output[0] for k in range(1, 6)]
    assert sides == [55, 13, 6, 6, 3]
    assert summary.sizes()["fc6"].kernel == (3 * 3 * 256, 4096)
    assert zfjax.receptive_field(summary, "conv3")[:2] == (107, 32)


# Paper.md's list; "conv3" and "conv4" have no pool, so both stages are the same.
FIELDS = [
    ("conv1", "filtered", 7, 2),
    ("conv1", "output", 11, 4),
    ("conv2", "filtered", 27, 8),
    ("conv2", "output", 43, 16),
    ("conv3", "output", 75, 16),
    ("conv3", "filtered", 75, 16),
    ("conv4", "output", 107, 16),
    ("conv5", "filtered", 139, 16),
    ("conv5", "output", 171, 32),
]


@pytest.mark.parametrize(("layer", "stage", "size", "stride"), FIELDS)
def test_receptive_fields_are_those_of_the_paper(layer, stage, size, stride):
    assert zfjax.receptive_field(zfjax.ZFNET, layer, stage=stage)[:2] == (size, stride)


@pytest.mark.parametrize("table", ["ZFNET", "ALEXNET"])
@pytest.mark.parametrize("position", [(0, 0), (2, 5)])
def test_receptive_field_box_is_what_the_windows_below_reach(table, position):
    """Counted downwards: a place asks for rows first..last of the layer below, and so on to the image."""
    architecture = getattr(zfjax, table)
    for depth, layer in enumerate(architecture.layers[:5]):
        spans = [[place, place] for place in position]
        for row in architecture.layers[depth::-1]:
            for span in spans:
                if row.pool:
                    span[:] = span[0] * row.pool.stride, span[1] * row.pool.stride + row.pool.size - 1
                before = row.padding[0]
                span[:] = span[0] * row.stride - before, span[1] * row.stride - before + row.kernel - 1
        (top, bottom), (left, right) = spans
        box = zfjax.receptive_field(architecture, layer.name).box(position)
        assert box == (top, left, bottom + 1, right + 1)


def test_dense_layers_see_everything_their_map_sees():
    first, last = (zfjax.receptive_field(zfjax.ZFNET, "conv5").box((place, place)) for place in (0, 5))
    for name in ("fc6", "fc7", "fc8"):
        assert zfjax.receptive_field(zfjax.ZFNET, name).box((0, 0)) == (*first[:2], *last[2:])


@pytest.mark.parametrize("image", [(224, 160), (150, 300)])
def test_map_sizes_of_a_rectangle_are_those_of_the_squares_of_its_sides(image):
    of_each = [zfjax.ZFNET.with_sizes(image=side).sizes() for side in image]
    for name, size in zfjax.ZFNET.with_sizes(image=image).sizes().items():
        for of, *squares in zip(size[:3], *(sizes[name][:3] for sizes in of_each), strict=True):
            if len(of) == 3:
                assert of == (squares[0][0], squares[1][1], squares[0][2])
    assert zfjax.ZFNET.with_sizes(image=(224, 160)).sizes()["fc6"].kernel == (6 * 4 * 256, 4096)


@pytest.mark.parametrize("layer", ["conv1", "conv5", "fc6", "fc8"])
def test_receptive_field_of_a_rectangle_is_that_of_the_squares_of_its_sides(layer):
    """Rows as in 224 pixels, columns as in 160; one number where both are alike."""
    field = zfjax.receptive_field(zfjax.ZFNET.with_sizes(image=(224, 160)), layer)
    rows, columns = (zfjax.receptive_field(zfjax.ZFNET.with_sizes(image=side), layer) for side in (224, 160))
    assert field.sides == (rows.size, columns.size) and field[1:] == rows[1:] == columns[1:]
    top, left, bottom, right = field.box((0, 0))
    assert (top, bottom) == rows.box((0, 0))[::2] and (left, right) == columns.box((0, 0))[1::2]
    assert (field.size == rows.size) == layer.startswith("conv")
    assert field.holds((224, 160)) == layer.startswith("fc")


def test_a_square_by_its_two_sides_is_the_square():
    square = zfjax.ZFNET.with_sizes(image=(224, 224))
    assert (square, hash(square), repr(square)) == (zfjax.ZFNET, hash(zfjax.ZFNET), repr(zfjax.ZFNET))
    assert zfjax.ZFNET.with_sizes(image=(160, 224)).image_shape == (160, 224, 3) != square.image_shape


def test_with_sizes_changes_what_it_names_and_nothing_else():
    small = zfjax.ZFNET.with_sizes(image=112, conv3=512, fc8=10)
    assert (small.image_size, small.layer("conv3").features, small.num_classes) == (112, 512, 10)
    assert small.with_sizes(image=224, conv3=384, fc8=1000) == zfjax.ZFNET
    assert zfjax.ZFNET.with_sizes() == zfjax.ZFNET
    assert small.sizes()["conv4"].kernel == (3, 3, 512, 384)


@pytest.mark.parametrize("image", [224, 112, 113])
def test_without_keeps_the_geometry_consistent(image):
    """What a layer reads is what the layer below hands on, whichever are left out."""
    for gone in [("conv2",), ("conv3", "conv4"), ("conv5", "fc6", "fc7")]:
        table = zfjax.ALEXNET.with_sizes(image=image).without(*gone)
        sizes = list(table.sizes().values())
        assert not set(gone) & set(table.layer_names)
        assert all(above.input == below.output for below, above in zip(sizes, sizes[1:], strict=False))


def test_scaled_multiplies_every_width_but_the_classes_and_respects_groups():
    half, tenth = zfjax.ZFNET.scaled(0.5), zfjax.ALEXNET.scaled(0.03)
    assert [layer.features for layer in half.layers] == [48, 128, 192, 192, 128, 2048, 2048, 1000]
    assert [layer.features for layer in tenth.layers] == [2, 8, 12, 12, 8, 122, 122, 1000]
    assert zfjax.ZFNET.scaled(1.0) == zfjax.ZFNET
    assert zfjax.ALEXNET.scaled(1e-6).layer("conv1").features == 2


def test_tables_are_hashable_values():
    assert hash(zfjax.ZFNET) == hash(zfjax.ZFNET.with_sizes(fc8=10).with_sizes(fc8=1000))
    assert len({zfjax.ZFNET, zfjax.ALEXNET, zfjax.ZFNET.with_sizes(image=112), zfjax.ZFNET.with_sizes()}) == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        zfjax.ZFNET.image_size = 112


def test_defaults_are_224_pixels_in_three_channels_unscaled():
    for table in (zfjax.ZFNET, zfjax.ALEXNET):
        assert (table.image_size, table.channels, table.input_scale) == (224, 3, 1.0)


def test_architecture_works_where_jax_does_not_exist(monkeypatch):
    """Both its modules, read anew under a package that holds nothing else."""
    package = types.ModuleType("zfjax")
    package.__path__ = zfjax.__path__
    monkeypatch.setitem(sys.modules, "zfjax", package)
    for name in ("zfjax.architecture",):
        monkeypatch.delitem(sys.modules, name)
    for absent in ("jax", "jaxlib", "flax", "numpy"):
        monkeypatch.setitem(sys.modules, absent, None)
    alone = importlib.import_module("zfjax.architecture")
    assert alone.ZFNET is not zfjax.ZFNET and alone.ZFNET.num_parameters() == 62_357_608


def test_a_table_up_to_a_layer_has_that_one_last():
    table = zfjax.ZFNET.upto("conv5")
    assert table == dataclasses.replace(zfjax.ZFNET, layers=zfjax.ZFNET.layers[:5]) and table.num_classes == 0
    assert zfjax.ZFNET.upto("fc8") == zfjax.ZFNET
    with pytest.raises(
        zfjax.UserError, match="hidden dense layer cannot be the last; one of conv1, conv2, conv3, conv4, conv5"
    ):
        zfjax.ZFNET.upto("fc6")
    with pytest.raises(zfjax.UserError, match="conv9"):
        zfjax.ZFNET.upto("conv9")
    with pytest.raises(zfjax.UserError, match=r"is made by upto\(layer\)"):
        zfjax.ZFNET.without("fc6", "fc7", "fc8")
