"""What ``examine`` finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.commands.invocation import Commands
from headstart.core.cards import Card, Grid, Shown
from headstart.core.records import Score, to_plain
from headstart.core.wording import clean, format_percent
from headstart.heads import LabelBudget
from headstart.report.text import format_few

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
        label, suggested: class names, as given and as predicted.
        probability: held-out probability of ``suggested``.
    """

    item: str
    label: str
    suggested: str
    probability: float


@dataclass(frozen=True, eq=False, repr=False)
class Examination(Shown):
    """What the features say about a data set.

    Attributes:
        budget: accuracy at 1, 2, 5, … labels per class, and the gain from twice as many.
        near_copies: test items that are nearly training items, the most similar first.
        doubts: labels to look at, the most doubtful first.
        n_train, n_test: items looked at.
        notes: what was decided on the user's behalf; ``budget`` has notes of its own.
        folder: where the report was written; None if it was not.
        commands: the command that made it, and what may follow.
    """

    budget: LabelBudget
    near_copies: tuple[NearCopy, ...]
    doubts: tuple[Doubt, ...]
    n_train: int
    n_test: int
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    commands: Commands = field(default=Commands())

    def card(self) -> Card:
        """Return what there is to see: what labels give, and the items to look at."""
        points = zip(self.budget.shots, self.budget.scores, strict=True)
        facts: list[tuple[str, str]] = [
            (f"with {shots:,} a class", format_percent(score.value)) for shots, score in points
        ]
        doubts = tuple((d.item, d.label, d.suggested, d.probability) for d in self.doubts[:12])
        copies = tuple((c.test, c.train, c.similarity) for c in self.near_copies[:12])
        found = (
            (("item", "label", "looks like", "probability"), doubts, "doubtful labels"),
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
        return {
            "labels_per_class": list(budget.shots),
            "accuracy": to_plain(budget.scores),
            "at_twice_the_labels": to_plain(budget.extrapolated),
            "gain_from_twice_the_labels": to_plain(budget.gain),
            "near_copies": to_plain(self.near_copies),
            "doubtful_labels": to_plain(self.doubts),
            "notes": [*self.notes, *budget.notes],
        }


def format_gain(gain: Score) -> str:
    """Return a difference of accuracies as ``+1.3 points (95 % interval +0.8 to +2.1)``."""
    text = f"{100 * gain.value:+.1f} points"
    if gain.interval is None:
        return text
    text = format_few(gain.interval.items) + text
    low, high = 100 * gain.interval.low, 100 * gain.interval.high
    return f"{text} (95 % interval {low:+.1f} to {high:+.1f})"


__all__ = ["EXAMPLES", "Doubt", "Examination", "NearCopy", "format_gain"]
