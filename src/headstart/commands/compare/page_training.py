"""The part of a comparison's report about what was trained in epochs, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.core.records import Curve
from headstart.core.wording import (
    NOT_DEFINED,
    clean,
    format_number,
    format_percent,
    format_seconds,
    shorten,
)
from headstart.report.page import Block, Picture, Table
from headstart.study.results import Comparison, Finding, Outcome

if TYPE_CHECKING:
    from rich.table import Table as RichTable

HEADER = ("configuration", "best validation", "kept epoch", "time a run", "× reference")


def finding_text(comparison: Comparison, finding: Finding) -> str:
    """Return the text of a finding; that of a fine-tuning is told with its time.

    Times differ from run to run, so they are no part of the finding itself.
    """
    seconds = comparison.seconds_per_run.get(str(finding.evidence.get("configuration")))
    reference = comparison.seconds_per_run.get(comparison.evidence.reference)
    if finding.kind != "fine-tuning" or seconds is None or not reference:
        return finding.text
    return (
        f"{finding.text} It takes {_times(seconds / reference)} the time:"
        f" {format_seconds(seconds)} a run, against {format_seconds(reference)} for embedding the"
        " training items once and training a head on them."
    )


def training_rows(comparison: Comparison) -> tuple[tuple[str, ...], ...]:
    """Return a row under :data:`HEADER` for the reference and for all that trains in epochs."""
    reference = comparison.evidence.reference
    times = comparison.seconds_per_run
    rows = []
    for outcome in comparison.outcomes:
        if outcome.name != reference and not _has_curves(outcome):
            continue
        kept = [run.chosen["best_epoch"] for run in outcome.runs if "best_epoch" in run.chosen]
        seconds, base = times.get(outcome.name), times.get(reference)
        rows.append(
            (
                outcome.name,
                NOT_DEFINED if outcome.held_out is None else format_percent(outcome.held_out.value),
                _range(kept),
                NOT_DEFINED if seconds is None else format_seconds(seconds),
                NOT_DEFINED if seconds is None or not base else _times(seconds / base),
            )
        )
    return tuple(rows)


def training_table(comparison: Comparison) -> RichTable:
    """Return the same rows for a rich console."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for position, name in enumerate(HEADER):
        table.add_column(name, justify="left" if position == 0 else "right", no_wrap=True)
    for row in training_rows(comparison):
        table.add_row(*(Text(clean(shorten(cell, 36))) for cell in row))
    return table


def training_blocks(comparison: Comparison) -> list[Block]:
    """Return the table, and loss and accuracy by epoch of every configuration that has them."""
    from headstart.report.figures import curves_figure

    trained = [outcome for outcome in comparison.outcomes if _has_curves(outcome)]
    if not trained:
        return []
    caption = (
        "How it was trained. Validation: the held-out training items, the mean over the"
        " repetitions; where they choose the epoch, the best of all epochs (0: the start, where no"
        " epoch of a fine-tuning was better). Time: one repetition"
        " on its own; for a frozen backbone decoding and embedding the training items once, and"
        " the head"
    )
    blocks: list[Block] = [Table(HEADER, training_rows(comparison), caption, "lrrrr")]
    for outcome in trained:
        curves = mean_curves([run.curves for run in outcome.runs])
        band = " Lines are means over the repetitions, bands reach from the lowest to the highest."
        blocks.append(
            Picture(
                curves_figure(curves),
                f"{outcome.name}: " + "; ".join(f"{c.name} ends at {c.y[-1]:.3g}" for c in curves),
                f"{outcome.name}: loss and accuracy by epoch."
                + (band if len(outcome.runs) > 1 else ""),
            )
        )
    return blocks


def mean_curves(runs: Sequence[Sequence[Curve]]) -> tuple[Curve, ...]:
    """Return the mean of the curves of several runs, with a band from the lowest to the highest.

    Args:
        runs: the same curves by name in each; a run may have ended earlier than another, and a
            point is the mean over those that came so far.
    """
    names = list(dict.fromkeys(curve.name for run in runs for curve in run))
    found = []
    for name in names:
        same = [curve for run in runs for curve in run if curve.name == name]
        points: dict[float, list[float]] = {}
        for curve in same:
            for x, y in zip(curve.x, curve.y, strict=True):
                if math.isfinite(y):
                    points.setdefault(x, []).append(y)
        if not points:
            continue
        xs = sorted(points)
        several = len(same) > 1
        found.append(
            Curve(
                name=name,
                x=tuple(xs),
                y=tuple(sum(points[x]) / len(points[x]) for x in xs),
                x_label=same[0].x_label,
                y_label=same[0].y_label,
                low=tuple(min(points[x]) for x in xs) if several else (),
                high=tuple(max(points[x]) for x in xs) if several else (),
                chosen=None if several else same[0].chosen,
            )
        )
    return tuple(found)


def _has_curves(outcome: Outcome) -> bool:
    return any(run.curves for run in outcome.runs)


def _range(values: Sequence[float]) -> str:
    if not values:
        return NOT_DEFINED
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _times(ratio: float) -> str:
    return f"{format_number(ratio, digits=2)}×"


__all__ = [
    "HEADER",
    "finding_text",
    "mean_curves",
    "training_blocks",
    "training_rows",
    "training_table",
]
