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
from headstart.finetuning.costs import StoredMode
from headstart.finetuning.feeds import Feeds
from headstart.finetuning.loop import train
from headstart.finetuning.outcome import Trained
from headstart.finetuning.planner import Prepared, make_plan
from headstart.finetuning.targets import resolve
from headstart.prefix.boundary import Dtype
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

    def feeds(self, network: Classifier, seed: int = 0, dtype: Dtype = "float32") -> Feeds:
        return Feeds(
            network,
            *self.parts,
            Store(self.root),
            SilentReporter(),
            dtype=dtype,
            batch_size=8,
            workers=1,
            seed=seed,
        )

    def plan(
        self,
        network: Classifier,
        recipe: Recipe,
        stored: StoredMode = "on",
        decisions: tuple[str, ...] = (),
    ) -> Prepared:
        return make_plan(recipe, resolve(network, recipe), self.feeds(network), stored, decisions)

    def train(
        self,
        backbone: Backbone,
        recipe: Recipe,
        stored: StoredMode = "on",
        *,
        seed: int = 0,
        dtype: Dtype = "float32",
        checkpoint: Checkpoint | None = None,
        decisions: tuple[str, ...] = (),
    ) -> tuple[Trained, Classifier, Prepared]:
        network = Classifier(backbone, 2, dropout=recipe.head_dropout, seed=seed)
        feeds = self.feeds(network, seed, dtype)
        prepared = make_plan(recipe, resolve(network, recipe), feeds, stored, decisions)
        trained = train(
            prepared, feeds, stop_without_gain=recipe.stop_without_gain, checkpoint=checkpoint
        )
        return trained, network, prepared


@pytest.fixture
def bench(parts: tuple[Split, Split], tmp_path: Path) -> Bench:
    return Bench(parts, tmp_path / "store")
