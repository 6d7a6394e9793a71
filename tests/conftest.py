"""A strict session: no silent promotion, four CPU devices, warnings are errors (pyproject).

XLA optimises nothing: compiling, not running, is what these tests wait for. Up to 0.10 it has an older way of making
programs, which it compiles twice as fast; later versions do not know the flag.
Compiled programs are kept in pytest's cache, so that a second run compiles what changed: `--cache-clear` forgets them.
"""

import gc
import os
import signal
from importlib.metadata import version

FLAGS = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
if tuple(map(int, version("jaxlib").split(".")[:2])) <= (0, 10):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["ZFJAX_COMPILATION_CACHE"] = "off"  # nothing is left in the user's cache

import jax  # noqa: E402  after the flags above, which are read when JAX starts
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    if hasattr(config, "cache"):  # not with -p no:cacheprovider
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="module", autouse=True)
def what_stays():
    """What imports and earlier files left, which stays, is no longer looked through for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def double_precision():
    """Float64 for one test; `jax.enable_x64` does it from JAX 0.8 on only."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def usual_signals():
    """The handlers of a process that a terminal starts; what starts the tests may have it ignore some."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def undrawn(monkeypatch):
    """Pages are laid out and not drawn, for tests of numbers: drawing is half of the time of some."""
    monkeypatch.setattr("experiments.pages.canvas.pixels_of", lambda figure: np.full((9, 9, 3), 255, np.uint8))
