"""Sweep and examine: on images with layers, on bare features, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import re
import sys

import numpy as np
import pytest
from safetensors.torch import save_file

from headstart.backbones import load_backbone
from headstart.commands.cli import main
from headstart.commands.examine.job import examine
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import predict
from headstart.commands.settings import BackboneSpec
from headstart.commands.sweep.job import SweepConfig, sweep
from headstart.core.errors import BackboneError, ConfigError, DataError, HeadError
from headstart.core.progress import SilentReporter
from headstart.data import load_data
from headstart.data.decoding import image_of
from headstart.extraction import Extractor
from headstart.heads.sweeps import swept_heads

QUIET = SilentReporter()
GRID = (1e-3, 1e-1, 1.0)


@pytest.fixture(scope="module")
def some_digits():
    data = load_data("digits")
    chosen = data.train.take(np.random.default_rng(0).permutation(len(data.train))[:300])
    x = np.stack([np.asarray(image_of(chosen.content(i))) for i in range(300)])
    y = np.array(data.classes)[chosen.labels]
    return x, y


@pytest.fixture(scope="module")
def dataset(some_digits):
    x, y = some_digits
    return load_data({"train": (x[:200], y[:200]), "test": (x[200:], y[200:])})


def test_all_layers_come_from_one_pass(dataset, tmp_path, monkeypatch):
    seen = []
    real = Extractor.rows

    def counting(self, split, indices=None, **more):
        for rows in real(self, split, indices, **more):
            seen.append(len(rows.indices))
            yield rows

    monkeypatch.setattr(Extractor, "rows", counting)
    config = SweepConfig(
        layers=("stage2.0", "stage3.0", None),
        poolings=("avg", "gem"),
        heads=("logistic", "ridge", "prototype"),
        grid=GRID,
    )
    result = sweep(dataset, config=config, out=tmp_path / "run", cache=tmp_path, reporter=QUIET)
    assert sum(seen) == 300
    views = {candidate.view for candidate in result.sweep.candidates}
    assert views == {"stage2.0 avg", "stage2.0 gem", "stage3.0 avg", "stage3.0 gem", "output"}
    assert result.evaluation.accuracy.value > 0.8
    assert result.run.spec.layer == load_layer(result.sweep.winner.view)
    said = predict(dataset.test, tmp_path / "run", cache=tmp_path, reporter=QUIET)
    assert said.cache.misses == 0
    hits = [
        dataset.classes.index(label) == truth
        for label, truth in zip(said.labels, dataset.test.labels, strict=True)
    ]
    assert np.mean(hits) == pytest.approx(result.evaluation.accuracy.value)


def load_layer(view: str) -> str | None:
    return None if view == "output" else view.split()[0]


def test_poisoned_test_labels_change_nothing_but_the_score(some_digits, tmp_path):
    x, y = some_digits
    wrong = np.roll(y[200:], 1)
    config = SweepConfig(heads=("logistic", "ridge"), grid=GRID)
    results = [
        sweep(
            {"train": (x[:200], y[:200]), "test": (x[200:], labels)},
            config=config,
            write=False,
            cache=tmp_path,
            reporter=QUIET,
        )
        for labels in (y[200:], wrong)
    ]
    assert results[0].sweep.winner == results[1].sweep.winner
    assert results[0].evaluation.accuracy.value > results[1].evaluation.accuracy.value + 0.3


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_bare_features(tmp_path, kind):
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(3, 8))
    y = np.arange(150) % 3
    x = centres[y] * 2 + generator.normal(size=(150, 8))
    arrays = {"x_train": x[:90], "y_train": y[:90], "x_test": x[90:], "y_test": y[90:]}
    if kind == "npz":
        source = tmp_path / "f.npz"
        np.savez(source, **arrays)
    else:
        source = tmp_path
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array.astype(np.float32) if "x" in name else array)
    result = sweep(source, config=SweepConfig(grid=GRID), reporter=QUIET)
    assert result.run is None
    assert result.evaluation.accuracy.value > 0.9
    assert {c.head for c in result.sweep.candidates} == set(swept_heads())
    assert "mlp" not in swept_heads()


def test_bare_features_that_are_wrong(tmp_path):
    x, y = np.zeros((6, 2)), np.arange(6) % 2
    np.save(tmp_path / "x_train.npy", x)
    with pytest.raises(DataError, match="no y_train"):
        sweep(tmp_path, reporter=QUIET)
    np.save(tmp_path / "y_train.npy", y)
    np.save(tmp_path / "x_test.npy", x[:, :1])
    np.save(tmp_path / "y_test.npy", y[:5] + 5)
    with pytest.raises(DataError, match=r"x_test has 6 rows.*x_test \(1,\).*class 5"):
        sweep(tmp_path, config=SweepConfig(grid=GRID, folds=2), reporter=QUIET)
    np.save(tmp_path / "x_test.npy", x)
    np.save(tmp_path / "y_test.npy", y)
    np.save(tmp_path / "x_train.npy", np.full((6, 2), np.nan))
    with pytest.raises(HeadError, match=r"NaN|finite"):
        sweep(tmp_path, config=SweepConfig(grid=GRID, folds=2), reporter=QUIET)
    np.save(tmp_path / "x_train.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        sweep(tmp_path, reporter=QUIET)


@pytest.fixture
def features(tmp_path):
    """A folder of features that a sweep takes, of classes 0 and 1."""
    generator = np.random.default_rng(0)
    for part, n in (("train", 40), ("test", 20)):
        y = np.arange(n) % 2
        x = generator.normal(size=(n, 4)).astype(np.float32)
        x[:, 0] += 4 * y
        np.save(tmp_path / f"x_{part}.npy", x)
        np.save(tmp_path / f"y_{part}.npy", y)
    return tmp_path


BAD = {
    "NaN": ("x_train", lambda x: np.where(x > 5, np.nan, x), "NaN or infinity"),
    "NaN in the test rows": ("x_test", lambda x: np.where(x > 5, np.inf, x), "NaN or infinity"),
    "one class": ("y_train", np.ones_like, "does not have"),
    "unseen class": ("y_test", lambda y: y + 1, r"y_test has the class 2.*\(10 rows of 1 such"),
    "lengths": ("y_train", lambda y: y[:-1], r"x_train has 40 rows.*\(39,\)"),
    "widths": ("x_test", lambda x: x[:, 1:], r"x_train have the shape \(4,\), of x_test \(3,\)"),
    "no label": ("y_train", lambda y: np.where(y > 0, np.nan, 0), "NaN or infinity among"),
}


@pytest.mark.parametrize("fault", list(BAD))
def test_bad_features_are_one_line_at_the_command_line(features, fault, monkeypatch, capsys):
    name, spoil, message = BAD[fault]
    np.save(features / f"{name}.npy", spoil(np.load(features / f"{name}.npy")))
    monkeypatch.setattr(sys, "argv", ["headstart", "sweep", str(features), "--heads", "lda"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code != 0
    said = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, said[-1]), said
    assert not any("Traceback" in line for line in said)


def test_command_names_seeds_and_tries_the_perceptron(features, monkeypatch, capsys):
    words = ["sweep", str(features), "--heads", "mlp,prototype", "--seeds", "2,5", "--folds", "2"]
    monkeypatch.setattr(sys, "argv", ["headstart", *words, "--device", "cpu"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "seeds" in said
    assert {line.split()[1] for line in said.splitlines() if "2, 5" in line} == {"mlp", "prototype"}


def test_features_on_disk_are_streamed_where_memory_is_short(features, monkeypatch):
    config = SweepConfig(grid=GRID, folds=2, standardise=(True, False))
    whole = sweep(features, config=config, reporter=QUIET)
    monkeypatch.setattr("headstart.heads.source._SHARE", 0.0)
    streamed = sweep(features, config=config, reporter=QUIET)
    assert any("read from disk in blocks" in note for note in streamed.sweep.notes)
    assert streamed.sweep.winner.head == whole.sweep.winner.head
    assert streamed.evaluation.accuracy == whole.evaluation.accuracy


def test_stored_rows_are_streamed_where_memory_is_short(dataset, tmp_path, monkeypatch):
    config = SweepConfig(layers=("stage3.0", None), heads=("logistic", "ridge"), grid=GRID)
    whole = sweep(dataset, config=config, write=False, cache=tmp_path, reporter=QUIET)
    monkeypatch.setattr("headstart.heads.source._SHARE", 0.0)
    streamed = sweep(dataset, config=config, write=False, cache=tmp_path, reporter=QUIET)
    assert any("read from disk in blocks" in note for note in streamed.run.notes)
    assert streamed.sweep.winner.view == whole.sweep.winner.view
    assert streamed.evaluation.accuracy.value == pytest.approx(
        whole.evaluation.accuracy.value, abs=0.02
    )


def test_a_class_that_only_the_test_split_has_is_said(some_digits, tmp_path):
    x, y = some_digits
    kept = np.flatnonzero(y[:200] != "7")
    run = fit(
        {"train": (x[kept], y[kept]), "test": (x[200:], y[200:])},
        write=False,
        cache=tmp_path,
        baselines=False,
        reporter=QUIET,
    )
    count = int((y[200:] == "7").sum())
    expected = f"{count} of 100 test items have a class that no training item has ('7')"
    assert any(note.startswith(expected) for note in run.notes), run.notes


def test_settings_are_checked_together():
    with pytest.raises(
        ConfigError,
        match=(
            r"heads must be one of auto, linear.*not 'forest'; grid must be above 0, not -1;"
            r" folds must be at least 2, not 1; seeds must be at least 0, not -2"
        ),
    ):
        SweepConfig(heads=("forest",), grid=(-1.0,), folds=1, seeds=(0, -2))
    with pytest.raises(ConfigError, match="a seed given twice would repeat the same figures"):
        SweepConfig(seeds=(1, 1))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive"], ids=len)
@pytest.mark.parametrize("name", ["broken.npz", "x_train.npy"])
def test_broken_features_are_one_clear_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"the features in .* cannot be read") as caught:
        sweep(tmp_path / name if name.endswith("npz") else tmp_path, reporter=QUIET)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [40, -40], ids=["in a member", "in the list of members"])
def test_damaged_features_are_one_clear_error(tmp_path, damage):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x_train=np.random.default_rng(0).normal(size=(90, 8)), y_train=[1])
    content = bytearray(path.read_bytes())
    content[damage : damage + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"the features in .* cannot be read"):
        sweep(path, reporter=QUIET)


def test_poolings_without_a_layer_are_refused(dataset, tmp_path):
    for layers in ((), (None,)):
        config = SweepConfig(layers=layers, poolings=("avg", "gem"))
        with pytest.raises(
            ConfigError,
            match=r"poolings \(avg, gem\) apply to layers.*layers=\('layer3', 'layer4'\)",
        ):
            sweep(dataset, config=config, write=False, cache=tmp_path, reporter=QUIET)
    config = SweepConfig(poolings=("avg", "gem"), heads=("prototype",))
    at = load_backbone("headstart/glyphs", layer="stage2.0")
    found = sweep(dataset, at, config=config, write=False, cache=tmp_path, reporter=QUIET)
    assert {c.view for c in found.sweep.candidates} == {"stage2.0 avg", "stage2.0 gem"}


@pytest.fixture
def half_a_network(tmp_path):
    """Weights of the bundled network without its third stage."""
    whole = load_backbone("headstart/glyphs").module.state_dict()
    path = tmp_path / "half.safetensors"
    save_file({k: v for k, v in whole.items() if not k.startswith("stage3")}, path)
    return str(path)


def test_weights_have_to_reach_the_deepest_layer(dataset, half_a_network, tmp_path):
    # In whatever order the layers are named, and wherever the weights are loaded first.
    spec = BackboneSpec(
        "headstart/glyphs",
        weights=half_a_network,
        layer="stage2.0",
        preprocessing={"mean": 0.5, "std": 0.5},
    )
    options = {"write": False, "cache": tmp_path, "reporter": QUIET}
    heads = {"heads": ("prototype",)}
    for layers in (("stage3.0", "stage2.0"), ("stage2.0", None)):
        with pytest.raises(BackboneError, match=r"missing: .*stage3"):
            sweep(dataset, spec, config=SweepConfig(layers=layers, **heads), **options)
    with pytest.raises(BackboneError, match="nearest names"):
        sweep(dataset, spec, config=SweepConfig(layers=("stage2.0", "stage9")), **options)
    shallow = dataclasses.replace(spec, layer="stage1.0")
    config = SweepConfig(layers=("stage2.0", "stage1.0"), **heads)
    result = sweep(dataset, shallow, config=config, **options)
    assert {c.view for c in result.sweep.candidates} == {"stage1.0 avg", "stage2.0 avg"}
    assert any("after stage2.0" in note for note in result.run.notes)


def test_examine_finds_what_was_planted(some_digits, tmp_path):
    x, y = some_digits
    x, y = x.copy(), y.copy()
    # A test image that is a training image but for one pixel, and six labels are wrong.
    x[200] = x[7]
    x[200, 0, 0] = 9
    y[200] = y[7]
    wrong = [3, 50, 77, 101, 144, 190]
    for i in wrong:
        y[i] = str((int(y[i]) + 5) % 10)
    found = examine(
        {"train": (x[:200], y[:200]), "test": (x[200:], y[200:])},
        load_backbone("headstart/glyphs"),
        repetitions=3,
        out=tmp_path / "found",
        cache=tmp_path / "cache",
        reporter=QUIET,
    )
    assert any(
        copy.test.endswith(" 0") and copy.train.endswith(" 7") for copy in found.near_copies
    ), found.near_copies[:3]
    # 6 of 200 labels are wrong: by chance a list would hold 3 % of them. Half are to be found
    # with twenty items a class, and half of what is listed is to be wrong indeed.
    doubted = {int(doubt.item.split()[-1]) for doubt in found.doubts}
    right = doubted & set(wrong)
    assert len(right) >= len(wrong) / 2
    assert len(right) >= len(doubted) / 2
    assert all(doubt.label != doubt.suggested for doubt in found.doubts)
    assert found.budget.shots[0] == 1
    assert found.budget.scores[-1].value > found.budget.scores[0].value
    assert found.budget.gain is not None
    # The page shows both sides of the planted copy, the JSON lists everything.
    page = (tmp_path / "found" / "report.html").read_text()
    assert page.count("<svg") == 1
    assert page.count("data:image/png") == min(len(found.near_copies), 24) + len(found.doubts[:24])
    for doubt in found.doubts[:24]:
        assert doubt.item in page
    written = json.loads((tmp_path / "found" / "examination.json").read_text())
    assert len(written["doubtful_labels"]) == len(found.doubts)
    assert written["near_copies"][0]["train"] == found.near_copies[0].train


def test_examine_says_what_was_decided(some_digits, tmp_path):
    x, y = some_digits
    few = np.flatnonzero(y[:200] == "3")[:1]
    kept = np.sort(np.r_[np.flatnonzero((y[:200] != "7") & (y[:200] != "3")), few])
    told: list[str] = []

    class Listening(SilentReporter):
        def note(self, text: str) -> None:
            told.append(text)

    found = examine(
        {"train": (x[kept], y[kept]), "test": (x[200:], y[200:])},
        repetitions=2,
        write=False,
        cache=tmp_path,
        reporter=Listening(),
    )
    notes = "\n".join(found.notes)
    assert "because class '3' has only 1 item" in notes
    assert "a class that no training item has ('7')" in notes
    said = found.plain()["notes"]
    assert "1 class has a single item" in "\n".join(said)
    assert set(said) <= set(told)


def test_examine_checks_its_settings_before_any_work(tmp_path):
    with pytest.raises(
        ConfigError, match=r"repetitions.*not 0; threshold.*not 1.5; seed.*at least 0, not -1"
    ):
        examine("nowhere", repetitions=0, threshold=1.5, seed=-1, cache=tmp_path, reporter=QUIET)
    assert not any(tmp_path.iterdir())
