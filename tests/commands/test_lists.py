"""``predict`` takes what users hold in memory: lists of paths, PIL images, arrays, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from headstart.commands.fit.job import fit
from headstart.commands.predict.job import predict
from headstart.commands.run import Run
from headstart.core.errors import BadFilesError, DataError
from headstart.core.progress import SilentReporter
from headstart.data import load_data, load_items
from headstart.heads.registry import head_kinds

QUIET = SilentReporter()
ARRAYS = np.random.default_rng(0).integers(0, 256, (12, 16, 16), dtype=np.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run(cache: Path) -> Run:
    return fit((ARRAYS, np.arange(12) % 3), head="lda", write=False, cache=cache, reporter=QUIET)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    for i, array in enumerate(ARRAYS[:4]):
        Image.fromarray(array).save(folder / f"{i}.png")
    return [folder / f"{i}.png" for i in range(4)]


def forms(paths: list[Path]) -> dict[str, Any]:
    pictures = [Image.fromarray(array) for array in ARRAYS[:4]]
    objects = np.empty(4, dtype=object)
    objects[:] = pictures
    return {
        "paths": paths,
        "text": [str(path) for path in paths],
        "tuple of text": tuple(str(path) for path in paths),
        "array of text": np.array([str(path) for path in paths]),
        "series": pd.Series([str(path) for path in paths]),
        "PIL": pictures,
        "tuple of PIL": tuple(pictures),
        "array of PIL": objects,
        "array": ARRAYS[:4],
        "list of arrays": list(ARRAYS[:4]),
        "bytes": [path.read_bytes() for path in paths],
        "as on the hub": [{"bytes": path.read_bytes(), "path": None} for path in paths],
        "mixed": [paths[0], pictures[1], ARRAYS[2], paths[3].read_bytes()],
    }


def test_every_form_is_the_same_images(run: Run, paths: list[Path], cache: Path) -> None:
    wanted = predict(ARRAYS[:4], run, cache=cache, reporter=QUIET).probabilities
    for name, form in forms(paths).items():
        found = predict(form, run, cache=cache, reporter=QUIET)
        np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-5, err_msg=name)
    assert predict(paths, run, cache=cache, reporter=QUIET).origins == tuple(map(str, paths))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_lists_of_few_arrays_are_images(size: int, run: Run, cache: Path) -> None:
    assert len(predict(list(ARRAYS[:size]), run, cache=cache, reporter=QUIET)) == size


def test_one_picture_is_one_image(run: Run, cache: Path) -> None:
    assert len(predict(Image.fromarray(ARRAYS[0]), run, cache=cache, reporter=QUIET)) == 1


def test_pairs_of_images_and_labels_stay_pairs(run: Run, cache: Path) -> None:
    for pair in ((ARRAYS[:2], np.arange(2)), [ARRAYS[:2], np.arange(2)]):
        assert len(predict(pair, run, cache=cache, reporter=QUIET)) == 2


@pytest.mark.parametrize(
    "empty", [[], (), np.empty((0, 16, 16), np.uint8), pd.Series([], dtype=str)]
)
def test_of_nothing_nothing_is_predicted(empty: Any, run: Run, cache: Path, tmp_path: Path) -> None:
    table = tmp_path / "predictions.csv"
    found = predict(empty, run, cache=cache, table=table, reporter=QUIET)
    assert (len(found), found.labels, found.probabilities.shape) == (0, (), (0, 3))
    assert table.read_text().splitlines()[0].startswith('"item"')


@pytest.mark.parametrize("name", [kind.name for kind in head_kinds("classification")])
def test_a_head_predicts_nothing_of_no_rows(name: str, cache: Path) -> None:
    options = {"epochs": 1} if name == "mlp" else {}
    data = (ARRAYS, np.arange(12) % 3)
    head = fit(data, head=name, head_options=options, write=False, cache=cache, reporter=QUIET).head
    for nothing in ([], np.empty((0, head.n_features))):
        assert head.predict(nothing).shape == (0,)
        assert head.predict_proba(nothing).shape == (0, 3)


def test_what_is_no_list_of_images_is_told(run: Run, paths: list[Path], cache: Path) -> None:
    with pytest.raises(DataError, match="none of the 2 strings of the list names a file"):
        load_items(["what a day", "who is it"], kind="image")
    with pytest.raises(DataError, match=r"entry 1 \(NoneType\), 2 \(int\)"):
        load_items([paths[0], None, 3])
    with pytest.raises(BadFilesError, match=r"none\.png"):
        predict([paths[0], paths[0].with_name("none.png")], run, cache=cache, reporter=QUIET)
    skipped = predict(
        [paths[0], paths[0].with_name("none.png")], run, cache=cache, on_bad="skip", reporter=QUIET
    )
    assert len(skipped) == 1
    with pytest.raises(DataError):
        load_data(paths)  # without labels nothing is learnt
