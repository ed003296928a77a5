"""A small labelled data set, and the parts of a fine-tuning put together by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from headstart.backbones import Backbone
from headstart.core.progress import SilentReporter
from headstart.data import Split, load_data
from headstart.finetuning import Classifier, Recipe
from headstart.finetuning.checkpoint import Checkpoint
from headstart.finetuning.circumstances import Circumstances
from headstart.finetuning.loop import train
from headstart.finetuning.opening import Opener
from headstart.finetuning.outcome import Trained
from headstart.finetuning.planning import Prepared, make_plan
from headstart.finetuning.setup import Setup
from headstart.finetuning.targets import resolve
from headstart.store import Store


def squares(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, with a bright square in class 1: ``(n, 16, 16, 3) uint8`` and ``(n,)``."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 100, (n, 16, 16, 3)).astype(np.uint8)
    images[labels == 1, 2:14, 2:14] += 150
    return images, labels


@pytest.fixture(scope="session")
def parts() -> tuple[Split, Split]:
    """45 items that train and 15 that choose the epoch."""
    train_part = load_data({"train": squares(45), "test": squares(15, 1)}, seed=0)
    return train_part.train, train_part.test


@dataclass
class Bench:
    """Runs recipes on the parts."""

    parts: tuple[Split, Split]
    root: Path

    def around(self, backbone: Backbone, cache: str = "on", **more: object) -> Circumstances:
        return Circumstances(
            train=self.parts[0],
            validation=self.parts[1],
            preprocessing=backbone.preprocessing,
            store=Store(self.root),
            cache=cache,  # type: ignore[arg-type]
            batch_size=8,
            workers=1,
            **more,  # type: ignore[arg-type]
        )

    def plan(
        self, network: Classifier, recipe: Recipe, cache: str = "on", **more: object
    ) -> Prepared:
        around = self.around(network.source, cache, **more)
        return make_plan(network, recipe, resolve(network, recipe), around, SilentReporter())

    def train(
        self,
        backbone: Backbone,
        recipe: Recipe,
        cache: str = "on",
        *,
        seed: int = 0,
        checkpoint: Checkpoint | None = None,
        **more: object,
    ) -> tuple[Trained, Classifier, Prepared]:
        import torch

        network = Classifier(backbone, 2, dropout=recipe.head_dropout, seed=seed)
        prepared = self.plan(network, recipe, cache, **more)
        opener = Opener(network, prepared, self.around(backbone, cache, **more), SilentReporter())
        setup = Setup(
            network,
            prepared.targets,
            opener.open,
            opener.images,
            opener.prepare,
            torch.from_numpy(self.parts[0].labels),
            torch.from_numpy(self.parts[1].labels),
            seed=seed,
            stop_without_gain=recipe.stop_without_gain,
            decisions=prepared.decisions,
        )
        return train(setup, checkpoint, SilentReporter()), network, prepared


@pytest.fixture
def bench(parts: tuple[Split, Split], tmp_path: Path) -> Bench:
    return Bench(parts, tmp_path / "store")
