"""Every task × every format: the artefact predicts what ``predict`` predicts, or says why not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.commands.export.job import export
from headstart.commands.saved_run import open_run
from headstart.core.errors import BackboneError, HeadError
from headstart.core.fingerprints import sha256_of_file
from headstart.export.artefact import read_artefact
from headstart.export.formats import FORMATS
from headstart.export.parity import difference, outputs_alone
from tests.kinds_of_runs import QUIET, TASKS, Runs

TORCH_FORMATS = [name for name in FORMATS if name != "keras"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("tasks"))


def agrees(runs: Runs, run: Path, kind: str, to: str, target: Path, **given: Any) -> Path:
    """Export a run, and compare what its script says with the table of ``predict``."""
    items = runs.items(kind)
    said = headstart.predict(items, run, cache=runs.cache, reporter=QUIET)
    made = export(run, to, output=target, items=6, cache=runs.cache, reporter=QUIET, **given)
    expected = np.asarray(said.probabilities)
    found = outputs_alone(made.folder, items)
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
    about = read_artefact(made.folder)
    assert about["task"] == said.task
    assert about["classes"] == list(said.classes)
    assert about["output"] == ("values" if said.task == "regression" else "probabilities")
    return made.folder


def table_of(folder: Path, items: list[Any], tmp_path: Path) -> list[dict[str, Any]]:
    """Return what the script prints for files, as a user runs it."""
    names = []
    for number, item in enumerate(items):
        if isinstance(item, str):
            names.append(item)
        else:
            (tmp_path / f"{number}.png").write_bytes(item)
            names.append(str(tmp_path / f"{number}.png"))
    words = [sys.executable, "-I", str(folder / "predict.py"), *names]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


WALK = [
    pytest.param(kind, task, to, marks=() if (kind, to) == ("image", "onnx") else pytest.mark.slow)
    for kind, formats in (("image", TORCH_FORMATS), ("text", ["onnx"]))
    for task in TASKS
    for to in formats
    if (kind, task) != ("image", "classification")  # those of test_artefacts.py
]


@pytest.mark.parametrize(("kind", "task", "to"), WALK)
def test_every_task_in_every_format(
    kind: str, task: str, to: str, runs: Runs, tmp_path: Path
) -> None:
    run = runs.run(kind, task)
    folder = agrees(runs, run, kind, to, tmp_path / to)
    if to != "onnx":
        return
    items = runs.items(kind, 3)
    said = headstart.predict(items, run, cache=runs.cache, reporter=QUIET)
    found = table_of(folder, items, tmp_path)
    if task == "multi-label":
        assert ["|".join(row["labels"]) for row in found] == list(said.labels)
    elif task == "regression":
        assert [list(row["values"]) for row in found] == [list(said.classes)] * 3
        values = np.array([list(row["values"].values()) for row in found])
        np.testing.assert_allclose(values, said.values, rtol=1e-4, atol=1e-4)
    else:
        assert [row["class"] for row in found] == list(said.labels)


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_a_target_of_large_values_hides_no_error_of_another(wrong: int) -> None:
    expected = np.linspace(-1, 1, 8)[:, None] * np.array([1e6, 1.0, 1e-6])
    found = expected.copy()
    found[3, wrong] *= 1.5
    gap = difference(found, expected, "regression")
    assert gap.argmax() == 3
    assert gap[3] == pytest.approx(0.5 * abs(expected[3, 1]))
    assert not gap[np.arange(8) != 3].any()


def test_thresholds_and_temperature_come_along(runs: Runs, tmp_path: Path) -> None:
    run = open_run(runs.run("image", "multi-label", threshold="f1"))
    assert run.head.thresholds is not None
    folder = agrees(runs, run.folder, "image", "onnx", tmp_path / "onnx")
    assert read_artefact(folder)["thresholds"] == pytest.approx(run.head.thresholds.tolist())


def test_the_temperature_and_the_shares_of_classes_come_along(runs: Runs, tmp_path: Path) -> None:
    copy = shutil.copytree(runs.run("image", "classification"), tmp_path / "run")
    head = open_run(copy).head
    assert head.temperature != 1
    moved = head.with_temperature(3 * head.temperature).with_thresholds(np.array([0.3, 0.7]))
    moved.save(copy)
    said = json.loads((copy / "run.json").read_text())
    for name in set(said["files"]) & {"head.json", "head.safetensors"}:
        said["files"][name] = sha256_of_file(copy / name)
    (copy / "run.json").write_text(json.dumps(said))
    agrees(runs, copy, "image", "onnx", tmp_path / "onnx")


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "pooling"), [("stem", "gem"), ("stage2.0", "avg")])
def test_every_pooling_of_every_cut(layer: str, pooling: str, runs: Runs, tmp_path: Path) -> None:
    run = runs.run("image", "classification", layer=layer, pooling=pooling)
    agrees(runs, run, "image", "onnx", tmp_path / "onnx")


REFUSED = {
    "audio": "takes sounds",
    "bands": "takes images of",
    "patches": "takes images of",
}


@pytest.mark.parametrize(
    "kind", ["bands", "patches", pytest.param("audio", marks=pytest.mark.slow)]
)
def test_what_no_script_reads_is_said(kind: str, runs: Runs, tmp_path: Path) -> None:
    run = runs.run(kind, "classification")
    for to in TORCH_FORMATS:
        with pytest.raises(BackboneError, match=REFUSED[kind] + ".*no artefact reads"):
            export(run, to, output=tmp_path / to, cache=runs.cache, reporter=QUIET)
    assert not list(tmp_path.iterdir())
    assert open_run(run).to_torch() is not None  # what the hint names works


# -- Keras ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(runs: Runs) -> Path:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    from tests.keras_models import mobilenet

    mobilenet().save(runs.folder / "net.keras")
    return runs.folder / "net.keras"


KERAS = [
    pytest.param(task, head, layer, marks=() if plain else pytest.mark.slow)
    for task, head, layer, plain in (
        ("classification", "linear", "conv_pw_3_relu", True),
        ("multi-label", "linear", None, False),
        ("regression", "ridge", "conv_pw_5_relu", False),
    )
]


@pytest.mark.parametrize(("task", "head", "layer"), KERAS)
def test_a_keras_run_is_a_keras_model_from_the_file_on(
    task: str, head: str, layer: str | None, network: Path, runs: Runs, tmp_path: Path
) -> None:
    table, _, _ = runs.source("image")
    pooling = {"pooling": "avg"} if layer is None else {}
    headstart.fit(
        str(table), str(network), layer=layer, mean=0.5, std=0.5, task=task, head=head,
        label_column=TASKS[task], image_column="item", out=tmp_path / "run", cache=runs.cache,
        reporter=QUIET, baselines=False, precision="float32", engine="eager", **pooling,
    )  # fmt: skip
    folder = agrees(runs, tmp_path / "run", "image", "keras", tmp_path / "keras")
    import keras

    model = keras.saving.load_model(folder / "model.keras")
    names = [each.name for each in model._flatten_layers()]
    assert ("conv_pw_13_relu" in names) == (layer is None)  # what is behind the cut stays behind
    assert {"scaling", "head"} < set(names)


def test_a_head_without_keras_layers_says_which_have(
    network: Path, runs: Runs, tmp_path: Path
) -> None:
    table, _, _ = runs.source("image")
    run = headstart.fit(
        str(table), str(network), mean=0.5, std=0.5, head="knn", label_column="class",
        pooling="avg", image_column="item", write=False, cache=runs.cache, reporter=QUIET,
        baselines=False,
    )  # fmt: skip
    with pytest.raises(HeadError, match="no Keras layers that predict as it does; train head="):
        export(run, "keras", output=tmp_path / "x", cache=runs.cache, reporter=QUIET,
               data=str(table), image_column="item")  # fmt: skip


# -- half precision ------------------------------------------------------------------------------


def test_a_run_in_half_precision_says_what_float32_costs_on_labels(
    runs: Runs, tmp_path: Path
) -> None:
    run = runs.run("image", "classification", precision="bfloat16")
    said: list[str] = []

    class Listening(type(QUIET)):  # type: ignore[misc]
        def note(self, text: str) -> None:
            said.append(text)

    made = export(run, "onnx", output=tmp_path / "x", items=4, cache=runs.cache,
                  reporter=Listening())  # fmt: skip
    rows = made.parity.rows
    assert rows is not None
    assert made.parity.largest < rows.largest  # of the artefact; of the two precisions
    assert (rows.precision, rows.items, rows.figure) == ("bfloat16", 12, "accuracy")
    alone = outputs_alone(made.folder, runs.items("image", 12))
    truth = open_run(run).kept_rows().test.labels  # type: ignore[union-attr]
    right = float((alone.argmax(axis=1) == truth).mean())
    before = open_run(run).accuracy
    assert rows.difference == pytest.approx(right - before)
    assert f"{100 * right:.1f} %" in rows.artefact
    assert f"{100 * before:.1f} %" in rows.run
    cause = "this run was fitted on bfloat16 rows, and its artefact computes in float32"
    assert cause in said
    assert "labelled test items accuracy is" in (made.folder / "README.md").read_text()
    assert cause[1:] in (made.folder / "README.md").read_text()
    plain = export(runs.run("image", "classification"), "onnx", output=tmp_path / "y", items=4,
                   cache=runs.cache, reporter=QUIET)  # fmt: skip
    assert plain.parity.rows is None
