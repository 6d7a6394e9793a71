"""What a judge reads of a result.json is what its command's Result says that it holds."""

from types import NoneType, UnionType
from typing import Annotated, Any, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from experiments import (
    architecture_ablation,
    deconv_figures,
    evaluate_imagenet,
    feature_evolution,
    first_layer,
    invariance_curves,
    layer_analysis,
    occlusion_maps,
    part_correspondence,
    transfer_learning,
)
from experiments.report.figures import CLAIMS

COMMANDS = {
    "Figure 2": deconv_figures,
    "Figure 4": feature_evolution,
    "Figure 5": invariance_curves,
    "Figure 6": first_layer,
    "Figure 7": occlusion_maps,
    "Table 1": part_correspondence,
    "Table 2": evaluate_imagenet,
    "Table 3": architecture_ablation,
    "Table 4": transfer_learning,
    "Table 5, Figure 9": transfer_learning,
    "Table 6": transfer_learning,
    "Table 7": layer_analysis,
}
JUDGED = [claim for claim in CLAIMS if claim.source != "Figure 3"]
# a result of one command is one of two kinds, whose judges each need their own
OF_ONE_KIND = {"rows", "average_precision", "mean_average_precision"}


def plain(kind):
    """The type without NotRequired, Annotated and None."""
    while get_origin(kind) in (NotRequired, Annotated):
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
        return plain(kind)
    return kind


def lacking(read, written, place=""):
    """Fields that `read` needs and `written` does not promise; what is Any, or read as anything, may be all."""
    if read == written:
        return
    read, written = plain(read), plain(written)
    if is_typeddict(read) and is_typeddict(written):
        reads, writes = (get_type_hints(of, include_extras=True) for of in (read, written))
        for name, kind in reads.items():
            may_lack = name in OF_ONE_KIND or get_origin(kind) is NotRequired
            if name not in writes:
                yield from () if may_lack else (f"{place}{name}",)
            elif not may_lack and get_origin(writes[name]) is NotRequired:
                yield f"{place}{name} may be missing"
            else:
                yield from lacking(kind, writes[name], f"{place}{name}.")
    elif is_typeddict(read) and get_origin(written) is dict:
        for name, kind in get_type_hints(read).items():
            yield from lacking(kind, get_args(written)[1], f"{place}{name}.")
    elif get_origin(read) is list and get_origin(written) in (list, tuple):
        yield from lacking(get_args(read)[0], get_args(written)[0], f"{place}*.")
    elif get_origin(read) is dict and get_origin(written) is dict:
        yield from lacking(get_args(read)[1], get_args(written)[1], f"{place}*.")
    elif read is float and written is int:
        return
    elif Any not in (read, written) and read is not object and read != written and get_origin(written) is None:
        yield f"{place[:-1]} is {written}, read as {read}"


@pytest.mark.parametrize("claim", JUDGED, ids=lambda claim: claim.judge.__name__)
def test_what_a_judge_reads_is_what_its_command_writes(claim):
    assert list(lacking(claim.fields, COMMANDS[claim.source].Result)) == []


def test_a_field_that_no_command_writes_is_noticed():
    read = next(claim for claim in CLAIMS if claim.source == "Figure 7").fields
    assert list(lacking(read, deconv_figures.Result)) == ["score"]
