"""New items and new classes join a run: as a refit would have them, and without the old images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import headstart
from headstart import fit, open_run, predict, update
from headstart.commands.kept_rows import ROWS_FILE
from headstart.core.errors import DataError
from headstart.core.progress import SilentReporter
from headstart.heads.registry import head_kinds

QUIET = SilentReporter()
HEADS = [kind.name for kind in head_kinds("classification")]


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def digits(*which: slice, classes: range = range(10)) -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    images = np.rint(data.images / 16 * 255).astype(np.uint8)
    rows = np.concatenate([np.arange(len(images))[part] for part in which])
    rows = rows[np.isin(data.target[rows], list(classes))]
    return images[rows], data.target[rows]


TEST = slice(1600, 1797)
FEW = range(6)


@pytest.fixture
def old(cache: Path, tmp_path: Path) -> Callable[..., Path]:
    def made(head: str = "ridge", **options: Any) -> Path:
        folder = tmp_path / f"old-{head}"
        data = {"train": digits(slice(0, 300), classes=FEW), "test": digits(TEST, classes=FEW)}
        fit(data, head=head, out=folder, cache=cache, reporter=QUIET, baselines=False, **options)
        return folder

    return made


def probabilities(run: Any, images: np.ndarray, cache: Path) -> dict[str, np.ndarray]:
    found = predict(images, run, cache=cache, reporter=QUIET)
    return {name: found.probabilities[:, k] for k, name in enumerate(found.classes)}


@pytest.mark.parametrize("head", HEADS)
def test_an_update_is_a_refit(head: str, old: Any, cache: Path, tmp_path: Path) -> None:
    folder = old(head)
    new = digits(slice(300, 420), classes=range(8))  # two classes are new
    made = update(new, folder, cache=tmp_path / "another", reporter=QUIET, out=tmp_path / "new")
    both = digits(slice(0, 300), classes=FEW), new
    train = tuple(np.concatenate(parts) for parts in zip(*both, strict=True))
    data = {"train": train, "test": digits(TEST, classes=FEW)}
    again = fit(data, head=head, write=False, cache=cache, reporter=QUIET, baselines=False)
    assert made.n_train == len(train[0])
    assert sorted(made.classes) == sorted(again.classes)
    images = digits(TEST)[0]
    joined = probabilities(tmp_path / "new", images, cache)
    whole = probabilities(again, images, cache)
    for name, values in whole.items():
        np.testing.assert_allclose(joined[name], values, atol=1e-6, err_msg=name)
    assert made.accuracy == pytest.approx(again.accuracy)


def test_the_run_is_replaced_and_stays_a_run(old: Any, cache: Path, tmp_path: Path) -> None:
    folder = old()
    notes = Notes()
    made = update(digits(slice(300, 330)), folder, cache=cache, reporter=notes)
    assert made.folder == folder
    saved = open_run(folder)
    assert saved.classes[:6] == tuple("012345")
    assert set(saved.classes) == set("0123456789")
    assert saved.evaluation.n == len(digits(TEST, classes=FEW)[0])
    assert saved.accuracy == made.accuracy
    said = " ".join(notes.said)
    assert "30 items in 10 classes, of which '6', '7', '8', '9' are new to it join" in said
    assert "stays as it was" in said
    assert "the figures say nothing about those classes" in said
    record = json.loads((folder / "run.json").read_text())["configuration"]["updates"]
    assert record == [{"added": 30, "new_classes": ["6", "7", "8", "9"]}]
    scored = headstart.evaluate(digits(TEST), folder, cache=cache, reporter=QUIET)
    assert scored.n == len(digits(TEST)[0])
    assert "headstart" in (folder / "report.html").read_text()
    more = update(digits(slice(330, 340)), folder, cache=cache, reporter=QUIET)  # and again
    assert more.n_train == made.n_train + 10
    assert len(more.configuration["updates"]) == 2


def test_no_old_image_and_no_cache_is_needed(cache: Path, tmp_path: Path) -> None:
    place = tmp_path / "data"
    for k, (image, label) in enumerate(zip(*digits(slice(0, 120)), strict=True)):
        (place / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / str(label) / f"{k}.png")
    fit(place, head="prototype", out=tmp_path / "run", cache=tmp_path / "first", reporter=QUIET)
    shutil.rmtree(place)
    shutil.rmtree(tmp_path / "first")
    made = update(digits(slice(120, 130)), tmp_path / "run", cache=cache, reporter=QUIET)
    assert made.cache.hits + made.cache.misses == 10
    assert "no test item" not in " ".join(made.notes)


def test_what_is_in_the_run_already_is_left_out(old: Any, cache: Path) -> None:
    folder = old()
    notes = Notes()
    images, labels = digits(slice(295, 305), slice(1600, 1604), slice(300, 305), classes=FEW)
    before = open_run(folder).metrics
    made = update((images, labels), folder, cache=cache, reporter=notes)
    new = len(digits(slice(300, 305), classes=FEW)[0])
    assert made.n_train == before["n_train"] + new
    said = " ".join(notes.said)
    assert "among the training items already, or given twice: skipped" in said
    assert "in the test split of the run" in said
    assert made.n_test == before["n_test"]
    with pytest.raises(DataError, match="is new to the run"):
        update(digits(slice(0, 20), classes=FEW), folder, cache=cache, reporter=QUIET)


def test_labels_that_contradict_are_refused(old: Any, cache: Path) -> None:
    folder = old()
    images, labels = digits(slice(0, 10), classes=FEW)
    with pytest.raises(DataError, match="trained this run with a different label"):
        update((images, (labels + 1) % 6), folder, cache=cache, reporter=QUIET)
    images, labels = digits(slice(300, 303), slice(300, 303))
    wrong = np.concatenate([labels[:3], (labels[3:] + 1) % 10])
    with pytest.raises(DataError, match="same content and different labels"):
        update((images, wrong), folder, cache=cache, reporter=QUIET)


def test_another_spelling_of_a_class_is_refused(cache: Path, tmp_path: Path) -> None:
    images, labels = digits(slice(0, 120), classes=range(2))
    names = np.array(["Zéro", "One"])
    fit((images, names[labels]), head="lda", out=tmp_path / "run", cache=cache, reporter=QUIET)
    images, labels = digits(slice(120, 200), classes=range(2))
    with pytest.raises(DataError, match="differ only in their spelling"):
        update(
            (images, np.array(["Zéro", "one"])[labels]),
            tmp_path / "run", cache=cache, reporter=QUIET,
        )  # fmt: skip
    decomposed = np.array(["Ze\u0301ro", "One"])  # the same name, as another system writes it
    made = update((images, decomposed[labels]), tmp_path / "run", cache=cache, reporter=QUIET)
    assert made.classes == ("One", "Zéro")


def test_of_divided_data_the_training_split_joins(old: Any, cache: Path) -> None:
    notes = Notes()
    data = {"train": digits(slice(300, 320)), "test": digits(slice(320, 340))}
    made = update(data, old(), cache=cache, reporter=notes)
    assert made.configuration["updates"][0]["added"] == 20
    assert "The source has several splits, of which only the train split is added." in notes.said


def test_runs_that_nothing_can_join_say_why(old: Any, cache: Path, tmp_path: Path) -> None:
    new = digits(slice(300, 310))
    folder = old()
    older = tmp_path / "older"
    shutil.copytree(folder, older)
    (older / ROWS_FILE).unlink()
    described = json.loads((older / "run.json").read_text())
    del described["files"][ROWS_FILE]
    (older / "run.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match=r"has no rows.safetensors.*fit again"):
        update(new, older, cache=cache, reporter=QUIET)
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    content = bytearray((damaged / ROWS_FILE).read_bytes())
    content[-1] ^= 1
    (damaged / ROWS_FILE).write_bytes(bytes(content))
    with pytest.raises(DataError, match="its SHA-256 differs"):
        update(new, damaged, cache=cache, reporter=QUIET)
    with pytest.raises(DataError, match="not a run folder"):
        update(new, tmp_path / "nothing", cache=cache, reporter=QUIET)
    assert not (tmp_path / "nothing").exists()


def test_large_runs_go_on_from_the_cache(
    old: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.commands import kept_rows

    monkeypatch.setattr(kept_rows, "MOST_BYTES", 1000)
    folder = old("lda")
    assert (folder / ROWS_FILE).stat().st_size < 100_000
    new = digits(slice(300, 310))
    with pytest.raises(DataError, match="neither in the run"):
        update(new, folder, cache=tmp_path / "empty", reporter=QUIET)
    made = update(new, folder, cache=cache, reporter=QUIET)
    monkeypatch.undo()
    small = update(new, old("lda"), cache=cache, reporter=QUIET)
    np.testing.assert_array_equal(made.head.weight, small.head.weight)  # type: ignore[attr-defined]


def test_an_update_that_fails_leaves_the_old_run(
    old: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.commands.update import job

    folder = old()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "write_run", full)
    with pytest.raises(OSError, match="No space left"):
        update(digits(slice(300, 310)), folder, cache=cache, reporter=QUIET)
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert {k: v for k, v in after.items() if not k.startswith(".")} == before
