"""Sentences of pages and console alike; matplotlib is not needed for them."""

from __future__ import annotations

from collections.abc import Mapping


def left_out(parts: Mapping[str, str]) -> list[str]:
    """What does not apply to a network, {part: reason}, in sentences: one for each reason."""
    by_reason: dict[str, list[str]] = {}
    for part, reason in parts.items():
        by_reason.setdefault(reason, []).append(part)
    return [
        f"Left out: {' and '.join(filter(None, (', '.join(of[:-1]), of[-1])))}, as {reason}."
        for reason, of in by_reason.items()
    ]
