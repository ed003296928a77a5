"""FeatureExtractor: the same features whatever an image comes as, and one clear error a fault."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits

from headstart.backbones import load_backbone
from headstart.core.errors import BadFilesError, HeadstartError
from headstart.data import load_items
from headstart.extraction import extract
from headstart.sklearn import FeatureExtractor, InputError, SettingsError

Digits = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def images(digits: Digits) -> np.ndarray:
    """``(12, 8, 8) uint8``."""
    return digits[0][:12]


@pytest.fixture(scope="module")
def rows(images: np.ndarray) -> np.ndarray:
    """Their features, by the road below the estimator."""
    return extract(load_backbone("headstart/glyphs"), load_items(images)).features[0]


@pytest.fixture(scope="module")
def paths(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return [str(folder / f"{i:02}.png") for i in range(len(images))]


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes()


def _colour(images: np.ndarray) -> np.ndarray:
    return np.repeat(images[:, :, :, None], 3, axis=3)


FORMS = {
    "grey": lambda images, _: images,
    "colour": lambda images, _: _colour(images),
    "colour in planes": lambda images, _: np.moveaxis(_colour(images), 3, 1),
    "tensor": lambda images, _: torch.from_numpy(np.moveaxis(_colour(images), 3, 1) / 255.0),
    "floats": lambda images, _: images / 255.0,
    "int64": lambda images, _: images.astype(np.int64),
    "list of arrays": lambda images, _: list(images),
    "array of arrays": lambda images, _: pd.Series(list(images)).to_numpy(),
    "flat": lambda images, _: images.reshape(len(images), -1),
    "flat frame": lambda images, _: pd.DataFrame(images.reshape(len(images), -1)),
    "paths": lambda _, paths: paths,
    "Path objects": lambda _, paths: [Path(path) for path in paths],
    "array of paths": lambda _, paths: np.array(paths),
    "column of paths": lambda _, paths: np.array(paths, object)[:, None],
    "series of paths": lambda _, paths: pd.Series(paths, index=range(5, 17)),
    "series of bytes": lambda _, paths: pd.Series([_bytes(path) for path in paths]),
    "frame of one column": lambda _, paths: pd.DataFrame({"file": paths}),
    "frame of several": lambda _, paths: pd.DataFrame(
        {"weight": np.arange(12.0), "file": paths, "name": "cat"}
    ),
    "hub's struct": lambda _, paths: pd.DataFrame(
        {"image": [{"bytes": _bytes(path), "path": None} for path in paths]}
    ),
    "polars": lambda _, paths: pl.DataFrame({"file": paths}),
    "arrow": lambda _, paths: pa.table({"image": [_bytes(path) for path in paths]}),
    "PIL": lambda _, paths: [Image.open(path) for path in paths],
    "paths and bytes": lambda _, paths: [*paths[:6], *map(_bytes, paths[6:])],
    "split": lambda images, _: load_items(images),
}


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_of_an_image_has_the_same_features(
    form: str, keep: bool, images: np.ndarray, paths: list[str], rows: np.ndarray
) -> None:
    extractor = FeatureExtractor(cache=None if keep else False)
    found = extractor.fit_transform(FORMS[form](images, paths))
    assert found.dtype == np.float32
    assert found.flags.writeable
    np.testing.assert_allclose(found, rows, rtol=1e-4, atol=1e-5)


def test_images_of_several_sizes(images: np.ndarray) -> None:
    found = FeatureExtractor().transform([images[0], images[1][:6], np.stack([images[2]] * 3, 2)])
    single = FeatureExtractor().transform(images[2:3])
    assert found.shape == (3, single.shape[1])
    np.testing.assert_allclose(found[2], single[0], rtol=1e-4, atol=1e-5)


def test_value_range_says_what_white_is(images: np.ndarray, rows: np.ndarray) -> None:
    raw = load_digits().images[:12]  # floats 0..16
    extractor = FeatureExtractor(value_range=(0, 16))
    np.testing.assert_allclose(extractor.fit_transform(raw), rows, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(extractor.fit_transform(raw.reshape(12, -1)), rows, atol=1e-5)
    with pytest.raises(InputError, match=r"value_range=\(0, 16\)"):
        FeatureExtractor().fit(raw)
    with pytest.warns(UserWarning, match="reach 16, and white is 255"):
        FeatureExtractor().fit(raw.astype(int))
    with pytest.warns(UserWarning, match=r"value_range=\(0, 8\)"):
        FeatureExtractor(value_range=(0, 8)).fit(raw)


def test_values_mean_the_same_in_any_batch() -> None:
    # The second image alone, all 0 and 1, could be taken for black and white of another scale.
    pair = np.zeros((2, 8, 8), np.int64)
    pair[0, 2:5] = 200
    pair[1, 2:5] = 1
    extractor = FeatureExtractor(cache=False)
    together, alone = extractor.transform(pair)[1], extractor.transform(pair[1:])[0]
    # The kernels round otherwise for one image than for two; another scale would change all.
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_flat_rows_hold_what_image_shape_says(images: np.ndarray, rows: np.ndarray) -> None:
    colour = _colour(images)
    by_pixel = FeatureExtractor(image_shape=(8, 8, 3)).transform(colour.reshape(12, -1))
    planes = np.moveaxis(colour, 3, 1).reshape(12, -1)
    by_plane = FeatureExtractor(image_shape=(3, 8, 8)).transform(planes)
    np.testing.assert_allclose(by_pixel, rows, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_plane, rows, rtol=1e-4, atol=1e-5)
    square = FeatureExtractor(image_shape="square")
    np.testing.assert_allclose(square.transform(images.reshape(12, -1)), rows, atol=1e-5)
    short = np.zeros((12, 8, 8), np.uint8)
    short.reshape(12, -1)[:, :60] = images.reshape(12, -1)[:, :60]
    np.testing.assert_allclose(
        square.transform(images.reshape(12, -1)[:, :60]),
        FeatureExtractor().transform(short),
        rtol=1e-4,
        atol=1e-5,
    )


def test_layers_and_poolings_are_those_of_the_backbone(images: np.ndarray) -> None:
    network = load_backbone("headstart/glyphs")
    expected = extract(network.at("stage1.0", "gem"), load_items(images)).features[0]
    by_name = FeatureExtractor(layer="stage1.0", pooling="gem").fit_transform(images)
    np.testing.assert_allclose(by_name, expected, rtol=1e-5, atol=1e-6)
    for given in (network, network.module):
        arguments = None if given is network else {"inputs": network.inputs}
        extractor = FeatureExtractor(
            given, layer="stage1.0", pooling="gem", backbone_args=arguments
        )
        np.testing.assert_allclose(clone(extractor).fit_transform(images), by_name, atol=1e-6)


def test_clone_and_pickle_keep_parameters_as_they_are(images: np.ndarray) -> None:
    arguments = {"size": 24}
    extractor = FeatureExtractor(layer="stage2.0", backbone_args=arguments, value_range=[0, 255])
    assert extractor.get_params()["backbone_args"] is arguments
    expected = extractor.fit_transform(images)
    for copy in (clone(extractor), pickle.loads(pickle.dumps(extractor))):
        assert copy.get_params() == extractor.get_params()
        np.testing.assert_array_equal(copy.transform(images), expected)
    assert len(pickle.dumps(extractor)) < 2000  # parameters, no weights


def test_the_network_sees_an_image_once(
    images: np.ndarray, tmp_path: Path, passes: Counter[str | None]
) -> None:
    first = FeatureExtractor(cache=tmp_path / "features").fit_transform(images)
    again = FeatureExtractor(cache=str(tmp_path / "features")).transform(images[::-1])
    np.testing.assert_array_equal(again, first[::-1])
    assert passes == {None: 12}
    FeatureExtractor(cache=False).fit_transform(images)
    assert passes == {None: 24}


def test_names_and_pandas_output(images: np.ndarray, paths: list[str]) -> None:
    frame = pd.DataFrame({"file": paths, "size": np.arange(12.0)}, index=list("abcdefghijkl"))
    table = FeatureExtractor(image_column="file").set_output(transform="pandas")
    found = table.fit_transform(frame)
    assert found.index.tolist() == list("abcdefghijkl")
    assert found.columns[:2].tolist() == ["featureextractor0", "featureextractor1"]
    assert table.feature_names_in_.tolist() == ["file", "size"]
    both = ColumnTransformer(
        [("look", FeatureExtractor(), "file"), ("keep", "passthrough", ["size"])]
    )
    assert both.set_output(transform="pandas").fit_transform(frame).columns[-1] == "keep__size"
    with pytest.raises(ValueError, match="feature names"):
        table.transform(frame.rename(columns={"size": "weight"}))
    flat = FeatureExtractor().fit(images.reshape(12, -1))
    assert flat.n_features_in_ == 64
    assert not hasattr(flat.fit(images), "n_features_in_")


BAD: dict[str, tuple[Any, str]] = {
    "a path": ("photos", "load_items"),
    "one axis": (np.zeros(12), "1D array"),
    "one image": (np.zeros((28, 28)) / 255, "28 values"),
    "five axes": (np.zeros((2, 2, 8, 8, 3)), "expected images"),
    "nothing": (np.zeros((0, 8, 8)), "0 sample"),
    "empty list": ([], "Expected 2D array|0 sample"),
    "NaN": (np.full((2, 8, 8), np.nan), "NaN"),
    "normalised": (np.full((2, 8, 8), -1.5), "value_range"),
    "uint16": (np.full((2, 8, 8), 60_000, np.uint16), "value_range"),
    "complex": (np.zeros((2, 8, 8), complex), "Complex"),
    "table of other things": (pd.DataFrame({"a": [1.0], "b": ["cat"]}), "no image column"),
    "missing path": (pd.Series(["a.png", None]), r"row 1 \(missing\)"),
    "mixed": (["a.png", 3], r"row 1 \(int\)"),
}


@pytest.mark.parametrize("fault", list(BAD))
def test_bad_data_is_a_value_error_before_anything_runs(fault: str) -> None:
    data, words = BAD[fault]
    with pytest.raises(ValueError, match=words):
        FeatureExtractor().fit(data)


def test_files_that_cannot_be_read_are_all_named(paths: list[str], tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(_bytes(paths[0])[:40])
    bad = [str(tmp_path / "torn.png"), str(tmp_path / "gone.png")]
    with pytest.raises(BadFilesError) as caught:
        FeatureExtractor().fit_transform([*paths, *bad])
    assert [where for where, _ in caught.value.files] == bad


def test_bad_bytes_are_named_by_row(paths: list[str]) -> None:
    with pytest.raises(BadFilesError, match="X item 1"):
        FeatureExtractor().transform([_bytes(paths[0]), b"no image", io.BytesIO(b"").getvalue()])


def test_all_faults_of_parameters_are_named_together() -> None:
    extractor = FeatureExtractor(
        7,  # type: ignore[arg-type]
        pooling="mean",  # type: ignore[arg-type]
        backbone_args={"weigths": "a", "layer": "b"},
        image_shape=(8,),
        value_range=(1, 0),
        cache=3,  # type: ignore[arg-type]
        batch_size=0,
        precision="int4",  # type: ignore[arg-type]
    )
    with pytest.raises(SettingsError) as caught:
        extractor.fit(np.zeros((2, 8, 8)))
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, HeadstartError)
    assert len(caught.value.faults) == 9
    assert "weights" in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"layer": "stage9.0"}, "stage"),
        ({"backbone": "headstart/glyfs"}, "glyphs"),
        ({"layer": "stage2.0", "pooling": "none"}, "pooling"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_unfit_parameters(parameters: dict[str, Any], words: str, images: np.ndarray) -> None:
    with pytest.raises(SettingsError, match=words):
        FeatureExtractor(**parameters).fit_transform(images)
