"""Table 3: the twelve architectures that the paper compares, and one that is wide instead of deep."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
import scipy  # its submodules load at their first use: stats alone takes half a second

from zfjax.architecture import ALEXNET, ZFNET, Architecture, Size
from zfjax.errors import UserError

NUM_ORDERS = 9_999  # of the variants, for the p-value; all of them where there are fewer
TINY = 1e-9  # of a correlation: rounding


class Variant(NamedTuple):
    """One row of Table 3."""

    name: str
    table: Architecture  # at full width with 1,000 classes
    paper: tuple[float, float, float] | None  # error in percent: training top-1, validation top-1, validation top-5
    as_large_as: Architecture | None = None  # widened until it has this one's number of parameters


FOUR_LAYERS = ALEXNET.without("conv3", "conv4", "fc6", "fc7")
WIDE_MAPS = {"conv3": 512, "conv4": 1024, "conv5": 512}

VARIANTS = (
    Variant("alexnet", ALEXNET, (35.1, 40.5, 18.1)),
    Variant("alexnet, no conv3,4", ALEXNET.without("conv3", "conv4"), (41.8, 45.4, 22.1)),
    Variant("alexnet, no fc7", ALEXNET.without("fc7"), (27.4, 40.0, 18.4)),
    Variant("alexnet, no fc6,7", ALEXNET.without("fc6", "fc7"), (27.4, 44.8, 22.4)),
    Variant("alexnet, no conv3,4,fc6,7", FOUR_LAYERS, (71.1, 71.3, 50.1)),
    Variant("alexnet, fc6,7 of 2048", ALEXNET.with_sizes(fc6=2048, fc7=2048), (40.3, 41.7, 18.8)),
    Variant("alexnet, fc6,7 of 8192", ALEXNET.with_sizes(fc6=8192, fc7=8192), (26.8, 40.0, 18.1)),
    Variant("zfnet", ZFNET, (33.1, 38.4, 16.5)),
    Variant("zfnet, fc6,7 of 2048", ZFNET.with_sizes(fc6=2048, fc7=2048), (38.2, 40.2, 17.6)),
    Variant("zfnet, fc6,7 of 8192", ZFNET.with_sizes(fc6=8192, fc7=8192), (22.0, 38.8, 17.0)),
    Variant("zfnet, conv3,4,5 of 512,1024,512", ZFNET.with_sizes(**WIDE_MAPS), (18.8, 37.5, 16.0)),
    Variant("zfnet, both", ZFNET.with_sizes(**WIDE_MAPS, fc6=8192, fc7=8192), (10.0, 38.3, 16.9)),
    # Beyond the paper: is it depth that the four-layer net lacks, or parameters?
    Variant("four layers, widened", FOUR_LAYERS, None, as_large_as=ALEXNET),
)


def choose_variants(names: Sequence[str]) -> list[Variant]:
    """The variants called so, or all; UserError for an unknown name."""
    known = {variant.name: variant for variant in VARIANTS}
    for name in names:
        if name not in known:
            raise UserError(f"variants={name!r}: one of {'; '.join(known)} is needed")
    return [known[name] for name in names] or list(VARIANTS)


def table_of(variant: Variant, num_classes: int, *, width: float, image_size: Size, input_scale: float) -> Architecture:
    """The variant at a width, of which the classes are no matter, an image size in pixels and an input scale."""

    def fitted(table: Architecture) -> Architecture:
        return table.scaled(width).with_sizes(image=image_size, fc8=num_classes)

    table = fitted(variant.table)
    if variant.as_large_as is not None:
        table = widened(table, fitted(variant.as_large_as).num_parameters())
    return dataclasses.replace(table, name=folder_name(variant), input_scale=input_scale)


def widened(table: Architecture, num_parameters: int) -> Architecture:
    """The table at the largest width that has no more than so many parameters, found by bisection."""
    low, high = 1.0, 64.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if table.scaled(middle).num_parameters() > num_parameters else (middle, high)
    return table.scaled(low)


def folder_name(variant: Variant) -> str:
    """The variant's name without what folders do not like."""
    return variant.name.replace(", ", "-").replace(",", "+").replace(" ", "-")


class Ranking(TypedDict):
    """Spearman's rank correlation with the paper's order; None where all errors are the same."""

    rho: float | None
    p_value: float | None
    p_contrary: float | None
    num_variants: int


def rank_correlation(rows: Sequence[Mapping[str, Any]]) -> Ranking | None:
    """Spearman's rho of our validation top-1 errors and the paper's, over the rows that the paper has; None below 3.

    The p-values are those of this order and of the contrary one among the orders within each of the two families, the
    variants of AlexNet and those of the paper's network, as the families differ in more than what varies in them. They
    are exact where there are fewer than `NUM_ORDERS` orders, of so many random ones else; all are None where all errors
    are the same.
    """
    known = [row for row in rows if row["paper"]]
    if len(known) < 3:
        return None
    pairs = [(row["error"]["validation"]["top1"], row["paper"][1]) for row in known]
    ours, papers = (scipy.stats.rankdata(errors) - (len(pairs) + 1) / 2 for errors in zip(*pairs, strict=True))
    scale = np.sqrt((ours**2).sum() * (papers**2).sum())
    if scale == 0:
        return {"rho": None, "p_value": None, "p_contrary": None, "num_variants": len(pairs)}
    rho = float((ours * papers).sum() / scale)
    others = (_orders_within(ours, [row["name"].split(",")[0] for row in known]) * papers).sum(axis=1) / scale
    is_drawn = len(others) == NUM_ORDERS  # else they are all there are, the one observed among them
    p_value, p_contrary = (
        float((is_drawn + (side * others >= side * rho - TINY).sum()) / (is_drawn + len(others))) for side in (1, -1)
    )
    return {"rho": rho, "p_value": p_value, "p_contrary": p_contrary, "num_variants": len(pairs)}


def _orders_within(values: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """[orders, N]: all orders of the values within their families where there are few, else NUM_ORDERS at random."""
    members = [np.flatnonzero(np.array(families) == family) for family in dict.fromkeys(families)]
    if math.prod(math.factorial(len(of)) for of in members) < NUM_ORDERS:
        each = itertools.product(*(itertools.permutations(values[of]) for of in members))
        rows = np.array([np.concatenate(order) for order in each])
    else:
        rng, tiled = np.random.default_rng(0), np.tile(values, (NUM_ORDERS, 1))
        rows = np.concatenate([rng.permuted(tiled[:, of], axis=1) for of in members], axis=1)
    orders = np.empty_like(rows)
    orders[:, np.concatenate(members)] = rows
    return orders
