"""What a head says of a split, and how good that is, whatever its task is."""

from __future__ import annotations

from typing import Any, TypeAlias

from headstart.commands.prediction_table import Probabilities
from headstart.core.records import FIELDS, Evaluation, NamedScore
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


def tested_figures(evaluation: AnyEvaluation) -> dict[str, float]:
    """Return the scores on a test split by the names that loggers and tables have them under."""
    if isinstance(evaluation, Evaluation):
        return {
            "test/accuracy": evaluation.accuracy.value,
            "test/balanced_accuracy": evaluation.balanced_accuracy.value,
            "test/macro_f1": evaluation.macro_f1.value,
            "test/log_loss": evaluation.log_loss,
            "test/ece": evaluation.ece,
        }
    return {
        f"test/{FIELDS.get(each.name, each.name.replace(' ', '_'))}": each.score.value
        for each in evaluation.figures()
    }


def named_scores(head: Head, split: Split, outputs: Probabilities) -> tuple[NamedScore, ...]:
    """Return the scores of a head by name, the one that runs are compared by first."""
    found = evaluated(head, split, outputs)
    if isinstance(found, Evaluation):
        return (NamedScore("accuracy", found.accuracy),)
    return found.figures()


__all__ = ["AnyEvaluation", "evaluated", "named_scores", "outputs_of", "tested_figures"]
