"""What comes down at the arguments of a function under several rules: for the tests of the any-model engine."""

import re
from collections import Counter

import jax

from zfjax.anymodel.rules import with_relu_rule

OWN = "jax.vjp"


def down(fn, *rules, x, incoming, **options):
    """{rule: (results, what comes down at x)} of the rules and of JAX alone, compiled as one program."""

    @jax.jit
    def every_rule(x, incoming):
        found = {OWN: jax.vjp(fn, x), **{rule: jax.vjp(with_relu_rule(fn, rule, **options), x) for rule in rules}}
        return [(results, back(incoming)[0]) for results, back in found.values()]

    return dict(zip([OWN, *rules], every_rule(x, incoming), strict=True))


def compiled_operations(fn, x):
    """{(type, operation): count} of the optimised program, whatever its parts are called."""
    text = jax.jit(fn).lower(x).compile().as_text()
    return Counter(re.findall(r"^ +(?:ROOT )?%[\w.\-]+ = (\S+) ([\w\-]+)\(", text, re.MULTILINE))
