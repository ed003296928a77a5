"""Intervals, scores and nested settings in words, for the terminal and for pages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headstart.core.records import Interval, Score
from headstart.core.wording import NOT_DEFINED, clean, format_number, format_percent


def format_interval(interval: Interval) -> str:
    """Return ``95 % interval 88.9–96.9, Wilson, n = 153``; bounds in per cent."""
    level = format_number(100 * interval.level)
    bounds = f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"
    basis = {
        "wilson": f"Wilson, n = {interval.n:,}",
        "bootstrap": f"bootstrap over items, n = {interval.n:,}",
        "t": f"t over {interval.n:,} repetitions",
        "normal": f"normal over {interval.n:,} repetitions",
    }[interval.method]
    return f"{level} % interval {bounds}, {basis}"


def format_score(score: Score) -> str:
    """Return ``94.1 % (95 % interval 88.9–96.9, Wilson, n = 153)``.

    Without an interval the figure stands alone; a figure that is not finite reads "not defined".
    """
    if not math.isfinite(score.value):
        return "not defined"
    value = format_percent(score.value)
    return value if score.interval is None else f"{value} ({format_interval(score.interval)})"


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, text) pairs in the order given."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        full = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            rows.extend(flatten(value, f"{full}."))
        else:
            rows.append((full, _plain(value)))
    return rows


def _plain(value: Any) -> str:
    if value is None:
        return NOT_DEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return NOT_DEFINED
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_plain(item) for item in value) or NOT_DEFINED
    return clean(value)
