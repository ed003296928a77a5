"""What images have, texts have: every command and the estimators, in every form of data."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.model_selection import GridSearchCV

from headstart.commands import cli
from headstart.commands.compare.job import compare
from headstart.commands.examine.job import examine
from headstart.commands.finetune.job import finetune, plan_finetune
from headstart.commands.finetune.plan_table import plan_table
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import predict
from headstart.commands.sweep.job import sweep
from headstart.core.progress import SilentReporter
from headstart.finetuning import Recipe, Stage
from headstart.sklearn import FeatureExtractor, InputError, TransferClassifier
from tests.text_models import questions, save_model, save_sentence_model

QUIET = SilentReporter()
LAST = Recipe("last", (Stage("last", ("last:1", "head"), epochs=2, lr=1e-3),), "probe")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"hf/{save_sentence_model(tmp_path_factory.mktemp('model') / 'm')}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run(model: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(
        {"train": questions(120), "test": questions(60, 1)}, model, out=folder, cache=cache,
        reporter=QUIET,
    )  # fmt: skip
    return folder


def speaks_of_images(page: str) -> bool:
    """Return whether the words of a page do; its figures and settings may."""
    words = re.sub(r"<svg.*?</svg>|<[^>]*>", " ", page.split("<body", 1)[1], flags=re.DOTALL)
    for setting in ("image_column", "image_folder", "image_suffix"):
        words = words.replace(setting, "")
    found = re.findall(r".{30}\bimages?\b.{30}", words.lower())
    return bool(found)


# The estimators


@pytest.mark.slow
def test_estimators_take_lists_series_arrays_and_columns(model: str, cache: Path) -> None:
    texts, labels = questions(80)
    extractor = FeatureExtractor(model, cache=cache)
    rows = extractor.fit_transform(texts)
    assert rows.shape == (80, 32)
    table = pd.DataFrame({"question": texts})
    wide = pd.DataFrame({"n": range(80), "question": texts})
    forms: list[Any] = [
        tuple(texts), np.array(texts), np.array(texts, dtype=object), pd.Series(texts), table,
        table.convert_dtypes(),
    ]  # fmt: skip
    for form in forms:
        np.testing.assert_array_equal(extractor.fit(form).transform(form), rows)
    named = FeatureExtractor(model, cache=cache, text_column="question")
    np.testing.assert_array_equal(named.fit_transform(wide), rows)
    np.testing.assert_array_equal(extractor.fit_transform(wide), rows)
    search = GridSearchCV(
        TransferClassifier(model, cache=cache, head="linear"),
        {"layer": [None, "model.encoder.layer.0"]},
        cv=3,
        error_score="raise",
    ).fit(texts, labels)
    assert search.best_score_ > 0.7
    assert search.predict(["the cat sleeps", "a stone falls"]).shape == (2,)


def test_estimators_refuse_what_is_no_text(model: str) -> None:
    with pytest.raises(InputError, match=r"a text in every row, found row 1 \(missing\), row 2"):
        FeatureExtractor(model, cache=False).fit(["the cat", None, 3])
    with pytest.raises(InputError, match="expected images or texts, one a row, found the string"):
        FeatureExtractor(model, cache=False).fit("the cat")
    with pytest.raises(ValueError, match="image_column and text_column are both given"):
        FeatureExtractor(model, image_column="a", text_column="b", cache=False).fit(["the cat"])


def test_strings_that_name_no_file_are_texts_where_the_data_choose(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.backbones import choice

    monkeypatch.setattr(choice, "text_default", lambda: model)
    chosen = FeatureExtractor(cache=False).fit(["the cat", "a dog"])
    assert chosen.backbone_ == model
    assert chosen.transform(["cat.jpg"]).shape == (1, 32)  # a text, once texts were chosen


# Sources for predict


def _folder(texts: list[str], where: Path) -> Path:
    (where / "texts").mkdir()
    for i, text in enumerate(texts):
        (where / "texts" / f"{i:02}.txt").write_text(text)
    return where / "texts"


def _csv(texts: list[str], where: Path) -> Path:
    with (where / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["question"], *([text] for text in texts)])
    return where / "t.csv"


def _json_lines(texts: list[str], where: Path) -> Path:
    lines = [json.dumps({"question": text}) for text in texts]
    (where / "t.jsonl").write_text("\n".join(lines))
    return where / "t.jsonl"


def _parquet(texts: list[str], where: Path) -> Path:
    pd.DataFrame({"question": texts}).to_parquet(where / "t.parquet")
    return where / "t.parquet"


def _hub(texts: list[str], where: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict({"question": texts})


def _series(texts: list[str], where: Path) -> Any:
    return pd.Series(texts)


def _list(texts: list[str], where: Path) -> Any:
    return texts


@pytest.mark.parametrize(
    "form", [_folder, _csv, _json_lines, _parquet, _hub, _series, _list], ids=lambda f: f.__name__
)
def test_predict_reads_every_form(
    form: Callable[[list[str], Path], Any], run: Path, cache: Path, tmp_path: Path
) -> None:
    texts, _ = questions(12, 2)
    expected = predict(texts, run, cache=cache, reporter=QUIET).labels
    found = predict(form(texts, tmp_path), run, cache=cache, reporter=QUIET)
    assert list(found.labels) == list(expected)


def test_one_text_and_none(run: Path, cache: Path) -> None:
    assert len(predict(["the cat"], run, cache=cache, reporter=QUIET).labels) == 1
    assert len(predict([], run, cache=cache, reporter=QUIET).labels) == 0


# Sweep, compare, examine, finetune


@pytest.mark.slow
def test_sweep_over_layers(model: str, cache: Path) -> None:
    found = sweep(
        {"train": questions(90), "test": questions(40, 1)}, model, cache=cache,
        layers=",".join(f"model.encoder.layer.{i}" for i in range(3)),  # as on a command line
        heads=("linear",), folds=3, write=False, reporter=QUIET,
    )  # fmt: skip
    views = {each.view for each in found.sweep.candidates}
    assert len(views) == 3
    assert found.run is not None
    assert len(predict(["the cat"], found.run, cache=cache, reporter=QUIET).labels) == 1


@pytest.mark.slow
def test_compare_names_live_dropout_padding_and_length(model: str, cache: Path) -> None:
    configs = "eval,dropout,unmasked,unframed,truncated,max_length=5"
    found = compare(
        {"train": questions(160), "test": questions(80, 1)}, model, configs=configs, cache=cache,
        repeats=2, write=False, reporter=QUIET,
    ).comparison  # fmt: skip
    said = "\n".join(each.text for each in found.findings)
    assert "With dropout, dropout is on in the frozen backbone" in said
    assert "With unmasked, padding counts as text" in said
    assert "With unframed, texts lack the special tokens" in said
    assert "With max_length=5, nothing is read of a text behind token 5, instead of 24" in said
    assert {each.name for each in found.outcomes} >= set(configs.split(",")[1:])
    assert "image" not in said


@pytest.mark.slow
def test_examine_shows_leaks_and_doubtful_labels_as_texts(
    model: str, cache: Path, tmp_path: Path
) -> None:
    texts, labels = questions(160)
    test, truth = questions(40, 1)
    test[3] = texts[5].upper()  # the tokenizer does not see the difference
    labels[8] = "thing" if labels[8] == "animal" else "animal"
    found = examine(
        {"train": (texts, labels), "test": (test, truth)}, model, cache=cache,
        out=tmp_path / "run", repetitions=2, reporter=QUIET,
    )  # fmt: skip
    assert found.near_copies
    page = (tmp_path / "run" / "report.html").read_text()
    assert texts[5] in page
    if found.doubts:
        shown = int(found.doubts[0].item.rsplit(" ", 1)[-1])
        assert texts[shown] in page
    assert not speaks_of_images(page)


@pytest.mark.slow
def test_finetuning_speaks_of_texts(model: str, cache: Path, tmp_path: Path) -> None:
    data = {"train": questions(60), "test": questions(30, 1)}
    plan = plan_finetune(data, model, LAST, cache=cache, reporter=QUIET)
    console = Console(width=200, record=True, quiet=False, file=(tmp_path / "o").open("w"))
    console.print(plan_table(plan))
    text = console.export_text()
    assert "nowhere: from the texts" in text
    assert "image" not in text
    finetune(
        data, model, LAST, stored="off", cache=cache, out=tmp_path / "run", baselines=False,
        reporter=QUIET,
    )  # fmt: skip
    page = (tmp_path / "run" / "report.html").read_text()
    assert "texts" in page
    assert not speaks_of_images(page)
    assert "NEW_TEXTS" in page


def test_a_report_of_texts_does_not_speak_of_images(run: Path) -> None:
    assert not speaks_of_images((run / "report.html").read_text())


def test_a_decoder_is_pooled_at_its_last_token(cache: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "gpt2", "gpt2")
    data = {"train": questions(80), "test": questions(40, 1)}
    found = fit(data, f"hf/{folder}", cache=cache, write=False, reporter=QUIET)
    assert any("the last token, since it reads from left to right" in n for n in found.notes)
    assert found.evaluation.accuracy.value > 0.5


def test_truncation_is_counted_and_recorded(model: str, cache: Path) -> None:
    data = {"train": questions(80), "test": questions(40, 1)}
    found = fit(data, model, max_length=6, cache=cache, write=False, reporter=QUIET)
    texts = [*data["train"][0], *data["test"][0]]
    longer = sum(len(text.split()) + 2 > 6 for text in texts)
    said = f"Longer than 6 tokens; the rest is not read: {longer} texts"
    assert any(note.startswith(said) for note in found.notes)
    again = fit(data, model, max_length=6, cache=cache, write=False, reporter=QUIET)
    assert again.cache.misses == 0
    assert any(note.startswith(said) for note in again.notes)


@pytest.mark.slow
def test_the_command_line_reads_a_folder_of_classes_of_txt_files(
    model: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, (texts, labels) in {"train": questions(40), "test": questions(20, 1)}.items():
        for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
            (tmp_path / "data" / name / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name / label / f"{i}.txt").write_text(text)
    words = ["fit", str(tmp_path / "data"), "-b", model, "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["headstart", *words, "--cache", str(cache)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    out = capsys.readouterr().out
    assert "NEW_TEXTS" in out
    assert "image" not in out
