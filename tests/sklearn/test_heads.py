"""HeadClassifier and HeadRegressor: the same heads as in headstart, and one clear error a fault."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.core.errors import ConfigError, HeadstartError
from headstart.heads import choose_linear, load_head
from headstart.heads.registry import head_names
from headstart.sklearn import HeadClassifier, HeadRegressor, InputError, SettingsError

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]


def test_logistic_is_that_of_scikit_learn_at_the_same_objective() -> None:
    ours = HeadClassifier(head_options={"C": 0.5}).fit(X, NAMES)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, tol=1e-8, max_iter=1000))
    np.testing.assert_allclose(
        ours.predict_proba(X), theirs.fit(X, NAMES).predict_proba(X), atol=1e-5
    )
    assert ours.classes_.tolist() == theirs.classes_.tolist()


def test_automatic_c_is_that_of_choose_linear() -> None:
    ours = HeadClassifier(random_state=3).fit(X, Y)
    seed = int(np.random.RandomState(3).randint(2**31 - 1))
    choice = choose_linear(X, Y, 3, seed=seed)
    assert ours.chosen_ == choice.chosen
    np.testing.assert_array_equal(ours.predict_proba(X), choice.head.predict_proba(X))
    assert ours.curves_[0].chosen == ours.chosen_["C"]


@pytest.mark.parametrize("head", head_names("classification"))
def test_every_head_learns_clones_pickles_and_saves(head: Any, tmp_path: Path) -> None:
    model = HeadClassifier(head)
    if head == "mlp":
        model.set_params(head_options={"hidden": (32,), "lr": 1e-2})
    x, y = load_digits(return_X_y=True)
    x, names = x[:400], np.array([f"digit {label}" for label in y])[:400]
    model.fit(x, names)
    if head != "tabicl":  # whose weights are random here: it learns nothing
        assert model.score(x, names) > 0.85
    again = clone(model).fit(x, names)
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict_log_proba(x), model.predict_log_proba(x))
    model.head_.save(tmp_path)
    np.testing.assert_allclose(
        load_head(tmp_path).predict_proba(x), model.predict_proba(x), atol=1e-5
    )


@pytest.mark.parametrize("head", ["knn", "mlp", "linear", "prototype"])
def test_a_row_has_the_same_result_in_any_company(head: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(150, 96)).astype(np.float32)
    options = {"epochs": 3} if head == "mlp" else {"C": 1.0} if head == "linear" else {}
    model = HeadClassifier(head, head_options=options).fit(rows, Y)
    together = model.decision_function(rows)
    alone = np.concatenate([model.decision_function(rows[i : i + 1]) for i in range(150)])
    if head in ("knn", "mlp"):
        np.testing.assert_array_equal(alone, together)
    np.testing.assert_allclose(alone, together, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("head", ["lda", "knn", "prototype"])
def test_class_weights_of_heads_without_any_act_as_priors(head: Any) -> None:
    plain = HeadClassifier(head).fit(X, NAMES).predict_proba(X)
    weights = {"setosa": 1.0, "versicolor": 4.0, "virginica": 0.5}
    weighted = HeadClassifier(head, class_weight=weights).fit(X, NAMES).predict_proba(X)
    expected = plain * [1.0, 4.0, 0.5]
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weighted, expected, atol=1e-12)


def test_ridge_regression_is_that_of_scikit_learn() -> None:
    x, y = load_diabetes(return_X_y=True)
    grid = (0.1, 1.0, 10.0, 100.0)
    ours = HeadRegressor(head_options={"alphas": grid}).fit(x, y)
    theirs = make_pipeline(StandardScaler(), RidgeCV(alphas=grid)).fit(x, y)
    assert ours.chosen_["alpha"] == theirs[-1].alpha_
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-6)
    assert ours.predict(x).shape == (442,)
    two = HeadRegressor(head_options={"alpha": 1.0}).fit(x, np.stack([y, -y], axis=1))
    assert two.predict(x).shape == (442, 2)
    assert two.chosen_ == {}


def test_perceptron_regression_learns() -> None:
    x, y = load_diabetes(return_X_y=True)
    model = HeadRegressor("mlp", head_options={"hidden": (32,), "lr": 1e-2, "epochs": 60}).fit(x, y)
    assert model.score(x, y) > 0.45


def test_works_in_searches_and_with_names() -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    grid = [
        {
            "headclassifier__head": ["linear"],
            "headclassifier__head_options": [{"C": 0.1}, {"C": 1.0}],
        },
        {"headclassifier__head": ["knn"], "headclassifier__head_options": [{"k": 3}, {"k": 9}]},
    ]
    search = GridSearchCV(make_pipeline(StandardScaler(), HeadClassifier()), grid, cv=3)
    search.fit(frame, NAMES)
    assert search.best_score_ > 0.9
    assert cross_val_score(HeadClassifier("lda"), frame, NAMES, cv=3).min() > 0.9
    model = HeadClassifier("lda").fit(frame, NAMES)
    assert model.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a", "c", "d"]])


def test_random_state_of_numpy_is_only_read_when_asked() -> None:
    before = np.random.get_state()[1].copy()
    first = HeadClassifier("mlp", head_options={"epochs": 2}).fit(X, Y)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    second = HeadClassifier("mlp", head_options={"epochs": 2}).fit(X, Y)
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    third = HeadClassifier("mlp", head_options={"epochs": 2}, random_state=1).fit(X, Y)
    assert not np.array_equal(first.predict_proba(X), third.predict_proba(X))


BAD_DATA = {
    "nan": (np.where(np.arange(600).reshape(150, 4) == 7, np.nan, X), Y, "NaN"),
    "infinity": (np.where(np.arange(600).reshape(150, 4) == 7, np.inf, X), Y, "infinity"),
    "one class": (X, np.zeros(150), "one class"),
    "lengths": (X, Y[:-1], "inconsistent numbers of samples"),
    "continuous y": (X, np.linspace(0, 1, 150), "Unknown label type"),
    "no y": (X, None, "y to be passed"),
    "images": (np.zeros((150, 8, 8)), Y, "dim 3"),
    "text": (np.full((150, 4), "a"), Y, "could not convert"),
}


@pytest.mark.parametrize("fault", list(BAD_DATA))
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_bad_data_is_a_value_error(head: Any, fault: str) -> None:
    x, y, words = BAD_DATA[fault]
    with pytest.raises(ValueError, match=words):
        HeadClassifier(head).fit(x, y)


def test_one_class_is_an_error_of_both_families() -> None:
    with pytest.raises(InputError) as caught:
        HeadClassifier().fit(X, np.full(150, "cat"))
    assert isinstance(caught.value, HeadstartError)
    assert "'cat'" in str(caught.value)


def test_faults_of_the_solver_are_value_errors_too() -> None:
    with pytest.raises(ValueError, match="metric must be cosine or euclidean"):
        HeadClassifier("knn", head_options={"metric": "manhattan"}).fit(X, Y)
    with pytest.raises(ValueError, match="expected 3 finite class weights"):
        HeadClassifier(head_options={"class_weight": (1.0, 2.0)}).fit(X, Y)


def test_unknown_class_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        HeadClassifier("lda", class_weight={0: 0.0}).fit(X, Y)
    with pytest.raises(ValueError, match="not in class_weight"):
        HeadClassifier("lda", class_weight={7: 2.0}).fit(X, Y)


def test_all_faults_of_parameters_are_named_together() -> None:
    options = {"lr": -1, "dropout": 1, "epochs": 0, "hiden": (3,)}
    with pytest.raises(SettingsError) as caught:
        HeadClassifier("mlp", head_options=options).fit(X, Y)
    assert isinstance(caught.value, ConfigError)
    assert len(caught.value.faults) == 4
    assert "hidden" in caught.value.faults[0]
    with pytest.raises(SettingsError, match="logistic"):
        HeadClassifier("logistik").fit(X, Y)
    with pytest.raises(SettingsError, match="cannot be trained for regression"):
        HeadRegressor("lda").fit(X, Y)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"head_options": {"metrik": "cosine"}, "head": "knn"}, "metric"),
        ({"head_options": {"grid": (1.0,), "C": 2.0}}, "chooses C"),
        ({"head_options": {"alphas": (1.0,), "alpha": 2.0}, "head": "ridge"}, "chooses alpha"),
        ({"head_options": "euclidean"}, "mapping"),
        ({"head_options": {"hidden": (0,)}, "head": "mlp"}, "hidden"),
        ({"head_options": {"C": "best"}}, "C must be"),
        ({"head_options": {"C": float("nan")}}, "C must be"),
        ({"head_options": {"k": 2.5}, "head": "knn"}, "k must be"),
        ({"head_options": {"standardise": "yes"}}, "standardise"),
        ({"head": ["knn"]}, "head must be"),
        (
            {"head_options": {"class_weight": "balanced"}, "class_weight": "balanced"},
            "class_weight is given twice",
        ),
    ],
)
def test_unfit_parameters(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        HeadClassifier(**parameters).fit(X, Y)


def test_an_option_of_another_head_is_refused() -> None:
    with pytest.raises(SettingsError, match="head 'knn' has no option 'C'"):
        HeadClassifier("knn", head_options={"C": 3.0}).fit(X, Y)
    with pytest.raises(SettingsError, match="head 'lda' has no option 'folds'"):
        HeadClassifier("lda", head_options={"folds": 3}).fit(X, Y)


@pytest.mark.parametrize("weights", [None, {0: 3.0, 1: 1.0}], ids=["plain", "weighted"])
def test_decisions_of_neighbours_are_finite_and_in_order(weights: Any) -> None:
    two = Y < 2
    model = HeadClassifier("knn", head_options={"k": 3}, class_weight=weights)
    decision = model.fit(X[two], Y[two]).decision_function(X[two])
    assert np.isfinite(decision).all()
    assert get_scorer("roc_auc")(model, X[two], Y[two]) == 1.0
    assert np.isfinite(cross_val_score(model, X[two], Y[two], scoring="roc_auc")).all()
    # What is impossible lies below everything that is not, and probabilities keep their zero.
    soft = {"softness": 1e-3, "k": 70}
    many = HeadClassifier("knn", head_options=soft).fit(X, Y)
    values, p = many.decision_function(X), many.predict_proba(X)
    assert np.isfinite(values).all()
    assert (p == 0).any()
    assert values[p > 0].min() > values[p == 0].max()
    np.testing.assert_array_equal(values.argmax(axis=1), p.argmax(axis=1))
    order = np.argsort(p, axis=None, kind="stable")
    assert (np.diff(values.ravel()[order]) >= -1e-9).all()


def test_a_solver_that_stops_early_says_so() -> None:
    with pytest.warns(ConvergenceWarning, match="above the tolerance"):
        HeadClassifier(head_options={"C": 1e6, "tolerance": 1e-30}).fit(X, Y)
