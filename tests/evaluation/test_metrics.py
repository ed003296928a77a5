"""Scores against scikit-learn, and intervals against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headstart.core.errors import HeadError
from headstart.evaluation import (
    accuracy_score,
    evaluate,
    paired_accuracy_difference,
    proportion_interval,
    reliability,
    repeated_accuracy,
    t_interval,
    wilson_interval,
)
from sklearn import metrics as reference


def sample(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[labels]
    p = np.exp(logits)
    return labels, p / p.sum(axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 60), k=st.integers(2, 6), seed=st.integers(0, 1000))
def test_scores_equal_scikit_learn(n: int, k: int, seed: int) -> None:
    labels, p = sample(n, k, seed)
    found = evaluate(labels, p, [f"class {i}" for i in range(k)])
    predicted = p.argmax(axis=1)
    assert found.accuracy.value == pytest.approx(reference.accuracy_score(labels, predicted))
    present = np.unique(labels)
    recall = [(predicted[labels == c] == c).mean() for c in present]
    assert found.balanced_accuracy.value == pytest.approx(np.mean(recall))
    f1 = reference.f1_score(labels, predicted, average="macro", zero_division=0)
    assert found.macro_f1.value == pytest.approx(f1)
    log_loss = reference.log_loss(labels, p, labels=range(k))
    assert found.log_loss == pytest.approx(log_loss)
    confusion = reference.confusion_matrix(labels, predicted, labels=range(k))
    np.testing.assert_array_equal(np.array(found.confusion), confusion)
    for score in (found.accuracy, found.balanced_accuracy, found.macro_f1):
        assert score.interval is not None
        assert 0 <= score.interval.low <= score.interval.high <= 1
        assert score.interval.n == n
    assert sum(row.support for row in found.per_class) == n
    assert sum(b.count for b in found.reliability) == n


def test_all_right_is_not_certain() -> None:
    """Percentiles of resamples gave 100.0-100.0 for 49 items without a mistake."""
    labels = np.arange(49) % 2
    found = evaluate(labels, np.eye(2)[labels], "ab")
    for score in (found.accuracy, found.balanced_accuracy, found.macro_f1):
        assert score.value == 1.0
        assert score.interval is not None
        assert 0.88 < score.interval.low < 0.95
        assert score.interval.high == 1.0
    nothing = evaluate(labels, np.eye(2)[1 - labels], "ab")
    for score in (nothing.accuracy, nothing.balanced_accuracy, nothing.macro_f1):
        assert score.interval is not None
        assert score.interval.low == 0.0
        assert 0.05 < score.interval.high < 0.12


def test_limits_for_many_items_are_those_of_the_delta_method() -> None:
    labels, p = sample(20_000, 4, 0)
    found = evaluate(labels, p, "abcd")
    for score in (found.balanced_accuracy, found.macro_f1):
        assert score.interval is not None
        half = 1.96 * np.sqrt(score.value * (1 - score.value) / 20_000)
        assert score.interval.low == pytest.approx(score.value - half, abs=0.0005)
        assert score.interval.high == pytest.approx(score.value + half, abs=0.0005)


def test_a_figure_and_its_interval_belong_together() -> None:
    for seed in range(20):
        labels, p = sample(12, 5, seed)
        found = evaluate(labels, p, "abcde")
        for score in (found.accuracy, found.balanced_accuracy, found.macro_f1):
            assert score.interval is not None
            assert 0 <= score.interval.low <= score.value <= score.interval.high <= 1


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (81, 100), (9990, 10_000)])
def test_wilson_equals_scipy(right: int, n: int) -> None:
    found = wilson_interval(right, n)
    wanted = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_t_interval_equals_scipy_and_says_what_it_rests_on() -> None:
    values = [0.81, 0.83, 0.80, 0.84]
    found = t_interval(values)
    wanted = stats.ttest_1samp(values, 0).confidence_interval()
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((wanted.low, wanted.high))
    assert (found.interval.method, found.interval.n) == ("t", 4)
    assert t_interval([0.5]).interval is None
    cut = t_interval([0.99, 0.8], bounds=(0, 1)).interval
    assert cut is not None
    assert cut.high == 1
    assert cut.low == max(0.0, t_interval([0.99, 0.8]).interval.low)  # type: ignore[union-attr]
    for bad in ([], [np.nan]):
        with pytest.raises(HeadError):
            t_interval(bad)


def test_paired_accuracy_difference_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        labels = np.zeros(150, dtype=int)
        a = (rng.random(150) > 0.85).astype(int)
        b = np.where(rng.random(150) < 0.2, rng.random(150) > 0.8, a).astype(int)
        true = 0.85 - (0.8 * 0.85 + 0.2 * 0.8)
        interval = paired_accuracy_difference(labels, a, b).interval
        assert interval is not None
        inside += interval.low <= true <= interval.high
    assert 0.92 < inside / 300 <= 1.0


def test_reliability_of_sure_and_wrong_predictions() -> None:
    labels = np.array([0, 0, 1, 1])
    sure = np.array([[1.0, 0.0]] * 4)
    (only,) = reliability(labels, sure)
    assert (only.confidence, only.accuracy, only.count) == (1.0, 0.5, 4)
    assert evaluate(labels, sure, "ab").ece == pytest.approx(0.5)
    assert np.isfinite(evaluate(labels, sure, "ab").log_loss)  # clipped, not infinite


def test_class_absent_from_the_test_rows_counts_for_nothing() -> None:
    labels, p = sample(50, 3, 0)
    wide = np.concatenate([p, np.zeros((50, 2))], axis=1)
    found, narrow = evaluate(labels, wide, "abcde"), evaluate(labels, p, "abc")
    assert found.balanced_accuracy.value == narrow.balanced_accuracy.value
    assert found.macro_f1.value == narrow.macro_f1.value
    assert found.per_class[4].support == 0
    assert np.isnan(found.per_class[4].recall)
    assert np.isnan(found.per_class[4].precision)
    assert np.isnan(found.per_class[4].f1)


@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "shape"),
        ([], np.zeros((0, 2)), "shape"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "labels from 0 to 1"),
        ([0, 1], [[0.5, 0.6], [0.5, 0.5]], "sum to 1"),
        ([0, 1], [[np.nan, 0.5], [0.5, 0.5]], "sum to 1"),
    ],
)
def test_bad_input_is_one_clear_error(labels: list[int], p: object, message: str) -> None:
    with pytest.raises(HeadError, match=message):
        evaluate(np.array(labels, dtype=int), np.array(p), "ab")
    with pytest.raises(HeadError):
        accuracy_score([0, 1], [0])


def test_repetitions_on_the_same_items_do_not_make_more_items() -> None:
    one = repeated_accuracy([0.8], 50)
    assert one.interval == proportion_interval(40, 50)
    for count in (2, 5, 50):
        accuracies = 0.8 + 0.02 * np.resize([-1.0, 1.0], count)
        many = repeated_accuracy(accuracies, 50)
        assert many.value == pytest.approx(accuracies.mean())
        assert many.interval is not None
        assert one.interval is not None
        assert many.interval.high - many.interval.low >= one.interval.high - one.interval.low - 1e-9
        assert (many.interval.method, many.interval.n) == ("t", count)
    # Where repetitions differ more than items do, they widen it.
    spread = repeated_accuracy([0.5, 0.9, 0.7], 100_000)
    variance, t = np.var([0.5, 0.9, 0.7], ddof=1) / 3, stats.t.ppf(0.975, 2)
    assert spread.interval is not None
    # At least Wilson's limits for as many items as have this variance: the square is t squared.
    low = spread.interval.low
    assert (0.7 - low) ** 2 / (low * (1 - low) * variance / 0.21) > 0.95 * t**2
    always = repeated_accuracy([1.0, 1.0, 1.0], 20)
    assert always.interval is not None
    assert 0.8 < always.interval.low < 0.9
    assert always.interval.high == 1.0
