"""What a head says of a split, and how good that is, whatever its task is."""

from __future__ import annotations

from typing import Any, TypeAlias

from headstart.commands.prediction_table import Probabilities
from headstart.core.records import Evaluation
from headstart.data import Split
from headstart.evaluation.multi_label import MultiLabelEvaluation
from headstart.evaluation.regression import RegressionEvaluation
from headstart.evaluation.tasks import MULTI_LABEL, task_named
from headstart.heads import Head

AnyEvaluation: TypeAlias = Evaluation | MultiLabelEvaluation | RegressionEvaluation
"""The scores of a head on one split; which, its task says."""


def outputs_of(head: Head, rows: object) -> Probabilities:
    """Return probabilities ``(n, k)``, or values where the task has none.

    Args:
        head: the head.
        rows: features ``(n, d)``.
    """
    if task_named(head.task).probabilities is None:
        values: Probabilities = head.predict(rows)
        return values
    return head.likelihoods(rows)


def evaluated(head: Head, split: Split, outputs: Probabilities) -> AnyEvaluation:
    """Score what a head says of a split.

    Args:
        head: the head.
        split: the items, with the classes, labels or targets of the head.
        outputs: what :func:`outputs_of` returned for them.
    """
    more: dict[str, Any] = {}
    if head.task == MULTI_LABEL.name:
        more["thresholds"] = head.thresholds
    found: AnyEvaluation = task_named(head.task).evaluate(
        split.y, outputs, split.classes, groups=split.groups, **more
    )
    return found


__all__ = ["AnyEvaluation", "evaluated", "outputs_of"]
