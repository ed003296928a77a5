"""The section of a report on answers of a chosen coverage."""

from __future__ import annotations

import math

from headstart.commands.scoring import AnyEvaluation
from headstart.core.records import Evaluation, SetScores
from headstart.core.wording import format_number, format_percent
from headstart.evaluation.conformal import units_needed
from headstart.evaluation.multi_label import MultiLabelEvaluation
from headstart.report.page import Block, Table
from headstart.report.text import format_score

SETS_TITLE = "Knowing when not to answer"
_OPEN_TABLE = 12


def sets_blocks(evaluation: AnyEvaluation, asked: tuple[float, ...] = ()) -> list[Block]:
    """Return what sets of each coverage did on the test items; nothing where none were made.

    Args:
        evaluation: the scores.
        asked: coverages that were to be measured; of those that are missing the reason is given.
    """
    if not evaluation.sets:
        return []
    header, told = _header(evaluation)
    rows = tuple(_cells(each, evaluation) for each in evaluation.sets)
    align = "r" + "l" + "r" * (len(header) - 2)
    blocks: list[Block] = [told, Table(header, rows, "Measured on the test items", align)]
    missing = [c for c in asked if c not in {each.coverage for each in evaluation.sets}]
    if missing:
        needed = ", ".join(f"{_percent(c)} needs {units_needed(c):,}" for c in missing)
        blocks.append(
            f"Not every coverage can be promised: {needed} independent training items, held out."
        )
    last = evaluation.sets[-1]
    if len(last.rows) > 1:
        blocks.append(_by_name(last, evaluation))
    return blocks


def _header(evaluation: AnyEvaluation) -> tuple[tuple[str, ...], str]:
    common = (
        "With a coverage set, the head answers only where a single answer is plausible. The"
        " coverage is calibrated on held-out training items; no test item was used for it."
    )
    first = ("coverage chosen", "truth in the set")
    if isinstance(evaluation, Evaluation):
        return (*first, "classes in a set", "one class", "no class"), common
    if isinstance(evaluation, MultiLabelEvaluation):
        return (*first, "labels undecided", "all decided"), common
    return (first[0], "truth in the interval", "mean width"), (
        "Intervals that hold the true value of the chosen share of items. They are calibrated on"
        " held-out training items; no test item was used for it."
    )


def _cells(each: SetScores, evaluation: AnyEvaluation) -> tuple[str, ...]:
    name = _percent(each.coverage) + (" of each class" if each.by_class else "")
    first = (name, format_score(each.covered, n=each.n if each.covered.interval is None else None))
    if isinstance(evaluation, Evaluation):
        return (
            *first,
            f"{each.size:.2f}",
            format_percent(each.answered),
            format_percent(each.empty),
        )
    if isinstance(evaluation, MultiLabelEvaluation):
        return (*first, f"{each.size:.2f} an item", format_percent(each.answered))
    width = format_number(each.size) if math.isfinite(each.size) else "differs by target"
    return (*first, width)


def _by_name(last: SetScores, evaluation: AnyEvaluation) -> Table:
    """Return the coverage of every class, label or target."""
    classes = isinstance(evaluation, Evaluation)
    several = isinstance(evaluation, MultiLabelEvaluation)
    noun = "class" if classes else "label" if several else "target"
    size = "classes in a set" if classes else "undecided" if several else "mean width"
    rows = tuple(
        (
            row.name,
            f"{row.items:,}",
            format_score(row.covered),
            format_percent(row.size) if several else format_number(row.size),
        )
        for row in last.rows
    )
    caption = f"Each {noun} at a coverage of {_percent(last.coverage)}"
    return Table((noun, "items", "truth in the set", size), rows, caption, "lrlr", folded=True)


def sets_lines(evaluation: AnyEvaluation) -> tuple[str, ...]:
    """Say what sets did, one line for each coverage, for the terminal."""
    lines = []
    for each in evaluation.sets:
        header = _header(evaluation)[0][2:]
        more = ", ".join(
            f"{name}: {cell}"
            for name, cell in zip(header, _cells(each, evaluation)[2:], strict=True)
        )
        lines.append(
            f"coverage {_percent(each.coverage)}{' of each class' if each.by_class else ''}: the"
            f" prediction covers the truth for {format_score(each.covered)}; {more}"
        )
    return tuple(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


__all__ = ["SETS_TITLE", "sets_blocks", "sets_lines"]
