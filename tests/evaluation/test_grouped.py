"""Intervals of figures whose items belong to groups."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from headstart.evaluation import accuracy_score, evaluate
from headstart.report.text import format_score


def probabilities(predicted: np.ndarray, k: int) -> np.ndarray:
    return np.eye(k)[predicted] * 0.9 + 0.1 / k


def drawn(
    rng: np.random.Generator, n_groups: int, size: int, alike: float
) -> tuple[np.ndarray, ...]:
    """Groups whose accuracy varies about 0.8: all alike at 1, not at all at 0."""
    own = rng.beta(0.8 * (1 - alike) / alike, 0.2 * (1 - alike) / alike, n_groups)
    groups = np.repeat(np.arange(n_groups), size)
    labels = rng.integers(0, 3, len(groups))
    right = rng.random(len(groups)) < own[groups]
    return labels, np.where(right, labels, (labels + 1) % 3), groups


def test_the_figures_are_those_of_the_items() -> None:
    labels, predicted, groups = drawn(np.random.default_rng(0), 20, 7, 0.3)
    made = evaluate(labels, probabilities(predicted, 3), "abc", groups=groups)
    plain = evaluate(labels, probabilities(predicted, 3), "abc")
    assert made.accuracy.value == plain.accuracy.value == (labels == predicted).mean()
    assert made.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert made.macro_f1.value == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert accuracy_score(labels, predicted, groups=groups) == made.accuracy
    for score in (made.accuracy, made.balanced_accuracy, made.macro_f1):
        assert score.interval is not None
        assert (score.interval.method, score.interval.n, score.interval.items) == (
            "groups",
            20,
            140,
        )
        assert 0 <= score.interval.low < score.value < score.interval.high <= 1
    assert "140 items in 20 groups" in format_score(made.accuracy)


def test_the_order_and_the_names_of_groups_decide_nothing() -> None:
    labels, predicted, groups = drawn(np.random.default_rng(1), 15, 6, 0.3)
    order = np.random.default_rng(2).permutation(len(labels))
    names = np.array([f"patient {value}" for value in groups])
    first = accuracy_score(labels, predicted, groups=groups).interval
    second = accuracy_score(labels[order], predicted[order], groups=names[order]).interval
    assert first is not None
    assert second is not None
    assert (first.low, first.high) == pytest.approx((second.low, second.high))


@pytest.mark.parametrize(
    ("n_groups", "size", "alike"), [(12, 20, 0.3), (40, 10, 0.3), (40, 5, 0.05)]
)
def test_intervals_hold_the_truth_where_items_of_a_group_are_alike(
    n_groups: int, size: int, alike: float
) -> None:
    rng = np.random.default_rng(3)
    held = plain = 0
    for _ in range(300):
        labels, predicted, groups = drawn(rng, n_groups, size, alike)
        found = accuracy_score(labels, predicted, groups=groups).interval
        naive = accuracy_score(labels, predicted).interval
        assert found is not None
        assert naive is not None
        held += found.low <= 0.8 <= found.high
        plain += naive.low <= 0.8 <= naive.high
    assert held / 300 >= 0.93
    if alike > 0.1:
        assert plain / 300 < 0.85


def test_no_mistake_at_all_is_worth_as_many_items_as_groups() -> None:
    labels, groups = np.arange(60) % 2, np.repeat(np.arange(6), 10)
    found = accuracy_score(labels, labels, groups=groups).interval
    assert found is not None
    assert found.high == 1
    assert found.low < 0.6
    assert format_score(accuracy_score(labels, labels, groups=groups)).startswith("only 6 groups: ")


def test_one_group_has_no_interval() -> None:
    labels = np.arange(10) % 2
    assert accuracy_score(labels, labels, groups=["film"] * 10).interval is None
