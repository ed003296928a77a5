"""Answers of a chosen coverage and strange items, through Python and as a user."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import headstart
from headstart.commands.packed_file import CALIBRATION_FILE, OUTLIERS_FILE
from headstart.commands.saved_run import open_run
from headstart.core.errors import ConfigError, DataError, HeadError
from headstart.core.progress import SilentReporter
from headstart.evaluation.sets import ClassSets, LabelSets, ValueSets

from .test_cli import Command, command, one_error_line  # noqa: F401  fixtures

QUIET = SilentReporter()
GLYPHS = "headstart/glyphs"
TILES = np.rint(load_digits().images / 16 * 255).astype(np.uint8)
DIGITS = load_digits().target
NAMES = ("=zero", "one|1", "two", "café")


def save(root: Path, rows: np.ndarray, named: tuple[str, ...] | None = NAMES) -> Path:
    for i in rows:
        folder = root if named is None else root / named[DIGITS[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(TILES[i]).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train``: digits 0 to 3. ``new``: others of these. ``strange``: also pictures of noise."""
    root = tmp_path_factory.mktemp("digits")
    few = np.random.default_rng(0).permutation(np.flatnonzero(DIGITS < 4))  # writers mixed
    save(root / "train", few[:260])
    save(root / "new", few[260:400])
    save(root / "strange", few[400:440], None)
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(
            root / "strange" / f"noise{i}.png"
        )
    return root


@pytest.fixture(scope="module")
def run(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "run"
    return headstart.fit(
        place / "train", GLYPHS, splits="none", test_fraction=0.2, ood="knn", out=out,
        cache=place / "cache", reporter=QUIET, baselines=False,
    )  # fmt: skip


def test_fit_measures_coverage_on_the_test_split(run: Any) -> None:
    sets = run.evaluation.sets
    assert [each.coverage for each in sets] == [0.8, 0.9, 0.95, 0.99]
    assert all(each.n == run.n_test for each in sets)
    assert all(each.covered.interval.method == "exact" for each in sets)
    assert [each.size for each in sets] == sorted(each.size for each in sets)
    kept = json.loads((run.folder / "metrics.json").read_text())["evaluation"]
    assert kept["sets"][0]["coverage"] == 0.8
    assert open_run(run.folder).evaluation.sets == sets
    page = (run.folder / "report.html").read_text()
    assert "Knowing when not to answer" in page
    assert "Unlike anything seen" in page
    unlike = run.evaluation.unlike
    assert f"Of {unlike.n} items, {unlike.flagged} " in page


def test_predict_says_what_is_plausible(run: Any, place: Path, tmp_path: Path) -> None:
    asked = {"cache": place / "cache", "reporter": QUIET, "coverage": 0.95, "ood": "knn"}
    said = headstart.predict(place / "new", run, **asked)
    assert isinstance(said.sets, ClassSets)
    again = headstart.predict(place / "new", run.folder, **asked)
    assert again.columns() == said.columns()
    for name in ("sets.csv", "sets.parquet"):
        said.write(tmp_path / name)
    table = pq.read_table(tmp_path / "sets.parquet").to_pylist()
    with (tmp_path / "sets.csv").open(encoding="utf-8", newline="") as file:
        text = list(csv.DictReader(file))
    order = [name.replace("|", "\\|") for name in said.classes]
    for row, cells, members in zip(table, text, said.sets.members, strict=True):
        assert row["set"] == "|".join(order[i] for i in members)
        assert row["abstain"] == (len(members) != 1) == (cells["abstain"] == "true")
        assert not cells["set"].startswith("=")
        if len(members):
            assert said.classes[members[0]] == row["class"]
    hit = [
        load_digits().target[int(Path(row["item"]).stem)] in members
        for row, members in zip(
            table, [[NAMES.index(said.classes[i]) for i in m] for m in said.sets.members],
            strict=True,
        )
    ]  # fmt: skip
    assert np.mean(hit) > 0.88


def test_evaluate_measures_what_was_asked(run: Any, place: Path, tmp_path: Path) -> None:
    scores = headstart.evaluate(
        place / "new", run, cache=place / "cache", reporter=QUIET, splits="none", coverage=0.9,
        by_class=True, ood="mahalanobis", out=tmp_path / "scored",
    )  # fmt: skip
    (measured,) = scores.sets
    assert (measured.coverage, measured.by_class, measured.n) == (0.9, True, 140)
    assert {row.name for row in measured.rows} == set(NAMES)
    assert scores.unlike is not None
    assert scores.unlike.method == "mahalanobis"
    rows = pq.read_table(tmp_path / "scored" / "predictions.parquet").to_pylist()
    assert sum(row["ood"] for row in rows) == scores.unlike.flagged
    covered = [row["truth"].replace("|", "\\|") in _parts(row["set"]) for row in rows]
    assert np.mean(covered) == pytest.approx(measured.covered.value)
    kept = json.loads((tmp_path / "scored" / "evaluation.json").read_text())
    assert kept["evaluation"]["sets"][0]["covered"]["value"] == measured.covered.value
    assert "90 % of each class" in (tmp_path / "scored" / "report.html").read_text()


def _parts(text: str) -> list[str]:
    """Divide at ``|`` that is not escaped."""
    return text.replace("\\|", "\0").replace("|", "\n").replace("\0", "\\|").split("\n")


@pytest.mark.parametrize("ood", ["knn", "mahalanobis"])
def test_no_items_have_the_same_columns(run: Any, place: Path, ood: str) -> None:
    asked: dict[str, Any] = {"coverage": 0.9, "ood": ood, "cache": place / "cache"}
    some = headstart.predict(place / "new", run, reporter=QUIET, **asked)
    none = headstart.predict([], run, reporter=QUIET, **asked)
    assert list(none.columns()) == list(some.columns())
    assert none.strange is not None
    assert none.strange.record.n == len(none) == 0
    with pytest.raises(HeadError, match="needs 99,999 training items"):
        headstart.predict([], run, reporter=QUIET, false_alarms=1e-5, **asked)


@pytest.mark.parametrize("method", ["knn", "mahalanobis"])
def test_strange_items_are_told(run: Any, place: Path, method: str) -> None:
    """The run kept ``knn``; the other follows from its rows, whether in memory or on disk."""
    found = []
    for source in (run, run.folder):
        said = headstart.predict(
            place / "strange", source, cache=place / "cache", reporter=QUIET, ood=method
        )
        noise = np.array(["noise" in name for name in said.origins])
        assert said.strange is not None
        assert said.strange.flagged[noise].mean() > 0.8
        assert said.strange.flagged[~noise].mean() < 0.25
        found.append(said.strange.scores)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_layers_judge_together(place: Path, tmp_path: Path) -> None:
    made = headstart.fit(
        place / "train", GLYPHS, splits="none", ood="mahalanobis", ood_layers=("stem", "stage2"),
        out=tmp_path / "run", cache=place / "cache", reporter=QUIET, baselines=False,
    )  # fmt: skip
    assert made.evaluation.unlike.layers == ("stem", "stage2")
    said = headstart.predict(
        place / "strange", tmp_path / "run", cache=place / "cache", reporter=QUIET,
        ood="mahalanobis",
    )  # fmt: skip
    noise = np.array(["noise" in name for name in said.origins])
    assert said.strange.flagged[noise].mean() > 0.8
    with pytest.raises(DataError, match="features of old items there"):
        headstart.update(place / "new", tmp_path / "run", cache=place / "cache", reporter=QUIET)


def test_an_update_calibrates_anew(run: Any, place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    made = headstart.update(
        place / "new", copy, cache=place / "cache", reporter=QUIET, splits="none"
    )
    assert len(made.calibration.units) == run.n_train + 140
    assert made.evaluation.unlike.calibrated_on > run.evaluation.unlike.calibrated_on
    said = headstart.predict(
        place / "strange", copy, cache=place / "cache", reporter=QUIET, coverage=0.9
    )
    assert len(said.sets.members) == 60


def test_heads_of_every_kind_abstain(place: Path) -> None:
    asked: dict[str, Any] = {
        "splits": "none", "cache": place / "cache", "reporter": QUIET, "write": False,
        "baselines": False,
    }  # fmt: skip
    for more in (
        {"head": "prototype"},
        {"head": "knn"},
        {"head": "ridge", "threshold": "balanced"},
        {"labels_per_class": 5},
        {"head": "mlp", "head_options": {"epochs": 3}, "abstain": "always"},
    ):
        made = headstart.fit(place / "train", GLYPHS, **asked, **more)
        assert made.calibration is not None, more
        said = headstart.predict(
            place / "new", made, cache=place / "cache", reporter=QUIET, coverage=0.9
        )
        hit = [
            DIGITS[int(Path(name).stem)] in [NAMES.index(said.classes[i]) for i in members]
            for name, members in zip(said.origins, said.sets.members, strict=True)
        ]
        assert np.mean(hit) > 0.82, more


def test_what_cannot_be_promised_is_refused(run: Any, place: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"cache": place / "cache", "reporter": QUIET}
    with pytest.raises(HeadError, match=r"coverage=0\.999 needs 999 held-out training items"):
        headstart.predict(place / "new", run, coverage=0.999, **asked)
    with pytest.raises(HeadError, match=r"false_alarms=0\.001 needs 999 training items"):
        headstart.predict(place / "new", run, ood="knn", false_alarms=0.001, **asked)
    for wrong in ({"coverage": 1.0}, {"coverage": 0}, {"by_class": True}, {"set_score": "aps"},
                  {"false_alarms": 0.2}):  # fmt: skip
        with pytest.raises(ConfigError):
            headstart.predict(place / "new", run, **wrong, **asked)
    with pytest.raises(HeadError, match=r"coverage=0\.9999999 needs 9,999,999 held-out"):
        headstart.predict(place / "new", run, coverage=0.9999999, **asked)
    with pytest.raises(ConfigError, match="false_alarms requires ood"):
        headstart.fit(place / "train", GLYPHS, false_alarms=0.2, **asked)
    empty = tmp_path / "empty"
    with pytest.raises(HeadError, match=r"false_alarms=0\.0001 needs 9,999 training items"):
        headstart.fit(
            place / "train", GLYPHS, splits="none", ood="knn", false_alarms=0.0001,
            **asked | {"cache": empty},
        )  # fmt: skip
    assert not list(empty.rglob("*.arrow")), "said before any item is embedded"
    never = headstart.fit(
        place / "train", GLYPHS, splits="none", abstain="never", out=tmp_path / "never", **asked,
        baselines=False,
    )  # fmt: skip
    assert never.evaluation.sets == ()
    for source in (never, tmp_path / "never"):
        with pytest.raises(DataError, match=r"abstain='never'.*fit again"):
            headstart.predict(place / "new", source, coverage=0.9, **asked)
    old = tmp_path / "old"
    shutil.copytree(run.folder, old)
    said = json.loads((old / "run.json").read_text())
    for name in (CALIBRATION_FILE, OUTLIERS_FILE):
        (old / name).unlink()
        said["files"].pop(name)
    (old / "run.json").write_text(json.dumps(said))
    with pytest.raises(DataError, match="it was written by an older version, or by a command"):
        headstart.predict(place / "new", old, coverage=0.9, **asked)
    assert headstart.predict(place / "new", old, ood="knn", **asked).strange is not None


@pytest.mark.parametrize("name", [CALIBRATION_FILE, OUTLIERS_FILE])
def test_damaged_files_are_refused(run: Any, place: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    (copy / name).write_bytes((copy / name).read_bytes()[:-40])
    asked: dict[str, Any] = {"coverage": 0.9} if name == CALIBRATION_FILE else {"ood": "knn"}
    with pytest.raises(DataError, match=name):
        headstart.predict(place / "new", copy, cache=place / "cache", reporter=QUIET, **asked)


def test_labels_and_numbers(
    command: Command,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = np.flatnonzero(DIGITS < 10)[:300]
    for i in rows:
        Image.fromarray(TILES[i]).save(tmp_path / f"{i}.png")
    with (tmp_path / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "tags", "ink", "age"])
        for i in rows:
            tags = [name for name, has in (("odd", DIGITS[i] % 2), ("big", DIGITS[i] > 4)) if has]
            table.writerow([f"{i}.png", "|".join(tags) or "none", TILES[i].mean() + 0.01, i % 7])
    asked: dict[str, Any] = {"cache": tmp_path / "cache", "reporter": QUIET}
    several = headstart.fit(
        tmp_path / "train.csv", GLYPHS, label_column="tags", task="multi-label",
        out=tmp_path / "several", baselines=False, ood="mahalanobis", **asked,
    )  # fmt: skip
    assert several.evaluation.sets
    said = headstart.predict(
        tmp_path / "train.csv", tmp_path / "several", coverage=0.9, ood="mahalanobis", **asked
    )
    assert isinstance(said.sets, LabelSets)
    columns = said.columns()
    assert {"sure", "undecided", "abstain", "ood", "ood_p", "ood_score"} <= set(columns)
    monkeypatch.setattr("headstart.commands.predict.command.SHOWN_LABELS", 1)
    words = ("predict", tmp_path / "several", tmp_path / "train.csv", "--cache", asked["cache"])
    status, out, _ = command(*words, "--coverage", "0.9", "--ood", "mahalanobis")
    assert status == 0
    assert out.split()[:5] == ["item", "prediction", "sure", "undecided", "abstain"]
    other = headstart.predict(
        tmp_path / "train.csv", tmp_path / "several", ood="knn", **asked
    )  # from the rows that the run keeps
    assert other.strange.record.method == "knn"
    numbers = headstart.fit(
        tmp_path / "train.csv", GLYPHS, label_column="ink", columns="age", task="regression",
        out=tmp_path / "numbers", baselines=False, ood="knn", **asked,
    )  # fmt: skip
    assert [each.coverage for each in numbers.evaluation.sets] == [0.8, 0.9, 0.95, 0.99]
    found = headstart.predict(
        tmp_path / "train.csv", tmp_path / "numbers", coverage=0.9, ood="knn", **asked
    )
    assert isinstance(found.sets, ValueSets)
    low, high = np.array(found.columns()["low"]), np.array(found.columns()["high"])
    value = np.array(found.columns()["prediction"])
    assert ((low < value) & (value < high)).mean() > 0.95
    assert "mean width" in (tmp_path / "numbers" / "report.html").read_text()
    with pytest.raises(HeadError, match="numbers have none"):
        headstart.predict(tmp_path / "train.csv", numbers, coverage=0.9, by_class=True, **asked)


def test_the_command_line(command: Command, run: Any, place: Path, tmp_path: Path) -> None:  # noqa: F811
    words = ("predict", run.folder, place / "strange", "--cache", place / "cache")
    status, out, err = command(*words, "--coverage", "0.9", "--ood", "knn", "--out",
                               tmp_path / "p.csv")  # fmt: skip
    assert status == 0, err
    assert "no single answer for" in out
    assert "unlike anything in the training split" in err
    header = (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.endswith('"set","abstain","ood","ood_p","ood_score"')
    status, out, err = command(*words, "--coverage", "0.9", "--json")
    assert status == 0
    assert {"set", "abstain"} <= set(json.loads(out)[0])
    refused = one_error_line(command(*words, "--coverage", "0.9999", "--quiet"))
    assert "--coverage 0.9999 needs 9,999 held-out training items" in refused
    status, out, err = command(
        "evaluate", run.folder, place / "new", "--cache", place / "cache", "--splits", "none",
        "--coverage", "0.9", "--ood", "knn",
    )  # fmt: skip
    assert status == 0, err
    assert "coverage 90 %: the prediction covers the truth for" in out
    status, out, err = command("predict", run.folder, place / "new", "--by-class")
    assert status != 0
    assert "--by-class requires" in err
