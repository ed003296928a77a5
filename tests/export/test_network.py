"""``run.to_torch()`` and ``run.to_sklearn()`` predict what ``predict`` predicts."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import headstart
from headstart.commands.saved_run import open_run
from headstart.core.errors import BackboneError
from headstart.data.decoding import decode
from headstart.export.network import made_module
from tests.export.conftest import GLYPHS, QUIET
from tests.text_models import questions, save_sentence_model


def predicted(data: Any, run: Any, place: Path) -> np.ndarray:
    found = headstart.predict(data, run, cache=place / "cache", reporter=QUIET)
    return np.asarray(found.probabilities)


def test_images_of_any_size_as_they_are_decoded(place: Path) -> None:
    run = open_run(place / "run")
    module = run.to_torch()
    assert isinstance(module, torch.nn.Module)
    assert not module.training
    assert module.classes == run.classes
    assert module.task == "classification"
    files = sorted((place / "data").rglob("*.*"))
    expected = predicted([str(file) for file in files], run, place)
    read = module.predict([file.read_bytes() for file in files])
    np.testing.assert_allclose(read.numpy(), expected, atol=2e-6)
    for file, row in list(zip(files, expected, strict=True))[::5]:
        pixels = torch.from_numpy(np.array(decode(file.read_bytes()))).permute(2, 0, 1)[None]
        with torch.no_grad():
            np.testing.assert_allclose(module(pixels).numpy()[0], row, atol=1e-6)
            whole = module(module.preprocess(pixels))
        np.testing.assert_allclose(whole.numpy()[0], row, atol=1e-6)


def test_the_module_is_a_copy_that_can_be_trained_saved_and_copied(place: Path) -> None:
    run = open_run(place / "run")
    backbone = run.load_backbone()
    module = made_module(run.predictor(backbone))
    pixels = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8)
    before = module(pixels)
    twin = copy.deepcopy(module)
    torch.testing.assert_close(twin(pixels), before)
    other = run.to_torch()
    other.load_state_dict(module.state_dict())
    loss = -module(pixels)[:, 0].log().mean()
    loss.backward()
    assert all(p.grad is not None for p in module.head.parameters())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5)
    assert not torch.allclose(module(pixels), before, atol=1e-3)
    torch.testing.assert_close(made_module(run.predictor(backbone))(pixels), before)
    assert all(parameter.grad is None for parameter in backbone.module.parameters())


def test_texts(tmp_path: Path) -> None:
    folder = save_sentence_model(tmp_path / "model", prompt="query: ")
    texts, names = questions(60)
    with (tmp_path / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, names, strict=True)])
    run = headstart.fit(
        str(tmp_path / "data.csv"), f"hf/{folder}", head="lda", write=False,
        cache=tmp_path / "cache", reporter=QUIET,
    )  # fmt: skip
    module = run.to_torch()
    expected = predicted(texts, run, tmp_path)
    np.testing.assert_allclose(module.predict(texts).numpy(), expected, atol=1e-5)
    tokens = module.prepare(texts[:3])
    assert tokens[0].dtype == torch.int64
    np.testing.assert_allclose(module(*tokens).detach().numpy(), expected[:3], atol=1e-5)
    estimator = run.to_sklearn()
    np.testing.assert_allclose(estimator.predict_proba(texts[:5]), expected[:5], atol=1e-6)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tags.csv``: which digits a page holds. ``ink.csv``: how much ink; with a column beside."""
    place = tmp_path_factory.mktemp("pages")
    digits, rng = load_digits(), np.random.default_rng(0)
    tiles = np.rint(digits.images / 16 * 255).astype(np.uint8)
    tags, ink = [("path", "tags")], [("path", "ink", "age")]
    few = np.flatnonzero(digits.target < 3)
    for number in range(90):
        page = np.zeros((8, 16), np.uint8)
        chosen = rng.choice(few, rng.integers(1, 3), replace=False)
        for at, one in enumerate(chosen):
            page[:, 8 * at : 8 * at + 8] = tiles[one]
        Image.fromarray(page).save(place / f"{number}.png")
        tags.append((f"{number}.png", "|".join(sorted({str(digits.target[i]) for i in chosen}))))
        ink.append((f"{number}.png", str(page.mean() * 1000), str(number % 7)))
    for name, rows in (("tags", tags), ("ink", ink)):
        with (place / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return place


def test_several_labels_with_their_thresholds(pages: Path) -> None:
    run: Any = headstart.fit(
        str(pages / "tags.csv"), GLYPHS, cache=pages / "cache", write=False, reporter=QUIET
    )
    assert run.task == "multi-label"
    module = run.to_torch()
    files = [str(pages / f"{number}.png") for number in range(20)]
    found = headstart.predict(files, run, cache=pages / "cache", reporter=QUIET)
    outputs = module.predict([Path(file).read_bytes() for file in files]).numpy()
    np.testing.assert_allclose(outputs, np.asarray(found.probabilities), atol=1e-5)
    assert module.thresholds == tuple(run.head.thresholds)
    np.testing.assert_array_equal(outputs > module.thresholds, found.values)
    estimator = run.to_sklearn()
    images = [Image.open(file) for file in files]
    np.testing.assert_array_equal(estimator.predict(images), found.values)


def test_numbers_and_columns_beside_the_items(pages: Path) -> None:
    reading = {"label_column": "ink", "image_column": "path", "cache": pages / "cache"}
    run: Any = headstart.fit(
        str(pages / "ink.csv"), GLYPHS, write=False, reporter=QUIET, task="regression", **reading
    )
    module = run.to_torch()
    assert module.thresholds is None
    files = [str(pages / f"{number}.png") for number in range(20)]
    found = headstart.predict(files, run, cache=pages / "cache", reporter=QUIET)
    outputs = module.predict([Path(file).read_bytes() for file in files]).numpy()
    np.testing.assert_allclose(outputs, found.values, rtol=1e-4)
    estimator = run.to_sklearn()
    np.testing.assert_allclose(estimator.predict(files), found.values[:, 0], rtol=1e-6)
    beside: Any = headstart.fit(
        str(pages / "ink.csv"), GLYPHS, write=False, reporter=QUIET, task="regression",
        columns="age", **reading,
    )  # fmt: skip
    for hand_on in (beside.to_torch, beside.to_sklearn):
        with pytest.raises(BackboneError, match=r"joins columns of a table .*'age'"):
            hand_on()


def test_a_fitted_estimator_of_scikit_learn(place: Path) -> None:
    run = open_run(place / "run")
    estimator = run.to_sklearn()
    files = [str(file) for file in sorted((place / "data").rglob("*.*"))]
    expected = predicted(files, run, place)
    np.testing.assert_allclose(estimator.predict_proba(files), expected, atol=1e-6)
    truth = [Path(file).parent.name for file in files]
    assert estimator.score(files, truth) == np.mean(
        [run.classes[i] == name for i, name in zip(expected.argmax(1), truth, strict=True)]
    )
    assert list(estimator.classes_) == list(run.classes)
    again = estimator.fit(files, truth)  # the same kind of head, on other data
    assert again.score(files, truth) > 0.6
