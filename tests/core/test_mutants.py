"""Every mistake seen in public implementations is caught: patched into zfjax, it makes a named test fail."""

import jax
import mutants
import numpy as np
import pytest
import test_golden
import tiny_nets

import zfjax
from zfjax.ops import conv_transpose

KILLERS = {id(mutant.killer): mutant.killer for mutant in mutants.MUTANTS}.values()


def forget(mutant):
    """Drop what was compiled, and what was computed going up (kept by table) if the mutant changes that."""
    jax.clear_caches()
    if mutant.module is zfjax.network:
        tiny_nets.run.cache_clear()
        test_golden.golden_forward.cache_clear()


@pytest.fixture
def fresh(mutant):
    """Nothing of the right code helps the mutant, and nothing of the mutant survives it."""
    forget(mutant)
    yield
    forget(mutant)


@pytest.mark.parametrize("killer", KILLERS, ids=lambda killer: getattr(killer, "func", killer).__name__)
def test_the_killer_passes_where_nothing_is_wrong(killer):
    killer()


def test_the_walk_with_no_mistake_is_project():
    """So what a bias or a mask changes is the mistake, not the walk."""
    top = np.asarray(tiny_nets.run(tiny_nets.MINI)[1]["fc6"].features)
    arguments = (tiny_nets.params(tiny_nets.MINI), tiny_nets.run(tiny_nets.MINI)[1], top)
    found = mutants.walk()(*arguments, layer="fc6", architecture=tiny_nets.MINI)
    np.testing.assert_array_equal(found, zfjax.project(*arguments, layer="fc6", architecture=tiny_nets.MINI))


def test_the_filter_without_flip_lacks_nothing_but_the_flip():
    row, shape = tiny_nets.MINI.layer("conv2"), tiny_nets.MINI.sizes()["conv2"].input
    kernel = tiny_nets.params(tiny_nets.MINI)["conv2"]["kernel"]
    maps = np.random.default_rng(0).normal(size=(2, *tiny_nets.MINI.sizes()["conv2"].filtered)).astype(np.float32)
    found = mutants.filter_without_flip(maps, kernel, row, shape, flip=True)
    assert tiny_nets.relative_error(found, conv_transpose(maps, kernel, layer=row, input_shape=shape)) < 1e-6


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.mistake)
def test_the_mistake_is_caught(mutant, fresh, monkeypatch):
    monkeypatch.setattr(mutant.module, mutant.name, mutant.replacement)
    with pytest.raises(AssertionError):
        mutant.killer()
