"""The page of ``examine``: what more labels would bring, leaks, doubtful labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from headstart.commands.examine.examination import (
    Doubt,
    Examination,
    curve_rows,
    format_gain,
    gain_line,
)
from headstart.commands.page_blocks import command_blocks
from headstart.core.records import Excerpt, Interval
from headstart.core.wording import count as counted
from headstart.core.wording import format_percent, verb
from headstart.heads import LabelBudget
from headstart.heads.task_checks import FAR, ItemBudget
from headstart.report.page import (
    Block,
    Callout,
    Example,
    Gallery,
    Headline,
    Notes,
    Page,
    Picture,
    Section,
    Table,
)
from headstart.report.text import flatten, format_score


def examine_page(
    found: Examination,
    copies: Sequence[Excerpt],
    doubts: Sequence[Excerpt],
    configuration: Mapping[str, Any],
) -> Page:
    """Build the report of ``examine``.

    Args:
        found: what was found.
        copies: glimpses of the first near copies, each of a test and a training item.
        doubts: glimpses of the first items with a doubtful label.
        configuration: every setting.
    """
    headlines = [
        Headline(
            "Near copies", f"{len(found.near_copies):,}", f"of {counted(found.n_test, 'test item')}"
        ),
        Headline(
            f"Doubtful {found.doubted}s",
            f"{len(found.doubts):,}",
            f"of {counted(found.n_train, 'training item')}",
        ),
    ]
    if isinstance(found.budget, LabelBudget) and (gain := found.budget.gain) is not None:
        points = f"{100 * gain.value:+.1f}"
        detail = format_gain(gain).split(" ", 1)[1]
        headlines.insert(0, Headline("Twice the labels would bring", points, detail))
    rows = tuple(flatten(configuration))
    repeat: tuple[Block, ...] = (
        *((Notes(found.notes),) if found.notes else ()),
        Table(("setting", "value"), rows, "Configuration", "ll", folded=True),
        *command_blocks(found.commands),
    )
    return Page(
        title=f"{configuration['data']}: the data, by its features",
        subtitle=f"{found.n_train:,} training and {counted(found.n_test, 'test item')}",
        verdict=_verdict(found),
        headlines=tuple(headlines),
        sections=(
            Section("Would more labels help?", tuple(_budget(found.budget))),
            Section(
                "Do the splits leak?", tuple(_leaks(found, copies, configuration["threshold"]))
            ),
            Section(f"Which {found.doubted}s look wrong?", tuple(_doubts(found, doubts))),
            Section("How to reproduce this", repeat),
        ),
    )


def _verdict(found: Examination) -> str:
    copies, doubts = len(found.near_copies), len(found.doubts)
    told = f"{doubts:,} of {counted(found.n_train, 'training label')}"
    if found.task != "classification":
        told = f"{counted(doubts, found.doubted)} of {counted(found.n_train, 'training item')}"
    text = (
        f"{copies:,} of {counted(found.n_test, 'test item')} nearly"
        f" {verb(copies, 'equals', 'equal')} a training item, and {told}"
        f" {verb(doubts, 'looks', 'look')} doubtful."
    )
    line = gain_line(found.budget)
    return f"{text} {line[0].upper()}{line[1:]}." if line else text


_FLOOR = -0.5
"""R² of very few items lies anywhere below; drawn as it is, it would hide all other points."""


def _floored(interval: Interval | None) -> Interval | None:
    if interval is None:
        return None
    low, high = max(interval.low, _FLOOR), max(interval.high, _FLOOR)
    return dataclasses.replace(interval, low=low, high=high)


def _item_budget(budget: ItemBudget) -> list[Block]:
    from headstart.report.figures import learning_curve_figure

    titles, rows = curve_rows(budget)
    figure = learning_curve_figure(
        budget.items,
        [[max(float(value), _FLOOR) for value in row] for row in budget.values],
        [_floored(score.interval) for score in budget.scores],
        x_label="training items",
        y_label=budget.figure,
    )
    alt = "; ".join(f"training items {items}: {text}" for items, text in rows)
    repetitions = counted(budget.values.shape[1], "repetition")
    caption = f"{budget.figure} on held-out training items, {repetitions}."
    if budget.values.min() < _FLOOR:
        caption += f" Values below {100 * _FLOOR:.0f} % are drawn at {100 * _FLOOR:.0f} %."
    line = gain_line(budget)
    return [
        Picture(figure, alt, caption),
        Table(titles, tuple(rows), "All points", "rl", folded=True),
        *([f"{line[0].upper()}{line[1:]}."] if line else []),
        *(Callout(note) for note in budget.notes),
    ]


def _budget(budget: LabelBudget | ItemBudget) -> list[Block]:
    from headstart.report.figures import learning_curve_figure

    if isinstance(budget, ItemBudget):
        return _item_budget(budget)
    beyond = budget.extrapolated
    figure = learning_curve_figure(
        budget.shots,
        [[float(value) for value in row] for row in budget.accuracies],
        [score.interval for score in budget.scores],
        extrapolated=None if beyond is None else (2.0 * budget.shots[-1], beyond.value),
        extrapolated_interval=None if beyond is None else beyond.interval,
    )
    rows = [
        (f"{shots:,}", format_score(score))
        for shots, score in zip(budget.shots, budget.scores, strict=True)
    ]
    if beyond is not None:
        rows.append((f"{2 * budget.shots[-1]:,}, expected", format_score(beyond)))
    repetitions = budget.accuracies.shape[1]
    return [
        Picture(
            figure,
            "; ".join(f"labels per class {shots}: {text}" for shots, text in rows),
            f"Accuracy on held-out training items, {counted(repetitions, 'repetition')}."
            " The dashed part is a power law through the last points, not a measurement.",
        ),
        Table(("labels per class", "accuracy"), tuple(rows), "All points", "rl", folded=True),
        *(Callout(note) for note in budget.notes),
    ]


def _leaks(found: Examination, excerpts: Sequence[Excerpt], threshold: float) -> list[Block]:
    count = len(found.near_copies)
    if not count:
        return [
            f"No test item has a training item with a cosine of {threshold:g} or more between"
            " their centred features."
        ]
    share = format_percent(count / found.n_test)
    examples = tuple(
        Example(copy.test, (("like", copy.train), ("cosine", f"{copy.similarity:.3f}")), excerpt)
        for copy, excerpt in zip(found.near_copies, excerpts, strict=False)
    )
    shown = "" if len(examples) == count else f" The {len(examples):,} most similar are shown."
    return [
        Callout(
            f"{count:,} of {counted(found.n_test, 'test item')} ({share})"
            f" nearly {verb(count, 'equals', 'equal')} a training item, so the test score may be"
            f" too high. Look at them, and move or drop the copies.",
            "warning",
        ),
        Gallery(examples, f"Left: the test item. Right: the training item.{shown}"),
    ]


def _sure(doubt: Doubt) -> str:
    known = doubt.probability == doubt.probability
    return f"{100 * doubt.probability:.1f} %" if known else doubt.sure


def _doubted(found: Examination) -> str:
    """Say how the doubts were found."""
    count, of = len(found.doubts), counted(found.n_train, "training item")
    if found.task == "regression":
        return (
            f"{counted(count, 'value')} of {of} {verb(count, 'lies', 'lie')} {FAR:g} robust"
            " deviations or more from the prediction of a head that did not see the item."
        )
    if found.task == "multi-label":
        return (
            f"{counted(count, 'label')} of {of} {verb(count)} contradicted with confidence by a"
            " head that did not see the item (confident learning, Northcutt et al. 2021, label by"
            " label)."
        )
    return (
        f"{count:,} of {of} {verb(count)} confidently predicted as another class by a head that"
        " did not see them (confident learning, Northcutt et al. 2021)."
    )


def _doubts(found: Examination, excerpts: Sequence[Excerpt]) -> list[Block]:
    count = len(found.doubts)
    if not count and found.doubted == "value":
        return [f"No value lies {FAR:g} robust deviations or more from its held-out prediction."]
    if not count:
        return ["No held-out prediction confidently disagrees with its label."]
    sure = "error" if found.doubted == "value" else "probability"
    examples = tuple(
        Example(
            doubt.item,
            (
                (found.doubted, doubt.label),
                ("looks like", doubt.suggested),
                (sure, _sure(doubt)),
            ),
            excerpt,
        )
        for doubt, excerpt in zip(found.doubts, excerpts, strict=False)
    )
    shown = "" if len(examples) == count else f" The {len(examples):,} most doubtful are shown."
    return [
        f"{_doubted(found)} Some are hard items with the right {found.doubted}: check before you"
        " change one.",
        Gallery(examples, f"Doubtful {found.doubted}s.{shown}"),
        "The files predictions.csv and predictions.parquet next to this page hold the held-out"
        " prediction for every training item.",
    ]


__all__ = ["examine_page"]
