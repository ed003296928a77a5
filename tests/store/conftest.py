"""Rows and spaces that the store's tests share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart.store import Space, Store

DESCRIPTION = {"backbone": "tiny", "layers": ["pool"], "preprocessing": {"resize": 256}}


def make_ids(count: int, salt: str = "") -> list[str]:
    return [hashlib.md5(f"{salt}{i}".encode()).hexdigest() for i in range(count)]


def make_rows(ids: list[str], width: int = 16, dtype: str = "float32") -> np.ndarray:
    """(n, width) rows that are a function of the id, as features are."""
    seeds = np.array([int(i[:8], 16) for i in ids], np.float64)[:, None]
    return np.sin(seeds * (1 + np.arange(width))).astype(dtype)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def space(store: Store) -> Space:
    return store.space(DESCRIPTION)


@pytest.fixture
def filled(store: Store) -> Callable[[int, int], tuple[Space, list[str], np.ndarray]]:
    """Build a space of ``rows`` rows in shards of ``step``."""

    def fill(rows: int, step: int) -> tuple[Space, list[str], np.ndarray]:
        space = store.space(DESCRIPTION)
        ids = make_ids(rows)
        values = make_rows(ids)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            space.append(ids[part], {"features": values[part]})
        return space, ids, values

    return fill
