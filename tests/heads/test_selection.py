"""Honest choice: folds, the chosen penalty, nested scores, checks of the data, the sweep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from headstart.core.division import held_out_part
from headstart.core.errors import ConfigError, HeadError
from headstart.evaluation import evaluate, proportion_interval
from headstart.evaluation.forecast import fit_power_law
from headstart.heads import (
    choose_linear,
    doubtful_labels,
    find_leaks,
    fit_logistic,
    learning_curve,
    nested_cross_validation,
    sweep,
)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


def test_choice_is_good_certified_and_refitted_on_all_rows(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    x, y = digits
    chosen = choose_linear(x[:1200], y[:1200], 10, tolerance=1e-8)
    assert chosen.details["folds"] == 5
    assert chosen.convergence.reached
    assert len(chosen.details["accuracy"]) == 45
    assert chosen.curves[0].chosen == chosen.chosen["C"]
    alone, _ = fit_logistic(x[:1200], y[:1200], 10, C=chosen.chosen["C"], tolerance=1e-8)
    np.testing.assert_allclose(chosen.head.weight, alone.weight, atol=1e-5)
    # As good as the best of a coarse search that looks at the test rows.
    best = max(
        (fit_logistic(x[:1200], y[:1200], 10, C=c)[0].predict(x[1200:]) == y[1200:]).mean()
        for c in (1e-3, 1e-2, 1e-1, 1.0)
    )
    assert (chosen.head.predict(x[1200:]) == y[1200:]).mean() > best - 0.015


def test_poisoned_test_rows_change_nothing(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """What is never handed over cannot be read: the choice takes training rows only."""
    x, y = digits
    grid = [1e-3, 1e-2, 1e-1]
    first = choose_linear(x[:500], y[:500], 10, grid=grid)
    poisoned = y.copy()
    poisoned[500:] = 0
    second = choose_linear(x[:500], poisoned[:500], 10, grid=grid)
    assert first.chosen == second.chosen
    np.testing.assert_array_equal(first.head.weight, second.head.weight)


def test_one_standard_error_prefers_the_stronger_penalty(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    x, y = digits[0][:400], digits[1][:400]
    best = choose_linear(x, y, 10)
    simple = choose_linear(x, y, 10, rule="one-standard-error")
    assert simple.chosen["C"] <= best.chosen["C"]
    top = max(best.details["accuracy"])
    width = best.curves[0].high[best.curves[0].y.index(top)] - top
    assert best.curves[0].y[best.curves[0].x.index(simple.chosen["C"])] >= top - width - 1e-12


def test_temperature_makes_probabilities_honest(digits: tuple[np.ndarray, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    # Shuffled: the last rows are by other writers, on whom no calibration could be promised.
    order = rng.permutation(len(digits[1]))
    x, y = digits[0][order], digits[1][order]
    noisy = np.where(rng.random(len(y)) < 0.3, rng.integers(0, 10, len(y)), y)
    chosen = choose_linear(x[:900], noisy[:900], 10)
    assert chosen.head.temperature != 1.0
    plain = chosen.head.with_temperature(1.0)
    names = [str(i) for i in range(10)]
    calibrated = evaluate(noisy[900:], chosen.head.predict_proba(x[900:]), names)
    before = evaluate(noisy[900:], plain.predict_proba(x[900:]), names)
    assert calibrated.log_loss < before.log_loss
    assert calibrated.ece < before.ece


def test_rare_classes_give_fewer_folds_and_say_so(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0][:300].copy(), digits[1][:300].copy()
    keep = (y != 7) | (np.cumsum(y == 7) <= 3)
    names = [f"digit {i}" for i in range(10)]
    chosen = choose_linear(x[keep], y[keep], 10, grid=[0.01, 0.1], names=names)
    assert chosen.details["folds"] == 3
    assert any("'digit 7' has only 3 items" in note for note in chosen.notes)
    none = choose_linear(x[y != 7], y[y != 7], 10, grid=[0.01, 0.1], names=names)
    assert any("no training row has class digit 7" in note for note in none.notes)
    first = np.array([np.flatnonzero(y == c)[0] for c in range(10)])
    alone = choose_linear(x[first], y[first], 10)
    assert (alone.details["folds"], alone.held_out, alone.curves[0].x) == (0, None, ())
    assert any("without cross-validation" in note for note in alone.notes)
    with pytest.raises(HeadError, match="two classes"):
        choose_linear(x, np.zeros(300, dtype=int), 10)


def test_two_classes_and_groups(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits
    two = (y == 3) | (y == 8)
    groups = np.arange(two.sum()) // 10
    chosen = choose_linear(x[two], (y[two] == 8).astype(int), 2, groups=groups)
    assert chosen.held_out is not None
    assert chosen.held_out.value > 0.95
    np.testing.assert_allclose(chosen.head.predict_proba(x[two]).sum(axis=1), 1.0)


def test_nested_score_is_honest_where_nothing_can_be_learned() -> None:
    # Choosing among many by the score that is reported would beat chance here.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 60)), np.arange(120) % 2
    nested = nested_cross_validation(x, y, 2, folds=4, head_options={"folds": 3})
    interval = nested.accuracy.interval
    assert interval is not None
    assert interval.low < 0.5
    assert (interval.method, interval.n) == ("exact", 120)
    assert nested.over_folds.interval is not None
    assert nested.over_folds.interval.method == "t"
    assert len(nested.chosen) == 4
    np.testing.assert_allclose(nested.probabilities.sum(axis=1), 1.0)


def test_leaks_are_found_and_ranked(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x = digits[0] + np.random.default_rng(0).normal(size=digits[0].shape)
    train, test = x[:900], x[1500:].copy()
    test[5] = train[17]
    test[9] = train[400] + 0.01 * np.random.default_rng(1).normal(size=64)
    found = find_leaks(train, test, threshold=0.999)
    assert [(leak.test, leak.train) for leak in found] == [(5, 17), (9, 400)]
    assert found[0].similarity == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(HeadError, match="features per item"):
        find_leaks(train, test[:, :10])


def test_wrong_labels_are_found(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits
    rng = np.random.default_rng(0)
    wrong = rng.choice(len(y), 40, replace=False)
    noisy = y.copy()
    noisy[wrong] = (y[wrong] + rng.integers(1, 10, 40)) % 10
    chosen = choose_linear(x, noisy, 10, grid=[1e-3, 1e-2, 1e-1])
    assert chosen.held_out_probabilities is not None
    found = doubtful_labels(noisy, chosen.held_out_probabilities)
    assert len(set(wrong) & {item.row for item in found[:40]}) >= 32
    margins = [item.margin for item in found]
    assert margins == sorted(margins, reverse=True)


def test_power_law_is_recovered() -> None:
    shots = np.array([1.0, 2, 5, 10, 20, 50])
    a, b, c = fit_power_law(shots, 0.05 + 0.6 * shots**-0.5)
    assert (a, b, c) == pytest.approx((0.05, 0.6, 0.5), abs=0.02)


def test_learning_curve_rises_and_foretells(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits
    found = learning_curve(x, y, 10, shots=[1, 5, 20, 60], repetitions=3)
    assert found.curve.x == (1.0, 5.0, 20.0, 60.0)
    assert list(found.curve.y) == sorted(found.curve.y)
    assert found.extrapolated is not None
    assert found.gain is not None
    assert 0 <= found.gain.value < 0.1
    actual = learning_curve(x, y, 10, shots=[120], repetitions=3).scores[0].value
    assert found.extrapolated.value == pytest.approx(actual, abs=0.03)
    with pytest.raises(HeadError, match="labels per class"):
        learning_curve(x, y, 10, shots=[100_000])


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=12).filter(lambda c: max(c) > 1),
    seed=st.integers(0, 100),
)
def test_every_repetition_holds_out_another_fifth(counts: list[int], seed: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    several = sum(count for count in counts if count > 1)
    rounds = min(5, several)
    held = [held_out_part(y, repetition, seed=seed)[1] for repetition in range(rounds)]
    for repetition in range(rounds):
        rest, out = held_out_part(y, repetition, seed=seed)
        np.testing.assert_array_equal(out, held[repetition])
        assert abs(len(out) - several / rounds) < 1
        assert set(np.unique(y[rest])) == set(range(len(counts)))
        assert sorted([*rest, *out]) == list(range(len(y)))
    together = np.sort(np.concatenate(held))
    np.testing.assert_array_equal(together, np.flatnonzero(np.array(counts)[y] > 1))


def test_a_rare_class_does_not_shorten_the_learning_curve() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(5), [60, 60, 2, 2, 1])
    x = rng.normal(size=(len(y), 5)) + 3 * np.eye(5)[y]
    found = learning_curve(x, y, 5, repetitions=5)
    assert found.shots == (1, 2, 5, 10, 20, 48)
    # Every point has rows of its own: the last draws 48 labels per class, not what is left of half.
    rest = [held_out_part(y, repetition, seed=0)[0] for repetition in range(5)]
    assert min(np.bincount(y[rows]).max() for rows in rest) == 48
    assert found.notes == (
        "1 class has a single item, which is never held out, so that the accuracy says nothing"
        " about such a class",
        "2 classes have fewer than 5 items, so that some repetitions hold out none",
    )
    with pytest.raises(HeadError, match="labels per class from 1 to 48"):
        learning_curve(x, y, 5, shots=[49])
    with pytest.raises(HeadError, match="two items"):
        learning_curve(x[:3], np.arange(3), 3)
    again = learning_curve(x, y, 5, repetitions=5)
    np.testing.assert_array_equal(again.accuracies, found.accuracies)


def test_sweep_ranks_views_and_heads(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0][:600], digits[1][:600]
    noise = np.random.default_rng(0).normal(size=(600, 8))
    found = sweep(
        {"pixels": x, "noise": noise},
        y,
        10,
        grid=[1e-3, 1e-2, 1e-1],
        standardise=(True, False),
        folds=3,
        seeds=(0, 1),
    )
    assert found.winner.view == "pixels"
    assert found.winner.accuracy.value > 0.9
    assert found.winner.accuracy.interval is not None
    assert found.winner.accuracy.interval.method == "t"
    assert (found.head.predict(x) == y).mean() > 0.95
    kinds = {(c.view, c.head) for c in found.candidates}
    heads = ("linear", "ridge", "lda", "knn", "prototype")
    assert kinds == {(view, head) for view in ("pixels", "noise") for head in heads}
    assert all(len(c.per_fold) == 6 for c in found.candidates)
    assert len(found.curves) == 4
    assert all(c.seeds == (0, 1) for c in found.candidates)
    with pytest.raises(ConfigError, match="one of auto, linear, ridge"):
        sweep(x, y, 10, heads=["perceptron"])
    with pytest.raises(HeadError, match="rows in every view"):
        sweep({"a": x, "b": x[:10]}, y, 10)


def test_sweep_tries_the_perceptron_when_asked(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0][:300], digits[1][:300]
    found = sweep(x, y, 10, heads=("mlp", "prototype"), folds=2, seeds=(3, 4))
    again = sweep(x, y, 10, heads=("mlp", "prototype"), folds=2, seeds=(3, 4))
    assert found.candidates == again.candidates
    assert found.winner.head == "mlp"
    assert found.winner.seeds == (3, 4)
    assert len(found.winner.per_fold) == 4
    assert found.head.kind == "mlp"
    assert found.head.temperature != 1.0
    np.testing.assert_array_equal(found.head.predict(x), again.head.predict(x))


def test_what_nothing_can_be_learnt_from_is_said(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0][:40], digits[1][:40] % 2
    with pytest.raises(HeadError, match=r"only class \d when fold \d is held out.*two groups"):
        choose_linear(x, y, 2, groups=y)  # each group is a class: beside it there is but one
    alone = choose_linear(x[:6], np.array([0, 0, 0, 0, 0, 1]), 2)
    assert alone.details["folds"] == 0
    assert any("without cross-validation" in note for note in alone.notes)
    found = sweep(x, y, 3, heads=("lda",), names=["even", "odd", "other"])
    assert "no training row has class other; its probability is always 0" in found.notes


def test_more_seeds_do_not_make_more_items(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0][:150], digits[1][:150]
    found = sweep(x, y, 10, heads=("prototype",), folds=3, seeds=tuple(range(8)))
    score = found.winner.accuracy
    exact = proportion_interval(score.value * 150, 150)
    assert score.interval is not None
    assert exact is not None
    assert score.interval.low <= exact.low
    assert score.interval.high >= exact.high
    with pytest.raises(HeadError, match="a seed given twice would repeat the same figures"):
        sweep(x, y, 10, heads=("prototype",), seeds=(0, 0))


def test_negative_seeds_are_one_clear_error(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0][:50], digits[1][:50]
    for take in (choose_linear, learning_curve, nested_cross_validation):
        with pytest.raises(HeadError, match="a seed is a whole number from 0, not -3"):
            take(x, y, 10, seed=-3)
    with pytest.raises(HeadError, match="not -3"):
        sweep(x, y, 10, seeds=(-3,))
