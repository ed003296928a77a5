"""Every head is trained on one thread where several wait for each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core import threads
from headstart.heads.contract import HeadKind, Trained
from headstart.heads.registry import TrainingRows, head_kind, head_kinds

TASKS = ("classification", "multi-label", "regression")


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Threads that were set, on a machine where one is faster than two."""
    before, known = torch.get_num_threads(), list(threads._known)
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "one_is_faster", lambda *_, **__: True)
    threads._known.clear()
    found: list[int] = []
    given = torch.set_num_threads

    def noted(count: int) -> None:
        found.append(count)
        given(count)

    monkeypatch.setattr(torch, "set_num_threads", noted)
    yield found
    given(before)
    threads._known[:] = known


def rows_of(task: Any) -> TrainingRows:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 120)
    x = (random.normal(size=(120, 16)) + 2 * np.eye(3, 16)[labels]).astype(np.float32)
    targets: Any = {
        "classification": labels,
        "multi-label": np.eye(3)[labels],
        "regression": x[:, :1].astype(np.float64),
    }
    y = targets[task]
    return TrainingRows(x, y, 1 if task == "regression" else 3, task)


@pytest.mark.parametrize(
    ("task", "name"),
    [(task, kind.name) for task in TASKS for kind in head_kinds(task) if kind.name != "tabicl"],
)
def test_every_head_is_trained_on_one_thread_there(task: str, name: str, used: list[int]) -> None:
    kind, rows = head_kind(name), rows_of(task)
    settings = kind.settings({"epochs": 2} if "epochs" in kind.option_names else {})
    found = kind.fit(rows, settings)
    assert used[0] == 1
    assert used[-1] == torch.get_num_threads() == 2
    threads._known[:] = [(threads.time.monotonic() + 60, 2, False)]  # several are faster
    used.clear()
    again = kind.fit(rows, settings)
    assert not used
    x = np.asarray(rows.x)
    np.testing.assert_allclose(found.head.predict(x), again.head.predict(x), atol=1e-4)


@pytest.mark.parametrize("way", ["fit", "solve", "reduce"])
def test_a_head_of_ones_own_is_trained_so_too(way: str, used: list[int]) -> None:
    seen: list[int] = []

    def train(*_: Any) -> Any:
        seen.append(torch.get_num_threads())
        return Trained

    kind = HeadKind(name="own", summary="own", fit=train)
    kind = dataclasses.replace(kind, **{way: train})
    assert getattr(kind, way)(None, None, None) is Trained
    assert seen == [1]
    assert torch.get_num_threads() == 2
