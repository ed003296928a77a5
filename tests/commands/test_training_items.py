"""evaluate scores what is new: items that trained a run are known by their content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.commands.saved_run import open_run
from headstart.core.errors import DataError
from headstart.core.progress import SilentReporter

QUIET = SilentReporter()


class Listening(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def image(i: int) -> Image.Image:
    """A noisy square, dark or light."""
    noise = np.random.default_rng(i).integers(0, 60, (24, 24, 3))
    return Image.fromarray((noise + (i % 2) * 150).astype(np.uint8))


def make_folder(root: Path, numbers: range, name: str = "{i}.png") -> Path:
    for i in numbers:
        folder = root / ("light" if i % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        image(i).save(folder / name.format(i=i))
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images that trained and tested a run of ``fit``."""
    place = tmp_path_factory.mktemp("place")
    make_folder(place / "data" / "train", range(30))
    make_folder(place / "data" / "test", range(30, 40))
    headstart.fit(place / "data", out=place / "run", cache=place / "cache", reporter=QUIET)
    return place


def evaluate(place: Path, data: object, run: object = None, **more: object):
    listening = Listening()
    scores = headstart.evaluate(
        data, run or place / "run", cache=place / "cache", reporter=listening, **more
    )
    return scores, " | ".join(listening.said)


def test_digits_as_the_issue_has_it(tmp_path):
    run = headstart.fit("digits", out=tmp_path / "run", cache=tmp_path / "cache", reporter=QUIET)
    scores, said = evaluate(tmp_path, "digits")
    assert scores.n == run.n_test == 359  # 1,797 before, at 100 %
    assert scores.accuracy == run.evaluation.accuracy
    assert "1,438 of 1,797 items have trained this run and are skipped: 359 are new" in said
    scores, said = evaluate(tmp_path, "digits", include_training=True)
    assert scores.n == 1797
    assert "1,438 of 1,797 items have trained this run: the score is too optimistic" in said


def test_what_is_new_alone_is_scored_without_a_word(place, tmp_path):
    scores, said = evaluate(place, make_folder(tmp_path / "new", range(50, 60)))
    assert scores.n == 10
    assert "trained this run" not in said


@pytest.mark.parametrize("how", ["renamed", "moved", "copied twice", "table", "parquet", "relabel"])
def test_items_are_known_by_content_and_not_by_path(place, tmp_path, how):
    data = tmp_path / "data"
    make_folder(data, range(20, 30), "{i}.png" if how == "moved" else "other {i}.png")
    make_folder(data, range(50, 56))
    source: Path = data
    rows = [(path, path.parent.name) for path in sorted(data.rglob("*.png"))]
    if how == "copied twice":
        make_folder(data, range(20, 30), "again {i}.png")
    elif how == "relabel":
        for name in ("dark", "light"):
            (data / name).rename(data / f"_{name}")
        (data / "_dark").rename(data / "light")
        (data / "_light").rename(data / "dark")
    elif how == "table":
        source = tmp_path / "table.csv"
        lines = [f"data/{path.relative_to(data)},{label}" for path, label in rows]
        source.write_text("\n".join(["image,label", *lines]))
    elif how == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        source = tmp_path / "table.parquet"
        images = [path.read_bytes() for path, _ in rows]
        pq.write_table(pa.table({"image": images, "label": [label for _, label in rows]}), source)
    scores, said = evaluate(place, source)
    assert scores.n == 6
    assert "10 of 16" in said or "20 of 26" in said


def test_nothing_new_is_refused_unless_it_is_asked_for(place, tmp_path):
    data = make_folder(tmp_path / "old", range(4, 12), "x{i}.png")
    with pytest.raises(DataError, match=r"all 8 items .* trained this run.*include_training=True"):
        evaluate(place, data)
    assert evaluate(place, data, include_training=True)[0].n == 8


def test_a_run_in_memory_knows_them_too(place, tmp_path):
    run = headstart.fit(
        place / "data", write=False, cache=place / "cache", reporter=QUIET, baselines=False
    )
    scores, said = evaluate(place, make_folder(tmp_path / "mixed", range(25, 35)), run)
    assert scores.n == 5
    assert "5 of 10 items have trained this run" in said


@pytest.mark.parametrize("job", ["finetune", "sweep"])
def test_every_job_that_leaves_a_run_keeps_them(place, tmp_path, job):
    out = tmp_path / "run"
    more = {"out": out, "cache": place / "cache", "reporter": QUIET}
    if job == "finetune":
        headstart.finetune(place / "data", recipe="linear-probe", epochs=1, **more)
    else:
        headstart.sweep(place / "data", heads=("linear",), grid=(1.0,), **more)
    with pytest.raises(DataError, match="all 30 items"):
        evaluate(place, make_folder(tmp_path / "old", range(30)), out)
    scores, _ = evaluate(place, make_folder(tmp_path / "test", range(30, 40)), out)
    assert scores.n == 10
    kept = open_run(out).trained_on
    assert kept is not None
    assert sum(map(len, kept.values())) == 30  # those that chose the epoch are among them


def test_near_copies_of_training_items_are_said(place, tmp_path):
    data = make_folder(tmp_path / "new", range(50, 60))
    for i in (2, 3):  # the same pictures in other bytes
        image(i).save(data / ("light" if i % 2 else "dark") / f"near{i}.bmp")
    scores, said = evaluate(place, data)
    assert scores.n == 12
    assert "2 scored items nearly equal an item that trained this run (such as" in said


def test_an_unreadable_item_does_not_disturb_the_count(place, tmp_path):
    data = make_folder(tmp_path / "mixed", range(25, 35))
    (data / "dark" / "broken.png").write_bytes(b"not an image")
    scores, said = evaluate(place, data, on_bad="skip")
    assert scores.n == 5
    assert "5 of 11 items have trained this run" in said


def test_an_older_run_folder_opens_and_says_what_it_lacks(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    description = json.loads((tmp_path / "run" / "run.json").read_text())
    del description["training_items"]
    (tmp_path / "run" / "run.json").write_text(json.dumps({**description, "format": 2}))
    (tmp_path / "run" / "training_items.json").unlink()
    scores, said = evaluate(place, place / "data" / "test", tmp_path / "run")
    assert scores.n == 10
    assert "does not record its training items" in said


@pytest.mark.parametrize("damage", ["other", "gone", "torn", "nested"])
def test_a_list_that_is_not_the_one_of_the_run_is_refused(place, tmp_path, damage):
    shutil.copytree(place / "run", tmp_path / "run")
    file = tmp_path / "run" / "training_items.json"
    text = {"other": '{"format":1,"ids":{}}', "torn": file.read_text()[:50], "nested": "[" * 99999}
    if damage == "gone":
        file.unlink()
    else:
        file.write_text(text[damage])
    with pytest.raises(DataError, match=r"training_items\.json"):
        evaluate(place, place / "data" / "test", tmp_path / "run")


def test_the_file_says_nothing_of_places(place):
    text = (place / "run" / "training_items.json").read_text()
    assert str(place) not in text
    assert "dark" not in text


def test_the_command_has_a_flag(place, tmp_path, monkeypatch, capsys):
    from headstart.commands import cli

    data = make_folder(tmp_path / "old", range(4, 12))
    words = ["headstart", "evaluate", str(place / "run"), str(data)]
    words += ["--cache", str(place / "cache")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "--include-training" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*words, "--include-training"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
