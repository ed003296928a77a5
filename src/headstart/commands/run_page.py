"""The page of the main job: what was scored, against what, how it was chosen, how to repeat it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.commands.abstaining import COVERAGES
from headstart.commands.invocation import Commands
from headstart.commands.page_blocks import cost_blocks, curve_pictures, settings_blocks
from headstart.commands.sets_page import SETS_TITLE, sets_blocks
from headstart.commands.unlike import UNLIKE_TITLE, unlike_blocks
from headstart.core.records import (
    Baseline,
    CacheUse,
    ClassScores,
    Curve,
    Evaluation,
    Excerpt,
)
from headstart.core.wording import count, format_percent, format_seconds, verb
from headstart.report.page import (
    Block,
    Callout,
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
from headstart.report.text import (
    against,
    class_cells,
    confused_pairs,
    format_few,
    format_interval,
    format_score,
    scores,
)

_OPEN_TABLE = 12  # classes up to which the per-class table is expanded
_LISTED = 500  # classes that the page lists; of more, the worst


@dataclass(frozen=True)
class Mistake:
    """A test item that the head got wrong.

    Attributes:
        item: its name: a path, or a row of a table.
        true, predicted: class names.
        probability: what the head gave the predicted class, a fraction in [0, 1].
        excerpt: a small picture or a short text; None for neither.
    """

    item: str
    true: str
    predicted: str
    probability: float
    excerpt: Excerpt | None = None


def fit_page(
    evaluation: Evaluation,
    *,
    title: str,
    subtitle: str = "",
    baselines: Sequence[Baseline] = (),
    curves: Sequence[Curve] = (),
    configuration: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    timing: Mapping[str, float] | None = None,
    images_per_second: float | None = None,
    cache: CacheUse | None = None,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    mistakes: Sequence[Mistake | Case] = (),
    examples: Sequence[Example] = (),
    looks: Sequence[Section] = (),
    listed: bool = False,
    commands: Commands | Sequence[str] = (),
    head_name: str = "this head",
    coverages: tuple[float, ...] = COVERAGES,
    strange: Sequence[Example] = (),
) -> Page:
    """Build the report of ``fit``.

    Args:
        evaluation: the scores on the test split.
        title: the page's title, such as the name of the data.
        subtitle: one line below it, such as backbone, layer and head.
        baselines: figures to beat, on the same test items.
        curves: training and selection curves.
        configuration: every setting of the run; nested mappings are shown with dotted names.
        environment: versions and hardware.
        timing: seconds of each step, in the order they ran ("extract", "fit", ...).
        images_per_second: the rate of extraction; None if nothing was extracted.
        cache: rows found and rows computed.
        notes: defaults that were used with their reasons, things handled on the user's behalf.
        warnings: what the reader should doubt (a tiny test set, suspicious inputs).
        mistakes: examples of wrong predictions, the most confident first; cases have beside them
            what explains them.
        examples: some test items, so that the reader sees what they are.
        looks: further sections on the items: their map, slices of them.
        listed: whether the files of all predictions lie beside the page.
        commands: what to try next; a :class:`Commands` also has the command that made the run,
            which ends the page.
        head_name: how the trained head is named beside the baselines.
        coverages: those that were to be measured.
        strange: test items that are unlike the training items, the strangest first.

    Returns:
        The page, for :func:`headstart.report.write_page`.
    """
    timing = dict(timing or {})
    sections = (
        Section("Result", tuple(_result(evaluation, baselines, head_name, notes, warnings))),
        Section("Some test items", (Gallery(tuple(examples)),) if examples else ()),
        Section("By class", tuple(_classes(evaluation))),
        Section("Mistakes", tuple(_mistakes(evaluation, mistakes, listed))),
        *looks,
        Section(SETS_TITLE, tuple(sets_blocks(evaluation, coverages))),
        Section(UNLIKE_TITLE, tuple(unlike_blocks(evaluation.unlike, strange))),
        Section(
            "Training and choice" if curves else "Calibration",
            tuple(_training(evaluation, curves)),
        ),
        Section("Time and cache", tuple(cost_blocks(timing, images_per_second, cache))),
        Section(
            "How to reproduce this", tuple(settings_blocks(commands, configuration, environment))
        ),
    )
    return Page(
        title=title,
        subtitle=subtitle,
        verdict=verdict(evaluation, baselines),
        headlines=_headlines(evaluation, baselines, timing, cache),
        sections=tuple(section for section in sections if section.blocks),
    )


def _headlines(
    evaluation: Evaluation,
    baselines: Sequence[Baseline],
    timing: Mapping[str, float],
    cache: CacheUse | None,
) -> tuple[Headline, ...]:
    accuracy = evaluation.accuracy
    interval = accuracy.interval
    basis = format_interval(interval) if interval else f"n = {evaluation.n:,}, no interval"
    basis = format_few(evaluation.n) + basis
    shown = [Headline("Test accuracy", format_percent(accuracy.value), basis)]
    rivals = [b for b in baselines if math.isfinite(b.accuracy.value)]
    if rivals:
        best = max(rivals, key=lambda baseline: baseline.accuracy.value)
        gain = 100 * (accuracy.value - best.accuracy.value)
        against = f"points; {best.name}: {format_percent(best.accuracy.value)}"
        if math.isfinite(gain):
            shown.append(Headline("Over the best baseline", f"{gain:+.1f}", against))
    shown.append(
        Headline(
            "Test items",
            f"{evaluation.n:,}",
            f"in {count(len(evaluation.classes), 'class', 'classes')}",
        )
    )
    if timing:
        detail = ", ".join(f"{name} {format_seconds(value)}" for name, value in timing.items())
        if cache is not None and cache.hits and not cache.misses:
            detail += "; every row from the cache"
        shown.append(Headline("Time", format_seconds(sum(timing.values())), detail))
    return tuple(shown)


def _result(
    evaluation: Evaluation,
    baselines: Sequence[Baseline],
    head_name: str,
    notes: Sequence[str],
    warnings: Sequence[str],
) -> list[Block]:
    from headstart.report.figures import comparison_figure

    blocks: list[Block] = [Callout(text, "warning") for text in warnings]
    blocks.append(Table(("score on the test items", ""), scores(evaluation), align="ll"))
    if baselines:
        rows = [(head_name, "", evaluation.accuracy)]
        rows += [(baseline.name, baseline.description, baseline.accuracy) for baseline in baselines]
        figure = comparison_figure(
            [name for name, _, _ in rows],
            [[score.value] for _, _, score in rows],
            [score.interval for _, _, score in rows],
            reference=0,
        )
        alt = "; ".join(f"{name}: {format_score(score)}" for name, _, score in rows)
        described = " ".join(f"{b.name}: {b.description}." for b in baselines if b.description)
        caption = f"Accuracy with 95 % intervals, all on the same test items. {described}"
        blocks.append(Picture(figure, alt, caption.strip()))
    blocks += [Notes(tuple(notes))] if notes else []
    return blocks


def verdict(evaluation: Evaluation, baselines: Sequence[Baseline] = ()) -> str:
    """Say in two sentences how good a head is, and whether it beats the figures to beat."""
    accuracy, n = evaluation.accuracy, evaluation.n
    if not n or not math.isfinite(accuracy.value):
        return "There are no items to score."
    right = format_percent(accuracy.value)
    text = f"{right} of {count(n, 'test item')} {verb(n)} classified correctly"
    interval = accuracy.interval
    if interval is not None:
        low, high = 100 * interval.low, 100 * interval.high
        text += f" (95 % interval {low:.1f} to {high:.1f})"
    few = format_few(n)
    text = f"{few[:1].upper()}{few[1:]}{text}."
    rivals = [each for each in baselines if math.isfinite(each.accuracy.value)]
    if not rivals:
        return text
    best = max(rivals, key=lambda each: each.accuracy.value)
    rival = against(best.name, format_percent(best.accuracy.value), len(rivals))
    gain = 100 * (accuracy.value - best.accuracy.value)
    if gain <= 0:
        return f"{text} That does not beat {rival}."
    if interval is not None and interval.low <= best.accuracy.value:
        return f"{text} That is not a clear gain over {rival}."
    return f"{text} That is {count_of_points(gain)} more than {rival}."


def count_of_points(points: float) -> str:
    """Return ``1.0 point``, ``30.1 points``."""
    return f"{points:.1f} {'point' if f'{points:.1f}' == '1.0' else 'points'}"


def _classes(evaluation: Evaluation) -> list[Block]:
    from headstart.report.figures import confusion_figure, per_class_figure

    blocks: list[Block] = []
    n = len(evaluation.classes)
    if evaluation.confusion:
        pairs = confused_pairs(evaluation, 3)
        alt = f"Confusion matrix of {count(n, 'class', 'classes')}. " + "; ".join(
            f"{true} taken for {predicted}: {number} of {items}"
            for true, predicted, number, items in pairs
        )
        blocks.append(
            Picture(
                confusion_figure(evaluation),
                alt,
                "Each row shows the items of one true class. Blue is right, vermilion is wrong;"
                " the stronger the colour, the larger the share of the row.",
                "confusion.png",
            )
        )
    if n > 2:
        blocks.append(
            Picture(
                per_class_figure(evaluation),
                "Precision and recall of each class, the lowest F1 first; the figures are in the"
                " table of all classes.",
                "Recall: how many items of the class were found. Precision: how many items given"
                " this class belong to it. The lowest F1 comes first.",
            )
        )
    listed = evaluation.per_class
    if n > _LISTED:
        listed = tuple(sorted(listed, key=_worst)[:_LISTED])
    rows = tuple((row.label, *class_cells(row)) for row in listed)
    if rows:
        header = ("class", "items", "precision", "recall", "F1")
        caption = f"All {count(len(rows), 'class', 'classes')}" if len(rows) > _OPEN_TABLE else ""
        if n > _LISTED:
            caption = f"The {_LISTED} classes of lowest F1; metrics.json has all {n:,}"
        blocks.append(Table(header, rows, caption, "lrrrr", folded=len(rows) > _OPEN_TABLE))
    return blocks


def _worst(row: ClassScores) -> tuple[bool, float, str]:
    """Order classes by F1, those without items last."""
    return (row.support == 0, row.f1 if math.isfinite(row.f1) else -1.0, row.label)


def wrong_items(evaluation: Evaluation) -> int:
    """Return how many items were predicted wrong."""
    return evaluation.n - round(evaluation.n * evaluation.accuracy.value)


def _mistakes(
    evaluation: Evaluation, mistakes: Sequence[Mistake | Case], listed: bool
) -> list[Block]:
    wrong, n = wrong_items(evaluation), evaluation.n
    text = f"{wrong:,} of {count(n, 'test item')} {'is' if wrong == 1 else 'are'} misclassified"
    text += f" ({format_percent(wrong / n)})." if n else "."
    if listed:
        text += (
            " The files predictions.csv and predictions.parquet next to this page hold every"
            " item with its class, its prediction and the probabilities."
        )
    blocks: list[Block] = [text] if evaluation.classes else []
    pairs = confused_pairs(evaluation)
    if pairs:
        rows = tuple(
            (true, predicted, f"{number:,}", format_percent(number / items))
            for true, predicted, number, items in pairs
        )
        header = ("true class", "predicted as", "items", "of the true class")
        blocks.append(Table(header, rows, "The most frequent confusions", "llrr"))
    cases = tuple(each if isinstance(each, Case) else Case(_example(each)) for each in mistakes)
    explained = tuple(case for case in cases if case.groups)
    shown = f"{_most_confident(len(cases), wrong)} Some labels may be wrong: check them."
    if explained:
        shown += " Next to each: the nearest training items of both classes, by features."
        blocks.append(Cases(explained, shown))
    others = tuple(case.example for case in cases if not case.groups)
    if others:
        blocks.append(Gallery(others, "The next ones." if explained else shown))
    return blocks


def _example(mistake: Mistake) -> Example:
    facts = (
        ("true", mistake.true),
        ("predicted", mistake.predicted),
        ("probability", format_percent(mistake.probability)),
    )
    return Example(mistake.item, facts, mistake.excerpt)


def _most_confident(shown: int, wrong: int) -> str:
    if shown < wrong:
        return f"The {shown:,} most confident mistakes of {wrong:,}."
    return "The mistake." if wrong == 1 else "All mistakes, the most confident first."


def _training(evaluation: Evaluation, curves: Sequence[Curve]) -> list[Block]:
    from headstart.report.figures import reliability_figure

    blocks = curve_pictures(curves)
    if evaluation.reliability:
        blocks.append(
            Picture(
                reliability_figure(evaluation),
                f"Reliability diagram; expected calibration error {format_percent(evaluation.ece)}",
                "Are the probabilities right? Below the diagonal the head is overconfident. The"
                " area of a point is its share of the items.",
                "reliability.png",
            )
        )
    return blocks
