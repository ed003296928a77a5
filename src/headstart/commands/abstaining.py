"""Answers of a chosen coverage: what ``predict`` says, what ``fit`` and ``evaluate`` measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.commands.prediction_table import Probabilities
from headstart.commands.scoring import AnyEvaluation
from headstart.core.errors import DataError, HeadError
from headstart.core.row_keys import Keys
from headstart.data import Split
from headstart.data.label_texts import one_text
from headstart.evaluation.conformal import ScoreName
from headstart.evaluation.sets import NEITHER, UNDECIDED, YES, AnySets, ClassSets, ValueSets
from headstart.heads.held_out import Calibration

COVERAGES = (0.8, 0.9, 0.95, 0.99)
"""Those that a report measures where none was chosen."""
_MOST_CELLS = 20_000_000
"""Of items and classes; more would take a minute."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What was asked for.

    Attributes:
        coverage: the share of items whose truth is meant to be in its set.
        by_class: of every class alike.
        score: how badly a class fits an item.
    """

    coverage: float
    by_class: bool = False
    score: ScoreName = "lac"


def answers(
    calibration: Calibration | None,
    reason: str,
    asked: Asked,
    outputs: Probabilities,
    *,
    rows: object,
    keys: Keys,
    names: Sequence[str],
) -> AnySets:
    """Return what may be said of items.

    Args:
        calibration: of the run; None: it has kept nothing.
        reason: why it has not, where it says so.
        asked: coverage and how.
        outputs: ``(n, k)``, what the head says of the items.
        rows: their features ``(n, d)``.
        keys: their content ids.
        names: of the classes, labels or targets.

    Raises:
        DataError: the run has nothing to make sets of.
        HeadError: its items are too few for the coverage.
    """
    if calibration is None:
        why = reason or "it was written by an older version, or by a command other than fit"
        raise DataError(
            f"the run has no held-out scores to abstain by ({why})",
            hint="fit again; this takes seconds, because the features come from the cache",
        )
    return calibration.sets(
        outputs,
        coverage=asked.coverage,
        by_class=asked.by_class,
        score=asked.score,
        keys=keys,
        names=names,
        rows=rows,
    )


def with_sets(
    evaluation: AnyEvaluation,
    calibration: Calibration | None,
    split: Split,
    outputs: Probabilities,
    rows: object,
) -> AnyEvaluation:
    """Return scores with what sets of the usual coverages did; those that cannot be promised are
    left out.

    Args:
        evaluation: of the split.
        calibration: of the run; None: none are made.
        split: the items that were scored.
        outputs, rows: what the head says of them, and their features.
    """
    if calibration is None or not len(split):
        return evaluation
    most = max(1, _MOST_CELLS // max(outputs.shape[1], 1))
    if len(split) > most:  # of very many classes some items say enough
        some = np.unique(np.linspace(0, len(split) - 1, most).round().astype(np.int64))
        split, outputs, rows = split.take(some), outputs[some], rows[some]  # type: ignore[index]
    measured = []
    for coverage in COVERAGES:
        try:
            found = answers(
                calibration, "", Asked(coverage), outputs, rows=rows, keys=split.ids,
                names=split.classes,
            )  # fmt: skip
        except HeadError:
            continue
        measured.append(found.measured(split.y, split.classes, split.groups))
    return dataclasses.replace(evaluation, sets=tuple(measured))


def set_columns(sets: AnySets, names: Sequence[str]) -> dict[str, list[Any]]:
    r"""Return the columns of a table of predictions: what is plausible, and whether to abstain.

    Classes: ``set``, its classes with ``|`` between them (one in a name is written ``\|``).
    Several labels: ``sure`` and ``undecided``. Numbers: ``low`` and ``high`` of each target.
    """
    if isinstance(sets, ValueSets):
        table: dict[str, list[Any]] = {}
        for at, name in enumerate(names):
            suffix = "" if len(names) == 1 else f" of {name}"
            table[f"low{suffix}"] = sets.low[:, at].tolist()
            table[f"high{suffix}"] = sets.high[:, at].tolist()
        return table
    abstain = [bool(each) for each in sets.abstain]
    if isinstance(sets, ClassSets):
        joined = [one_text(names[i] for i in each) for each in sets.members]
        return {"set": joined, "abstain": abstain}
    open_ = (sets.states == UNDECIDED) | (sets.states == NEITHER)
    return {
        "sure": _named(sets.states == YES, names),
        "undecided": _named(open_, names),
        "abstain": abstain,
    }


def _named(mask: np.ndarray, names: Sequence[str]) -> list[str]:
    return [one_text(names[int(i)] for i in np.flatnonzero(row)) for row in mask]


__all__ = ["COVERAGES", "Asked", "answers", "set_columns", "with_sets"]
