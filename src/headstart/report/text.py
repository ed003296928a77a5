"""Scores, intervals and settings in words, and the table of an evaluation for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart.core.records import Baseline, ClassScores, Evaluation, Interval, Score
from headstart.core.wording import NOT_DEFINED, clean, format_number, format_percent, shorten
from headstart.core.wording import count as counted

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

PER_CLASS_LIMIT = 20


FEW_ITEMS = 10
"""A figure that rests on fewer items says so before it is read."""


def format_interval(interval: Interval) -> str:
    """Return ``95 % interval 88.9–96.9, exact, n = 153``; bounds in per cent."""
    level = format_number(100 * interval.level)
    bounds = f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"
    return f"{level} % interval {bounds}, {format_basis(interval)}"


def format_basis(interval: Interval) -> str:
    """Return what an interval rests on: ``exact, n = 153``, or ``t over 5 repetitions``."""
    if interval.method in ("t", "prediction"):
        basis = "t over" if interval.method == "t" else "predicted from"
        return f"{basis} {counted(interval.n, 'repetition')}"
    if interval.method == "groups":
        return f"{counted(interval.items or 0, 'item')} in {counted(interval.n, 'group')}"
    name = "Wilson" if interval.method == "wilson" else interval.method
    return f"{name}, n = {interval.n:,}"


def against(name: str, figure: str, baselines: int) -> str:
    """Name the figure to beat in a sentence: the best of so many baselines, and what it reaches."""
    return f"the {'best ' if baselines > 1 else ''}baseline, {name} ({figure})"


def format_few(n: int | None, of: str = "item") -> str:
    """Return ``only 3 items: ``, and nothing for ten or more."""
    if n is None or n >= FEW_ITEMS:
        return ""
    return f"only {counted(n, of)}: "


def format_score(score: Score, *, n: int | None = None) -> str:
    """Return ``94.1 % (95 % interval 88.9–96.9, exact, n = 153)``.

    Without an interval only the figure is given; a figure that is not finite reads "not defined".
    What rests on fewer than ten items says so first: ``only 3 items: 100.0 % (…)``.

    Args:
        score: the figure.
        n: the number of items, where the interval does not say it.
    """
    if not math.isfinite(score.value):
        return "not defined"
    value, interval = format_percent(score.value), score.interval
    if interval is not None and interval.method == "groups":
        few = format_few(interval.n, "group")
    elif interval is not None and n is None:
        few = format_few(interval.items if interval.method in ("t", "prediction") else interval.n)
    else:
        few = format_few(n)
    return f"{few}{value}" if interval is None else f"{few}{value} ({format_interval(interval)})"


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
    found = [(pair.true, pair.predicted, pair.count, pair.items) for pair in evaluation.confused]
    pairs = found or [
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
    n, few = evaluation.n, format_few(evaluation.n)
    rows = [
        ("accuracy", format_score(evaluation.accuracy, n=n)),
        (
            "balanced accuracy",
            format_score(evaluation.balanced_accuracy, n=n) + without(evaluation),
        ),
        ("macro F1", format_score(evaluation.macro_f1, n=n)),
        ("log loss", f"{few}{format_number(evaluation.log_loss)} nats"),
        ("calibration error", f"{few}{ece}"),
    ]
    if evaluation.top_5 is not None:
        rows.insert(1, ("among the top 5", format_score(evaluation.top_5, n=n)))
    return tuple(rows)


def without(evaluation: Evaluation) -> str:
    """Say how many classes have no items, and so no recall; nothing where all have."""
    empty = sum(row.support == 0 for row in evaluation.per_class)
    if not empty:
        return ""
    total = len(evaluation.per_class)
    return f", over the {total - empty:,} of {total:,} classes that have items"


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
    for name in ("items", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    for row in evaluation.per_class[:limit]:
        table.add_row(Text(shorten(row.label, 40)), *(Text(cell) for cell in class_cells(row)))
    return table


def class_cells(row: ClassScores) -> tuple[str, str, str, str]:
    """Return items, precision, recall and F1 of a class in words; few items are called so."""
    items = f"only {row.support}" if 0 < row.support < FEW_ITEMS else f"{row.support:,}"
    shares = [format_percent(value) for value in (row.precision, row.recall, row.f1)]
    return items, shares[0], shares[1], shares[2]


__all__ = [
    "FEW_ITEMS",
    "against",
    "class_cells",
    "confused_pairs",
    "evaluation_table",
    "flatten",
    "format_basis",
    "format_few",
    "format_interval",
    "format_score",
    "scores",
    "without",
]
