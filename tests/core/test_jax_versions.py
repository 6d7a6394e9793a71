"""What differs between versions of JAX."""

import pytest

from zfjax import jax_versions, shell


@pytest.mark.parametrize("name", ["manual_axes", "newly_manual_axes"])
def test_the_axes_of_a_shard_map_are_found_under_either_name(name):
    assert jax_versions.manual_axes({"mesh": None, name: ("devices",)}) == ("devices",)


def test_options_that_a_function_does_not_know_are_left_out():
    assert jax_versions.accepted(lambda a, *, b=0: None, {"b": 1, "c": 2}) == {"b": 1}


@pytest.mark.parametrize(
    ("installed", "given", "flags"),
    [
        ("0.10.2", "", "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"),
        ("0.10.2", "--a=1", "--a=1 --xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"),
        ("0.10.2", "--xla_cpu_experimental_ynn_fusion_type=X", "--xla_cpu_experimental_ynn_fusion_type=X"),
        ("0.7.2", "--a=1", "--a=1"),
        ("0.11.0", "", ""),
    ],
)
def test_the_flag_of_quick_kernels_is_given_to_the_version_that_needs_it_once(installed, given, flags, monkeypatch):
    monkeypatch.setattr(jax_versions, "version", lambda package: installed)
    monkeypatch.setenv("XLA_FLAGS", given)
    shell.use_quick_kernels()
    assert shell.os.environ["XLA_FLAGS"] == flags
