"""TransferClassifier: a search over layers runs the network once an image and layer."""

from __future__ import annotations

import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline

from headstart.core.errors import BadFilesError
from headstart.sklearn import (
    FeatureExtractor,
    HeadClassifier,
    SettingsError,
    TransferClassifier,
)

Digits = tuple[np.ndarray, np.ndarray]
LAYERS = ["stage1.0", "stage2.0", "stage3.0"]


@pytest.mark.slow
def test_a_grid_search_extracts_every_layer_once(
    passes: Counter[str | None], digits: Digits, tmp_path: Path
) -> None:
    x, y = digits
    x_train, x_test, y_train, y_test = train_test_split(x, y, stratify=y, random_state=0)
    kinds = {image.tobytes() for image in x_train}
    new = len({image.tobytes() for image in x_test} - kinds)
    search = GridSearchCV(
        TransferClassifier(cache=tmp_path),
        {"layer": LAYERS, "head_options": [{"C": 1e-3}, {"C": 1e-2}]},
        cv=3,
        error_score="raise",
    )
    search.fit(x_train, y_train)
    assert len(search.cv_results_["params"]) == 6
    expected = Counter(dict.fromkeys(LAYERS, len(kinds)))
    assert passes == expected
    assert search.score(x_test, y_test) > 0.95
    expected[search.best_params_["layer"]] += new
    assert passes == expected
    for layer in LAYERS:
        TransferClassifier(layer=layer, head="prototype", cache=tmp_path).fit(x_train, y_train)
    search.predict(x_test)
    assert passes == expected


def test_is_extractor_and_classifier_in_one(digits: Digits) -> None:
    x, y = digits[0][:300], digits[1][:300]
    one = TransferClassifier(layer="stage2.0", head="ridge").fit(x, y)
    two = make_pipeline(FeatureExtractor(layer="stage2.0"), HeadClassifier("ridge")).fit(x, y)
    for method in ("decision_function", "predict", "predict_proba", "predict_log_proba"):
        np.testing.assert_array_equal(getattr(one, method)(x), getattr(two, method)(x))
    assert one.classifier_.chosen_ == two[-1].chosen_
    assert set(one.get_params()) == {
        *FeatureExtractor().get_params(),
        *HeadClassifier().get_params(),
        "columns",
    }


def test_flat_digits_as_scikit_learn_gives_them() -> None:
    x, y = load_digits(return_X_y=True)
    x, y = x[:600], y[:600]
    model = TransferClassifier(head_options={"C": 0.01}, value_range=(0, 16))
    assert cross_val_score(model, x, y, cv=2).mean() > 0.9
    assert model.fit(x, y).n_features_in_ == 64


def test_tables_with_text_labels_and_pickle(digits: Digits, tmp_path: Path) -> None:
    from PIL import Image

    x, y = digits[0][:60], digits[1][:60] % 2
    frame = pd.DataFrame({"file": [str(tmp_path / f"{i}.png") for i in range(60)]})
    for path, image in zip(frame["file"], x, strict=True):
        Image.fromarray(image).save(path)
    model = TransferClassifier(head_options={"C": 1.0}, class_weight="balanced").fit(
        frame, np.array(["even", "odd"])[y]
    )
    assert model.classes_.tolist() == ["even", "odd"]
    assert model.feature_names_in_.tolist() == ["file"]
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict_proba(frame), model.predict_proba(frame))
    (tmp_path / "7.png").write_bytes(b"")
    with pytest.raises(BadFilesError, match=r"7\.png"):
        model.predict(frame)


def test_threads_do_not_mix_up_layers(digits: Digits) -> None:
    x = digits[0][300:460]
    alone = [FeatureExtractor(layer=layer, cache=False).transform(x) for layer in LAYERS]
    with ThreadPoolExecutor(3) as pool:
        together = pool.map(lambda at: FeatureExtractor(layer=at, cache=False).transform(x), LAYERS)
        for rows, expected in zip(together, alone, strict=True):
            np.testing.assert_array_equal(rows, expected)


def test_labels_are_checked_before_the_network_runs(
    passes: Counter[str | None], digits: Digits, tmp_path: Path
) -> None:
    x = digits[0][:20]
    model = TransferClassifier(cache=tmp_path / "features")
    faults = {
        "one class": np.zeros(20),
        "inconsistent": np.arange(19) % 2,
        "Unknown label type": np.linspace(0, 1, 20),
        "NaN": np.where(np.arange(20) == 3, np.nan, 1.0),
        "y to be passed": None,
    }
    for words, y in faults.items():
        with pytest.raises(ValueError, match=words):
            model.fit(x, y)
    assert not passes
    assert not (tmp_path / "features").exists()


def test_faults_of_both_halves_are_named_together(digits: Digits) -> None:
    model = TransferClassifier(
        batch_size=0,
        image_shape="round",  # type: ignore[arg-type]
        head_options={"C": -1, "tolerance": 0},
    )
    with pytest.raises(SettingsError) as caught:
        model.fit(digits[0][:20], digits[1][:20])
    assert len(caught.value.faults) == 4
