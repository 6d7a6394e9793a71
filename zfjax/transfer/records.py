"""What is measured once per fold: recorded on disk, so that what is computed again goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from zfjax import files
from zfjax.errors import UserError


def recorded(
    folder: Path, name: str, *, key: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """What `compute` returned for this key: read where it was recorded before, else computed and recorded.

    The record is `folder`/`name`-<hash of the key>.json, written whole or not at all; it also holds the seconds that
    it took, and the key. UserError where it is damaged, or not of this key.
    """
    path = folder / f"{name}-{hash_of(key)}.json"
    if not path.exists():
        began = time.monotonic()
        computed = compute()
        files.save_json(path, {**computed, "seconds": time.monotonic() - began, "key": key})
    record: dict[str, Any] = files.read_json(path, dict[str, object], "delete it, and it is computed again")
    if record.get("key") != json.loads(json.dumps(key)):
        raise UserError(f"{path} is not the record of its key: delete it, and it is computed again")
    return record


class OverFolds(TypedDict):
    """Accuracies in percent."""

    folds: list[float]
    mean: float
    spread: float | None  # standard deviation of the folds; None of a single one
    records: list[dict[str, Any]]  # what else was recorded of each


def over_folds(records: Sequence[Mapping[str, Any]]) -> OverFolds:
    """A row of a table from the records of its folds.

    Returns:
      {"folds": accuracies in percent, "mean", "spread": their standard deviation, None of a single one, "records":
      what else was recorded, without the keys}.
    """
    values = [100 * record["accuracy"] for record in records]
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    others = [{part: record[part] for part in record if part not in ("key", "accuracy")} for record in records]
    return {"folds": values, "mean": float(np.mean(values)), "spread": spread, "records": others}


def mean_and_spread(row: Mapping[str, Any] | None) -> str:
    """As "83.8 ± 0.5", of {"mean", "spread"}; a dash where there is nothing."""
    if row is None:
        return "-"
    return f"{row['mean']:.1f}" + ("" if row["spread"] is None else f" ± {row['spread']:.1f}")


def hash_of(key: Mapping[str, Any]) -> str:
    """The name of a record: what its key says, whatever the order of its items."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
