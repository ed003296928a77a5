"""What a head says of items, and how wrong that is: the order of every gallery of mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.prediction_table import Probabilities
from headstart.commands.task_report import badness, joined, said_of
from headstart.core.wording import format_number
from headstart.data import Split
from headstart.evaluation import most_likely
from headstart.heads import Head


@dataclass(frozen=True, eq=False)
class Judged:
    """What a head says of the items of a split.

    Attributes:
        head: of the run.
        outputs: ``(n, k)``: probabilities, or values.
        predicted: ``(n,) int64``, the likeliest class; −1 for another task than classification.
        confidence: ``(n,) float32``: the probability of that class; of several labels how far the
            least sure one is from its threshold; NaN for numbers.
        wrong: ``(n,) float32``, how wrong each item is, more is worse, and 0 is right: the
            probability of a wrong class, the error of the worst label, or the largest error in
            deviations of its target. NaN where nothing says what is true.
    """

    head: Head
    outputs: Probabilities
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    wrong: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.predicted)

    def said(self, at: int, classes: tuple[str, ...]) -> str:
        """Return what is predicted of an item, in words."""
        if self.head.task == "classification":
            return classes[int(self.predicted[at])]
        row = np.asarray(self.outputs[at : at + 1], dtype=np.float64)  # type: ignore[index]
        if self.head.task == "regression":
            return ", ".join(format_number(float(value)) for value in row[0])
        return joined(classes, said_of(self.head, row))[0]

    def likeliest(
        self, at: int, classes: tuple[str, ...], most: int = 5
    ) -> list[tuple[str, float]]:
        """Return the likeliest classes or labels of an item with their probabilities."""
        if self.head.task == "regression" or not isinstance(self.outputs, np.ndarray):
            return []
        row = np.asarray(self.outputs[at], dtype=np.float64)
        best = np.argsort(-row, kind="stable")[:most]
        return [(classes[int(i)], float(row[i])) for i in best]


def judged(head: Head, split: Split, outputs: Probabilities) -> Judged:
    """Compare what a head says of the items of a split with what is true of them.

    Args:
        head: the head.
        split: the items, labelled or not, with the classes, labels or targets of the head.
        outputs: ``(n, k)``, what it said of them.
    """
    n = len(split)
    if head.task == "classification":
        best, values = most_likely(outputs)
        predicted, confidence = best[:, 0].astype(np.int64), values[:, 0].astype(np.float32)
        wrong = np.where(predicted != split.labels, confidence, 0.0)
        wrong = np.where(split.labels < 0, np.nan, wrong)
        return Judged(head, outputs, predicted, confidence, wrong.astype(np.float32))
    made: NDArray[Any] = np.asarray(outputs, dtype=np.float64)
    nothing = np.full(n, -1, dtype=np.int64)
    said = said_of(head, made)
    sure = np.full(n, np.nan, dtype=np.float32)
    if head.task != "regression":
        limits = 0.5 if head.thresholds is None else head.thresholds
        sure = np.abs(made - limits).min(axis=1).astype(np.float32)
    if split.targets is None:
        return Judged(head, outputs, nothing, sure, np.full(n, np.nan, dtype=np.float32))
    wrong = badness(head, split.targets, made, said).astype(np.float32)
    return Judged(head, outputs, nothing, sure, wrong)


def worst_first(wrong: NDArray[np.float32], most: int | None = None) -> NDArray[np.int64]:
    """Return the items that are wrong, the worst first.

    Args:
        wrong: of :class:`Judged`.
        most: so many; None: all.
    """
    found = np.flatnonzero(np.nan_to_num(wrong) > 0)
    return found[np.argsort(-wrong[found], kind="stable")][:most]


__all__ = ["Judged", "judged", "worst_first"]
