"""A weight of 2 is the row twice, a weight of 0 is no row: in training, folds and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from headstart.heads import TrainingRows, head_kind, load_head, register_head, table
from headstart.heads.contract import HeadKind
from headstart.heads.registry import head_kinds
from headstart.sklearn import (
    FeatureExtractor,
    HeadClassifier,
    HeadRegressor,
    InputError,
    TransferClassifier,
)

MLP = {"epochs": 8, "hidden": (16,)}
CLASSIFIERS = {
    "linear, C chosen": HeadClassifier(),
    "linear, C given": HeadClassifier(head_options={"C": 0.1}),
    "one standard error": HeadClassifier(head_options={"rule": "one-standard-error"}),
    "not standardised": HeadClassifier(head_options={"standardise": False}),
    "balanced": HeadClassifier(class_weight="balanced"),
    "weights of classes": HeadClassifier("lda", class_weight={0: 1.0, 1: 3.0, 2: 1.0}),
    "ridge": HeadClassifier("ridge"),
    "ridge, balanced": HeadClassifier("ridge", class_weight="balanced"),
    "lda": HeadClassifier("lda"),
    "knn": HeadClassifier("knn", head_options={"k": 7}),
    "knn, euclidean": HeadClassifier("knn", head_options={"metric": "euclidean", "softness": 5.0}),
    "knn, votes": HeadClassifier("knn", head_options={"weights": "uniform"}),
    "prototype": HeadClassifier("prototype"),
    "mlp": HeadClassifier("mlp", head_options=MLP),
}
REGRESSORS = {
    "ridge": HeadRegressor(),
    "mlp": HeadRegressor("mlp", head_options=MLP),
}


def rows(n: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = make_classification(
        n, 12, n_informative=6, n_classes=3, flip_y=0.3, class_sep=0.7, random_state=0
    )
    return x, y, np.random.default_rng(0).integers(0, 4, n)


def same(a: Any, b: Any, x: np.ndarray, tolerance: float = 1e-9) -> None:
    for method in ("decision_function", "predict_proba", "predict"):
        if hasattr(a, method):
            one, two = getattr(a, method)(x), getattr(b, method)(x)
            np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance)
    assert a.chosen_ == b.chosen_


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_weights_are_repetitions_of_rows(name: str) -> None:
    x, y, times = rows()
    mixed = np.random.default_rng(1).permutation(int(times.sum()))
    repeated = np.repeat(x, times, axis=0)[mixed], np.repeat(y, times)[mixed]
    weighted = clone(CLASSIFIERS[name]).fit(x, y, sample_weight=times)
    same(weighted, clone(CLASSIFIERS[name]).fit(*repeated), x)
    kept = times > 0
    absent = clone(CLASSIFIERS[name]).fit(x[kept], y[kept], sample_weight=times[kept])
    same(weighted, absent, x)
    plain = clone(CLASSIFIERS[name]).fit(x, y)
    assert not np.allclose(weighted.predict_proba(x), plain.predict_proba(x))
    same(plain, clone(CLASSIFIERS[name]).fit(x, y, sample_weight=np.ones(len(x))), x)


@pytest.mark.parametrize("name", REGRESSORS)
@pytest.mark.parametrize("targets", [1, 2])
def test_weights_are_repetitions_of_rows_in_regression(name: str, targets: int) -> None:
    x, _, times = rows()
    rng = np.random.default_rng(3)
    y = x[:, :targets] + rng.normal(size=(len(x), targets))
    y = y[:, 0] if targets == 1 else y
    weighted = clone(REGRESSORS[name]).fit(x, y, sample_weight=times)
    repeated = clone(REGRESSORS[name]).fit(np.repeat(x, times, axis=0), np.repeat(y, times, axis=0))
    same(weighted, repeated, x)


@pytest.mark.parametrize("name", [k.name for k in head_kinds("classification") if k.weighted])
def test_a_head_itself_takes_weights_for_rows_that_stay_apart(name: str) -> None:
    """Without the estimators, which make one row of copies: the solvers agree as well."""
    x, y, times = rows()
    times = times + 1
    kind = head_kind(name)
    options = kind.settings(
        {"epochs": 1, "batch_size": 2000, "dropout": 0.0} if name == "mlp" else {}
    )
    twice = TrainingRows(np.repeat(x, times, axis=0), np.repeat(y, times), 3)
    once = TrainingRows(x, y, 3, weights=times.astype(float))
    a, b = kind.fit(once, options), kind.fit(twice, options)
    assert dict(a.chosen) == pytest.approx(dict(b.chosen))
    np.testing.assert_allclose(a.head.predict_proba(x), b.head.predict_proba(x), atol=2e-4)


@pytest.mark.parametrize("name", ["linear, C chosen", "ridge", "lda", "knn", "prototype"])
def test_weights_that_are_no_whole_numbers(name: str) -> None:
    x, y, times = rows()
    fractions = (times + 0.5) / 7
    found = clone(CLASSIFIERS[name]).fit(x, y, sample_weight=fractions)
    p = found.predict_proba(x)
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(axis=1), 1.0)


def test_a_head_of_weighted_neighbours_is_saved(tmp_path: Path) -> None:
    x, y, times = rows()
    head = HeadClassifier("knn").fit(x, y, sample_weight=times).head_
    head.save(tmp_path)
    np.testing.assert_array_equal(load_head(tmp_path).predict_proba(x), head.predict_proba(x))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0, 2.0], "one number per row"),
        (-np.ones(150), "0 or more"),
        (np.zeros(150), "is zero"),
        (np.full(150, np.nan), "finite"),
        (np.ones((150, 2)), "one number per row"),
        (["a"] * 150, "one number per row"),
    ],
)
def test_weights_that_are_none(weights: Any, words: str) -> None:
    x, y, _ = rows()
    for estimator in (HeadClassifier("lda"), HeadRegressor()):
        with pytest.raises(ValueError, match=words):
            estimator.fit(x, y, sample_weight=weights)


def test_a_class_without_weight_is_absent() -> None:
    x, y, _ = rows()
    found = HeadClassifier("lda").fit(x, y, sample_weight=(y != 1).astype(float))
    assert found.classes_.tolist() == [0, 2]
    with pytest.raises(InputError, match="two classes"):
        HeadClassifier("lda").fit(x, y, sample_weight=(y == 1).astype(float))


def test_a_head_that_takes_no_weights_says_so() -> None:
    x, y, times = rows()
    kind = head_kind("lda")
    register_head(HeadKind("unweighted", "a test", fit=kind.fit, options=kind.options))
    try:
        HeadClassifier("unweighted").fit(x, y, sample_weight=np.ones(len(x)))
        with pytest.raises(InputError, match="'unweighted' takes no sample_weight"):
            HeadClassifier("unweighted").fit(x, y, sample_weight=times)
    finally:
        table.KINDS.pop("unweighted", None)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_order_of_rows_decides_nothing(name: str) -> None:
    x, y, times = rows()
    mixed = np.random.default_rng(5).permutation(len(x))
    a = clone(CLASSIFIERS[name]).fit(x, y, sample_weight=times)
    b = clone(CLASSIFIERS[name]).fit(x[mixed], y[mixed], sample_weight=times[mixed])
    same(a, b, x)


def test_groups_are_held_out_together() -> None:
    rng = np.random.default_rng(0)
    base, labels = rng.normal(size=(60, 40)), rng.integers(0, 2, 60)
    group = np.repeat(np.arange(60), 6)
    x, y = base[group] + 0.5 * rng.normal(size=(360, 40)), labels[group]
    for head in ("linear", "mlp", "ridge"):
        options = {"epochs": 20, "validation": 0.3} if head == "mlp" else {}
        alone = HeadClassifier(head, head_options=options).fit(x, y)
        grouped = HeadClassifier(head, head_options=options).fit(x, y, groups=group)
        assert grouped.curves_ != alone.curves_
    with pytest.raises(InputError, match="one group per row"):
        HeadClassifier().fit(x, y, groups=[1, 2])
    with pytest.raises(InputError, match="two groups"):
        HeadClassifier().fit(x, y, groups=np.zeros(360))


def test_copies_are_told() -> None:
    x, y, _ = rows()
    found = HeadClassifier().fit(np.tile(x, (3, 1)), np.tile(y, 3))
    assert "300 training items repeat another: such items are held out together" in found.notes_


def test_images_with_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 16, 16), dtype=np.uint8)
    y, times = np.arange(30) % 2, rng.integers(0, 3, 30)
    a = TransferClassifier(cache=tmp_path).fit(images, y, sample_weight=times)
    b = TransferClassifier(cache=tmp_path).fit(
        np.repeat(images, times, axis=0), np.repeat(y, times)
    )
    np.testing.assert_allclose(a.predict_proba(images), b.predict_proba(images), atol=1e-9)
    assert a.score(images, y, sample_weight=times) == pytest.approx(
        b.score(np.repeat(images, times, axis=0), np.repeat(y, times))
    )


def test_one_weight_for_all() -> None:
    x, y, _ = rows()
    same(
        HeadClassifier("lda").fit(x, y, sample_weight=2),
        HeadClassifier("lda").fit(x, y, sample_weight=np.full(len(x), 2.0)),
        x,
    )


def test_weights_pass_a_pipeline_and_a_search(tmp_path: Path) -> None:
    x, y, times = rows()
    pipe = make_pipeline(HeadClassifier("lda"))
    pipe.fit(x, y, headclassifier__sample_weight=times)
    search = GridSearchCV(HeadClassifier(), {"head": ["lda", "ridge"]}, cv=2)
    search.fit(x, y, sample_weight=times.astype(float) + 1)
    assert search.best_params_["head"] in ("lda", "ridge")


EMPTY = {
    "list": [],
    "tuple": (),
    "array": np.empty((0, 12)),
    "images": np.empty((0, 16, 16), np.uint8),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_of_nothing_nothing_is_predicted(kind: str, tmp_path: Path) -> None:
    x, y, _ = rows()
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16), dtype=np.uint8)
    empty = EMPTY[kind]
    three = HeadClassifier("lda").fit(x, np.array(["a", "b", "c"])[y])
    assert three.predict(empty).shape == (0,)
    assert three.predict(empty).dtype == three.classes_.dtype
    for method in ("predict_proba", "predict_log_proba", "decision_function"):
        assert getattr(three, method)(empty).shape == (0, 3)
    two = TransferClassifier(cache=tmp_path, head="lda").fit(images, np.arange(30) % 2)
    assert two.predict(empty).shape == (0,)
    assert two.predict_proba(empty).shape == (0, 2)
    assert two.decision_function(empty).shape == (0,)
    assert HeadRegressor().fit(x, y).predict(empty).shape == (0,)
    assert HeadRegressor().fit(x, np.stack([y, y], 1)).predict(empty).shape == (0, 2)
    extractor = FeatureExtractor(cache=tmp_path).fit(images)
    assert extractor.transform(empty).shape == (0, extractor.transform(images).shape[1])
    for estimator in (HeadClassifier(), HeadRegressor(), TransferClassifier()):
        with pytest.raises(ValueError):  # of nothing nothing is learnt
            estimator.fit(empty, [])


SEVERAL = {
    "memberships": np.ones((30, 4), int),
    "booleans": np.ones((30, 4), bool),
    "lists": [[1, 2], [3], []] * 10,
    "sets": [{1}, {2}] * 15,
    "tuples": [("a", "b")] * 30,
    "objects": np.array([[1, 2], [3]] * 15, dtype=object),
    "three axes": np.ones((30, 2, 2)),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_labels_an_item_are_refused_at_once(kind: str) -> None:
    for estimator in (
        HeadClassifier("linear"),
        TransferClassifier("no/such-backbone-is-loaded-for-this"),
    ):
        with pytest.raises(InputError, match="one class per item") as found:
            estimator.fit(np.zeros((30, 12)), SEVERAL[kind])
        assert "MultiOutputClassifier" in str(found.value)


def test_the_way_out_of_several_labels_works() -> None:
    from sklearn.multioutput import MultiOutputClassifier

    x, y, _ = rows()
    several = np.stack([y == 0, y == 1], axis=1).astype(int)
    found = MultiOutputClassifier(HeadClassifier("lda")).fit(x, several)
    assert found.predict(x).shape == several.shape


def test_images_in_every_usual_form_are_one_image(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    paths = []
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    pictures = [Image.fromarray(array) for array in arrays]
    forms = {
        "array": arrays,
        "list of arrays": list(arrays),
        "PIL": pictures,
        "tuple of PIL": tuple(pictures),
        "paths": paths,
        "text": [str(path) for path in paths],
        "array of text": np.array([str(path) for path in paths]),
        "bytes": [path.read_bytes() for path in paths],
        "open files": [Image.open(path) for path in paths],
        "mixed": [
            pictures[0],
            paths[1],
            str(paths[2]),
            arrays[3],
            paths[4].read_bytes(),
            pictures[5],
        ],
    }
    model = TransferClassifier(cache=False, head="lda").fit(pictures, [0, 1] * 3)
    wanted = model.extractor_.transform(arrays)
    for name, form in forms.items():
        np.testing.assert_allclose(
            model.extractor_.transform(form), wanted, rtol=1e-5, atol=1e-6, err_msg=name
        )
        assert model.predict(form).shape == (6,), name
    for one in (pictures[0], str(paths[0]), paths[0]):
        with pytest.raises(InputError, match="list"):
            model.predict(one)
