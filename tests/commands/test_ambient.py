"""A job computes the same whatever is set around its call, and leaves that as it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstart
from headstart.core.ambient import plainly
from headstart.core.progress import SilentReporter

DRAWN = np.random.default_rng(0)
LABELS = np.array(["dark above", "dark left"])[np.arange(48) % 2]
PIXELS = DRAWN.integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
PIXELS[::2, :8] //= 3
PIXELS[1::2, :, :8] //= 3

AROUND: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "another default device": lambda: torch.device("meta"),
    "errors of NumPy": lambda: np.errstate(all="raise"),
}


def settings() -> tuple[Any, ...]:
    return (
        torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(), torch.get_default_device(), np.geterr(),
    )  # fmt: skip


@pytest.mark.parametrize("around", AROUND)
def test_what_is_set_around_is_off_inside_and_on_again(around: str) -> None:
    plain = settings()
    with AROUND[around]():
        before = settings()
        assert before != plain
        with plainly():
            assert settings() == plain
        assert settings() == before


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    place = tmp_path_factory.mktemp("plain")
    return place, probabilities(place)


def probabilities(place: Path) -> np.ndarray:
    made = headstart.fit(
        (PIXELS, LABELS), "headstart/glyphs", out=place / "run", cache=place / "cache",
        reporter=SilentReporter(),
    )  # fmt: skip
    assert made.folder is not None
    found = headstart.predict(
        PIXELS[:6], made.folder, cache=place / "cache", reporter=SilentReporter()
    )
    return np.asarray(found.probabilities)


@pytest.mark.parametrize("around", AROUND)
def test_a_fit_is_the_same(around: str, fitted: Any, tmp_path: Path) -> None:
    with AROUND[around]():
        before = settings()
        found = probabilities(tmp_path)
        assert settings() == before
    assert np.array_equal(found, fitted[1])
