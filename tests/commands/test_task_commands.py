"""Several labels and numbers in fine-tuning, update, examine and the comparison of backbones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import r2_score

import headstart
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import SilentReporter

GLYPHS = "headstart/glyphs"
QUIET = SilentReporter()
N = 240


def _images(n: int = N, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dark = rng.uniform(4, 15.9, (n, 1, 1))
    return np.rint(load_digits().images[:n] * dark).astype(np.uint8)


def _ink(images: np.ndarray) -> np.ndarray:
    return images.mean(axis=(1, 2)) / 255


def _tags(images: np.ndarray) -> list[list[str]]:
    digits = load_digits().target[: len(images)]
    return [
        [f"d{digits[i] % 3}", *(["dark"] if images[i].mean() > 50 else [])]
        for i in range(len(images))
    ]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with paths, a number, labels, an age, a site and a patient."""
    folder, images = tmp_path_factory.mktemp("tasks"), _images()
    rng = np.random.default_rng(1)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    age = rng.integers(20, 80, N)
    frame = pd.DataFrame({
        "path": [f"{i}.png" for i in range(N)],
        "ink": _ink(images) + age / 1000,
        "tags": ["|".join(tags) for tags in _tags(images)],
        "age": age,
        "site": rng.choice(["a", "b"], N),
        "patient": [f"p{i % 40}" for i in range(N)],
    })  # fmt: skip
    frame.to_csv(folder / "all.csv", index=False)
    frame[:180].to_csv(folder / "old.csv", index=False)
    frame[180:].to_csv(folder / "new.csv", index=False)
    for name, columns in (("few", ["path", "ink", "site", "age"]),):
        frame[columns].to_csv(folder / f"{name}.csv", index=False)
    return folder


# ------------------------------------------------------------------------------ fine-tuning


def _tuned(data: Any, tmp_path: Path, recipe: str = "lp-ft", **more: Any) -> Any:
    return headstart.finetune(
        data, GLYPHS, recipe, layer="stage2.0", cache=tmp_path / "cache", reporter=QUIET,
        **{"epochs": 2, "baselines": False, "write": False, **more},
    )  # fmt: skip


def test_numbers_are_learnt_in_their_own_unit(tmp_path: Path) -> None:
    images = _images()
    small = _tuned((images, _ink(images)), tmp_path)
    large = _tuned((images, 1e4 * _ink(images) + 500), tmp_path)
    assert small.task == "regression"
    assert small.evaluation.r2.value > 0.3
    assert large.evaluation.r2.value == pytest.approx(small.evaluation.r2.value, abs=1e-3)
    assert large.evaluation.mean_absolute_error.value == pytest.approx(
        1e4 * small.evaluation.mean_absolute_error.value, rel=1e-2
    )
    best = small.training["best"]
    assert {"validation_r2", "validation_loss", "train_r2"} <= set(best)
    assert best["validation_r2"] == max(e["validation_r2"] for e in small.training["epochs"])
    names = {curve.name for curve in small.curves}
    assert names == {"train loss", "validation loss", "train R²", "validation R²"}


@pytest.mark.slow
def test_several_targets_and_labels_are_learnt(tmp_path: Path) -> None:
    images = _images()
    both = np.stack([_ink(images), -3 * _ink(images) + 7], axis=1)
    run = _tuned((images, both), tmp_path)
    assert run.head.n_classes == 2
    assert run.evaluation.per_target[0].r2 == pytest.approx(
        run.evaluation.per_target[1].r2, abs=0.1
    )
    labels = _tuned((images, _tags(images)), tmp_path)
    assert labels.task == "multi-label"
    assert labels.score.name == "mAP"
    assert labels.head.thresholds is not None
    assert labels.evaluation.mean_average_precision.value > 0.6
    half = _tuned((images, _tags(images)), tmp_path, threshold="half")
    assert half.head.thresholds is None


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_stored_rows_give_the_curves_of_ordinary_training(task: str, tmp_path: Path) -> None:
    images = _images(120)
    y = _tags(images) if task == "multi-label" else _ink(images)
    on, off = (_tuned((images, y), tmp_path, stored=stored) for stored in ("auto", "off"))
    losses = [[e["validation_loss"] for e in run.training["epochs"]] for run in (on, off)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.slow
def test_a_killed_regression_goes_on_to_the_same_result(tmp_path: Path) -> None:
    images = _images(120)
    data = images, _ink(images)
    whole = _tuned(data, tmp_path, write=True, out=tmp_path / "whole", epochs=3)

    class Killed(SilentReporter):
        def note(self, text: str) -> None:
            if ", epoch 2 of 3" in text:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        headstart.finetune(
            data, GLYPHS, "lp-ft", layer="stage2.0", cache=tmp_path / "cache", reporter=Killed(),
            epochs=3, baselines=False, out=tmp_path / "cut",
        )  # fmt: skip
    resumed = _tuned(data, tmp_path, write=True, out=tmp_path / "cut", epochs=3)
    assert any("continuing after epoch" in note for note in resumed.notes)
    np.testing.assert_array_equal(resumed.head.weight, whole.head.weight)


def test_a_tuned_regression_is_read_again(tmp_path: Path) -> None:
    images = _images(120)
    out = tmp_path / "run"
    run = _tuned((images, _ink(images)), tmp_path, write=True, out=out, baselines=True)
    assert {each.name for each in run.baselines} >= {"linear probe", "mean of the training targets"}
    page = (out / "report.html").read_text()
    assert "best R²" in page
    assert "onfusion" not in page
    assert (out / "values.png").exists()
    assert not (out / "confusion.png").exists()
    said = headstart.predict(images[:5], out, cache=tmp_path / "cache", reporter=QUIET)
    assert said.values.shape == (5, 1)
    scored = headstart.evaluate(
        (images, _ink(images)), out, include_training=True, cache=tmp_path / "cache", reporter=QUIET
    )
    whole = headstart.predict(images, out, cache=tmp_path / "cache", reporter=QUIET).values
    assert scored.r2.value == pytest.approx(r2_score(_ink(images), whole[:, 0]), abs=1e-6)


@pytest.mark.slow
def test_class_weights_count_rare_classes_in_fine_tuning(tmp_path: Path) -> None:
    digits = load_digits()
    rows = np.r_[np.flatnonzero(digits.target == 3)[:120], np.flatnonzero(digits.target == 8)[:20]]
    images = np.rint(digits.images[rows] * 15.9).astype(np.uint8)
    data = images, digits.target[rows]
    run = _tuned(data, tmp_path, class_weight="balanced")
    assert "validation_balanced_accuracy" in run.training["best"]
    assert run.configuration["class_weight"] == "balanced"
    corrected = _tuned(data, tmp_path, threshold="balanced")
    assert corrected.head.thresholds is not None
    assert any("balanced threshold" in note for note in corrected.notes)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"class_weight": "balanced"}, "class_weight does not apply to regression"),
        ({"threshold": "f1"}, "threshold does not apply to regression"),
        ({"probe": "linear"}, "probe: head must be one of"),
        ({"columns": "age"}, "the network itself is trained"),
    ],
)
def test_what_numbers_have_no_use_for_is_refused(
    options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    images = _images(40)
    with pytest.raises(ConfigError, match=told):
        _tuned((images, _ink(images)), tmp_path, **options)


def test_groups_are_whole_in_fine_tuning(table: Path, tmp_path: Path) -> None:
    run = _tuned(table / "all.csv", tmp_path, label_column="ink", group_column="patient", epochs=1)
    split = headstart.load_data(table / "all.csv", label_column="ink", group_column="patient")
    of = dict(zip(split.train.ids, split.train.groups.tolist(), strict=True))
    parts = {name: {of[key] for key in ids} for name, ids in run.trained_on.items()}
    assert not parts["train"] & parts["validation"]
    assert not (parts["train"] | parts["validation"]) & set(split.test.groups.tolist())
    assert run.evaluation.r2.interval.method == "groups"


# -------------------------------------------------------------------- columns and the label


def test_the_column_that_is_left_holds_the_labels(table: Path, tmp_path: Path) -> None:
    run = headstart.fit(
        table / "few.csv", GLYPHS, layer="stem", columns="site,age", write=False,
        baselines=False, cache=tmp_path, reporter=QUIET,
    )  # fmt: skip
    assert run.task == "regression"
    assert run.classes == ("ink",)
    assert any("column 'ink', the only one left" in note for note in run.notes)
    with pytest.raises(DataError, match="several columns that could hold the labels"):
        headstart.load_data(table / "few.csv")
    # Predicting needs no labels, and takes no joined column for them.
    found = headstart.predict(table / "few.csv", run, cache=tmp_path, reporter=QUIET)
    assert len(found) == N


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_a_sweep_joins_columns(task: str, table: Path, tmp_path: Path) -> None:
    label = {"multi-label": "tags", "regression": "ink"}[task]
    swept = headstart.sweep(
        table / "all.csv", GLYPHS, layers=("stem",), columns="age,site", label_column=label,
        folds=3, out=tmp_path / "run", cache=tmp_path / "cache", reporter=QUIET,
    )  # fmt: skip
    assert [column.name for column in swept.run.columns] == ["age", "site"]
    assert "columns alone" in {each.name for each in swept.run.baselines}
    again = headstart.evaluate(
        table / "all.csv", tmp_path / "run", include_training=True, cache=tmp_path / "cache",
        reporter=QUIET,
    )  # fmt: skip
    assert again.figures()[0].score.value > 0.5
    assert "--columns age,site" in swept.run.commands.next[0]


# ------------------------------------------------------------------------------------ update


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_an_update_is_the_head_of_a_fit_on_all(task: str, table: Path, tmp_path: Path) -> None:
    label = {"multi-label": "tags", "regression": "ink"}[task]
    shared: dict[str, Any] = {"cache": tmp_path / "cache", "reporter": QUIET}
    old = headstart.fit(
        table / "old.csv", GLYPHS, layer="stem", label_column=label, columns="age",
        out=tmp_path / "run", baselines=False, **shared,
    )  # fmt: skip
    new = headstart.update(table / "new.csv", tmp_path / "run", **shared)
    assert new.n_train == old.n_train + 60
    assert new.n_test == old.n_test
    assert new.task == task
    assert len(new.baselines) == 1
    said = headstart.evaluate(table / "new.csv", tmp_path / "run", include_training=True, **shared)
    assert said.figures()[0].score.value > 0.6
    with pytest.raises(DataError, match="none of 60 items is new"):
        headstart.update(table / "new.csv", tmp_path / "run", **shared)


def test_an_update_tears_no_group_apart(table: Path, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"cache": tmp_path / "cache", "reporter": QUIET}
    old = headstart.fit(
        table / "old.csv", GLYPHS, layer="stem", label_column="ink", group_column="patient",
        out=tmp_path / "run", baselines=False, **shared,
    )  # fmt: skip
    new = headstart.update(table / "new.csv", tmp_path / "run", **shared)
    told = next(note for note in new.notes if "to groups in the test split" in note)
    left = int(told.split()[0])
    assert 0 < left < 60
    assert new.n_train == old.n_train + 60 - left
    assert new.evaluation.r2.interval.method == "groups"
    plain = headstart.fit(
        table / "old.csv", GLYPHS, layer="stem", label_column="ink", out=tmp_path / "plain",
        baselines=False, **shared,
    )  # fmt: skip
    assert plain.folder is not None
    with pytest.raises(ConfigError, match="does not record groups"):
        headstart.update(table / "new.csv", plain.folder, group_column="patient", **shared)


# ----------------------------------------------------------------------------------- examine


@pytest.mark.slow
def test_planted_mistakes_are_the_first_to_be_looked_at(table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table / "all.csv")
    split = headstart.load_data(table / "all.csv", label_column="ink")
    wrong = int(Path(split.train.origins[10]).stem)
    frame.loc[wrong, "ink"] += 10 * frame.ink.std()
    frame["path"] = [str(table / path) for path in frame.path]
    frame.to_csv(tmp_path / "wrong.csv", index=False)
    found = headstart.examine(
        tmp_path / "wrong.csv", GLYPHS, layer="stem", label_column="ink", repetitions=2,
        out=tmp_path / "run", cache=tmp_path / "cache", reporter=QUIET,
    )  # fmt: skip
    said = json.loads((tmp_path / "run" / "examination.json").read_text())
    assert said["figure"] == "R²"
    assert said["training_items"]
    if found.doubts:  # the item may be drawn into the test split of the changed table
        assert found.doubts[0].item.endswith(f"{wrong}.png")
    images, tags = _images(), _tags(_images())
    data = headstart.load_data((images, tags))
    members = data.train.targets.copy()
    dark = data.train.classes.index("dark")
    clear = int(np.flatnonzero(members[:, dark])[3])
    members[clear, dark] = 0.0
    import dataclasses

    spoilt = dataclasses.replace(
        data,
        splits={**data.splits, "train": dataclasses.replace(data.train, targets=members)},
    )
    found = headstart.examine(
        spoilt, GLYPHS, layer="stem", repetitions=2, write=False, cache=tmp_path / "cache",
        reporter=QUIET,
    )  # fmt: skip
    doubted = {(doubt.item, doubt.label) for doubt in found.doubts}
    assert (data.train.origins[clear], "no 'dark'") in doubted
    assert found.budget.figure == "mAP"
    assert found.budget.doubled is not None


# ------------------------------------------------------------------- comparing what is whole


def test_backbones_and_ways_of_running_are_compared_by_groups(table: Path, tmp_path: Path) -> None:
    shared: dict[str, Any] = {
        "label_column": "ink", "group_column": "patient", "cache": tmp_path / "cache",
        "reporter": QUIET, "write": False,
    }  # fmt: skip
    ranked = headstart.rank(table / "all.csv", (GLYPHS,), layer="stem", folds=2, **shared)
    first = ranked.ranking.rows[0]
    assert ranked.ranking.figure == "R²"
    assert first.accuracy.interval.method == "groups"
    found = headstart.compare(
        table / "all.csv", GLYPHS, configs="eval+no_grad", repeats=1, layer="stem", **shared
    ).comparison
    outcome = found.outcomes[0]
    split = headstart.load_data(table / "all.csv", label_column="ink", group_column="patient")
    assert found.evidence.figure == "R²"
    assert outcome.accuracy.interval.n == 1 or outcome.accuracy.interval.items
    assert len(set(split.test.groups.tolist())) < len(split.test)


def test_labels_are_weighed_where_a_head_can(table: Path, tmp_path: Path) -> None:
    shared: dict[str, Any] = {
        "label_column": "tags", "layer": "stem", "write": False, "class_weight": "balanced",
        "cache": tmp_path, "reporter": QUIET,
    }  # fmt: skip
    run = headstart.fit(table / "all.csv", GLYPHS, baselines=False, threshold="half", **shared)
    assert run.configuration["class_weight"] == "balanced"
    with pytest.raises(
        ConfigError, match=r"several labels works with the heads .*linear.*not with ridge"
    ):
        headstart.fit(table / "all.csv", GLYPHS, head="ridge", **shared)
    swept = headstart.sweep(table / "all.csv", GLYPHS, folds=2, **shared)
    weighed = {each.head: each.options.get("class_weight") for each in swept.sweep.candidates}
    assert weighed == {"linear": "balanced", "ridge": None}


def test_too_few_groups_are_told_as_such(table: Path) -> None:
    with pytest.raises(DataError, match="2 groups of 240 items are too few to set 20% aside"):
        headstart.load_data(table / "all.csv", label_column="ink", group_column="site")
