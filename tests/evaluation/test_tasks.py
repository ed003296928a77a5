"""Tasks: one record says what targets mean; its losses and figures are those of the libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import HeadError
from headstart.core.records import Evaluation
from headstart.evaluation.tasks import CLASSIFICATION, MULTI_LABEL, REGRESSION, TASKS, task_named
from headstart.heads import fit_mlp, fit_ridge
from sklearn import metrics as reference

RNG = np.random.default_rng(0)
N, K = 60, 3
OUTPUTS = RNG.normal(size=(N, K))
TARGETS: dict[str, Any] = {
    "classification": RNG.integers(0, K, N),
    "multi-label": RNG.integers(0, 2, (N, K)).astype(float),
    "regression": RNG.normal(size=(N, K)),
}


def test_names_find_tasks_and_unknown_ones_are_offered_the_nearest() -> None:
    assert {name: task_named(name) for name in TASKS} == TASKS
    with pytest.raises(HeadError, match="did you mean 'regression'"):
        task_named("regresion")


@pytest.mark.parametrize("name", list(TASKS))
def test_outputs_become_predictions_probabilities_and_scores(name: str) -> None:
    task = task_named(name)
    targets = task.encode(TARGETS[name], N, K)
    outputs = OUTPUTS if task.probabilities is None else task.probabilities(OUTPUTS)
    found = task.evaluate(targets.values, outputs, [str(i) for i in range(K)])
    assert found.n == N
    predicted = task.predict(OUTPUTS)
    if name == "classification":
        assert isinstance(found, Evaluation)
        assert found.accuracy.value == (predicted == TARGETS[name]).mean()
        np.testing.assert_allclose(outputs.sum(axis=1), 1.0)
    if name == "multi-label":
        truth = TARGETS[name]
        assert found.exact_match.value == pytest.approx(reference.accuracy_score(truth, predicted))
        for average in ("micro", "macro"):
            expected = reference.f1_score(truth, predicted, average=average, zero_division=0)
            assert getattr(found, f"{average}_f1").value == pytest.approx(expected)
    if name == "regression":
        truth = TARGETS[name]
        error = reference.mean_absolute_error(truth, predicted)
        assert found.mean_absolute_error.value == pytest.approx(error)
        rmse = reference.root_mean_squared_error(truth, predicted)
        assert found.root_mean_squared_error.value == pytest.approx(rmse)
        assert found.r2.value == pytest.approx(reference.r2_score(truth, predicted))
    scores = [v for v in vars(found).values() if hasattr(v, "interval")]
    for score in scores:
        assert score.interval is not None
        assert score.interval.low <= score.value <= score.interval.high


@pytest.mark.parametrize("name", list(TASKS))
def test_the_constant_is_the_best_of_all_constants(name: str) -> None:
    """No other outputs without features have a lower loss on the same targets."""
    task = task_named(name)
    targets = task.encode(TARGETS[name], N, K)
    values = torch.from_numpy(targets.values)
    present = torch.from_numpy(targets.present)

    def loss(constant: np.ndarray) -> float:
        outputs = torch.from_numpy(np.tile(constant, (N, 1)))
        return float(task.loss(outputs, values, present)[0].mean())

    best = task.constant(targets)
    others = [best + 0.3 * direction for direction in RNG.normal(size=(20, K))]
    assert all(loss(best) < loss(other) for other in others)


@pytest.mark.parametrize("name", list(TASKS))
def test_the_two_ways_to_count_what_is_right_agree(name: str) -> None:
    task = task_named(name)
    targets = task.encode(TARGETS[name], N, K)
    outputs, values = torch.from_numpy(OUTPUTS), torch.from_numpy(targets.values)
    _, hits = task.loss(outputs, values, torch.from_numpy(targets.present))
    if task.correct is None:
        assert hits.isnan().all()
    else:
        np.testing.assert_allclose(hits.numpy(), task.correct(OUTPUTS, targets.values))


@pytest.mark.parametrize(
    ("name", "y", "words"),
    [
        ("classification", np.full(N, K), "below 3"),
        ("classification", np.full((N, K), 0.5), "sum to 1"),
        ("multi-label", np.full((N, K), 2.0), "between 0 and 1"),
        ("regression", np.zeros((N, K + 1)), "expected 3 targets per item, found 4"),
        ("regression", np.full((N, K), np.nan), "NaN or infinity"),
    ],
)
def test_targets_that_do_not_fit(name: str, y: np.ndarray, words: str) -> None:
    with pytest.raises(HeadError, match=words):
        task_named(name).encode(y, N, K)


def test_ridge_takes_soft_labels_as_it_takes_classes() -> None:
    x, y = RNG.normal(size=(N, 5)), TARGETS["classification"]
    hard, soft = fit_ridge(x, y, K), fit_ridge(x, np.eye(K)[y], K)
    np.testing.assert_allclose(hard.head.weight, soft.head.weight)
    np.testing.assert_allclose(hard.accuracy, soft.accuracy)


@pytest.mark.parametrize("fit", [fit_ridge, fit_mlp])
def test_heads_of_every_task_carry_it(fit: Any) -> None:
    x = RNG.normal(size=(N, 5))
    for task in (CLASSIFICATION, MULTI_LABEL, REGRESSION):
        head = fit(x, TARGETS[task.name], K, task=task.name).head
        assert head.task == task.name
        assert head.predict(x).shape == task.predict(OUTPUTS).shape


def test_scores_of_regression_that_do_not_fit() -> None:
    with pytest.raises(HeadError, match="expected values of shape"):
        REGRESSION.evaluate(np.zeros(5), np.zeros((5, 2)), ["a", "b"])
    with pytest.raises(HeadError, match="finite probabilities"):
        MULTI_LABEL.evaluate(np.zeros((5, 2)), np.zeros((5, 3)), ["a", "b"])
