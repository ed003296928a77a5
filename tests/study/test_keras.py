"""Comparisons of Keras backbones say in Keras's words what each configuration is."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from headstart.backbones import load_backbone
from headstart.commands.compare.job import compare
from headstart.commands.compare.tables import framework_rows, terminal
from headstart.core.progress import SilentReporter
from headstart.freezing import reestimate
from headstart.study import Configuration, parse
from headstart.study.terms import KERAS, PYTORCH, terms_of
from tests.keras_models import keras, settled

from .conftest import QUICK, picture_data, pictures, planted, quick


def base(rate: float = 0.3, *, norm: bool = True) -> Any:
    """Two convolutions with batch norm, whose statistics are those of the pictures."""
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, name="conv1")(inputs)
    x = layers.BatchNormalization(name="norm1")(x) if norm else x
    x = layers.Dropout(rate, seed=4, name="drop")(layers.ReLU(name="relu1")(x)) if rate else x
    x = layers.Conv2D(16, 3, strides=2, name="conv2")(x)
    x = layers.BatchNormalization(name="norm2")(x) if norm else x
    model = settled(keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x)))
    if norm:
        reestimate(model, [pictures(96, seed=99)[0].astype("float32") / 127.5 - 1])
    return model


CONFIGS = ["eval", "train", "no_grad", "dropout", "no-dropout", "class-ordered", "reestimated"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("compare")
    return compare(
        picture_data(),
        load_backbone(base(), mean=0.5, std=0.5),
        config=quick(CONFIGS),
        batch_size=QUICK.batch_size,
        device=QUICK.device,
        out=folder / "run",
        cache=folder / "cache",
        reporter=SilentReporter(),
    )


def test_every_configuration_in_keras_words(run: Any) -> None:
    rows = {way: set(names.split(", ")) for names, way in framework_rows(run.comparison)}
    assert rows == {
        "training=False": {"eval+inference_mode", "eval"},
        "training=True, trainable=True": {"train", "no_grad"},
        "training=True, trainable=False": {"dropout"},
        'no call: FreezePolicy(norm="batch", stochastic="off")': {"no-dropout"},
        "training=True, trainable=True, shuffle=False": {"class-ordered"},
        "training=False after headstart.reestimate": {"reestimated"},
    }
    document = json.loads((run.folder / "comparison.json").read_text())
    said = {one["name"]: one["keras"] for one in document["configurations"]}
    assert said["train"] == "training=True, trainable=True"


def test_keras_words_are_what_keras_does(run: Any) -> None:
    """What the table says about ``training`` and ``trainable`` is measured on Keras itself."""
    x = pictures(8, seed=5)[0].astype("float32") / 127.5 - 1

    def rows(training: bool, trainable: bool) -> np.ndarray:
        model = base()
        model.trainable = trainable
        return np.asarray(model(x, training=training).detach())

    inference = rows(False, True)
    assert np.array_equal(rows(False, False), inference)
    dropout_only, both = rows(True, False), rows(True, True)
    assert not np.allclose(dropout_only, inference, atol=1e-3)
    assert not np.allclose(both, dropout_only, atol=1e-3)
    quiet = base(rate=0.0)
    quiet.trainable = False
    assert np.array_equal(np.asarray(quiet(x, training=True)), np.asarray(quiet(x, training=False)))


def test_findings_answer_the_question_of_the_guide(run: Any) -> None:
    found = {finding.kind: finding for finding in run.comparison.findings}
    answer = found["Keras: training and trainable"]
    assert "the 2 batch norms up to the cut use the saved statistics" in answer.text
    assert "Dropout (drop) stays on in fit" in answer.text
    assert "training=True by a trainable base (train)" in answer.text
    assert "statistics of 2 of 2 layers" in answer.text
    assert '{base: "trainable-fixed-norm"}' in answer.text
    depends = found["rows depend on the batch"]
    assert "(in Keras: training=True, trainable=True), a row" in depends.text
    assert "training=False" in depends.fix
    for finding in run.comparison.findings:
        assert "backbone.eval()" not in finding.text + finding.fix
    assert "predict" in run.comparison.recommendation.code


def test_what_is_printed_and_the_page(run: Any) -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(terminal(run.comparison))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "In Keras, with base as your model:" in printed
    assert "training=True, trainable=True: train, no_grad" in printed
    page = (run.folder / "report.html").read_text()
    assert "training=True, trainable=True" in page


@pytest.mark.parametrize(
    ("rate", "norm", "said"),
    [
        (0.0, True, "That is why many people omit it"),
        (0.3, False, "there is none up to the cut"),
        (0.0, False, None),
    ],
)
def test_networks_without_dropout_or_norms(
    study: Any, rate: float, norm: bool, said: str | None
) -> None:
    backbone = load_backbone(base(rate, norm=norm), mean=0.5, std=0.5)
    found = {f.kind: f for f in study(["train", "eval"], backbone=backbone).findings}
    answer = found.get("Keras: training and trainable")
    assert (answer is None) is (said is None)
    if answer is not None:
        assert said in answer.text
        assert norm or "statistics of" not in answer.text


def test_pytorch_backbones_have_pytorch_words() -> None:
    assert terms_of(planted().module) is PYTORCH
    assert terms_of(load_backbone(base(), mean=0.5, std=0.5).module) is KERAS
    assert PYTORCH.way(parse("train"), None) == ""


def test_words_for_what_trains_and_blends() -> None:
    assert KERAS.way(parse("finetune:lp-ft"), {"norm": "running"}) == (
        "fit with trainable=True; batch norms with training=False"
    )
    assert KERAS.way(parse("finetune+sgd"), {"norm": "batch"}) == "fit with trainable=True"
    assert KERAS.way(parse("blend(0.5)"), None) == "training=False after headstart.freezing.blend"
    assert "in each epoch" in KERAS.way(Configuration("own", mode="train", recompute=True), None)
