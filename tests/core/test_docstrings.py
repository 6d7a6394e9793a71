"""The names that a user meets first have examples in their docstrings, and these say what happens."""

import doctest

import pytest

import zfjax

QUICK = (
    "Architecture receptive_field max_pool unpool Unit renormalize project_fn with_relu_rule explain_rules layers "
    "FunctionNet load_net open_data"
).split()
# they compile a network
SLOW = "ConvNet forward isolate project project_windows gradient guided_backprop".split()
FIRST = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def test_there_are_twenty_first_names():
    assert len({*QUICK, *SLOW}) == 20


@pytest.mark.parametrize("name", FIRST)
def test_the_examples_of_a_first_name_hold(name):
    test = doctest.DocTestParser().get_doctest(getattr(zfjax, name).__doc__, {}, name, None, 0)
    assert test.examples
    said = []
    assert not doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append).failed, "".join(said)
