"""Conformal sets and intervals: ranks by hand, and MAPIE as the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.errors import HeadError
from headstart.evaluation.conformal import (
    cross_interval,
    highest_coverage,
    misfit_scores,
    threshold,
    thresholds,
    unit_weights,
    units_needed,
)
from headstart.evaluation.sets import NO, UNDECIDED, YES, ClassSets, LabelSets, ValueSets


def probabilities(n: int, k: int, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(n, k)) * 2
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]),
)
def test_the_threshold_is_the_rank_of_split_conformal(scores: list[float], coverage: float) -> None:
    found = threshold(np.array(scores), np.arange(len(scores)), coverage)
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    assert found == (sorted(scores)[rank - 1] if rank <= len(scores) else math.inf)
    assert (len(scores) >= units_needed(coverage)) == math.isfinite(found)


def test_how_many_items_a_coverage_needs() -> None:
    assert [units_needed(c) for c in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]
    assert highest_coverage(19) == pytest.approx(0.95)


def test_items_of_a_unit_count_as_one() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.9])
    alone = threshold(scores, np.arange(4), 0.75)
    assert alone == 0.9
    copied = threshold(np.repeat(scores, 50), np.repeat(np.arange(4), 50), 0.75)
    assert copied == 0.9  # and not 0.3, as 200 independent items would have it
    assert threshold(np.repeat(scores, 50), np.repeat(np.arange(4), 50), 0.9) == math.inf
    np.testing.assert_allclose(unit_weights(np.array([0, 0, 1])), [1 / 6, 1 / 6, 1 / 3])


@pytest.mark.parametrize("name", ["lac", "aps"])
def test_sets_are_those_of_mapie(name: str) -> None:
    mapie = pytest.importorskip("mapie.classification", reason="MAPIE is not installed")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """Returns the probabilities it is given as features."""

        def fit(self, x, y):
            return self

        def predict_proba(self, x):
            return x

        def predict(self, x):
            return x.argmax(axis=1)

        def __sklearn_is_fitted__(self):
            return True

    k = 6
    held, new = probabilities(400, k), probabilities(300, k, 1)
    rng = np.random.default_rng(2)
    truth = np.array([rng.choice(k, p=row) for row in held])
    given_ = Given()
    given_.classes_, given_.n_features_in_ = np.arange(k), k
    oracle = mapie.SplitConformalClassifier(
        given_, confidence_level=[0.8, 0.95], conformity_score=name, prefit=True, random_state=3
    ).conformalize(held, truth)
    # MAPIE takes a share off, where we add one: the same draw from the other end.
    u = 1 - np.random.RandomState(3).uniform(size=400)
    own = misfit_scores(held, name, u)[np.arange(400), truth]  # type: ignore[arg-type]
    np.testing.assert_allclose(
        own, np.ravel(oracle._mapie_classifier.conformity_scores_), atol=1e-12
    )
    if name != "lac":  # it breaks ties of predictions by other draws
        return
    said = oracle.predict_set(new)[1]
    for at, coverage in enumerate((0.8, 0.95)):
        limit = threshold(own, np.arange(400), coverage)
        np.testing.assert_array_equal(1 - new <= limit, said[:, :, at])


def test_raps_only_adds_to_classes_far_down() -> None:
    p, u = probabilities(50, 9), np.random.default_rng(0).random(50)
    gap = misfit_scores(p, "raps", u) - misfit_scores(p, "aps", u)
    rank = np.argsort(np.argsort(-p, axis=1, kind="stable"), axis=1) + 1
    np.testing.assert_allclose(gap, 0.01 * np.maximum(rank - 5, 0), atol=1e-12)


def test_cv_plus_intervals_are_those_of_mapie() -> None:
    regression = pytest.importorskip("mapie.regression", reason="MAPIE is not installed")
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold

    rng = np.random.default_rng(0)
    x = rng.normal(size=(157, 5))
    y = x @ rng.normal(size=5) + rng.normal(size=157)
    new = rng.normal(size=(40, 5))
    folds = KFold(5)
    oracle = regression.CrossConformalRegressor(
        Ridge(), confidence_level=[0.8, 0.95], method="plus", cv=folds
    ).fit_conformalize(x, y)
    bounds = oracle.predict_interval(new)[1]
    of, said, residual = np.zeros(157, np.int64), [], np.zeros(157)
    for fold, (train, held) in enumerate(folds.split(x)):
        model = Ridge().fit(x[train], y[train])
        of[held], residual[held] = fold, np.abs(y[held] - model.predict(x[held]))
        said.append(model.predict(new))
    for at, coverage in enumerate((0.8, 0.95)):
        low, high = cross_interval(np.stack(said, axis=1), residual, of, np.arange(157), coverage)
        np.testing.assert_allclose(np.stack([low, high], 1), bounds[:, :, at], atol=1e-9)


@pytest.mark.parametrize("coverage", [1e-9, 0.05, 0.3, 0.5, 0.9])
def test_intervals_of_a_low_coverage_are_not_turned_round(coverage: float) -> None:
    rng = np.random.default_rng(0)
    values, residuals = rng.normal(size=(40, 5)), np.abs(rng.normal(size=100)) / 10
    low, high = cross_interval(values, residuals, np.arange(100) % 5, np.arange(100), coverage)
    assert (low <= high).all()


@given(st.integers(1, 5000))
def test_the_coverage_that_a_message_promises_can_be_had(n: int) -> None:
    found = [(np.linspace(0, 1, n), np.arange(n))]
    with pytest.raises(HeadError, match=r"promise ([0-9.]+)% at most") as error:
        thresholds(found, 0.99999, None)
    promised = float(str(error.value).split("promise ")[1].split("%")[0]) / 100
    assert math.isfinite(thresholds(found, promised, None)[0])
    assert promised > highest_coverage(n) - 0.001


def test_intervals_of_each_class_count_groups_too() -> None:
    """Ten items of one group are no surer a figure than one of each of its groups."""
    truth, members = np.repeat([0, 1], 60), tuple(np.array([i % 20 < 10]) * 1 for i in range(120))
    groups = [f"patient {i // 10}" for i in range(120)]
    sets = ClassSets(0.9, members, 2)
    alone, grouped = (sets.measured(truth, ["a", "b"], each) for each in (None, groups))
    for few, all_ in zip(grouped.rows, alone.rows, strict=True):
        assert few.covered.value == all_.covered.value == 0.5
        assert few.covered.interval is not None
        assert all_.covered.interval is not None
        assert few.covered.interval.high - few.covered.interval.low > (
            1.5 * (all_.covered.interval.high - all_.covered.interval.low)
        )


def test_what_sets_did_is_counted() -> None:
    members = tuple(np.array(m, np.int64) for m in ([0], [0, 1], [], [2]))
    found = ClassSets(0.9, members, 3).measured(np.array([0, 1, 1, 0]), ["a", "b", "c"])
    assert (found.covered.value, found.size, found.answered, found.empty) == (0.5, 1, 0.5, 0.25)
    assert [(row.name, row.items, row.covered.value) for row in found.rows] == [
        ("a", 2, 0.5),
        ("b", 2, 0.5),
    ]
    states = np.array([[YES, NO], [UNDECIDED, NO], [-1, YES]], np.int8)
    labels = LabelSets(0.9, states)
    assert labels.abstain.tolist() == [False, True, True]
    said = labels.measured(np.array([[1, 0], [0, 1], [1, 1]]), ["a", "b"])
    assert said.covered.value == pytest.approx(4 / 6)
    assert said.answered == pytest.approx(1 / 3)
    values = ValueSets(0.9, np.array([[0.0], [1.0]]), np.array([[1.0], [3.0]]))
    told = values.measured(np.array([0.5, 4.0]), ["a"])
    assert (told.covered.value, told.size) == (0.5, 1.5)
