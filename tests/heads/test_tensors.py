"""Every head as a module of PyTorch's predicts what the head predicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from headstart.core.errors import HeadError
from headstart.heads import Head, TrainingRows, head_kind, load_head
from headstart.heads.base import Features
from headstart.heads.lda import fit_lda
from headstart.heads.linear import LinearHead
from headstart.heads.neighbours import fit_neighbours
from headstart.heads.prepared import behind, shrunk_preparation
from headstart.heads.registry import head_kinds
from headstart.heads.started import StartedHead, fit_started
from headstart.heads.tensors import MODULES

D, K, N = 12, 4, 120
RNG = np.random.default_rng(0)
Y = RNG.integers(0, K, N)
X = (RNG.normal(size=(N, D)) + 0.6 * Y[:, None] * (np.arange(D) % 3 == 0) + 30).astype(np.float32)
Q = (RNG.normal(size=(64, D)) + 30).astype(np.float32)
TARGETS: dict[str, tuple[np.ndarray, int]] = {
    "classification": (Y, K),
    "multi-label": ((RNG.random((N, K)) < 0.4).astype(float), K),
    "regression": (X[:, :2].astype(float) * 1000 - 7, 2),
}
NO_MODULE = {"tabicl"}  # it refuses, with the reason: tests/heads/test_tabicl.py
KINDS = [
    (kind.name, task) for task in TARGETS for kind in head_kinds(task) if kind.name not in NO_MODULE
]


def outputs(head: Head, rows: np.ndarray = Q) -> np.ndarray:
    with torch.no_grad():
        return head.as_module()(torch.from_numpy(rows)).numpy()


def assert_same(head: Head, rows: np.ndarray = Q) -> None:
    expected = head.predict(rows) if head.task == "regression" else head.predict_proba(rows)
    scale = np.abs(expected).max() if head.task == "regression" else 1.0
    np.testing.assert_allclose(outputs(head, rows) / scale, expected / scale, atol=1e-5)


def trained(name: str, task: str, rows: np.ndarray = X, **options: Any) -> Head:
    kind = head_kind(name)
    y, k = TARGETS[task]
    return kind.fit(TrainingRows(rows, y, k, task=task), kind.settings(options)).head


@pytest.mark.parametrize(("name", "task"), KINDS)
def test_every_kind_for_every_task(name: str, task: str, tmp_path: Path) -> None:
    head = trained(name, task)
    assert_same(head)
    assert_same(head.with_temperature(2.5))
    if task != "regression":
        assert_same(head.with_thresholds(np.array([0.1, 0.3, 0.05, 0.55])))
    assert_same(head, Q[:1])
    head.save(tmp_path)
    assert_same(load_head(tmp_path))


@pytest.mark.parametrize("name", ["linear", "ridge", "lda", "prototype", "knn", "mlp"])
def test_behind_prepared_rows(name: str) -> None:
    preparation = shrunk_preparation(X)
    head = behind(preparation, trained(name, "classification", preparation(X).astype(np.float32)))
    assert_same(head)
    assert_same(head.with_temperature(0.3))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", ["softmax", "uniform"])
@pytest.mark.parametrize("counted", [False, True])
def test_neighbours_by_every_measure(metric: Any, weights: Any, counted: bool) -> None:
    count = RNG.integers(1, 4, N) if counted else None
    rows, queries = X - 30, Q - 30  # near the origin, where directions differ
    head = fit_neighbours(
        rows, Y, K, k=7, metric=metric, weights=weights, softness=0.5, sample_weight=count
    )
    assert_same(head, queries)
    assert_same(head.with_temperature(10.0), queries)  # a class without a vote stays at 0


def test_a_class_without_training_items_has_no_probability() -> None:
    head, _ = fit_lda(X, Y, K + 1)
    assert_same(head)
    assert (outputs(head)[:, K] == 0).all()
    assert np.isfinite(outputs(head)).all()


@pytest.mark.parametrize("unit", [False, True])
def test_a_head_that_begins_as_a_classifier(unit: bool) -> None:
    weight, bias = RNG.normal(size=(D, 7)), RNG.normal(size=7)
    start = StartedHead.untrained(weight, bias, [[0], [1, 5, 6], [2], [3, 4]], unit=unit)
    assert_same(start, Q - 30)
    assert_same(fit_started(TrainingRows(X - 30, Y, K), start).head, Q - 30)


def test_far_from_the_origin_nothing_is_lost_to_single_precision() -> None:
    weight = RNG.normal(size=(D, K))
    mean = np.full(D, 1000.0003)
    head = LinearHead(weight, np.zeros(K), mean, np.full(D, 0.01), np.ones(K, bool))
    rows = (1000 + np.rint(RNG.normal(size=(50, D)) * 16) / 1024).astype(np.float32)
    assert_same(head, rows)


def test_a_kind_of_ones_own_brings_its_module() -> None:
    class Constant(Head):
        kind: ClassVar[str] = "constant"
        task, temperature, n_features, n_classes = "classification", 1.0, D, 2

        def decision(self, x: Features) -> np.ndarray:
            return np.zeros((len(x), 2))

        def state(self) -> Any:
            return {}, {}

        @classmethod
        def from_state(cls, arrays: Any, options: Any) -> Any:
            return cls()

    assert "constant" not in MODULES
    with pytest.raises(HeadError, match="kind 'constant' has no PyTorch module; give Constant"):
        Constant().as_module()


def test_the_head_stays_as_it_is() -> None:
    head = trained("linear", "classification")
    before = replace(head, weight=head.weight.copy())  # type: ignore[type-var, attr-defined]
    module = head.as_module()
    assert not module.training
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(head.weight, before.weight)  # type: ignore[attr-defined]
