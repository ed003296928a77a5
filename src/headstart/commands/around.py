"""What a report shows of tested items beside their scores: a map, why each mistake, slices.

Everything is bounded, so that a report stays a file to mail: 1,000 items and 200 mistakes on the
map, 24 mistakes, 12 of them with six training items each, twelve columns of slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.collection import glimpse, label_text
from headstart.commands.examined import Examined
from headstart.commands.judged import Judged, judged, worst_first
from headstart.commands.prediction_table import Probabilities
from headstart.commands.reasons import Near, reasons
from headstart.commands.task_report import in_words, said_of, wrong_labels
from headstart.core.nearest import mean_row
from headstart.core.projection import principal_plane
from headstart.core.wording import count, format_number, format_percent, verb
from headstart.data import Inputs, Split
from headstart.data.table_columns import columns_of
from headstart.evaluation.slices import Slice, group_slices, slices
from headstart.heads import Head
from headstart.report.page import (
    Block,
    Callout,
    Case,
    Cases,
    Example,
    Gallery,
    Picture,
    Section,
    Table,
)
from headstart.report.text import format_score
from headstart.store.layout import pack_ids

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REASONED = 12
"""Mistakes that are shown with their nearest training items."""
_POINTS, _RINGS, _COLUMNS, _EXAMINED = 1000, 200, 12, 6


@dataclass(frozen=True, eq=False)
class Around:
    """The items that a head was tested on, with their features and those that trained it.

    Attributes:
        head: which was tested.
        test: the items.
        outputs: ``(m, k)``, what the head said of them.
        inputs: of the backbone, for excerpts.
        test_rows: ``(m, d)``, their features; None: not at hand.
        train: the items that trained it; None: not at hand.
        train_rows: ``(n, d)``, their features; None: not at hand.
        examined: what ``examine`` has found of the same items; None: it was not asked.
    """

    head: Head
    test: Split
    outputs: Probabilities
    inputs: Inputs
    test_rows: Any = None
    train: Split | None = None
    train_rows: Any = None
    examined: Examined | None = None

    def judged(self) -> Judged:
        """Return what the head says of the items."""
        return judged(self.head, self.test, self.outputs)


# -- mistakes ------------------------------------------------------------------------------------


def mistake_cases(around: Around, most: int = 24) -> tuple[Case, ...]:
    """Return the worst mistakes, the first of them with the training items that explain them.

    Args:
        around: the items.
        most: so many; those after the first twelve have no training items beside them.
    """
    said = around.judged()
    worst = worst_first(said.wrong, most)
    groups = _groups(around, said, worst[:REASONED])
    return tuple(
        Case(_example(around, said, int(i)), groups[rank] if rank < len(groups) else ())
        for rank, i in enumerate(worst)
    )


def _example(around: Around, said: Judged, i: int) -> Example:
    test = around.test
    if test.targets is not None and around.head.task != "regression":
        made = np.asarray(said.outputs[i : i + 1], dtype=np.float64)  # type: ignore[index]
        truth, names, chosen = test.targets[i], test.classes, said_of(around.head, made)[0]
        words = [("true", in_words(names, truth)), ("predicted", in_words(names, chosen))]
        words += wrong_labels(names, truth, chosen, made[0])
        return Example(test.origins[i], tuple(words), glimpse(around.inputs, test, i))
    facts = [("true", label_text(test, i)), ("predicted", said.said(i, test.classes))]
    if around.head.task == "classification":
        facts.append(("probability", format_percent(float(said.confidence[i]))))
    elif around.head.task == "regression":
        facts.append(("error", f"{format_number(float(said.wrong[i]))} deviations"))
    return Example(test.origins[i], tuple(facts), glimpse(around.inputs, test, i))


def _groups(
    around: Around, said: Judged, worst: NDArray[np.int64]
) -> list[tuple[tuple[str, tuple[Example, ...]], ...]]:
    """Return for every mistake its nearest training items of both classes, or of any."""
    train, test = around.train, around.test
    if train is None or around.train_rows is None or around.test_rows is None or not len(train):
        return []
    single = around.head.task == "classification"
    found = reasons(
        np.stack([np.asarray(around.test_rows[int(i) : int(i) + 1])[0] for i in worst])
        if len(worst)
        else np.empty((0, 1)),
        around.train_rows,
        centre=mean_row(around.train_rows),
        packed=pack_ids(train.ids),
        own=pack_ids([test.ids[i] for i in worst.tolist()]),
        labels=train.labels if single else None,
        true=test.labels[worst],
        predicted=said.predicted[worst] if single else None,
    )

    def told(at: int) -> str:
        if train.targets is None or around.head.task == "regression":
            return label_text(train, at)
        return in_words(train.classes, train.targets[at])

    def shown(near: Sequence[Near]) -> tuple[Example, ...]:
        return tuple(
            Example(
                train.origins[each.at],
                (("cosine", f"{each.similarity:.3f}"),)
                if single
                else (("true", told(each.at)), ("cosine", f"{each.similarity:.3f}")),
                glimpse(around.inputs, train, each.at),
            )
            for each in near
        )

    groups: list[tuple[tuple[str, tuple[Example, ...]], ...]] = []
    for i, reason in zip(worst.tolist(), found, strict=True):
        if not single:
            groups.append((("nearest training items", shown(reason.any)),))
            continue
        truth, guess = test.classes[test.labels[i]], test.classes[said.predicted[i]]
        pair = (
            (f"nearest of {truth} (true)", shown(reason.true)),
            (f"nearest of {guess} (predicted)", shown(reason.predicted)),
        )
        groups.append(tuple((title, near) for title, near in pair if near))
    return groups


# -- the map -------------------------------------------------------------------------------------


def map_section(around: Around) -> Section | None:
    """Return the map of the tested items, in the plane in which the training items differ most."""
    rows = around.test_rows
    if rows is None or len(around.test) < 3:
        return None
    fitted = around.train_rows if around.train_rows is not None and len(around.train_rows) else rows
    plane = principal_plane(fitted)
    said = around.judged()
    shown = _spread(said.wrong)
    places = plane.project(np.concatenate([np.asarray(rows[int(i) : int(i) + 1]) for i in shown]))
    shares = " and ".join(format_percent(share) for share in plane.shares)
    figure, told = _map(around, said, shown, places)
    n = len(around.test)
    some = "" if len(shown) == n else f"{len(shown):,} of {count(n, 'test item')} are shown. "
    caption = (
        f"{some}{told.strip()} The plane is that in which the"
        f" {'training' if fitted is not rows else 'test'} items differ most; its axes hold"
        f" {shares} of the variance, so items that are close on it need not be similar."
    ).strip()
    wrong = int((np.nan_to_num(said.wrong[shown]) > 0).sum())
    alt = f"Map of {count(len(shown), 'test item')}"
    alt += "" if around.head.task == "regression" else f", {wrong:,} of them misclassified"
    return Section("Map", (Picture(figure, alt, caption),))


def _spread(wrong: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return items at even distances, and the worst mistakes, in their order."""
    n = len(wrong)
    some = np.unique(np.linspace(0, n - 1, min(n, _POINTS)).astype(np.int64))
    return np.union1d(some, worst_first(wrong, _RINGS))


def _map(
    around: Around, said: Judged, shown: NDArray[np.int64], places: NDArray[np.float32]
) -> tuple[Figure, str]:
    from headstart.report.figures import map_figure, value_map_figure
    from headstart.report.figures.maps import COLOURED

    test, wrong = around.test, said.wrong[shown]
    if around.head.task == "regression":
        assert test.targets is not None
        rings = np.zeros(len(shown), bool)
        rings[worst_first(wrong, max(3, len(shown) // 20))] = True
        figure = value_map_figure(
            places, test.targets[shown, 0], rings, name=test.classes[0]
        )  # fmt: skip
        return figure, "Rings mark the 5 % with the largest errors."
    rings = np.nan_to_num(wrong) > 0
    if around.head.task != "classification":
        names = ("all labels right", "a label wrong")
        return map_figure(places, rings.astype(np.int64), names, rings & False), ""
    labels, classes = test.labels[shown], test.classes
    ringed = "Rings mark mistakes." if rings.any() else ""
    if len(classes) <= COLOURED:
        figure = map_figure(places, labels, classes, rings)
        return figure, ringed
    often = np.bincount(labels[rings], minlength=len(classes))
    kept = np.sort(np.argsort(-often, kind="stable")[:COLOURED])
    place = np.full(len(classes), -1)
    place[kept] = np.arange(len(kept))
    figure = map_figure(places, place[labels], [classes[i] for i in kept], rings)
    return figure, (
        f"{ringed} The {COLOURED} classes with the most mistakes have a colour of their own; the"
        f" other {len(classes) - COLOURED:,} are grey."
    )


# -- what examine has found ------------------------------------------------------------------------


def examined_section(around: Around) -> Section | None:
    """Return the near copies and the doubtful labels that ``examine`` has found of the items."""
    found, train, test = around.examined, around.train, around.test
    if found is None or train is None or not (found.copies or found.doubts):
        return None
    where = {key: i for i, key in reversed(list(enumerate(train.ids)))}
    tested = {key: i for i, key in reversed(list(enumerate(test.ids)))}
    pairs = [(tested[a], where[b], c) for a, b, c in found.copies if a in tested and b in where]
    doubts = [(where[a], b, c) for a, b, c in found.doubts if a in where]
    blocks: list[Block] = []
    if pairs:
        n = len(pairs)
        text = f"{count(n, 'test item')} nearly {verb(n, 'equals', 'equal')} a training item, so"
        blocks.append(Callout(f"{text} that the test score may be too high.", "warning"))
        shown = [
            Case(
                Example(
                    test.origins[i],
                    (("true", label_text(test, i)),),
                    glimpse(around.inputs, test, i),
                ),
                ((f"training item, cosine {c:.3f}", (_plain(around, train, j),)),),
            )
            for i, j, c in pairs[:_EXAMINED]
        ]
        blocks.append(Cases(tuple(shown), _first(n, "The most similar")))
    if doubts:
        examples = tuple(
            Example(
                train.origins[i],
                (
                    ("label", label_text(train, i)),
                    ("looks like", b),
                    ("probability", format_percent(c)),
                ),
                glimpse(around.inputs, train, i),
            )
            for i, b, c in doubts[:_EXAMINED]
        )
        text = f"{count(len(doubts), 'training label')} {verb(len(doubts), 'looks', 'look')}"
        blocks += [f"{text} doubtful.", Gallery(examples, _first(len(doubts), "The most doubtful"))]
    return Section("What examine found", tuple(blocks)) if blocks else None


def _plain(around: Around, split: Split, at: int) -> Example:
    facts = (("label", label_text(split, at)),)
    return Example(split.origins[at], facts, glimpse(around.inputs, split, at))


def _first(n: int, what: str) -> str:
    return "" if n <= _EXAMINED else f"{what} {_EXAMINED} of {n:,}; examine has all of them."


# -- slices --------------------------------------------------------------------------------------


def slice_section(around: Around) -> Section | None:
    """Return how good the head is by group, and by every column beside the items."""
    test = around.test
    if not len(test) or (test.metadata is None and test.groups is None):
        return None
    said = around.judged()
    regression = around.head.task == "regression"
    if np.isnan(said.wrong).all():
        return None
    measured: NDArray[Any] = said.wrong == 0
    what = "right"
    if regression:
        assert test.targets is not None
        made = np.asarray(around.outputs, dtype=np.float64)
        measured = np.abs(made - test.targets)[:, 0]
        of = f" of {test.classes[0]}" if len(test.classes) > 1 else ""
        what = f"mean absolute error{of}"
    first = _group_blocks(test, measured, what, regression)
    blocks: list[Block] = []
    for name, values in {} if test.metadata is None else columns_of(test).items():
        found = slices(values, measured, groups=test.groups)
        if found and len(blocks) < _COLUMNS:
            rows = _slice_rows(found, regression)
            blocks.append(Table((name, "items", what), rows, align="lrl"))
    if blocks:
        text = (
            "By the other columns of the table, with 95 % intervals. With many slices, some"
            " differ by chance: look at those whose intervals do not overlap."
        )
        blocks.insert(0, text)
    return Section("Slices", (*first, *blocks)) if first or blocks else None


def _group_blocks(test: Split, measured: NDArray[Any], what: str, regression: bool) -> list[Block]:
    """Return the score of every group, the worst first; nothing where there are no groups."""
    from headstart.report.figures import parts_figure

    found = () if test.groups is None else group_slices(test.groups, measured)
    if not found:
        return []
    picture = parts_figure(
        [each.value for each in found], [each.score for each in found], [each.n for each in found],
        what if regression else f"{what}, per cent", percent=not regression,
    )  # fmt: skip
    alt = "; ".join(f"{each.value}: {_worded(each.score, regression)}" for each in found[:30])
    caption = (
        f"All {len(found)} groups of the test split, worst first, with 95 % intervals over the"
        " items of each. Look at any group that stands out."
    )
    rows = _slice_rows(found, regression)
    return [
        Picture(picture, alt, caption),
        Table(("group", "items", what), rows, "All groups", "lrl", folded=True),
    ]


def _slice_rows(found: Sequence[Slice], regression: bool) -> tuple[tuple[str, str, str], ...]:
    return tuple((each.value, f"{each.n:,}", _worded(each.score, regression)) for each in found)


def _worded(score: Any, regression: bool) -> str:
    if not regression:
        return format_score(score)
    if score.interval is None:
        return format_number(score.value)
    low, high = format_number(score.interval.low), format_number(score.interval.high)
    return f"{format_number(score.value)} (95 % interval {low} to {high})"


__all__ = [
    "REASONED",
    "Around",
    "examined_section",
    "map_section",
    "mistake_cases",
    "slice_section",
]
