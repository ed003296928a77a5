"""Heads of the registry that are fitted by sums over parts are those of all rows in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.heads import ArrayPart, TrainingRows, head_kind
from headstart.heads.merges import HERE, Reduction
from tests.heads.test_partitioned import CLOSE, ROWS, apart, rows_of


def training(classes: int = 3, seed: int = 0) -> TrainingRows:
    x, y = rows_of(classes, seed)
    return TrainingRows(x, y, classes, keys=[f"{i:032x}" for i in range(ROWS)], seed=seed)


def parts_of(rows: TrainingRows, size: int = 37) -> Reduction:
    def divide(chosen: np.ndarray) -> list[ArrayPart]:
        x, y = np.asarray(rows.x), np.asarray(rows.y)
        return [
            ArrayPart(x[some], y[some])
            for start in range(0, len(chosen), size)
            if len(some := chosen[start : start + size])
        ]

    return Reduction(divide, HERE)


def both(name: str, rows: TrainingRows, **options: Any) -> tuple[Any, Any]:
    kind = head_kind(name)
    settings = kind.settings(options)
    assert kind.reduce is not None
    return kind.fit(rows, settings), kind.reduce(rows, settings, parts_of(rows))


def unlike(one: Any, other: Any) -> float:
    """Return the largest difference of weights and biases, to which a constant may be added."""
    bias = [head.bias - head.bias.mean() for head in (one, other)]
    return float(max(np.abs(one.weight - other.weight).max(), np.abs(bias[0] - bias[1]).max()))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lda", {}),
        ("lda", {"shrinkage": 0.3, "standardise": False}),
        ("ridge", {"alpha": 3.0}),
        ("ridge", {}),
        ("linear", {"C": 0.1, "tolerance": 1e-10}),
        ("linear", {"C": 10.0, "tolerance": 1e-10, "standardise": False}),
    ],
)
def test_the_head_is_the_same(name: str, options: dict[str, Any], classes: int) -> None:
    whole, found = both(name, training(classes), **options)
    assert apart(found.head, whole.head) < CLOSE
    assert found.chosen == pytest.approx(whole.chosen)
    assert [curve.chosen for curve in found.curves] == [curve.chosen for curve in whole.curves]


@pytest.mark.parametrize("rule", ["best", "one-standard-error", "prior"])
@pytest.mark.parametrize("seed", [0, 3])
def test_the_same_penalty_is_chosen(rule: str, seed: int) -> None:
    whole, found = both("linear", training(3, seed), rule=rule, tolerance=1e-10)
    assert found.chosen == whole.chosen
    assert unlike(found.head, whole.head) < CLOSE
    # The heads of the folds, which calibrate, are solved to 1e-4 by either.
    assert found.head.temperature == pytest.approx(whole.head.temperature, rel=1e-2)
    assert np.abs(found.held_out_probabilities - whole.held_out_probabilities).max() < 0.01
    assert found.held_out.value == pytest.approx(whole.held_out.value, abs=1.5 / ROWS)


def test_groups_are_held_out_together() -> None:
    import dataclasses

    rows = training()
    rows = dataclasses.replace(rows, groups=[f"g{i % 9}" for i in range(ROWS)])
    whole, found = both("linear", rows, grid=(0.01, 1.0), tolerance=1e-10)
    assert found.chosen == whole.chosen
    assert unlike(found.head, whole.head) < CLOSE


def test_where_nothing_can_be_held_out_it_says_so() -> None:
    x, _ = rows_of(2)
    rows = TrainingRows(x[:2], np.array([0, 1]), 2, keys=["0" * 32, "1" * 32])
    whole, found = both("linear", rows)
    assert found.chosen == whole.chosen
    assert any("without cross-validation" in note for note in found.notes)


def test_other_heads_need_all_rows() -> None:
    for name in ("auto", "knn", "prototype", "mlp"):
        assert head_kind(name).reduce is None
