"""The rules of test_house can fail: each catches the snippet that breaks it, and lets a good one pass."""

import pytest
import test_house as house

GOOD = {
    "zfjax": '"""Face."""\nfrom zfjax.network import forward\n',
    "zfjax.architecture": '"""Tables."""\nimport math\n',
    "zfjax.ops": '"""Ops."""\nimport jax\nfrom zfjax.architecture import Pool\n_PRIVATE = 1\n',
    "zfjax.network": '"""Net."""\nfrom zfjax.ops import conv\n\n\ndef up(x):\n    """Up."""\n    return x._replace()\n',
    "zfjax.parallel": '"""Devices."""\nimport jax\n\nf = jax.pmap\n',
    "zfjax.data.loader": '"""Data."""\nimport grain\nimport tensorflow_datasets as tfds\n',
    "zfjax.checkpoints": '"""Files."""\nimport orbax.checkpoint as ocp\n',
    "experiments.figure2": '"""Fig. 2."""\nimport matplotlib.pyplot as plt\nimport zfjax\n',
}
RULES = [
    house.upward_imports,
    house.import_cycles,
    house.private_imports,
    house.guests_in_the_wrong_room,
    house.tensorflow_imports,
    house.jax_in_architecture,
    house.long_functions,
    house.long_files,
    house.undocumented,
]
BAD = [
    (house.upward_imports, "zfjax.ops", "from zfjax.network import forward"),
    (house.upward_imports, "zfjax.ops", "from zfjax import network"),
    (house.upward_imports, "zfjax.ops", "from . import network"),
    (house.upward_imports, "zfjax.network", "import zfjax"),
    (house.upward_imports, "zfjax.network", "def f():\n    from zfjax.checkpoints import save"),
    (house.upward_imports, "zfjax.checkpoints", "import experiments.figure2"),
    (house.import_cycles, "zfjax.architecture", "from zfjax.ops import conv"),
    (house.private_imports, "zfjax.network", "from zfjax.ops import _PRIVATE"),
    (house.private_imports, "zfjax.network", "from .ops import _PRIVATE"),
    (house.private_imports, "zfjax.network", "from zfjax import ops\nx = ops._PRIVATE"),
    (house.private_imports, "experiments.figure2", "import zfjax\nx = zfjax.ops._PRIVATE"),
    (house.guests_in_the_wrong_room, "zfjax.network", "import tensorflow_datasets as tfds"),
    (house.guests_in_the_wrong_room, "zfjax.network", "from grain import python"),
    (house.guests_in_the_wrong_room, "zfjax.data.loader", "import orbax.checkpoint"),
    (house.guests_in_the_wrong_room, "zfjax.checkpoints", "from matplotlib import pyplot"),
    (house.guests_in_the_wrong_room, "zfjax.data.loader", "import tensorflow as tf"),
    (house.guests_in_the_wrong_room, "zfjax.data.loader", "import importlib\nimportlib.import_module('tensorflow')"),
    (house.tensorflow_imports, "experiments.figure2", "from tensorflow.io import gfile"),
    (house.jax_in_architecture, "zfjax.architecture", "import jax.numpy as jnp"),
    (house.jax_in_architecture, "zfjax.architecture", "def f():\n    from jax import lax"),
    (house.jax_in_architecture, "zfjax.layers", "import numpy as np"),
    (house.jax_in_architecture, "zfjax.layers", "from zfjax import ops"),
    (house.long_functions, "zfjax.ops", "def f():\n" + "    x = 1\n" * 50),
    (house.long_files, "zfjax.ops", "x = 1\n" * 251),
    (house.undocumented, "zfjax.ops", "def f():\n    return 1"),
    (house.undocumented, "zfjax.ops", 'class A:\n    """A."""\n    def f(self):\n        return 1'),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_house_breaks_no_rule(rule):
    assert not rule(GOOD)


@pytest.mark.parametrize(("rule", "module", "snippet"), BAD, ids=lambda value: getattr(value, "__name__", None))
def test_a_bad_snippet_is_caught(rule, module, snippet):
    assert rule(GOOD | {module: '"""Doc."""\n' + snippet})


@pytest.mark.parametrize("snippet", ["from jax import pmap", "import jax\njax.pmap(f)", "pmap(f)"])
def test_a_second_pmap_is_counted(snippet):
    assert house.pmaps(GOOD) == ["zfjax.parallel"]
    assert house.pmaps(GOOD | {"zfjax.network": snippet}) != ["zfjax.parallel"]


def test_a_machine_path_is_seen_and_a_url_is_not():
    for folder in ("work", "home", "opt"):
        assert house.MACHINE_PATH.search(f'x = "/{folder}/someone/data"')
        assert house.MACHINE_PATH.search(f"cd /{folder}/data")
        assert not house.MACHINE_PATH.search(f"https://example.org/{folder}/data, docs/{folder}/data, ~/{folder}/x")
