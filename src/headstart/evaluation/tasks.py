"""Tasks: what targets mean, and everything that follows from it.

One frozen record for each task says how targets are checked, what a head is trained to minimise,
how its outputs become predictions and probabilities, and how these are scored. Whoever trains or
scores asks the record; nobody asks which task it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.special import expit, softmax

from headstart.core.errors import HeadError
from headstart.core.records import Evaluation
from headstart.core.wording import did_you_mean
from headstart.evaluation.classification import evaluate
from headstart.evaluation.multi_label import MultiLabelEvaluation, evaluate_multi_label
from headstart.evaluation.regression import RegressionEvaluation, evaluate_regression
from headstart.evaluation.targets import (
    FloatArray,
    Targets,
    as_labels,
    as_multi_hot,
    as_regression_targets,
    as_soft_targets,
    require_two_classes,
)

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor", "Tensor"], tuple["Tensor", "Tensor"]]


@dataclass(frozen=True, eq=False)
class Task:
    """What targets mean.

    Outputs are logits ``(n, k)``, or values where there are no probabilities; ``-inf`` marks a
    class that cannot be predicted.

    Attributes:
        name: as settings and saved heads have it.
        encode: targets as given, the number of items and of outputs → checked targets.
        code: checked targets → ``(n, k) float64``, what least squares aims at.
        loss: outputs, targets and the outputs that training rows teach ``(k,) bool`` (tensors) →
            the loss of each row ``(n,)`` and how far it is right ``(n,)``, NaN where that has no
            meaning.
        probabilities: logits → probabilities ``(n, k)``; None where outputs are values.
        predict: outputs → predictions.
        correct: outputs and checked target values → how far each item is right, ``(n,)`` in
            [0, 1]; None where that has no meaning.
        evaluate: checked target values, probabilities (or values) and names of the outputs → a
            record of scores with intervals.
        constant: checked targets → ``(k,)``, the best outputs that know no features: the baseline.
        constant_name: what that baseline is called.
        record: what ``evaluate`` returns.
        loss_label: axis title of the loss.
    """

    name: str
    encode: Callable[[object, int, int], Targets]
    code: Callable[[Targets, int], FloatArray]
    loss: Loss
    probabilities: Callable[[FloatArray], FloatArray] | None
    predict: Callable[[FloatArray], np.ndarray]
    correct: Callable[[FloatArray, np.ndarray], FloatArray] | None
    evaluate: Callable[..., Any]
    constant: Callable[[Targets], FloatArray]
    constant_name: str
    record: type
    loss_label: str = "loss (nats)"


def task_named(name: str) -> Task:
    """Return a task.

    Raises:
        HeadError: no task has that name.
    """
    if name in TASKS:
        return TASKS[name]
    raise HeadError(
        f"expected a task of {', '.join(TASKS)}, found {name!r}",
        hint=did_you_mean(str(name), TASKS),
    )


# Classification: one class for each item, by index or as a distribution over the classes.


def _encode_classes(y: object, n: int, k: int) -> Targets:
    if np.ndim(y) == 2:  # type: ignore[arg-type]
        soft = as_soft_targets(y, n, k)
        present = soft.max(axis=0) > 0
        require_two_classes(np.flatnonzero(present))
        return Targets(soft, present, soft.argmax(axis=1))
    labels = as_labels(y, n, k)
    require_two_classes(labels)
    return Targets(labels, np.bincount(labels, minlength=k) > 0, labels)


def _code_classes(targets: Targets, k: int) -> FloatArray:
    shares = targets.values
    if targets.labels is not None:
        shares = np.zeros((len(targets.values), k))
        shares[np.arange(len(shares)), targets.labels] = 1.0
    return 2.0 * shares - 1.0


def _class_loss(outputs: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    from torch.nn import functional

    masked = outputs.masked_fill(~present, -1e30)
    hard = target if target.ndim == 1 else target.argmax(1)
    loss = functional.cross_entropy(masked, target, reduction="none")
    return loss, (masked.argmax(1) == hard).float()


def _class_correct(outputs: FloatArray, values: np.ndarray) -> FloatArray:
    hard = values if values.ndim == 1 else values.argmax(axis=1)
    return cast(FloatArray, (outputs.argmax(axis=1) == hard).astype(np.float64))


def _class_shares(targets: Targets) -> FloatArray:
    values = targets.values
    if targets.labels is not None:
        values = np.bincount(targets.labels, minlength=len(targets.present))[None]
    with np.errstate(divide="ignore"):
        return cast(FloatArray, np.log(values.sum(axis=0) / values.sum()))


# Several labels for each item, independent of one another.


def _encode_memberships(y: object, n: int, k: int) -> Targets:
    return Targets(as_multi_hot(y, n, k), np.ones(k, dtype=bool), None)


def _membership_loss(outputs: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    from torch.nn import functional

    loss = functional.binary_cross_entropy_with_logits(outputs, target, reduction="none")
    return loss.sum(1), ((outputs > 0) == (target > 0.5)).float().mean(1)


def weighted_label_loss(weights: Tensor) -> Loss:
    """Return the loss of several labels where absence and presence of each weigh ``(2, k)``."""

    def loss(outputs: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        from torch.nn import functional

        cells = weights[0] + target * (weights[1] - weights[0])
        each = functional.binary_cross_entropy_with_logits(outputs, target, reduction="none")
        return (each * cells).sum(1), ((outputs > 0) == (target > 0.5)).float().mean(1)

    return loss


def _label_shares(targets: Targets) -> FloatArray:
    share = targets.values.mean(axis=0)
    with np.errstate(divide="ignore"):
        return cast(FloatArray, np.log(share) - np.log1p(-share))


# Regression: one value for each item and target.


def _encode_values(y: object, n: int, k: int) -> Targets:
    values = as_regression_targets(y, n)
    if values.shape[1] != k:
        raise HeadError(f"expected {k} targets per item, found {values.shape[1]}")
    return Targets(values, np.ones(k, dtype=bool), None)


def _value_loss(outputs: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    loss = ((outputs - target) ** 2).mean(1)
    return loss, loss.new_full(loss.shape, float("nan"))


CLASSIFICATION = Task(
    name="classification",
    encode=_encode_classes,
    code=_code_classes,
    loss=_class_loss,
    probabilities=lambda logits: cast(FloatArray, softmax(logits, axis=1)),
    predict=lambda outputs: np.asarray(outputs.argmax(axis=1), dtype=np.int64),
    correct=_class_correct,
    evaluate=evaluate,
    constant=_class_shares,
    constant_name="majority class",
    record=Evaluation,
)
MULTI_LABEL = Task(
    name="multi-label",
    encode=_encode_memberships,
    code=lambda targets, _: 2.0 * targets.values - 1.0,
    loss=_membership_loss,
    probabilities=lambda logits: cast(FloatArray, expit(logits)),
    predict=lambda outputs: np.asarray(outputs > 0, dtype=np.int64),
    correct=lambda outputs, values: ((outputs > 0) == (values > 0.5)).mean(axis=1),
    evaluate=evaluate_multi_label,
    constant=_label_shares,
    constant_name="labels that most items have",
    record=MultiLabelEvaluation,
)
REGRESSION = Task(
    name="regression",
    encode=_encode_values,
    code=lambda targets, _: targets.values,
    loss=_value_loss,
    probabilities=None,
    predict=lambda outputs: outputs,
    correct=None,
    evaluate=evaluate_regression,
    constant=lambda targets: targets.values.mean(axis=0),
    constant_name="mean of the training targets",
    record=RegressionEvaluation,
    loss_label="mean squared error",
)
TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, MULTI_LABEL, REGRESSION)}

__all__ = [
    "CLASSIFICATION",
    "MULTI_LABEL",
    "REGRESSION",
    "TASKS",
    "Task",
    "task_named",
    "weighted_label_loss",
]
