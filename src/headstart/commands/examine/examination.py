"""What ``examine`` finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.commands.invocation import Commands
from headstart.core.cards import Card, Grid, Shown
from headstart.core.records import NamedScore, Score, to_plain
from headstart.core.wording import clean, format_percent
from headstart.evaluation.tasks import CLASSIFICATION, REGRESSION
from headstart.heads import LabelBudget
from headstart.heads.task_checks import ItemBudget
from headstart.report.task_text import format_named
from headstart.report.text import format_few, format_score

EXAMPLES = 24
"""So many near copies, and so many doubtful labels, are shown in the report; the JSON has all."""


@dataclass(frozen=True)
class NearCopy:
    """A test item that nearly equals a training item: where both are found, and their cosine."""

    test: str
    train: str
    similarity: float


@dataclass(frozen=True)
class Doubt:
    """A training item whose held-out prediction confidently disagrees with its label.

    Attributes:
        item: where it is found.
        label, suggested: class names, as given and as predicted; ``no 'cat'`` for a label that is
            not there; numbers in words.
        probability: held-out probability of ``suggested``; NaN of a number.
        sure: how sure that is, in words.
    """

    item: str
    label: str
    suggested: str
    probability: float
    sure: str

    def plain(self) -> dict[str, Any]:
        """Return it in plain values."""
        values: dict[str, Any] = to_plain(self)
        if self.probability == self.probability:
            del values["sure"]
        else:
            del values["probability"]
        return values


@dataclass(frozen=True, eq=False, repr=False)
class Examination(Shown):
    """What the features say about a data set.

    Attributes:
        budget: accuracy at 1, 2, 5, … labels per class, and the gain from twice as many; of several
            labels an item, and of numbers, their figure by training items.
        near_copies: test items that are nearly training items, the most similar first.
        doubts: labels to look at, the most doubtful first.
        n_train, n_test: items looked at.
        notes: what was decided on the user's behalf; ``budget`` has notes of its own.
        folder: where the report was written; None if it was not.
        commands: the command that made it, and what may follow.
        task: what the labels mean.
    """

    budget: LabelBudget | ItemBudget
    near_copies: tuple[NearCopy, ...]
    doubts: tuple[Doubt, ...]
    n_train: int
    n_test: int
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    commands: Commands = field(default=Commands())
    task: str = CLASSIFICATION.name

    @property
    def doubted(self) -> str:
        """What a doubt is about: ``label``, or ``value``."""
        return "value" if self.task == REGRESSION.name else "label"

    def card(self) -> Card:
        """Return what there is to see: what labels give, and the items to look at."""
        facts: list[tuple[str, str]]
        if isinstance(self.budget, ItemBudget):
            _, rows = curve_rows(self.budget)
            facts = [(f"with {items} training items", text) for items, text in rows]
        else:
            points = zip(self.budget.shots, self.budget.scores, strict=True)
            facts = [
                (f"with {shots:,} a class", format_percent(score.value)) for shots, score in points
            ]
        doubts = tuple((d.item, d.label, d.suggested, d.sure) for d in self.doubts[:12])
        copies = tuple((c.test, c.train, c.similarity) for c in self.near_copies[:12])
        found = (
            (("item", self.doubted, "looks like", "how sure"), doubts, f"doubtful {self.doubted}s"),
            (("test item", "training item", "cosine"), copies, "near copies"),
        )
        totals = (len(self.doubts), len(self.near_copies))
        grids = tuple(
            Grid(header, rows, caption, total)
            for (header, rows, caption), total in zip(found, totals, strict=True)
            if rows
        )
        if self.folder is not None:
            facts.append(("folder", clean(self.folder)))
        title = f"{self.n_train:,} training and {self.n_test:,} test items"
        return Card("Examination", title, tuple(facts), grids, self.notes)

    def plain(self) -> dict[str, Any]:
        """Return everything in plain values, for ``examination.json``."""
        budget = self.budget
        curve: dict[str, Any]
        if isinstance(budget, ItemBudget):
            curve = {
                "task": self.task,
                "training_items": list(budget.items),
                "figure": budget.figure,
                "scores": to_plain(budget.scores),
                "gain_from_the_last_doubling": to_plain(budget.doubled),
            }
        else:
            curve = {
                "labels_per_class": list(budget.shots),
                "accuracy": to_plain(budget.scores),
                "at_twice_the_labels": to_plain(budget.extrapolated),
                "gain_from_twice_the_labels": to_plain(budget.gain),
            }
        return {
            **curve,
            "near_copies": to_plain(self.near_copies),
            f"doubtful_{self.doubted}s": [each.plain() for each in self.doubts],
            "notes": [*self.notes, *budget.notes],
        }


def curve_rows(budget: LabelBudget | ItemBudget) -> tuple[tuple[str, str], list[tuple[str, str]]]:
    """Return the titles and rows of the points of a learning curve."""
    if isinstance(budget, LabelBudget):
        points = zip(budget.shots, budget.scores, strict=True)
        return ("labels per class", "accuracy"), [
            (f"{shots:,}", format_score(score)) for shots, score in points
        ]
    unit: Any = "percent" if budget.figure == "mAP" else "number"
    return ("training items", budget.figure), [
        (f"{n:,}", format_named(NamedScore(budget.figure, score, unit=unit)))
        for n, score in zip(budget.items, budget.scores, strict=True)
    ]


def gain_line(budget: LabelBudget | ItemBudget) -> str:
    """Say what more labels would bring, or have brought; nothing where that is not known."""
    if isinstance(budget, LabelBudget):
        told = None if budget.gain is None else format_gain(budget.gain)
        return "" if told is None else f"twice the labels would bring about {told}"
    gain = budget.doubled
    if gain is None or gain.interval is None:
        return ""
    share = budget.figure == "mAP"
    value, low, high = (
        f"{100 * v:+.1f}" if share else f"{v:+.3f}"
        for v in (gain.value, gain.interval.low, gain.interval.high)
    )
    return (
        f"the last doubling of the training items brought {value}{' points of' if share else ''}"
        f" {budget.figure} (95 % interval {low} to {high})"
    )


def format_gain(gain: Score) -> str:
    """Return a difference of accuracies as ``+1.3 points (95 % interval +0.8 to +2.1)``."""
    text = f"{100 * gain.value:+.1f} points"
    if gain.interval is None:
        return text
    text = format_few(gain.interval.items) + text
    low, high = 100 * gain.interval.low, 100 * gain.interval.high
    return f"{text} (95 % interval {low:+.1f} to {high:+.1f})"


__all__ = [
    "EXAMPLES",
    "Doubt",
    "Examination",
    "NearCopy",
    "curve_rows",
    "format_gain",
    "gain_line",
]
