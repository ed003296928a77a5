"""The page of ``examine``: what more labels would bring, leaks, doubtful labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart.core.records import Score
from headstart.core.wording import format_percent
from headstart.heads import LabelBudget
from headstart.report.page import (
    Block,
    Callout,
    Example,
    Gallery,
    Headline,
    Page,
    Picture,
    Section,
    Table,
)
from headstart.report.text import flatten, format_score


def format_gain(gain: Score) -> str:
    """Return a difference of accuracies as ``+1.3 points (95 % interval +0.8 to +2.1)``."""
    text = f"{100 * gain.value:+.1f} points"
    if gain.interval is None:
        return text
    low, high = 100 * gain.interval.low, 100 * gain.interval.high
    return f"{text} (95 % interval {low:+.1f} to {high:+.1f})"


def examine_page(
    budget: LabelBudget,
    *,
    title: str,
    subtitle: str = "",
    near_copies: Sequence[Example] = (),
    n_near_copies: int = 0,
    n_test: int = 0,
    threshold: float = 0.98,
    doubts: Sequence[Example] = (),
    n_doubts: int = 0,
    n_train: int = 0,
    notes: Sequence[str] = (),
    configuration: Mapping[str, Any] | None = None,
) -> Page:
    """Build the report of ``examine``.

    Args:
        budget: the learning curve.
        title, subtitle: the head of the page.
        near_copies: the test items most similar to a training item, as examples.
        n_near_copies, n_test: how many there are, among how many test items.
        threshold: the cosine from which two items count as near copies.
        doubts: the training items whose labels are most doubtful.
        n_doubts, n_train: how many there are, among how many training items.
        notes: what was decided on the user's behalf.
        configuration: every setting.

    Returns:
        The page, for :func:`headstart.report.write_page`.
    """
    sections = (
        Section("Would more labels help?", tuple(_budget(budget))),
        Section(
            "Do the splits leak?", tuple(_leaks(near_copies, n_near_copies, n_test, threshold))
        ),
        Section("Which labels look wrong?", tuple(_doubts(doubts, n_doubts, n_train))),
        Section("To repeat this", tuple(_settings(notes, configuration))),
    )
    headlines = [
        Headline("Near copies", f"{n_near_copies:,}", f"of {n_test:,} test items"),
        Headline("Doubtful labels", f"{n_doubts:,}", f"of {n_train:,} training items"),
    ]
    if budget.gain is not None:
        headlines.insert(
            0,
            Headline(
                "Twice the labels would bring",
                f"{100 * budget.gain.value:+.1f}",
                format_gain(budget.gain).split(" ", 1)[1],
            ),
        )
    return Page(
        title=title,
        subtitle=subtitle,
        headlines=tuple(headlines),
        sections=tuple(section for section in sections if section.blocks),
    )


def _budget(budget: LabelBudget) -> list[Block]:
    from headstart.report.figures import learning_curve_figure

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
            "; ".join(f"{shots} labels a class: {text}" for shots, text in rows),
            f"Accuracy on held-out training items, {repetitions} repetitions. The dashed part is"
            " a power law through the last points, not a measurement.",
        ),
        Table(("labels a class", "accuracy"), tuple(rows), "All points", "rl", folded=True),
        *(Callout(note) for note in budget.notes),
    ]


def _leaks(examples: Sequence[Example], count: int, n_test: int, threshold: float) -> list[Block]:
    if not count:
        return [
            f"No test item has a training item with a cosine of {threshold:g} or more between"
            " their centred features."
        ]
    share = format_percent(count / n_test) if n_test else ""
    shown = "" if len(examples) == count else f" The {len(examples):,} most similar are shown."
    return [
        Callout(
            f"{count:,} of {n_test:,} test items ({share}) nearly equal a training item, so the"
            " test score may be too high. Look at them, and move or drop the copies.",
            "warning",
        ),
        Gallery(tuple(examples), f"Left the test item, right the training item.{shown}"),
    ]


def _doubts(examples: Sequence[Example], count: int, n_train: int) -> list[Block]:
    if not count:
        return ["No held-out prediction confidently disagrees with its label."]
    shown = "" if len(examples) == count else f" The {len(examples):,} most doubtful are shown."
    return [
        f"{count:,} of {n_train:,} training items are confidently predicted as another class by a"
        " head that did not see them (confident learning, Northcutt et al. 2021). Some are hard"
        " items with the right label: look before you change one.",
        Gallery(tuple(examples), f"Doubtful labels.{shown}"),
    ]


def _settings(notes: Sequence[str], configuration: Mapping[str, Any] | None) -> list[Block]:
    blocks: list[Block] = [Callout(note) for note in notes]
    if configuration:
        rows = tuple(flatten(configuration))
        blocks.append(Table(("setting", "value"), rows, "Configuration", "ll", folded=True))
    return blocks


__all__ = ["examine_page", "format_gain"]
