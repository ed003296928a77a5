"""Every head by one contract: probabilities, saving, loading, and distrust of what is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge, RidgeClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from headstart.core.errors import HeadError
from headstart.heads import (
    Head,
    fit_lda,
    fit_logistic,
    fit_mlp,
    fit_neighbours,
    fit_prototype,
    fit_ridge,
    fit_temperature,
    load_head,
)
from headstart.heads.neighbours import nearest
from headstart.heads.registry import TrainingRows, head_kind

Fit = Callable[[np.ndarray, np.ndarray, int], Head]


def auto(x: np.ndarray, y: np.ndarray, k: int, few: int) -> Head:
    """Train what chooses itself; ``few`` says whether rows are scaled as for few labels."""
    options = {"few": few, "heads": ("ridge", "lda", "prototype")}
    kind = head_kind("auto")
    return kind.fit(TrainingRows(x, y, k), kind.settings(options)).head


FITS: dict[str, Fit] = {
    "logistic": lambda x, y, k: fit_logistic(x, y, k)[0],
    "ridge": lambda x, y, k: fit_ridge(x, y, k).head,
    "lda": lambda x, y, k: fit_lda(x, y, k)[0],
    "mlp": lambda x, y, k: fit_mlp(x, y, k, hidden=(64,), batch_size=32, epochs=15).head,
    "neighbours": lambda x, y, k: fit_neighbours(x, y, k),
    "neighbours, euclidean": lambda x, y, k: fit_neighbours(
        x, y, k, metric="euclidean", softness=100.0
    ),
    "prototype": lambda x, y, k: fit_prototype(x, y, k),
    "auto, few labels": lambda x, y, k: auto(x, y, k, few=10**6),
    "auto": lambda x, y, k: auto(x, y, k, few=0),
}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


@pytest.fixture(params=list(FITS))
def fit(request: pytest.FixtureRequest) -> Fit:
    return FITS[request.param]


def test_head_learns_and_its_probabilities_are_sound(
    fit: Fit, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = digits
    head = fit(x[:1000], y[:1000], 10)
    probabilities = head.predict_proba(x[1000:])
    assert probabilities.shape == (797, 10)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-12)
    predicted = head.predict(x[1000:])
    assert predicted.dtype == np.int64
    np.testing.assert_array_equal(predicted, probabilities.argmax(axis=1))
    assert (predicted == y[1000:]).mean() > 0.8


def test_saved_head_predicts_the_same(
    fit: Fit, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    x, y = digits
    head = fit(x[:300], y[:300], 10).with_temperature(1.7)
    head.save(tmp_path / "a" / "head")
    again = load_head(tmp_path / "a" / "head")
    assert type(again) is type(head)
    assert again.temperature == 1.7
    np.testing.assert_array_equal(again.predict_proba(x[300:600]), head.predict_proba(x[300:600]))
    assert sorted(p.name for p in (tmp_path / "a" / "head").iterdir()) == [
        "head.json",
        "head.safetensors",
    ]


def test_class_without_a_training_row_has_probability_zero(
    fit: Fit, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = digits
    seen = y != 7
    head = fit(x[seen][:500], y[seen][:500], 10)
    probabilities = head.predict_proba(x[~seen])
    assert (probabilities[:, 7] == 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_single_row_of_every_class(fit: Fit, digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits
    first = np.array([np.flatnonzero(y == c)[0] for c in range(10)])
    head = fit(x[first], y[first], 10)
    assert np.isfinite(head.predict_proba(x)).all()


def test_bad_features_and_labels_are_one_clear_error(
    fit: Fit, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = digits[0][:50], digits[1][:50]
    broken = x.copy()
    broken[3, 2] = np.nan
    with pytest.raises(HeadError, match="row 3"):
        fit(broken, y, 10)
    with pytest.raises(HeadError, match="two classes"):
        fit(x, np.zeros(50, dtype=np.int64), 10)
    with pytest.raises(HeadError, match="one label per item"):
        fit(x, y[:40], 10)
    head = fit(x, y, 10)
    with pytest.raises(HeadError, match="expected 64 features per item, found 10"):
        head.predict_proba(x[:, :10])
    with pytest.raises(HeadError, match="NaN"):
        head.predict(broken)


def tamper_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write other arrays with a matching description, as an attacker would."""
    import hashlib

    payload = safetensors.numpy.save(arrays)
    (folder / "head.safetensors").write_bytes(payload)
    document = json.loads((folder / "head.json").read_text())
    document["sha256"] = hashlib.sha256(payload).hexdigest()
    document["arrays"] = {
        name: {"dtype": str(a.dtype), "shape": list(a.shape)} for name, a in arrays.items()
    }
    (folder / "head.json").write_text(json.dumps(document))


@pytest.fixture
def saved(fit: Fit, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Path:
    fit(digits[0][:100], digits[1][:100], 10).save(tmp_path)
    return tmp_path


def test_loading_distrusts_the_files(saved: Path) -> None:
    document = json.loads((saved / "head.json").read_text())
    payload = (saved / "head.safetensors").read_bytes()
    arrays = safetensors.numpy.load(payload)

    def expect(message: str) -> None:
        with pytest.raises(HeadError, match=message):
            load_head(saved)

    for change, message in [
        ({"kind": "os.system"}, "found 'os.system'"),
        ({"format": 99}, "format 99"),
        ({"n_features": 3}, "its arrays say"),
        ({"task": "regression"}, "says|unknown"),
        ({"temperature": -1.0}, "temperature"),
        ({"options": None}, "misstates: options"),
        ({"sha256": "0" * 64}, "SHA-256"),
    ]:
        (saved / "head.json").write_text(json.dumps(document | change))
        expect(message)
    (saved / "head.json").write_text("[" * 100_000)
    expect("JSON|misstates")
    (saved / "head.json").write_text(json.dumps(document))
    (saved / "head.safetensors").write_bytes(payload[:-1])
    expect("SHA-256")
    name = sorted(arrays)[0]
    tamper_arrays(saved, arrays | {name: arrays[name][:-1]})
    with pytest.raises(HeadError):
        load_head(saved)
    tamper_arrays(saved, arrays | {"extra": np.zeros(1)})
    with pytest.raises(HeadError):
        load_head(saved)
    floats = [n for n in arrays if arrays[n].dtype.kind == "f"]
    for name in sorted(floats):
        tamper_arrays(saved, arrays | {name: np.full_like(arrays[name], np.nan)})
        expect("NaN")
    (saved / "head.json").unlink()
    expect("missing")


def test_ridge_path_equals_scikit_learn(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits
    alphas = 10.0 ** np.arange(-2, 5)
    for rows in (600, 40):  # more rows than features, and fewer
        z = StandardScaler().fit_transform(x[:rows].astype(np.float64))
        reference = RidgeClassifierCV(alphas=alphas, store_cv_results=True).fit(z, y[:rows])
        found = fit_ridge(x[:rows], y[:rows], 10, alphas=alphas)
        assert found.alphas[found.chosen] == reference.alpha_
        error = reference.cv_results_.mean(axis=(0, 1))
        np.testing.assert_allclose(found.error, error, rtol=1e-6)
        np.testing.assert_allclose(found.head.weight, reference.coef_.T, atol=1e-7)
        np.testing.assert_array_equal(found.head.predict(x[:rows]), reference.predict(z))


def test_ridge_left_out_outputs_equal_refits(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0][:80], digits[1][:80]
    found = fit_ridge(x, y, 10, alphas=[3.0], class_weight="balanced")
    z = StandardScaler().fit_transform(x.astype(np.float64))
    targets = np.where(np.eye(10)[y] > 0, 1.0, -1.0)
    weight = len(y) / (10 * np.bincount(y, minlength=10))[y]
    for row in (0, 11, 42):
        others = np.arange(80) != row
        refit = Ridge(alpha=3.0).fit(z[others], targets[others], sample_weight=weight[others])
        np.testing.assert_allclose(found.left_out[row], refit.predict(z[row : row + 1])[0])


def test_ridge_regression_and_multi_label(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits
    values = np.c_[y, y**2].astype(float)
    found = fit_ridge(x, values, 2, alphas=[1.0, 10.0], task="regression")
    z = StandardScaler().fit_transform(x.astype(np.float64))
    alpha = found.alphas[found.chosen]
    reference = Ridge(alpha=alpha).fit(z, values)
    np.testing.assert_allclose(found.head.predict(x), reference.predict(z), atol=1e-6)
    with pytest.raises(HeadError, match="no class probabilities"):
        found.head.predict_proba(x)
    several = fit_ridge(x, np.c_[y > 4, y % 2], 2, task="multi-label").head
    assert (several.predict(x) == np.c_[y > 4, y % 2]).mean() > 0.85


@pytest.mark.parametrize("shrinkage", [0.1, 0.7])
def test_lda_equals_scikit_learn(digits: tuple[np.ndarray, np.ndarray], shrinkage: float) -> None:
    x, y = digits
    z = StandardScaler().fit_transform(x.astype(np.float64))
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(z, y)
    head, used = fit_lda(x, y, 10, shrinkage=shrinkage)
    assert used == shrinkage
    np.testing.assert_allclose(head.predict_proba(x), reference.predict_proba(z), atol=1e-6)


def test_lda_shrinkage_is_that_of_ledoit_and_wolf(digits: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.covariance import ledoit_wolf_shrinkage

    x, y = digits[0][:200].astype(np.float64), digits[1][:200]
    z = StandardScaler().fit_transform(x)
    within = z - np.stack([z[y == c].mean(axis=0) for c in range(10)])[y]
    _, used = fit_lda(x, y, 10)
    assert used == pytest.approx(ledoit_wolf_shrinkage(within, assume_centered=True))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbours_equal_brute_force(
    digits: tuple[np.ndarray, np.ndarray], metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.heads.neighbours._TRAIN_ROWS", 128)  # many blocks to merge
    # Continuous features, so that no two neighbours are equally far.
    x = digits[0] + np.random.default_rng(0).normal(size=digits[0].shape).astype(np.float32)
    y = digits[1]
    head = fit_neighbours(x[:1000], y[:1000], 10, k=7, metric=metric, weights="uniform")
    reference = KNeighborsClassifier(7, metric=metric, algorithm="brute").fit(x[:1000], y[:1000])
    np.testing.assert_allclose(
        head.predict_proba(x[1000:]), reference.predict_proba(x[1000:]), atol=1e-12
    )
    rows = head.rows
    similarity, index = nearest(x[1000:1010], rows, 7, metric)
    distance, wanted = reference.kneighbors(x[1000:1010])
    np.testing.assert_array_equal(index, wanted)
    expected = 1 - distance if metric == "cosine" else -(distance**2)
    np.testing.assert_allclose(similarity, expected, rtol=1e-4, atol=1e-5)


def test_temperature_mends_overconfidence() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # softmax(logits) is true
    assert fit_temperature(5 * logits, labels) == pytest.approx(5, rel=0.05)
    assert fit_temperature(0.2 * logits, labels) == pytest.approx(0.2, rel=0.05)
    with pytest.raises(HeadError, match="found none"):
        fit_temperature(np.full((3, 2), -np.inf), np.zeros(3, dtype=int))


WITHOUT_CLASSES: dict[str, Callable[[np.ndarray], object]] = {
    "logistic, soft": lambda x: fit_logistic(x, np.full((6, 2), 0.5), 2, class_weight="balanced"),
    "logistic, multi-label": lambda x: fit_logistic(
        x, np.eye(6, 2), 2, task="multi-label", class_weight=np.ones(2)
    ),
    "ridge, multi-label": lambda x: fit_ridge(
        x, np.eye(6, 2), 2, task="multi-label", class_weight="balanced"
    ),
    "ridge, regression": lambda x: fit_ridge(
        x, np.arange(6.0), 1, task="regression", class_weight="balanced"
    ),
    "mlp, soft": lambda x: fit_mlp(x, np.full((6, 2), 0.5), 2, class_weight="balanced"),
    "mlp, multi-label": lambda x: fit_mlp(
        x, np.eye(6, 2), 2, task="multi-label", class_weight=(1.0, 2.0)
    ),
    "mlp, regression": lambda x: fit_mlp(
        x, np.arange(6.0), 1, task="regression", class_weight="balanced"
    ),
}


@pytest.mark.parametrize("case", list(WITHOUT_CLASSES))
def test_class_weights_of_targets_without_classes_are_refused(case: str) -> None:
    with pytest.raises(HeadError, match="class_weight needs class indices"):
        WITHOUT_CLASSES[case](np.arange(12.0).reshape(6, 2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_in_any_layout_of_memory(
    fit: Fit, dtype: str, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = digits[0][:200].astype(dtype), digits[1][:200]
    odd = np.zeros(200, dtype=[("key", "u1"), ("x", dtype, 64)])
    odd["x"] = x[::-1]
    expected = fit(x[::-1].copy(), y[::-1], 10).predict_proba(x[::-1].copy())
    for given in (x[::-1], np.asfortranarray(x[::-1]), odd["x"], x[::-1].copy()[:, ::-1][:, ::-1]):
        head = fit(given, y[::-1], 10)
        np.testing.assert_allclose(head.predict_proba(given), expected, atol=1e-6)
    turned = x[:, ::-1]
    assert np.isfinite(fit(turned, y, 10).predict_proba(turned)).all()


def test_negative_seeds_are_one_clear_error(digits: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(HeadError, match="a seed is a whole number from 0, not -1"):
        fit_mlp(digits[0][:50], digits[1][:50], 10, seed=-1)
