"""A strict session: no silent promotion, four CPU devices, warnings are errors (pyproject).

XLA optimises little: compiling, not running, is what these tests wait for (random numbers take seven times as long).
"""

import os

FLAGS = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["ZFJAX_COMPILATION_CACHE"] = "off"  # nothing is left in the user's cache

import jax  # noqa: E402  after the flags above, which are read when JAX starts
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def double_precision():
    """Float64 for one test; `jax.enable_x64` does it from JAX 0.8 on only."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
