"""Fixtures of the estimators' tests: a cache of their own, and one thread for tiny products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from headstart.extraction import Extractor, FeatureRows


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests: what one has extracted, the next finds."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture(autouse=True)
def _surroundings(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HEADSTART_CACHE", str(cache))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """``(1797, 8, 8) uint8`` and ``(1797,)``."""
    data = load_digits()
    return np.rint(data.images / 16 * 255).astype(np.uint8), data.target


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str | None]:
    """How many images went through the network, by layer."""
    counts: Counter[str | None] = Counter()
    real = Extractor.rows

    def counted(self: Extractor, *args: Any, **kwargs: Any) -> Iterator[FeatureRows]:
        for rows in real(self, *args, **kwargs):
            counts.update({cut.layer: len(rows.indices) for cut in self.cuts})
            yield rows

    monkeypatch.setattr(Extractor, "rows", counted)
    return counts
