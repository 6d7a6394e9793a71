"""A strict session: no silent promotion, four CPU devices, warnings are errors (pyproject).

XLA optimises little: compiling, not running, is what these tests wait for (random numbers take seven times as long).
"""

import os

FLAGS = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402  after the flags above, which are read when JAX starts

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
