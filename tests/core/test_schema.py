"""What a result.json lacks of the fields that are read of it: each type, each place."""

import math
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

import pytest

from experiments.report.figures import CLAIMS
from zfjax import schema
from zfjax.errors import UserError
from zfjax.schema import Count, Share


class Inner(TypedDict):
    number: float | None


class Fields(TypedDict):
    name: str
    inner: NotRequired[Inner]


@dataclass
class Plain:
    rate: float
    kind: Literal["a", "b"]


class More(Fields):
    flag: bool


FITTING = [
    (1, float),
    (math.nan, float),
    (None, float | None),
    (True, bool),
    ("anything", object),
    (None, object),
    ([1, 2.5], list[float]),
    ([1, None], tuple[float, float | None]),
    ({"a": [1]}, dict[str, list[int]]),
    (0.5, Share),
    (1, Share),
    (1, Count),
    ("b", Literal["a", "b"]),
    ({"rate": 1, "kind": "a"}, Plain),
    ({"name": "a"}, Fields),
    ({"name": "a", "inner": {"number": None}, "else": 3}, Fields),
    (None, Fields | None),
]


@pytest.mark.parametrize(("value", "kind"), FITTING)
def test_what_fits_has_no_fault(value, kind):
    assert list(schema.faults(value, kind, "it")) == []


FAULTS = [
    ("1", float, "it is '1', not a number"),
    (None, float, "it is None, not a number"),
    ("1", float | None, "it is '1', not a number"),
    (True, float, "it is True, not a number"),
    (True, int, "it is True, not a whole number"),
    (1.5, int, "it is 1.5, not a whole number"),
    (1, str, "it is 1, not a string"),
    (0, bool, "it is 0, not true or false"),
    ([1, "2"], list[float], "it.2 is '2', not a number"),
    ({}, list[float], "it is {}, not a list"),
    ([], dict[str, float], "it is [], not an object"),
    ({"a": {"b": "c"}}, dict[str, dict[str, int]], "it.a.b is 'c', not a whole number"),
    ([1], tuple[float, float], "it has 1 entries, not 2"),
    ([1, "a"], tuple[float, float], "it.2 is 'a', not a number"),
    (1.5, Share, "it is 1.5, not at least 0 and at most 1"),
    (math.nan, Share, "it is nan, not at least 0 and at most 1"),
    (0, Count, "it is 0, not at least 1"),
    ("0", Count, "it is '0', not a whole number"),
    ({}, Fields, "it.name is missing"),
    ("c", Literal["a", "b"], "it is 'c', not one of 'a', 'b'"),
    ([], Literal["a", "b"], "it is [], not one of 'a', 'b'"),
    ({"rate": "1", "kind": "a"}, Plain, "it.rate is '1', not a number"),
    ({"rate": 1}, Plain, "it.kind is missing"),
    ({"name": "a", "inner": {}}, Fields, "it.inner.number is missing"),
    ({"name": "a", "inner": None}, Fields, "it.inner is None, not an object"),
    ({"flag": True}, More, "it.name is missing"),
    ({"name": "a"}, More, "it.flag is missing"),
    ("a", Fields | None, "it is 'a', not an object"),
]


@pytest.mark.parametrize(("value", "kind", "fault"), FAULTS)
def test_a_fault_names_place_value_and_type(value, kind, fault):
    assert list(schema.faults(value, kind, "it")) == [fault]


def test_a_long_value_is_cut_short():
    (fault,) = schema.faults("a" * 1000, float, "it")
    assert len(fault) < 100


def test_a_check_names_the_first_fault():
    with pytest.raises(UserError, match="^name is 3, not a string$"):
        schema.check({"name": 3, "inner": 4}, Fields)
    with pytest.raises(UserError, match=r"^the result is \[\], not an object$"):
        schema.check([], Fields)


def test_an_entry_that_other_fields_promise_is_named_where_it_is_missing():
    assert schema.entry({"conv1": 2.0}, "conv1", "slope") == 2.0
    with pytest.raises(UserError, match="^slope.fc7 is missing$"):
        schema.entry({"conv1": 2.0}, "fc7", "slope")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.judge.__name__)
def test_every_claim_says_what_its_judge_reads(claim):
    (fault, *_) = schema.faults({}, claim.fields)
    assert fault.endswith(" is missing")
