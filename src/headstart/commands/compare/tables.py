"""The figures of a comparison as rows of text, and what the terminal shows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.core.records import Interval
from headstart.core.wording import (
    NOT_DEFINED,
    clean,
    format_number,
    format_percent,
    format_seconds,
    shorten,
)
from headstart.study.comparison import Comparison
from headstart.study.results import Finding, FrozenOutcome, Outcome

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group
    from rich.table import Table

Row = tuple[str, ...]

ACCURACY: Row = ("configuration", "accuracy", "95 % interval", "difference", "p (Holm)")
BEHAVIOUR: Row = ("other batch", "2nd pass", "ms/item", "MiB")
TRAINING: Row = ("configuration", "best validation", "kept epoch", "time a run", "× reference")

_UNBOUNDED = 10_000
_ROUNDING = 1e-3  # below this, rows change by rounding only


def comparison_rows(comparison: Comparison) -> tuple[Row, tuple[Row, ...]]:
    """Return header and rows of the table of configurations."""
    rows = tuple(
        (*_accuracy(comparison, outcome), *_behaviour(comparison, outcome))
        for outcome in comparison.outcomes
    )
    return (*accuracy_header(comparison), *BEHAVIOUR), rows


def accuracy_header(comparison: Comparison) -> Row:
    """Return the titles of the figures that configurations are compared by."""
    return (ACCURACY[0], comparison.evidence.figure, *ACCURACY[2:])


def framework_rows(comparison: Comparison) -> tuple[Row, ...]:
    """Return what one writes for each configuration in the network's own framework.

    Configurations for which it is the same share a row. There are no rows where the names of
    configurations are the framework's own words.
    """
    e = comparison.evidence
    ways: dict[str, list[str]] = {}
    for outcome in e.outcomes:
        if way := e.way(outcome):
            ways.setdefault(way, []).append(outcome.name)
    return tuple((", ".join(names), way) for way, names in ways.items())


def training_rows(comparison: Comparison) -> tuple[Row, ...]:
    """Return a row under :data:`TRAINING` for the reference and for all that trains in epochs."""
    reference, times = comparison.evidence.reference, comparison.seconds_per_run
    base = times.get(reference)
    rows = []
    for outcome in comparison.outcomes:
        if outcome.name != reference and not has_curves(outcome):
            continue
        kept = [run.chosen["best_epoch"] for run in outcome.runs if "best_epoch" in run.chosen]
        seconds, held = times.get(outcome.name), outcome.held_out
        rows.append(
            (
                outcome.name,
                NOT_DEFINED if held is None else format_percent(held.value),
                _range(kept),
                NOT_DEFINED if seconds is None else format_seconds(seconds),
                NOT_DEFINED if seconds is None or not base else _times(seconds / base),
            )
        )
    return tuple(rows)


def has_curves(outcome: Outcome) -> bool:
    """Whether something was trained in epochs."""
    return any(run.curves for run in outcome.runs)


def finding_text(comparison: Comparison, finding: Finding) -> str:
    """Return the text of a finding; that of a fine-tuning is followed by its time.

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


def interval_text(interval: Interval | None) -> str:
    """Return the bounds of an interval in per cent; nothing for none."""
    return "" if interval is None else f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def terminal(comparison: Comparison, worded: Callable[[str], str] = str) -> Group:
    """Return what the terminal shows: tables, findings and recommendation.

    Args:
        comparison: the finished study.
        worded: rewrites the recommendation, which names parameters, for whoever reads it.
    """
    from rich.console import Group
    from rich.text import Text

    header, rows = comparison_rows(comparison)
    advice, reference = comparison.recommendation, clean(comparison.evidence.reference)
    legend = (
        f"Differences are paired, from {reference}. Other batch, 2nd pass: the largest change of a"
        " feature."
    )
    parts: list[Any] = [_Fitting(header, rows, advice.configuration), Text(legend, style="dim")]
    if ways := framework_rows(comparison):
        framework = comparison.evidence.terms.framework
        parts += [Text(f"\nIn {framework}, with base as your model:")]
        parts += [Text(f"  {clean(way)}: {clean(names)}") for names, way in ways]
    if comparison.evidence.tuned:
        parts += [Text(), _Fitting(TRAINING, training_rows(comparison))]
    for finding in comparison.findings:
        mark = {"warning": "!", "advice": ">", "note": "·"}[finding.level]
        text = Text(f"\n{mark} {clean(finding_text(comparison, finding))}")
        if finding.fix:
            text.append(f"\n  what to do: {clean(finding.fix)}", style="italic")
        parts.append(text)
    parts.append(Text(f"\n{clean(worded(advice.text))}", style="bold"))
    parts += [Text(f"  {clean(line)}") for line in (*advice.evidence, worded(advice.doubt))]
    return Group(*parts)


@dataclass(frozen=True)
class _Fitting:
    """A table without the last of its columns, where all of them do not fit.

    What is left out of a terminal is in the report; a figure that is cut off says nothing.
    """

    header: Row
    rows: Sequence[Row]
    bold: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        free = options.update(max_width=_UNBOUNDED)
        for columns in range(len(self.header), 0, -1):
            rows = [row[:columns] for row in self.rows]
            table = _table(self.header[:columns], rows, self.bold)
            if columns == 2 or console.measure(table, options=free).maximum <= options.max_width:
                yield table
                return


def _table(header: Row, rows: Sequence[Row], bold: str | None = None) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for position, name in enumerate(header):
        table.add_column(name, justify="right" if position else "left", no_wrap=True)
    for row in rows:
        style = "bold" if row[0] == bold else ""
        table.add_row(*(Text(shorten(cell, 36), style=style) for cell in row))
    return table


def _accuracy(comparison: Comparison, outcome: Outcome) -> Row:
    difference = outcome.difference
    if difference is None:
        gap, p = "reference", ""
    elif comparison.evidence.reference in outcome.same_as:
        gap, p = "the same", ""
    else:
        gap = f"{100 * difference.value:+.1f}"
        if difference.interval is not None:
            low, high = difference.interval.low, difference.interval.high
            gap += f" ({100 * low:+.1f} to {100 * high:+.1f})"
        p = NOT_DEFINED if difference.p_holm is None else _p_value(difference.p_holm)
    accuracy = outcome.accuracy
    return outcome.name, format_percent(accuracy.value), interval_text(accuracy.interval), gap, p


def _behaviour(comparison: Comparison, outcome: Outcome) -> Row:
    if not isinstance(outcome, FrozenOutcome):
        return (NOT_DEFINED,) * len(BEHAVIOUR)
    seconds = comparison.seconds_per_item.get(outcome.name)
    changes = outcome.behaviour.changes
    return (
        _change(changes.in_another_batch),
        _change(changes.on_second_pass),
        "" if seconds is None else _time(seconds, comparison.seconds_range.get(outcome.name)),
        f"{outcome.behaviour.peak_bytes / 2**20:,.0f}",
    )


def _time(seconds: float, bounds: tuple[float, float] | None) -> str:
    """Return a time in ms with the range that it was measured in."""
    text = format_number(1000 * seconds, digits=2)
    if bounds is None:
        return text
    low, high = (format_number(1000 * bound, digits=2) for bound in bounds)
    return f"{text} ({low} to {high})"


def _change(value: float) -> str:
    if value == 0.0:
        return "equal"
    return "rounding" if value < _ROUNDING else format_percent(value, digits=0)


def _p_value(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _range(values: Sequence[float]) -> str:
    if not values:
        return NOT_DEFINED
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _times(ratio: float) -> str:
    return f"{format_number(ratio, digits=2)}×"


__all__ = [
    "ACCURACY",
    "BEHAVIOUR",
    "TRAINING",
    "comparison_rows",
    "finding_text",
    "framework_rows",
    "has_curves",
    "interval_text",
    "terminal",
    "training_rows",
]
