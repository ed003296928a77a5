"""Scores, intervals and settings in words, and the table of an evaluation for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart.core.records import Baseline, Evaluation, Interval, Score
from headstart.core.wording import NOT_DEFINED, clean, format_number, format_percent, shorten
from headstart.core.wording import count as counted

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

PER_CLASS_LIMIT = 20


def format_interval(interval: Interval) -> str:
    """Return ``95 % interval 88.9–96.9, Wilson, n = 153``; bounds in per cent."""
    level = format_number(100 * interval.level)
    bounds = f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"
    basis = {
        "wilson": f"Wilson, n = {interval.n:,}",
        "bootstrap": f"bootstrap over items, n = {interval.n:,}",
        "t": f"t over {counted(interval.n, 'repetition')}",
        "normal": f"normal over {counted(interval.n, 'repetition')}",
    }[interval.method]
    return f"{level} % interval {bounds}, {basis}"


def format_score(score: Score) -> str:
    """Return ``94.1 % (95 % interval 88.9–96.9, Wilson, n = 153)``.

    Without an interval only the figure is given; a figure that is not finite reads "not defined".
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


def confused_pairs(
    evaluation: Evaluation, limit: int = 10
) -> tuple[tuple[str, str, int, int], ...]:
    """Return the most frequent mistakes as (true, predicted, count, items of the true class).

    Ordered by count, then by the share of the true class, then by name.
    """
    pairs = [
        (evaluation.classes[row], evaluation.classes[column], count, sum(counts))
        for row, counts in enumerate(evaluation.confusion)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    pairs.sort(key=lambda pair: (-pair[2], -pair[2] / pair[3], pair[0], pair[1]))
    return tuple(pairs[:limit])


def scores(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    """Return the overall scores as (name, worded value) pairs."""
    ece = "not defined"
    if math.isfinite(evaluation.ece):
        ece = f"{format_number(100 * evaluation.ece, digits=2)} %"
    return (
        ("accuracy", format_score(evaluation.accuracy)),
        ("balanced accuracy", format_score(evaluation.balanced_accuracy)),
        ("macro F1", format_score(evaluation.macro_f1)),
        ("log loss", f"{format_number(evaluation.log_loss)} nats"),
        ("calibration error", ece),
    )


def evaluation_table(
    evaluation: Evaluation,
    *,
    baselines: Sequence[Baseline] = (),
    limit: int = PER_CLASS_LIMIT,
) -> Group:
    """Return the scores and the per-class table for a rich console.

    Class names are shown verbatim: never read as markup, with control characters taken out.

    Args:
        evaluation: what was scored.
        baselines: shown below the scores of the head.
        limit: rows of the per-class table, in the order of the classes; then "and N more".
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[Table | Text] = [_scores_table(evaluation, baselines)]
    if evaluation.per_class:
        parts += [Text(""), _class_table(evaluation, limit)]
        more = len(evaluation.per_class) - limit
        if more > 0:
            parts.append(Text(f"and {more:,} more", style="dim"))
    return Group(*parts)


def _scores_table(evaluation: Evaluation, baselines: Sequence[Baseline]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 3, 0, 0))
    for name, value in scores(evaluation):
        table.add_row(Text(name), Text(value, style="bold" if name == "accuracy" else ""))
    for baseline in baselines:
        name = f"baseline: {clean(baseline.name)}"
        table.add_row(Text(name, style="dim"), Text(format_score(baseline.accuracy), style="dim"))
    return table


def _class_table(evaluation: Evaluation, limit: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("class")
    for name in ("precision", "recall", "F1", "items"):
        table.add_column(name, justify="right")
    for row in evaluation.per_class[:limit]:
        table.add_row(
            Text(shorten(row.label, 40)),
            *(Text(format_percent(value)) for value in (row.precision, row.recall, row.f1)),
            Text(f"{row.support:,}"),
        )
    return table


__all__ = [
    "confused_pairs",
    "evaluation_table",
    "flatten",
    "format_interval",
    "format_score",
    "scores",
]
