"""Means and paired differences over repetitions, and what many comparisons cost."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from headstart.evaluation import holm, repeated_difference, repeated_mean


def test_holm_by_hand():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


def test_what_redrawn_splits_differ_beyond_their_items_is_enlarged():
    """Nadeau and Bengio's correction, for the part that the items do not explain."""
    rng = np.random.default_rng(0)
    a = [rng.random(50) < p for p in (0.9, 0.7, 0.95, 0.8)]
    b = [rng.random(50) < 0.5 for _ in range(4)]
    gaps = np.array([x.mean() - y.mean() for x, y in zip(a, b, strict=True)])
    drawn = np.mean([(x.astype(float) - y).var(ddof=1) / 50 for x, y in zip(a, b, strict=True)])
    found = repeated_difference(a, b, test_train_ratio=0.25)
    trained = (gaps.var(ddof=1) - drawn) * (1 / 4 + 0.25)
    items = drawn * (0.2 + 0.8 / 4)  # a fifth of all items is tested each time
    freedom = (trained + items) ** 2 / (trained**2 / 3 + items**2 / 249)
    error = np.sqrt(trained + items)
    assert trained > 0
    assert found.value == pytest.approx(gaps.mean())
    assert found.p == pytest.approx(2 * stats.t.sf(gaps.mean() / error, freedom))
    half = stats.t.ppf(0.975, freedom) * error
    assert found.interval.high - found.value == pytest.approx(min(half, 1 - found.value))


def test_always_right_is_not_certain():
    """Student's t over repetitions without a mistake was a point."""
    right = [np.ones(30, bool)] * 5
    for ratio in (None, 0.25):
        interval = repeated_mean(right, test_train_ratio=ratio).interval
        assert 0.85 < interval.low < 0.99
        assert interval.high == 1.0
        assert repeated_difference(right, right, test_train_ratio=ratio).interval.high > 0.01


def test_agreement_by_luck_is_not_certainty():
    """Two repetitions with the same gap have no spread, but the items were drawn all the same."""
    a = [np.r_[np.ones(45), np.zeros(5)] > 0] * 2
    b = [np.r_[np.zeros(1), np.ones(43), np.zeros(6)] > 0] * 2
    assert repeated_difference(a, b, test_train_ratio=0.25).p > 0.05


def test_equal_predictions_differ_by_nothing():
    right = [np.arange(20) % 3 > 0, np.arange(20) % 4 > 0]
    for ratio in (None, 0.2):
        found = repeated_difference(right, right, test_train_ratio=ratio)
        assert (found.value, found.p) == (0.0, 1.0)


def test_the_interval_covers_items_and_repetitions():
    """Crossed effects of items and repetitions: the 95 % interval covers the truth that often."""
    rng = np.random.default_rng(1)
    repeats, items, rounds = 5, 80, 400
    covered = 0
    for _ in range(rounds):
        by_repetition = rng.normal(0, 0.02, (repeats, 1))
        by_item = rng.choice([-0.35, 0.15], (1, items), p=[0.3, 0.7])
        right = rng.random((repeats, items)) < 0.8 + by_repetition + by_item
        interval = repeated_mean(list(right)).interval
        covered += interval.low <= 0.8 <= interval.high
    assert covered / rounds > 0.93


def test_one_repetition():
    right = [np.arange(50) % 10 > 0]
    score = repeated_mean(right)
    assert score.interval.method == "exact"
    one = repeated_difference(right, [np.ones(50, bool)])
    assert one.value == pytest.approx(-0.1)
    assert one.interval.low < -0.1 < one.interval.high < 0
    assert repeated_difference([np.array([True])], [np.array([False])]).p == 1.0
