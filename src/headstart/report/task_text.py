"""Scores of several labels and of regressions in words, and their tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headstart.core.records import NamedScore, Reference
from headstart.core.wording import clean, format_number, format_percent, shorten
from headstart.evaluation.multi_label import MultiLabelEvaluation
from headstart.evaluation.regression import RegressionEvaluation
from headstart.report.text import (
    FEW_ITEMS,
    PER_CLASS_LIMIT,
    format_basis,
    format_few,
    format_score,
)

if TYPE_CHECKING:
    from rich.console import Group

TaskEvaluation = MultiLabelEvaluation | RegressionEvaluation


def format_named(figure: NamedScore, *, n: int | None = None) -> str:
    """Return a score with its interval: shares in per cent, others as they are.

    Args:
        figure: the score.
        n: the number of items, where the interval does not say it.
    """
    score = figure.score
    if figure.unit == "percent":
        return format_score(score, n=n)
    if not math.isfinite(score.value):
        return "not defined"
    few, value, interval = format_few(n), format_number(score.value), score.interval
    if interval is None:
        return f"{few}{value}"
    level = format_number(100 * interval.level)
    low, high = format_number(interval.low), format_number(interval.high)
    return f"{few}{value} ({level} % interval {low} to {high}, {format_basis(interval)})"


def short_named(figure: NamedScore) -> str:
    """Return the score alone."""
    if not math.isfinite(figure.score.value):
        return "not defined"
    if figure.unit == "percent":
        return format_percent(figure.score.value)
    return format_number(figure.score.value)


def row_table(evaluation: TaskEvaluation) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of the table of labels or targets."""
    if isinstance(evaluation, MultiLabelEvaluation):
        header = ("label", "items", "AP", "precision", "recall", "F1", "threshold")
        return header, [
            (
                row.label,
                f"only {row.support}" if 0 < row.support < FEW_ITEMS else f"{row.support:,}",
                *(
                    format_percent(value)
                    for value in (row.average_precision, row.precision, row.recall, row.f1)
                ),
                f"{row.threshold:.2f}",
            )
            for row in evaluation.per_label
        ]
    header = ("target", "mean", "deviation", "MAE", "RMSE", "R²", "Spearman")
    return header, [
        (
            row.target,
            *(
                format_number(value) if math.isfinite(value) else "not defined"
                for value in (
                    row.mean,
                    row.deviation,
                    row.mean_absolute_error,
                    row.root_mean_squared_error,
                    row.r2,
                    row.spearman,
                )
            ),
        )
        for row in evaluation.per_target
    ]


def task_table(
    evaluation: TaskEvaluation, *, baselines: Sequence[Reference] = (), limit: int = PER_CLASS_LIMIT
) -> Group:
    """Return the scores, those of the baselines, and the rows of labels or targets, for rich."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    scores = Table.grid(padding=(0, 3, 0, 0))
    for at, figure in enumerate(evaluation.figures()):
        worded = format_named(figure, n=evaluation.n)
        scores.add_row(Text(figure.name), Text(worded, style="" if at else "bold"))
    for baseline in baselines:
        worded = ", ".join(f"{f.name} {short_named(f)}" for f in baseline.figures)
        scores.add_row(
            Text(f"baseline: {clean(baseline.name)}", style="dim"), Text(worded, style="dim")
        )
    header, rows = row_table(evaluation)
    parts: list[Any] = [scores]
    if len(rows) > 1 or isinstance(evaluation, MultiLabelEvaluation):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for at, name in enumerate(header):
            table.add_column(name, justify="right" if at else "left")
        for row in rows[:limit]:
            table.add_row(Text(shorten(row[0], 40)), *(Text(cell) for cell in row[1:]))
        parts += [Text(""), table]
        if len(rows) > limit:
            parts.append(Text(f"and {len(rows) - limit:,} more", style="dim"))
    return Group(*parts)


__all__ = ["TaskEvaluation", "format_named", "row_table", "short_named", "task_table"]
