"""Several labels and numbers: the heads are scikit-learn's at the same objective."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_linnerud, make_multilabel_classification
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from headstart.core.division import stratified_split
from headstart.core.strata import strata_of_memberships, strata_of_values
from headstart.heads import TrainingRows, head_kind, load_head
from headstart.heads.logistic import fit_logistic
from headstart.heads.thresholds import best_f1_thresholds, with_thresholds


def labelled(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return make_multilabel_classification(
        n, n_features=20, n_classes=6, n_labels=2, random_state=seed
    )


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_one_against_the_rest_is_scikit_learns(c: float) -> None:
    x, y = labelled()
    kind = head_kind("linear")
    rows = TrainingRows(x, y, 6, task="multi-label")
    head = kind.fit(rows, kind.settings({"C": c, "tolerance": 1e-8})).head
    z = StandardScaler().fit_transform(x)
    model = OneVsRestClassifier(LogisticRegression(C=c, tol=1e-8, max_iter=10_000)).fit(z, y)
    np.testing.assert_allclose(head.predict_proba(x), model.predict_proba(z), atol=2e-5)


@pytest.mark.parametrize("alpha", [0.1, 30.0])
@pytest.mark.parametrize("several", [False, True])
def test_ridge_is_scikit_learns(alpha: float, several: bool) -> None:
    x, y = (load_linnerud if several else load_diabetes)(return_X_y=True)
    t = 3 if several else 1
    kind = head_kind("ridge")
    head = kind.fit(TrainingRows(x, y, t, task="regression"), kind.settings({"alpha": alpha})).head
    z = StandardScaler().fit_transform(x)
    expected = Ridge(alpha).fit(z, y).predict(z)
    np.testing.assert_allclose(head.predict(x), expected.reshape(len(x), t), rtol=1e-8)


def test_auto_is_ridge_for_numbers_and_logistic_for_labels() -> None:
    kind = head_kind("auto")
    x, y = labelled(120)
    trained = kind.fit(TrainingRows(x, y, 6, task="multi-label"), kind.settings({}))
    assert trained.chosen["head"] == "linear"
    assert trained.held_out_probabilities is not None
    x, y = load_diabetes(return_X_y=True)
    trained = kind.fit(TrainingRows(x, y, 1, task="regression"), kind.settings({}))
    assert trained.chosen["head"] == "ridge"
    assert float(trained.chosen["alpha"]) > 0


def test_thresholds_are_the_best_f1_of_what_was_held_out() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((200, 3)) < [0.05, 0.3, 0.6]
    p = np.clip(0.2 * truth + rng.random((200, 3)) * 0.5, 0.01, 0.99)
    found = best_f1_thresholds(truth, p)
    for label in range(3):

        def f1(t: float, label: int = label) -> float:
            return float(f1_score(truth[:, label], p[:, label] > t))

        assert f1(found[label]) == max(f1(t) for t in p[:, label] - 1e-9)


def test_thresholds_travel_with_the_head(tmp_path) -> None:
    x, y = labelled()
    kind = head_kind("linear")
    rows = TrainingRows(x, y, 6, task="multi-label")
    plain = kind.fit(rows, kind.settings({"folds": 3}))
    chosen = with_thresholds(plain, rows)
    assert chosen.head.thresholds is not None
    p = chosen.head.predict_proba(x)
    np.testing.assert_array_equal(p, plain.head.predict_proba(x))  # probabilities stay as they are
    np.testing.assert_array_equal(chosen.head.predict(x), p > chosen.head.thresholds)
    chosen.head.save(tmp_path)
    np.testing.assert_array_equal(load_head(tmp_path).predict(x), chosen.head.predict(x))
    assert "highest F1 on held-out" in chosen.notes[-1]


def test_a_balanced_threshold_finds_the_rare_class() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(1000) < 0.05).astype(int)
    x = rng.normal(size=(1000, 5)) + y[:, None]
    kind = head_kind("linear")
    rows = TrainingRows(x, y, 2)
    plain = kind.fit(rows, kind.settings({"C": 1.0}))
    even = with_thresholds(plain, rows, "balanced").head

    def recall(predicted: np.ndarray) -> float:
        return float((predicted[y == 1] == 1).mean())

    assert recall(plain.head.predict(x)) < 0.8 < recall(even.predict(x))
    p = even.predict_proba(x)
    np.testing.assert_array_equal(p.argmax(axis=1), even.predict(x))
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert with_thresholds(plain, rows, "auto").head is plain.head


def test_a_label_without_training_items_is_never_predicted() -> None:
    x, y = labelled(100)
    y[:, 2] = 0
    kind = head_kind("linear")
    rows = TrainingRows(x, y, 6, task="multi-label")
    trained = with_thresholds(kind.fit(rows, kind.settings({"folds": 3})), rows)
    p = trained.head.predict_proba(x)
    assert np.isfinite(p).all()
    assert p[:, 2].max() < 0.05
    assert not trained.head.predict(x)[:, 2].any()


def test_divisions_keep_rare_labels_and_values_in_proportion() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((500, 4)) < [0.03, 0.3, 0.5, 0.8]).astype(float)
    for seed in range(5):
        _, test = stratified_split(strata_of_memberships(y), 0.2, seed=seed)
        assert y[test, 0].sum() == pytest.approx(0.2 * y[:, 0].sum(), abs=1)
    values = rng.exponential(size=(500, 1))
    for seed in range(5):
        _, test = stratified_split(strata_of_values(values), 0.2, seed=seed)
        assert np.quantile(values[test], 0.9) == pytest.approx(np.quantile(values, 0.9), rel=0.15)


@pytest.mark.parametrize("n", [0, 1, 2, 9, 11])
def test_few_items_have_one_stratum(n: int) -> None:
    assert len(set(strata_of_memberships(np.ones((n, 2))).tolist())) <= 1
    assert len(set(strata_of_values(np.arange(float(n))[:, None]).tolist())) <= 1


def _rare_labels(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels of which the later ones are rarer."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, d))
    score = x @ rng.normal(size=(d, k)) / np.sqrt(d) + rng.normal(size=(n, k))
    shares = np.linspace(0.4, 0.08, k)
    return x, (score > np.quantile(score, 1 - shares, axis=0).diagonal()).astype(float)


@pytest.mark.parametrize(("d", "k"), [(5, 3), (600, 4)], ids=["newton", "l-bfgs"])
def test_balanced_labels_equal_scikit_learn(d: int, k: int) -> None:
    x, y = _rare_labels(400, d, k)
    head, _ = fit_logistic(
        x, y, k, C=0.3, task="multi-label", class_weight="balanced", tolerance=1e-9
    )
    z = (x - x.mean(0)) / x.std(0)
    model = LogisticRegression(C=0.3, class_weight="balanced", tol=1e-11, max_iter=20_000)
    reference = OneVsRestClassifier(model).fit(z, y)
    np.testing.assert_allclose(head.predict_proba(x), reference.predict_proba(z), atol=1e-5)
    plain, _ = fit_logistic(x, y, k, C=0.3, task="multi-label")
    assert head.predict_proba(x)[:, -1].mean() > plain.predict_proba(x)[:, -1].mean()


def test_balanced_labels_of_repeated_rows_are_those_of_weights() -> None:
    x, y = _rare_labels(120, 5, 3)
    times = np.random.default_rng(0).integers(1, 4, len(x))
    options = {"C": 1.0, "task": "multi-label", "class_weight": "balanced", "tolerance": 1e-10}
    weighted, _ = fit_logistic(x, y, 3, sample_weight=times, **options)
    repeated, _ = fit_logistic(np.repeat(x, times, 0), np.repeat(y, times, 0), 3, **options)
    np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), atol=1e-7)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_balanced_labels_find_more_of_the_rare_ones(name: str) -> None:
    x, y = _rare_labels(500, 12, 4)
    kind, rows = head_kind(name), TrainingRows(x[:300], y[:300], 4, task="multi-label")
    found = {}
    for weight in (None, "balanced"):
        head = kind.fit(rows, kind.settings({"class_weight": weight})).head
        found[weight] = (head.predict_proba(x[300:]) > 0.5)[y[300:] == 1].mean()
    assert found["balanced"] > found[None] + 0.1


def test_a_label_that_all_have_weighs_one() -> None:
    x, y = _rare_labels(60, 4, 3)
    y[:, 0], y[:, 1] = 1.0, 0.0
    head, _ = fit_logistic(x, y, 3, task="multi-label", class_weight="balanced")
    assert np.isfinite(head.predict_proba(x)).all()
