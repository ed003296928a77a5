"""``headstart similar``: items like others, whatever is asked for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import headstart
from headstart.commands.cli import app
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import SilentReporter
from tests.image_models import save_image_model
from tests.text_models import questions, save_sentence_model, tokenizer

QUIET = SilentReporter()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawings of three digits, of which one lies there three times."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("similar")
    digits = load_digits()
    for i in range(150):
        if digits.target[i] > 2:
            continue
        name = folder / "data" / "abc"[digits.target[i]] / f"{i:03}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((255 - digits.images[i] * 15).astype(np.uint8))
        image.save(name)
        if i == 0:
            image.save(name.with_name("copy.png"))
            (folder / "data" / "b").mkdir()
            image.save(folder / "data" / "b" / "misplaced.png")
            image.save(folder / "outside.png")
    return folder


def find(place: Path, queries: object, **more: object) -> headstart.commands.similar.found.Similar:
    return headstart.similar(
        place / "data", queries, "headstart/glyphs", cache=place / "cache", reporter=QUIET, **more
    )


def test_an_item_is_not_found_for_itself_nor_are_its_copies(place: Path) -> None:
    for query in ("a/000.png", place / "outside.png"):
        (answer,) = find(place, query, k=5).answers
        assert set(answer.itself) == {"a/000.png", "a/copy.png", "b/misplaced.png"}
        names = [match.item for match in answer.matches]
        assert len(set(names)) == 5
        assert not set(names) & set(answer.itself)
        assert [m.similarity for m in answer.matches] == sorted(
            (m.similarity for m in answer.matches), reverse=True
        )
        assert answer.matches[0].label == "a"


def test_an_image_in_memory_has_no_file_to_be_known_by_and_finds_its_like(place: Path) -> None:
    (answer,) = find(place, [Image.open(place / "outside.png")], k=2).answers
    assert not answer.itself
    assert answer.matches[0].similarity == pytest.approx(1, abs=1e-5)
    assert answer.matches[0].copies == 2


def test_copies_are_found_once_and_counted(place: Path) -> None:
    found = find(place, "a/010.png", k=1000)
    (answer,) = found.answers
    many = f"{len(answer.matches)} other items of different content"
    assert f"1,000 items were asked for, and the data hold {many}" in found.notes
    copied = [match for match in answer.matches if match.copies]
    assert len(copied) == 1
    assert copied[0].copies == 2
    assert len(answer.matches) == len(found.among) - 1 - 2
    assert (
        find(place, "a/010.png", k=1000, compare="euclidean").answers[0].matches[0].similarity < 0
    )


def test_several_queries_keep_their_order_and_are_written(place: Path, tmp_path: Path) -> None:
    asked = ["b/001.png", str(place / "outside.png"), "c/002.png"]
    found = find(place, asked, k=3, table=tmp_path / "s.csv", page=tmp_path / "s.html")
    assert [Path(answer.query.name).name for answer in found.answers] == [
        "001.png", "outside.png", "002.png",
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert len(rows) == 9
    assert list(rows[0]) == ["query", "rank", "item", "split", "label", "similarity", "copies"]
    text = (tmp_path / "s.html").read_text()
    assert text.count("<img") == 12
    assert "<script" not in text
    assert "in the data itself" in text


def test_a_run_is_searched_as_its_data_are(place: Path, tmp_path: Path) -> None:
    headstart.fit(
        place / "data", "headstart/glyphs", cache=place / "cache", out=tmp_path / "run",
        baselines=False, reporter=QUIET,
    )  # fmt: skip
    found = headstart.similar(
        tmp_path / "run", "a/010.png", cache=place / "cache", reporter=QUIET, k=4
    )
    of_data = find(place, "a/010.png", k=4)
    assert [m.item for m in found.answers[0].matches] == [
        m.item for m in of_data.answers[0].matches
    ]
    assert {m.split for m in found.answers[0].matches} <= {"train", "test"}


def test_an_index_is_built_and_found_again(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    index = tmp_path / "i.usearch"
    first = find(place, "a/010.png", k=5, index=index)
    again = find(place, "a/010.png", k=5, index=index)
    assert first.recall == again.recall
    assert any("built the index" in note for note in first.notes)
    assert any("found the index" in note for note in again.notes)
    exact = find(place, "a/010.png", k=5)
    every = find(place, "a/010.png", k=5000, index=index)
    assert any("5,000 items were asked for, and the index found" in note for note in every.notes)
    assert [m.item for m in again.answers[0].matches] == [m.item for m in exact.answers[0].matches]


@pytest.mark.slow
def test_texts_find_texts(tmp_path: Path) -> None:
    model = f"hf/{save_sentence_model(tmp_path / 'model')}"
    texts, labels = questions(80)
    found = headstart.similar(
        {"train": (texts, labels)}, ["who wrote this, and when", texts[3]], model,
        cache=tmp_path / "cache", reporter=QUIET, k=3,
    )  # fmt: skip
    new, known = found.answers
    assert not new.itself
    assert known.itself
    assert texts[3] not in {m.item for m in known.matches}
    assert len(new.matches) == 3


@pytest.mark.slow
def test_texts_find_pictures_where_the_backbone_has_a_tower_of_them(
    place: Path, tmp_path: Path
) -> None:
    save_image_model(tmp_path / "clip", "clip")
    tokenizer().save_pretrained(tmp_path / "clip")
    model = f"hf/{tmp_path / 'clip'}"
    found = headstart.similar(
        place / "data", ["a red car", "a/010.png"], model, cache=tmp_path / "cache",
        reporter=QUIET, k=3, page=tmp_path / "p.html",
    )  # fmt: skip
    text, item = found.answers
    assert text.query.towers
    assert not text.itself
    assert len(text.matches) == len(item.matches) == 3
    assert "a red car" in (tmp_path / "p.html").read_text()


def test_what_cannot_be_found_out_is_said(place: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither a file nor an item.*'a/010.png'"):
        find(place, "a/01.png")
    with pytest.raises(ConfigError, match="nothing to search for"):
        find(place, [])
    with pytest.raises(ConfigError, match="no text tower"):
        find(place, None, text="a red car")
    with pytest.raises(ConfigError, match="must end in"):
        find(place, "a/010.png", table=tmp_path / "x.txt")
    with pytest.raises(ConfigError, match="there is no folder"):
        find(place, "a/010.png", page=tmp_path / "no" / "x.html")
    with pytest.raises(ConfigError, match="one row each"):
        find(place, "a/010.png", layer="stage2", pooling="none")


def test_the_command_line(place: Path, tmp_path: Path) -> None:
    words = ["similar", str(place / "data"), "a/010.png", "-b", "headstart/glyphs", "--cache",
             str(place / "cache"), "-k", "3"]  # fmt: skip
    run = CliRunner().invoke(app, [*words, "--json"])
    assert run.exit_code == 0, run.output
    said = json.loads(run.stdout)
    assert [row["rank"] for row in said] == [1, 2, 3]
    run = CliRunner().invoke(app, [*words, "-q"])
    assert [line.split("\t")[1] for line in run.stdout.splitlines()] == [r["item"] for r in said]
    run = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "s.csv")])
    assert run.exit_code == 0
    assert "cosine" in run.stdout
    assert "not shown as a result" in run.stderr
