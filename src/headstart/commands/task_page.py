"""The page of a run on several labels an item, or on numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.abstaining import COVERAGES
from headstart.commands.invocation import Commands
from headstart.commands.page_blocks import cost_blocks, curve_pictures, settings_blocks
from headstart.commands.sets_page import SETS_TITLE, sets_blocks
from headstart.commands.unlike import UNLIKE_TITLE, unlike_blocks
from headstart.core.records import CacheUse, Curve, Excerpt, Reference
from headstart.core.wording import count, format_number, format_percent, format_seconds
from headstart.evaluation.multi_label import MultiLabelEvaluation
from headstart.evaluation.regression import RegressionEvaluation
from headstart.report.page import (
    Block,
    Case,
    Cases,
    Example,
    Gallery,
    Headline,
    Notes,
    Page,
    Picture,
    Section,
    Table,
)
from headstart.report.task_text import TaskEvaluation, format_named, row_table, short_named
from headstart.report.text import against

_OPEN_TABLE = 12
_MOST_PICTURES = 4


@dataclass(frozen=True, eq=False)
class Scored:
    """What a page shows of the test items.

    Attributes:
        evaluation: the scores.
        truth, outputs: ``(n, k)``: memberships and probabilities, or values and values.
        worst: the items that are predicted worst, with their excerpts.
        examples: some others.
        cases: the worst with the training items that they are nearest to, in the place of
            ``worst`` where these are at hand.
        looks: further sections on the items: their map, slices of them.
    """

    evaluation: TaskEvaluation
    truth: NDArray[np.float64]
    outputs: NDArray[np.float64]
    worst: tuple[Example, ...] = ()
    examples: tuple[Example, ...] = ()
    cases: tuple[Case, ...] = ()
    looks: tuple[Section, ...] = ()


def task_page(
    scored: Scored,
    *,
    title: str,
    subtitle: str = "",
    baselines: Sequence[Reference] = (),
    curves: Sequence[Curve] = (),
    configuration: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    timing: Mapping[str, float] | None = None,
    images_per_second: float | None = None,
    cache: CacheUse | None = None,
    notes: Sequence[str] = (),
    commands: Commands | Sequence[str] = (),
    head_name: str = "this head",
    coverages: tuple[float, ...] = COVERAGES,
    strange: Sequence[Example] = (),
) -> Page:
    """Build the report; arguments as for :func:`~headstart.commands.run_page.fit_page`."""
    timing, evaluation = dict(timing or {}), scored.evaluation
    several = isinstance(evaluation, MultiLabelEvaluation)
    sections = (
        Section("Result", tuple(_result(evaluation, baselines, head_name, notes))),
        Section("Some test items", (Gallery(scored.examples),) if scored.examples else ()),
        Section("By label" if several else "By target", tuple(_rows(scored))),
        Section("Largest mistakes", tuple(_mistakes(scored))),
        *scored.looks,
        Section(SETS_TITLE, tuple(sets_blocks(evaluation, coverages))),
        Section(UNLIKE_TITLE, tuple(unlike_blocks(evaluation.unlike, strange))),
        Section("Training and choice", tuple(curve_pictures(curves))),
        Section("Time and cache", tuple(cost_blocks(timing, images_per_second, cache))),
        Section(
            "How to reproduce this", tuple(settings_blocks(commands, configuration, environment))
        ),
    )
    return Page(
        title=title,
        subtitle=subtitle,
        verdict=task_verdict(evaluation, baselines),
        headlines=_headlines(evaluation, baselines, timing),
        sections=tuple(section for section in sections if section.blocks),
    )


def task_verdict(evaluation: TaskEvaluation, baselines: Sequence[Reference] = ()) -> str:
    """Say in two sentences how good a head is, and whether it beats the figures to beat."""
    first, *more = evaluation.figures()
    text = (
        f"{first.name} {format_named(first, n=evaluation.n)} on {count(evaluation.n, 'test item')}"
    )
    if isinstance(evaluation, RegressionEvaluation):
        text += f"; the mean absolute error is {short_named(more[0])}"
    text += "."
    rivals = [b for b in baselines if math.isfinite(b.figures[0].score.value)]
    if not rivals or not math.isfinite(first.score.value):
        return text
    best = max(rivals, key=lambda each: each.figures[0].score.value)
    rival = against(best.name, f"{first.name} {short_named(best.figures[0])}", len(rivals))
    value, interval = best.figures[0].score.value, first.score.interval
    if first.score.value <= value:
        return f"{text} That does not beat {rival}."
    if interval is not None and interval.low <= value:
        return f"{text} That is not a clear gain over {rival}."
    return f"{text} That is more than {rival}."


def _headlines(
    evaluation: TaskEvaluation, baselines: Sequence[Reference], timing: Mapping[str, float]
) -> tuple[Headline, ...]:
    shown = []
    for figure in evaluation.figures()[:2]:
        worded = format_named(figure, n=evaluation.n)
        value = short_named(figure)
        rest = worded.removeprefix(value).strip().removeprefix("(").removesuffix(")")
        basis = rest or f"n = {evaluation.n:,}, no interval"
        shown.append(Headline(f"Test {figure.name}", value, basis))
    if baselines:
        best = max(baselines, key=lambda each: np.nan_to_num(each.figures[0].score.value, nan=-9e9))
        first = best.figures[0]
        shown.append(Headline(f"Best baseline, {first.name}", short_named(first), best.name))
    k = len(
        evaluation.labels if isinstance(evaluation, MultiLabelEvaluation) else evaluation.targets
    )
    noun = "label" if isinstance(evaluation, MultiLabelEvaluation) else "target"
    shown.append(Headline("Test items", f"{evaluation.n:,}", f"with {count(k, noun)}"))
    if timing:
        detail = ", ".join(f"{name} {format_seconds(value)}" for name, value in timing.items())
        shown.append(Headline("Time", format_seconds(sum(timing.values())), detail))
    return tuple(shown)


def _result(
    evaluation: TaskEvaluation,
    baselines: Sequence[Reference],
    head_name: str,
    notes: Sequence[str],
) -> list[Block]:
    from headstart.report.figures import comparison_figure

    figures = evaluation.figures()
    rows = tuple((figure.name, format_named(figure, n=evaluation.n)) for figure in figures)
    blocks: list[Block] = [Table(("score on the test items", ""), rows, align="ll")]
    if baselines:
        header = ("", *(figure.name for figure in figures))
        compared = [(head_name, *(short_named(figure) for figure in figures))]
        compared += [(b.name, *(short_named(figure) for figure in b.figures)) for b in baselines]
        blocks.append(Table(header, tuple(compared), "Against baselines", "l" + "r" * len(figures)))
        described = " ".join(f"{b.name}: {b.description}." for b in baselines)
        if isinstance(evaluation, MultiLabelEvaluation):
            scores = [figures[0].score, *(b.figures[0].score for b in baselines)]
            names = [head_name, *(b.name for b in baselines)]
            picture = comparison_figure(
                names,
                [[score.value] for score in scores],
                [score.interval for score in scores],
                reference=0,
                x_label="mean average precision on the test items, %",
            )
            alt = "; ".join(
                f"{name}: mAP {format_percent(score.value)}"
                for name, score in zip(names, scores, strict=True)
            )
            caption = f"Mean average precision with 95 % intervals. {described}"
            blocks.append(Picture(picture, alt, caption))
        else:
            blocks.append(described)
    blocks += [Notes(tuple(notes))] if notes else []
    return blocks


def _rows(scored: Scored) -> list[Block]:
    from headstart.report.figures import labels_figure, residuals_figure, values_figure

    evaluation = scored.evaluation
    header, rows = row_table(evaluation)
    blocks: list[Block] = []
    if isinstance(evaluation, MultiLabelEvaluation):
        alt = "Average precision of each label; the figures are in the table of all labels."
        blocks.append(
            Picture(
                labels_figure(evaluation),
                alt,
                "Average precision ranks the items by the probability of a label; random"
                " guessing scores the share of items that have it. Lowest first.",
                "labels.png",
            )
        )
    else:
        shown = evaluation.targets[:_MOST_PICTURES]
        for at, name in enumerate(shown):
            numbered = "" if len(evaluation.targets) == 1 else f"-{at + 1}"
            row = evaluation.per_target[at]
            alt = (
                f"Predicted against true {name}: mean absolute error"
                f" {format_number(row.mean_absolute_error)}"
            )
            picture = values_figure(scored.truth[:, at], scored.outputs[:, at], name)
            caption = "On the dashed line, predictions equal the truth."
            blocks.append(Picture(picture, alt, caption, f"values{numbered}.png"))
            residuals = residuals_figure(scored.truth[:, at], scored.outputs[:, at], name)
            alt = f"Error of {name} against what was predicted"
            caption = (
                "Errors by prediction; the line joins the median errors of tenths of the items."
            )
            blocks.append(Picture(residuals, alt, caption, f"residuals{numbered}.png"))
    folded = len(rows) > _OPEN_TABLE
    caption = f"All {count(len(rows), header[0])}" if folded else ""
    blocks.append(Table(header, tuple(rows), caption, "l" + "r" * (len(header) - 1), folded=folded))
    return blocks


def _mistakes(scored: Scored) -> list[Block]:
    text = (
        "The files predictions.csv and predictions.parquet next to this page hold every item"
        " with its true and predicted values."
    )
    if not scored.worst:
        return [text]
    several = isinstance(scored.evaluation, MultiLabelEvaluation)
    doubt = f"Some {'labels' if several else 'values'} may be wrong: check them."
    explained = tuple(case for case in scored.cases if case.groups)
    if explained:
        others = tuple(case.example for case in scored.cases if not case.groups)
        caption = f"Worst first, with the nearest training items by features. {doubt}"
        more = (Gallery(others, "The next ones."),) if others else ()
        return [
            text,
            Cases(explained, caption),
            *more,
        ]
    return [
        text,
        Gallery(scored.worst, f"The worst first. {doubt}"),
    ]


def example(
    origin: str,
    truth: str,
    predicted: str,
    more: Sequence[tuple[str, str]],
    glimpse: Excerpt | None,
) -> Example:
    """Return an item with what is true of it and what was predicted."""
    return Example(origin, (("true", truth), ("predicted", predicted), *more), glimpse)


__all__ = ["Scored", "example", "task_page", "task_verdict"]
