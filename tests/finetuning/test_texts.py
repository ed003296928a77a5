"""Texts are fine-tuned from stored rows as from the texts themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.backbones import load_backbone
from headstart.commands.finetune.job import finetune
from headstart.core.progress import SilentReporter
from headstart.data import Split
from headstart.data.items import TextItems
from headstart.finetuning import Recipe, Stage
from headstart.finetuning.network import Classifier
from headstart.heads import choose_linear
from tests.text_models import questions, save_sentence_model, sentence

QUIET = SilentReporter()
LAST = Recipe("last", (Stage("last", ("last:1", "head"), epochs=2, lr=1e-3),), "probe")


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_loss_curve_of_stored_rows_is_that_of_the_texts(kind: str, tmp_path: Path) -> None:
    folder = save_sentence_model(tmp_path / "m", kind)
    data = {"train": questions(60), "test": questions(30, 1)}
    curves: dict[str, list[Any]] = {}
    for mode in ("on", "off"):
        plans: list[Any] = []
        run = finetune(
            data, f"hf/{folder}", LAST, stored=mode, cache=tmp_path / "cache", write=False,
            baselines=False, reporter=QUIET, show_plan=plans.append,
        )  # fmt: skip
        curves[mode] = [epoch["train_loss"] for epoch in run.training["epochs"][1:]]
        stored = plans[0].stages[0].cut
        assert (stored is not None and stored.read) == (mode == "on")
    np.testing.assert_allclose(curves["on"], curves["off"], rtol=1e-4)


def test_texts_of_very_different_lengths_are_not_stored_in_one_shape(tmp_path: Path) -> None:
    inputs = load_backbone(f"hf/{save_sentence_model(tmp_path / 'm')}", max_length=60).inputs
    rng = np.random.default_rng(0)
    even = [sentence(rng, int(size)) for size in rng.integers(3, 20, 100)]

    def shaped(texts: list[str]) -> int:
        n = len(texts)
        split = Split(TextItems(texts, "text"), np.arange(n), np.zeros(n, np.int64))
        return inputs.one_shape([split]).length

    assert shaped(even) == 24  # 19 words and two special tokens, in steps of 8
    assert shaped([*(text[:9] for text in even), sentence(rng, 50)]) == 0
    assert shaped([*even, sentence(rng, 80)]) == 60  # no longer than what is read


def test_a_dead_channel_does_not_explode(tmp_path: Path) -> None:
    backbone = load_backbone(f"hf/{save_sentence_model(tmp_path / 'm', normalise=False)}")
    x = np.random.default_rng(0).normal(size=(80, 32)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    x[:, 5] *= 1e-33
    head = choose_linear(x, y, 2).head
    network = Classifier(backbone, 2)
    network.load_head(head)
    assert float(network.head.weight.detach().abs().max()) < 100
    moved = x.copy()
    moved[:, 5] = 1e-4
    changed = network.head(torch.from_numpy(moved)) - network.head(torch.from_numpy(x))
    assert float(changed.detach().abs().max()) < 1e-3
