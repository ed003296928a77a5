"""Average precision and Spearman's correlation are those of the libraries; intervals hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from headstart.evaluation.multi_label import evaluate_multi_label
from headstart.evaluation.ranked import (
    average_precisions,
    mean_average_precision,
    rank_correlation,
    spearman,
)
from headstart.evaluation.regression import evaluate_regression
from sklearn import metrics as reference

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(ties: bool) -> None:
    truth = RNG.random((90, 5)) < [0.1, 0.3, 0.5, 0.9, 0.02]
    truth[0, 4] = True
    scores = RNG.random((90, 5)) + 0.3 * truth
    if ties:
        scores = np.round(scores, 1)
    expected = reference.average_precision_score(truth, scores, average=None)
    np.testing.assert_allclose(average_precisions(truth, scores), expected)
    found = mean_average_precision(truth, scores)
    assert found.value == pytest.approx(expected.mean())
    assert found.interval is not None
    assert found.interval.low < found.value < found.interval.high


def test_constant_scores_have_the_precision_of_guessing() -> None:
    truth = RNG.random((50, 3)) < 0.3
    found = average_precisions(truth, np.full((50, 3), 0.2))
    np.testing.assert_allclose(found, truth.mean(axis=0))


def test_a_label_that_no_item_has_is_left_out_of_the_mean() -> None:
    truth = RNG.random((50, 3)) < 0.3
    truth[:, 1] = False
    scores = RNG.random((50, 3))
    found = mean_average_precision(truth, scores)
    rest = [0, 2]
    expected = reference.average_precision_score(truth[:, rest], scores[:, rest])
    assert found.value == pytest.approx(expected)
    row = evaluate_multi_label(truth, scores, ["a", "b", "c"]).per_label[1]
    assert np.isnan(row.average_precision)
    assert (row.support, row.label) == (0, "b")


def test_thresholds_decide_what_is_predicted() -> None:
    truth = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    p = np.array([[0.4, 0.9], [0.3, 0.8], [0.1, 0.7], [0.2, 0.95]])
    found = evaluate_multi_label(truth, p, ["a", "b"], thresholds=[0.25, 0.75])
    assert found.per_label[0].f1 == 1.0
    assert found.exact_match.value == 0.75  # the first item has not got b, which is above 0.75
    assert evaluate_multi_label(truth, p, ["a", "b"]).per_label[0].recall == 0.0


def test_spearman_is_scipys_and_constant_predictions_have_no_order() -> None:
    truth, values = RNG.normal(size=(60, 2)), RNG.integers(0, 5, (60, 2)).astype(float)
    expected = [stats.spearmanr(truth[:, i], values[:, i]).statistic for i in range(2)]
    np.testing.assert_allclose(spearman(truth, values), expected)
    assert rank_correlation(truth, values).value == pytest.approx(np.mean(expected))
    constant = evaluate_regression(truth, np.zeros((60, 2)), ["a", "b"])
    assert np.isnan(constant.spearman.value)
    assert constant.spearman.interval is None


def test_intervals_count_groups() -> None:
    """Ten copies of every item say no more than one of each."""
    truth, values = RNG.normal(size=(40, 1)), RNG.normal(size=(40, 1))
    values += truth
    groups = [f"g{i}" for i in range(40) for _ in range(10)]
    once = evaluate_regression(truth, values, ["a"])
    ten = evaluate_regression(
        np.repeat(truth, 10, axis=0), np.repeat(values, 10, axis=0), ["a"], groups=groups
    )
    for name in ("mean_absolute_error", "r2", "spearman"):
        a, b = getattr(once, name), getattr(ten, name)
        assert b.interval.method == "groups"
        assert b.interval.n == 40
        assert b.interval.items == 400
        assert b.interval.high - b.interval.low == pytest.approx(
            a.interval.high - a.interval.low, rel=0.05
        )


def test_a_figure_without_mistakes_is_known_by_as_many_groups_as_there_are() -> None:
    truth = np.arange(300)[:, None] % 3 == 0
    groups = [f"patient {i % 6}" for i in range(300)]
    found = evaluate_multi_label(truth, truth * 0.8 + 0.1, ["a"], groups=groups)
    lows = []
    for name in ("mean_average_precision", "micro_f1", "exact_match"):
        score = getattr(found, name)
        assert (score.value, score.interval.n) == (1.0, 6)
        lows.append(score.interval.low)
    assert lows == pytest.approx([lows[2]] * 3)  # that of six items: 300 would give 0.98
    assert lows[2] < 0.7


@pytest.mark.slow
def test_intervals_of_the_mean_average_precision_hold_it() -> None:
    """On 300 draws of 80 items the interval holds the figure of very many in 90 % or more."""
    rng = np.random.default_rng(1)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        truth = rng.random((n, 4)) < [0.1, 0.2, 0.4, 0.6]
        return truth, rng.normal(size=(n, 4)) + 1.2 * truth

    whole = mean_average_precision(*draw(200_000)).value
    held = 0
    for _ in range(300):
        interval = mean_average_precision(*draw(80)).interval
        assert interval is not None
        held += interval.low <= whole <= interval.high
    assert held >= 270
