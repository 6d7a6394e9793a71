"""Dropout: after the hidden dense layers only, kept values scaled, one mask per image wherever the image stands."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_nets

import zfjax

KEY = jax.random.key(11)


def dropped(key=KEY, table=tiny_nets.DENSE, images=None):
    images = tiny_nets.images(table.image_size, batch=4) if images is None else images
    return tiny_nets.forward(tiny_nets.params(table), images, architecture=table, dropout_key=key)


def plain(table=tiny_nets.DENSE):
    return tiny_nets.forward(tiny_nets.params(table), tiny_nets.images(table.image_size, batch=4), architecture=table)


def test_a_hidden_unit_is_zero_or_twice_its_value():
    features, whole = (np.asarray(trace["fc6"].features) for _, trace in (dropped(), plain()))
    alive = whole > 0
    kept = features > 0
    np.testing.assert_array_equal(features[kept], 2 * whole[kept])
    assert 0 < kept.sum() < alive.sum()


def test_convolutions_are_never_dropped():
    table = tiny_nets.MINI.without("conv2", "conv3", "fc7")
    images = tiny_nets.images(34, batch=4)
    (_, trained), (_, tested) = dropped(table=table, images=images), plain(table)
    np.testing.assert_array_equal(trained["conv1"].features, tested["conv1"].features)
    assert np.any(trained["fc6"].features != tested["fc6"].features)


def test_logits_are_never_dropped():
    """They are the last dense layer of what fc7 hands on, and none is zero."""
    logits, trace = dropped()
    last = tiny_nets.params(tiny_nets.DENSE)["fc8"]
    expected = np.asarray(trace["fc7"].features) @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rate", [0.5, 0.2, 0.0])
def test_the_tables_rate_is_the_share_that_is_dropped_and_the_mean_stays(rate):
    layers = (zfjax.Dense("fc6", 4000, dropout=rate), zfjax.Dense("fc8", 5, hidden=False))
    table = dataclasses.replace(tiny_nets.DENSE, layers=layers)
    features, whole = (np.asarray(trace["fc6"].features) for _, trace in (dropped(table=table), plain(table)))
    alive = whole > 0
    share = (features[alive] == 0).mean()
    np.testing.assert_allclose(share, rate, atol=0.02)
    np.testing.assert_allclose(
        features[alive & (features > 0)].sum(), whole[features > 0].sum() / (1 - rate), rtol=1e-4
    )


def test_a_key_per_image_makes_the_mask_independent_of_the_place_in_the_batch():
    keys, images = jax.random.split(KEY, 4), tiny_nets.images(4, batch=4)
    order = np.array([2, 0, 3, 1])
    logits, _ = dropped(keys)
    shuffled, _ = dropped(keys[order], images=images[order])
    np.testing.assert_allclose(shuffled, logits[order], rtol=1e-4, atol=1e-3)


def test_one_key_is_folded_with_each_place():
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, np.arange(4))
    np.testing.assert_array_equal(dropped(KEY)[0], dropped(keys)[0])


def test_raw_keys_are_the_typed_keys():
    np.testing.assert_array_equal(dropped(jax.random.key_data(KEY))[0], dropped(KEY)[0])
    keys = jax.random.split(KEY, 4)
    np.testing.assert_array_equal(dropped(jax.random.key_data(keys))[0], dropped(keys)[0])


def test_masks_differ_between_images_layers_and_keys():
    table = tiny_nets.DENSE.with_sizes(fc7=64)
    sure = jax.tree.map(np.copy, tiny_nets.params(table))
    for name in ("fc6", "fc7"):
        sure[name]["kernel"][:], sure[name]["bias"][:] = 0, 1  # every unit is 1 before its mask

    def masks(key):
        _, trace = tiny_nets.forward(sure, tiny_nets.images(4), architecture=table, dropout_key=key)
        return [np.asarray(trace[name].features)[b] for name in ("fc6", "fc7") for b in (0, 1)]

    drawn = [*masks(KEY), *masks(jax.random.key(12))]
    assert all(set(np.unique(mask)) == {0, 2} for mask in drawn)
    assert len({mask.tobytes() for mask in drawn}) == len(drawn)
