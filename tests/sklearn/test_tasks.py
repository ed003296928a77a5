"""TransferRegressor and the estimators of several labels, in scikit-learn's own words."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_digits, make_multilabel_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler

from headstart.sklearn import (
    FeatureExtractor,
    HeadMultiLabelClassifier,
    HeadRegressor,
    InputError,
    TransferMultiLabelClassifier,
    TransferRegressor,
)

GLYPHS = "headstart/glyphs"


@pytest.fixture(scope="module")
def inked() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = load_digits().images[:150] * 15.9 * rng.uniform(0.2, 1, (150, 1, 1))
    x = x.astype(np.uint8)
    return x, x.mean(axis=(1, 2)) / 255


def test_transfer_regressor_is_both_in_one(inked: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = inked
    one = TransferRegressor(GLYPHS, layer="stem", cache=False).fit(x, y)
    two = make_pipeline(FeatureExtractor(GLYPHS, layer="stem", cache=False), HeadRegressor())
    np.testing.assert_array_equal(one.predict(x), two.fit(x, y).predict(x))
    assert one.predict(x).shape == (150,)
    assert set(one.get_params()) == {
        *FeatureExtractor().get_params(),
        *HeadRegressor().get_params(),
        "columns",
    }
    again = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(again.predict(x[:5]), one.predict(x[:5]))
    assert cross_val_score(one, x, y, cv=3).mean() > 0.8


def test_a_search_over_layers_and_several_targets(inked: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = inked
    both = np.stack([y, -2 * y + 1], axis=1)
    search = GridSearchCV(TransferRegressor(GLYPHS), {"layer": ["stem", "stage3.0"]}, cv=3)
    assert search.fit(x, both).best_params_ == {"layer": "stem"}
    assert search.predict(x).shape == (150, 2)


def test_several_labels_in_images() -> None:
    digits = load_digits()
    pages = np.concatenate([digits.images[:150], digits.images[150:300]], axis=2) * 15.9
    tags = [
        {int(a), int(b)} for a, b in zip(digits.target[:150], digits.target[150:300], strict=True)
    ]
    y = MultiLabelBinarizer().fit_transform(tags)
    model = TransferMultiLabelClassifier(GLYPHS, cache=False).fit(pages.astype(np.uint8), y)
    assert model.predict_proba(pages[:7].astype(np.uint8)).shape == (7, 10)
    assert model.score(pages.astype(np.uint8), y) > 0.5  # the share of exact matches


def test_it_is_one_against_the_rest_and_takes_sparse_labels() -> None:
    x, y = make_multilabel_classification(200, n_classes=4, random_state=0)
    head = HeadMultiLabelClassifier(head_options={"C": 0.3, "tolerance": 1e-8}, threshold="half")
    found = head.fit(x, csr_matrix(y))
    z = StandardScaler().fit_transform(x)
    model = OneVsRestClassifier(LogisticRegression(C=0.3, tol=1e-8, max_iter=9999)).fit(z, y)
    np.testing.assert_allclose(found.predict_proba(x), model.predict_proba(z), atol=2e-5)
    np.testing.assert_array_equal(found.predict(x), model.predict(z))
    np.testing.assert_allclose(np.exp(found.predict_log_proba(x)), found.predict_proba(x))
    assert cross_val_predict(HeadMultiLabelClassifier(), x, y, cv=3).shape == (200, 4)


def test_thresholds_are_chosen_in_fit() -> None:
    x, y = make_multilabel_classification(200, n_classes=4, random_state=0)
    plain = HeadMultiLabelClassifier().fit(x, y)
    assert plain.head_.thresholds is not None
    np.testing.assert_array_equal(plain.predict(x), plain.predict_proba(x) > plain.head_.thresholds)


def test_one_class_a_row_is_taken_as_well_and_lists_are_refused() -> None:
    x, y = load_digits(return_X_y=True)
    model = HeadMultiLabelClassifier(head_options={"C": 0.1}).fit(x[:200], y[:200])
    assert model.predict(x[:3]).shape == (3,)
    with pytest.raises(InputError, match="one class per item"):
        HeadMultiLabelClassifier().fit(x[:3], [["a"], ["b", "c"], []])
