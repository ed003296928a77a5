"""fit, predict and evaluate, from Python, on the embedded data."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

import headstart
from headstart.backbones import load_backbone
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import evaluate, predict
from headstart.commands.run_place import KNOWN
from headstart.commands.saved_run import open_run
from headstart.core.errors import BackboneError, BadFilesError, ConfigError, DataError
from headstart.core.progress import SilentReporter
from headstart.data import Preprocessing, load_data
from headstart.data.decoding import image_of

QUIET = SilentReporter()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def few_digits():
    """Three hundred digits, so that a fit takes a second."""
    data = load_data("digits")
    # Drawn at random: the digits are ordered by writer.
    chosen = data.train.take(np.random.default_rng(0).permutation(len(data.train))[:400])
    x = np.stack([np.asarray(image_of(chosen.content(i))) for i in range(400)])
    y = np.array(data.classes)[chosen.labels]
    return load_data({"train": (x[:300], y[:300]), "test": (x[300:], y[300:])})


@pytest.fixture(scope="module")
def run(few_digits, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "digits"
    return fit(few_digits, out=out, cache=cache, reporter=QUIET)


def test_the_run_is_good_and_says_what_it_rests_on(run):
    assert run.accuracy > 0.9
    assert (run.n_train, run.n_test) == (300, 100)
    interval = run.evaluation.accuracy.interval
    assert interval.low < run.accuracy <= interval.high
    assert (interval.method, interval.n) == ("exact", 100)
    names = [baseline.name for baseline in run.baselines]
    assert names == ["majority class", "raw pixels"]
    assert run.baselines[1].accuracy.value < run.accuracy


def test_the_folder_is_complete(run):
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {
        "run.json",
        "metrics.json",
        "head.json",
        "head.safetensors",
        "report.html",
        "confusion.png",
        "curves.png",
    }
    assert names <= KNOWN  # a file of the user's that has such a name is never overwritten
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["accuracy"] == run.accuracy
    assert metrics["cache"] == {"hits": 0, "misses": 400}
    assert metrics["seconds"]["extract"] > 0
    assert metrics["images_per_second"] > 0
    description = json.loads((run.folder / "run.json").read_text())
    assert description["configuration"]["seed"] == 0
    assert set(description["fingerprints"]) == {"backbone", "train", "test"}
    assert description["environment"]["packages"]["torch"]


def test_a_second_run_makes_no_forward_pass_and_agrees(run, few_digits, cache, tmp_path):
    said: list[str] = []

    class Listening(SilentReporter):
        def note(self, text: str) -> None:
            said.append(text)

    again = fit(few_digits, out=tmp_path, cache=cache, reporter=Listening())
    assert (again.cache.hits, again.cache.misses) == (400, 0)
    assert any("no forward pass" in text for text in said)
    assert again.images_per_second is None
    assert again.evaluation == run.evaluation


def test_predictions_follow_the_input(run, few_digits, cache, tmp_path):
    said = predict(few_digits.test, run.folder, cache=cache, reporter=QUIET)
    assert said.cache.misses == 0
    assert len(said) == 100
    np.testing.assert_allclose(said.probabilities.sum(1), 1)
    truth = few_digits.test.labels
    hits = [label == few_digits.classes[t] for label, t in zip(said.labels, truth, strict=True)]
    assert np.mean(hits) == pytest.approx(run.accuracy)
    backwards = predict(
        few_digits.test.take(np.arange(99, -1, -1)), run, cache=cache, reporter=QUIET
    )
    np.testing.assert_array_equal(backwards.probabilities[::-1], said.probabilities)


def test_predictions_are_written_as_csv_and_parquet(run, few_digits, cache, tmp_path):
    said = predict(few_digits.test, run, cache=cache, reporter=QUIET)
    said.write(tmp_path / "p.csv", top=2)
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["item", "class", "probability", "class_2", "probability_2"]
    assert [row["class"] for row in rows] == list(said.labels)
    said.write(tmp_path / "p.parquet", top=99)
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.num_rows == 100
    assert "class_10" in table.column_names
    with pytest.raises(ConfigError, match=r"must end in \.csv or \.parquet"):
        said.write(tmp_path / "p.xlsx")


def test_a_single_image(run, few_digits, cache, tmp_path):
    image_of(few_digits.test.content(0)).save(tmp_path / "one.png")
    said = predict(tmp_path / "one.png", run.folder, cache=cache, reporter=QUIET)
    assert said.origins == ("one.png",)


def test_evaluate_agrees_with_the_run(run, few_digits, cache):
    said = evaluate(few_digits.test, run.folder, cache=cache, reporter=QUIET)
    # A fit shows the sets of several coverages; evaluate that of the coverage it is asked for.
    assert said == dataclasses.replace(run.evaluation, sets=())
    shown = run.evaluation.sets[0]
    asked = evaluate(
        few_digits.test, run.folder, coverage=shown.coverage, cache=cache, reporter=QUIET
    )
    assert asked.sets == (shown,)


def test_evaluate_refuses_unknown_classes(run, cache):
    x = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(DataError, match="'seven'"):
        evaluate((x, ["1", "1", "seven", "2"]), run, cache=cache, reporter=QUIET)


def test_the_mlp_head(few_digits, cache, tmp_path):
    made = fit(
        few_digits,
        head="mlp",
        head_options={"epochs": 15},
        out=tmp_path,
        cache=cache,
        reporter=QUIET,
    )
    assert made.accuracy > 0.85
    assert len(made.curves) >= 2
    again = predict(few_digits.test, tmp_path, cache=cache, reporter=QUIET)
    hits = [
        label == few_digits.classes[t]
        for label, t in zip(again.labels, few_digits.test.labels, strict=True)
    ]
    assert np.mean(hits) == pytest.approx(made.accuracy)


def test_another_seed_and_cut(few_digits, cache):
    made = fit(
        few_digits,
        load_backbone("headstart/glyphs", layer="stage2.0"),
        seed=3,
        baselines=False,
        write=False,
        cache=cache,
        reporter=QUIET,
    )
    assert made.folder is None
    assert made.baselines == ()
    assert made.spec.layer == "stage2.0"


def test_unpooled_features_are_refused(few_digits, cache):
    with pytest.raises(ConfigError, match="use pooling='avg'"):
        fit(
            few_digits,
            load_backbone("headstart/glyphs", layer="stage3.0", pooling="none"),
            write=False,
            cache=cache,
            reporter=QUIET,
        )


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu().mean((2, 3))


class OneNumber(nn.Module):
    def __init__(self, axes):
        super().__init__()
        self.conv, self.axes = nn.Conv2d(3, 4, 3), axes

    def forward(self, x):
        return self.conv(x).mean(self.axes)


@pytest.mark.parametrize("command", [fit, headstart.compare, headstart.finetune])
@pytest.mark.parametrize(
    ("axes", "hint"), [((1, 2, 3), "one number an item is no row.*None"), ((2,), "pooling='avg'")]
)
def test_features_without_a_row_say_what_makes_one(command, axes, hint, few_digits, cache):
    plan = Preprocessing(size=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)
    backbone = load_backbone(OneNumber(axes), inputs=plan)
    with pytest.raises((BackboneError, ConfigError), match=hint):
        command(few_digits, backbone, cache=cache, write=False)


def test_a_module_of_ones_own_has_to_be_given_again(few_digits, cache, tmp_path):
    plan = Preprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    backbone = load_backbone(Own(), inputs=plan)
    made = fit(few_digits, backbone, out=tmp_path, baselines=False, cache=cache, reporter=QUIET)
    with pytest.raises(BackboneError, match="module of your own"):
        predict(few_digits.test, tmp_path, cache=cache, reporter=QUIET)
    again = load_backbone(Own(), inputs=plan)
    said = predict(few_digits.test, tmp_path, backbone=again, cache=cache, reporter=QUIET)
    assert len(said) == made.n_test
    with torch.no_grad():
        again.module.conv.bias += 1
    changed = load_backbone(again.module, inputs=plan)
    with pytest.raises(DataError, match="not the one"):
        predict(few_digits.test, tmp_path, backbone=changed, cache=cache, reporter=QUIET)


def test_one_class_only(cache):
    x = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="only one class"):
        fit((x, ["a"] * 10), write=False, cache=cache, reporter=QUIET)


def test_bad_files_of_both_splits_are_listed_together(cache, tmp_path):
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for i in range(4):
                pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "train" / "a" / "3.png").write_bytes(b"")
    (tmp_path / "test" / "b" / "2.png").write_bytes(b"GIF89a")
    with pytest.raises(BadFilesError) as caught:
        fit(tmp_path, write=False, cache=cache, reporter=QUIET)
    assert [where for where, _ in caught.value.files] == ["train/a/3.png", "test/b/2.png"]
    made = fit(tmp_path, on_bad="skip", write=False, cache=cache, reporter=QUIET)
    assert (made.n_train, made.n_test) == (7, 7)
    assert made.cache.misses == 0


def test_settings_are_checked():
    with pytest.raises(ConfigError, match=r"fit has no setting 'sed' \(did you mean 'seed'"):
        fit("digits", sed=1, reporter=QUIET)
    with pytest.raises(ConfigError, match=r"no setting 'zzz'; it has head, .*seed, .*label_column"):
        fit("digits", zzz=1, reporter=QUIET)
    with pytest.raises(
        ConfigError,
        match=r"head must be one of auto, linear.*mlp.*folds.*seed must be at least 0, not -1",
    ):
        fit("digits", head="forest", folds=1, seed=-1, reporter=QUIET)


def test_notes_name_classes(few_digits, cache):
    kept = np.flatnonzero(few_digits.train.labels != few_digits.classes.index("7"))
    rare = np.flatnonzero(few_digits.train.labels == few_digits.classes.index("7"))[:2]
    data = dataclasses.replace(
        few_digits,
        splits={**few_digits.splits, "train": few_digits.train.take(np.r_[kept, rare])},
    )
    run = fit(data, write=False, cache=cache, baselines=False, reporter=QUIET)
    assert any("because class '7' has only 2 items" in note for note in run.notes), run.notes


def test_a_damaged_run_folder(run, tmp_path):
    with pytest.raises(DataError, match="not a run folder"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text('{"classes": ["a"]}')
    with pytest.raises(DataError, match="is damaged"):
        open_run(tmp_path)


def test_an_opened_run_brings_its_scores_and_names_what_it_is(run, tmp_path):
    opened = open_run(run.folder)
    assert opened.accuracy == run.accuracy
    assert opened.evaluation == run.evaluation
    assert opened.metrics["n_train"] == 300
    assert opened.backbone_name == "headstart/glyphs"
    assert "headstart/glyphs, 10 classes: '0', '1'" in repr(opened)
    shutil.copytree(run.folder, tmp_path / "run")
    text = (tmp_path / "run" / "metrics.json").read_text()
    (tmp_path / "run" / "metrics.json").write_text(text.replace('"n": 100', '"n": 900'))
    edited = open_run(tmp_path / "run")
    with pytest.raises(DataError, match=r"metrics\.json.*not the file"):
        _ = edited.accuracy
    assert "not the file" not in repr(edited)


def test_a_leak_is_said_aloud(cache):
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    y = ["a", "b"] * 10
    made = fit({"train": (x, y), "test": (x[:4], y[:4])}, write=False, cache=cache, reporter=QUIET)
    assert any("4 test items are also in the training split" in note for note in made.notes)


@pytest.mark.real
@pytest.mark.slow
def test_ants_and_bees(shared_data, tmp_path):
    """The figure that ../shared/data/README.md gives for a plain script is 94.1 %."""
    backbone = load_backbone(
        "timm/mobilenetv1_100",
        weights=shared_data / "weights" / "mobilenetv1_imagenet.safetensors",
        model_args={"pad_type": "same", "bn_eps": 1e-3},
        layer="blocks.4.0",
        mean=0.5,
        std=0.5,
    )
    made = fit(
        shared_data / "hymenoptera",
        backbone,
        out=tmp_path / "run",
        cache=tmp_path / "cache",
        reporter=QUIET,
    )
    assert made.n_test == 153
    assert made.accuracy >= 0.92
    again = evaluate(
        shared_data / "hymenoptera", tmp_path / "run", cache=tmp_path / "cache", reporter=QUIET
    )
    assert again == dataclasses.replace(made.evaluation, sets=())


@pytest.mark.real
def test_a_table_with_columns_to_name(shared_data, cache):
    with pytest.raises(DataError, match="image"):
        fit(
            shared_data / "trec" / "train.csv",
            "headstart/glyphs",
            label_column="label",
            write=False,
            cache=cache,
            reporter=QUIET,
        )


def test_texts_choose_no_backbone_of_images(shared_data, cache):
    with pytest.raises(BackboneError, match="all-MiniLM-L6-v2, is not on this machine"):
        fit(shared_data / "trec" / "train.csv", write=False, cache=cache, reporter=QUIET)


def test_a_head_is_trained_once(few_digits, cache, tmp_path, run, monkeypatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    for module in ("headstart.heads.penalty", "headstart.commands.baselines"):
        monkeypatch.setattr(sys.modules[module], "choose_linear", never)
    again = fit(few_digits, write=False, cache=cache, reporter=QUIET)
    assert again.evaluation == run.evaluation
    assert again.baselines == run.baselines
    assert again.curves == run.curves
    assert any("trained before" in note for note in again.notes)
    with pytest.raises(AssertionError, match="trained again"):
        fit(few_digits, seed=5, write=False, cache=cache, reporter=QUIET)


def test_a_damaged_result_is_computed_anew(few_digits, run, cache, tmp_path):
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    for path in (copy / "results" / "heads").rglob("head.safetensors"):
        path.write_bytes(b"junk")
    again = fit(few_digits, write=False, baselines=False, cache=copy, reporter=QUIET)
    assert again.cache.misses == 0
    assert again.evaluation == run.evaluation
