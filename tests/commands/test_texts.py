"""Texts through the commands."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from headstart.backbones import load_backbone
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import predict
from headstart.commands.saved_run import open_run
from headstart.core.errors import BadFilesError, DataError
from headstart.core.progress import SilentReporter
from tests.text_models import questions, save_sentence_model

QUIET = SilentReporter()
DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"hf/{save_sentence_model(tmp_path_factory.mktemp('model') / 'm')}"


def data(count: int = 120) -> dict[str, tuple[list[str], list[str]]]:
    return {"train": questions(count), "test": questions(60, 1)}


def test_fit_and_predict(model: str, tmp_path: Path) -> None:
    run = fit(data(), model, out=tmp_path / "run", cache=tmp_path / "cache", reporter=QUIET)
    assert run.evaluation.accuracy.value > 0.75
    assert [each.name for each in run.baselines] == ["majority class", "TF-IDF"]
    assert run.baselines[1].accuracy.value > 0.9
    again = fit(data(), model, write=False, cache=tmp_path / "cache", reporter=QUIET)
    assert again.cache.misses == 0
    texts, labels = questions(30, 2)
    said = predict(texts, tmp_path / "run", cache=tmp_path / "cache", reporter=QUIET)
    assert np.mean([a == b for a, b in zip(said.labels, labels, strict=True)]) > 0.6
    page = (tmp_path / "run" / "report.html").read_text()
    assert "TF-IDF weights of" in page
    wrong = [t for t, y in zip(*questions(60, 1), strict=True) if t in page]
    assert wrong, "no text is shown"


def test_a_run_names_its_model_by_place_and_digest(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model.removeprefix("hf/"), folder)
    fit(
        data(), "hf/it", weights=str(folder), out=tmp_path / "run", cache=tmp_path / "cache",
        reporter=QUIET,
    )  # fmt: skip
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["backbone"]["source"] == f"hf/{folder}"
    texts, _ = questions(4, 2)
    opened = open_run(tmp_path / "run")
    assert len(predict(texts, opened, cache=tmp_path / "cache", reporter=QUIET).labels) == 4
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(DataError, match="are not those that the run"):
        predict(texts, tmp_path / "run", cache=tmp_path / "cache", reporter=QUIET)
    del described["built_from"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match="without a digest of its weights: it is not opened"):
        predict(texts, tmp_path / "run", cache=tmp_path / "cache", reporter=QUIET)


@pytest.mark.parametrize("how", ["folder", "files", "subfolder"])
def test_a_run_finds_a_model_behind_links(how: str, model: str, tmp_path: Path) -> None:
    """A linked folder, linked files as in the hub's cache, a transformer in a subfolder."""
    source, place = Path(model.removeprefix("hf/")), tmp_path / "place"
    if how == "folder":
        place.symlink_to(source)
    elif how == "files":
        for file in source.rglob("*"):
            if file.is_file():
                link = place / file.relative_to(source)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)
    else:
        shutil.copytree(source, place)
        (place / "0_Transformer").mkdir()
        for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
            (place / name).rename(place / "0_Transformer" / name)
        modules = json.loads((place / "modules.json").read_text())
        modules[0]["path"] = "0_Transformer"
        (place / "modules.json").write_text(json.dumps(modules))
    cache = tmp_path / "cache"
    fit(data(), f"hf/{place}", out=tmp_path / "run", cache=cache, reporter=QUIET)
    assert len(predict(["the cat"], tmp_path / "run", cache=cache, reporter=QUIET).labels) == 1


def test_empty_texts_are_bad_items(model: str, tmp_path: Path) -> None:
    train, test = data().values()
    train[0][3], train[0][7] = "", " \n "
    with pytest.raises(BadFilesError, match=r"2 items cannot be read.*the text is empty"):
        fit(
            {"train": train, "test": test}, model, cache=tmp_path / "c", write=False, reporter=QUIET
        )
    run = fit(
        {"train": train, "test": test}, model, cache=tmp_path / "c", write=False, on_bad="skip",
        reporter=QUIET,
    )  # fmt: skip
    assert run.n_train == 118


def test_texts_for_a_backbone_of_images(tmp_path: Path) -> None:
    pd.DataFrame(dict(zip(("text", "label"), questions(20), strict=True))).to_csv(
        tmp_path / "all.csv", index=False
    )
    with pytest.raises(DataError, match=r"data are texts.*backbone='hf/"):
        fit(
            tmp_path / "all.csv",
            "headstart/glyphs",
            cache=tmp_path / "c",
            write=False,
            reporter=QUIET,
        )


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "trec").is_dir(), reason="needs ../shared/data")
def test_trec_with_minilm(tmp_path: Path) -> None:
    run = fit(
        DATA / "trec", f"hf/{DATA / 'weights' / 'minilm'}", out=tmp_path / "run",
        cache=tmp_path / "cache", reporter=QUIET,
    )  # fmt: skip
    assert run.evaluation.accuracy.value >= 0.9
    majority, words = run.baselines
    assert words.name == "TF-IDF"
    assert 0.85 < words.accuracy.value < 0.9
    assert majority.accuracy.value < 0.3
    backbone = load_backbone(f"hf/{DATA / 'weights' / 'minilm'}")
    assert backbone.inputs.max_length == 256
    with (DATA / "trec" / "test.csv").open() as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    said = predict(texts[:5], tmp_path / "run", cache=tmp_path / "cache", reporter=QUIET)
    assert len(said.labels) == 5
