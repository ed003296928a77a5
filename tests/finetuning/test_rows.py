"""Boundary rows on disk: several processes share the work, and broken items are told together."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.cache import FeatureCache
from headstart.core.progress import SilentReporter
from headstart.data import Split, load_data
from headstart.finetuning import Classifier, Recipe, Stage
from headstart.finetuning.feeds import Feeds
from headstart.finetuning.rows import BoundaryRows
from headstart.finetuning.targets import resolve
from headstart.prefix import Cut, find_cut
from headstart.store import Store
from tests.finetuning.conftest import squares
from tests.finetuning.models import residual

ITEMS, BATCH = 64, 8


def rows_in(root: Path) -> tuple[BoundaryRows, Split, Classifier]:
    """The same rows in every process that asks."""
    network = Classifier(residual(), 2)
    target = resolve(network, Recipe("r", (Stage("head"),)))[0]
    cut = find_cut(network, network.source.probe(2), target.freeze, measure=False)
    assert isinstance(cut, Cut)
    rows = BoundaryRows(
        cut,
        network.source,
        Store(root),
        precision="float32",
        device=torch.device("cpu"),
        batch_size=BATCH,
        workers=1,
    )
    data = load_data({"train": squares(ITEMS), "test": squares(4, 1)}, seed=0)
    return rows, data.train, network


def counted(network: Classifier, pause: float) -> Callable[[], int]:
    """Count the items that pass through the first layer, slowly."""
    seen = [0]

    def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
        seen[0] += len(output)
        time.sleep(pause)

    first = next(m for m in network.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    first.register_forward_hook(hook)
    return lambda: seen[0]


def _fill(root: Path, barrier: Barrier, answers: Any) -> None:
    torch.set_num_threads(1)
    rows, split, network = rows_in(root)
    count = counted(network, 0.03)
    barrier.wait(60)
    filled = rows.fill(split, None, SilentReporter())
    answers.put((count(), filled.use.misses, rows.missing(split)))


def test_two_processes_divide_the_rows_and_both_return_with_all(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_fill, args=(tmp_path / "store", barrier, answers)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sum(computed for computed, _, _ in found) == ITEMS
    assert all(computed for computed, _, _ in found)
    assert [missing for _, _, missing in found] == [0, 0]
    rows, split, network = rows_in(tmp_path / "store")
    count = counted(network, 0.0)
    assert rows.fill(split, None, SilentReporter()).use.misses == 0
    assert count() == 0
    stored = rows.tensors(rows.read(split)[np.arange(ITEMS)])
    with torch.no_grad():
        pixels = np.stack([np.asarray(image) for image in squares(ITEMS)[0]])
        inputs = network.source.inputs.normalise(
            torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        )
        expected = rows.cut.prefix.eval()(inputs)
    for one, other in zip(stored, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_process_that_ends_early_gives_its_claims_back(tmp_path: Path) -> None:
    rows, split, network = rows_in(tmp_path / "store")

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    first = next(m for m in network.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    handle = first.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        rows.fill(split, None, SilentReporter())
    handle.remove()
    other, _, _ = rows_in(tmp_path / "store")
    other.fill(split, None, SilentReporter())
    assert other.missing(split) == 0


def test_rows_at_the_feature_are_in_the_space_of_the_feature_cache(tmp_path: Path) -> None:
    backbone = residual()
    network = Classifier(backbone, 2)
    cache = FeatureCache(tmp_path / "cache")
    split = load_data({"train": squares(ITEMS), "test": squares(4, 1)}, seed=0).train
    feeds = Feeds(network, split, split, cache.store, SilentReporter(), seed=3)
    for stage, shared in (
        (Stage("probe", ("head",)), True),
        (Stage("half", ("head",), precision="bfloat16"), False),  # pooled in half precision
        (Stage("block", ("last:1",)), False),
    ):
        (target,) = resolve(network, Recipe("r", (stage,)))
        cut = find_cut(network, backbone.probe(4), target.freeze, measure=False)
        rows = feeds.rows(cut, stage)
        for view in (None, *backbone.inputs.numbered_views(2, seed=3)):
            assert (rows.space(view).key == cache.space(backbone, view=view).key) == shared
