"""Channels that do not vary are not divided by what rounding leaves of them."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.heads import TrainingRows, head_kind
from headstart.heads.features import moments

N, D = 200, 12
TASKS = [
    ("linear", "classification"),
    ("ridge", "classification"),
    ("lda", "classification"),
    ("linear", "multi-label"),
    ("ridge", "multi-label"),
    ("ridge", "regression"),
]


def rows(task: str) -> tuple[np.ndarray, np.ndarray, int]:
    rng = np.random.default_rng(0)
    x = rng.normal(5, 2, (N, D)).astype(np.float32)
    if task == "classification":
        return x, (x[:, 0] > 5).astype(int), 2
    if task == "multi-label":
        return x, (x[:, :2] > 5).astype(float), 2
    return x, x[:, :1].astype(np.float64), 1


def dead(kind: str) -> np.ndarray:
    """A channel as a network leaves it: exactly constant, or constant up to its rounding."""
    rng = np.random.default_rng(1)
    one = {
        "zero": np.zeros(N),
        "constant": np.full(N, 0.1),
        "rounded": 37.3 * (1 + rng.uniform(-3e-7, 3e-7, N)),
        "nearly zero": 1e-9 * rng.random(N),
        "a single spark": np.r_[1e-8, np.zeros(N - 1)],
    }
    return one[kind].astype(np.float32)


@pytest.mark.parametrize("kind", ["zero", "constant", "rounded", "nearly zero", "a single spark"])
@pytest.mark.parametrize(("head", "task"), TASKS)
def test_a_dead_channel_changes_nothing(head: str, task: str, kind: str) -> None:
    x, y, k = rows(task)
    with_it = np.concatenate([x, dead(kind)[:, None]], axis=1)
    what = head_kind(head)
    fixed = {"linear": {"C": 1.0}, "ridge": {"alpha": 1.0}}.get(head, {})
    plain = what.fit(TrainingRows(x, y, k, task=task), what.settings(fixed)).head
    found = what.fit(TrainingRows(with_it, y, k, task=task), what.settings(fixed)).head
    new = x[:20] + 0.1
    shifted = np.concatenate([new, np.full((20, 1), dead(kind).mean() + 0.01)], axis=1)
    a, b = plain.decision(new), found.decision(shifted.astype(np.float32))
    assert np.isfinite(b).all()
    if head == "lda":  # whose shrinkage counts the channels: they change figures, not predictions
        np.testing.assert_array_equal(plain.predict(new), found.predict(shifted))
        return
    np.testing.assert_allclose(a, b, atol=2e-3 * np.abs(a).max())


def test_scales_of_columns_that_live_are_their_own() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 4)) * [1e-9, 1e-3, 1.0, 1e6]
    mean, scale = moments(x, np.arange(100))
    np.testing.assert_allclose(scale, x.std(axis=0))  # double precision: nobody rounded these
    small = (x[:, 1:3] + 1).astype(np.float32)
    mean, scale = moments(small, np.arange(100))
    np.testing.assert_allclose(scale, small.astype(np.float64).std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(mean, small.astype(np.float64).mean(axis=0), rtol=1e-6)
