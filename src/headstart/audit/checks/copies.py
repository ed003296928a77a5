"""The same items, or nearly the same, on both sides of a split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.audit import replay
from headstart.audit.check import Check
from headstart.audit.events import Batch, Pass
from headstart.audit.loaders import Sources
from headstart.audit.records import Finding, Place
from headstart.audit.scene import Scene
from headstart.heads import find_leaks

ROWS = 512
"""Items that are compared, by line and data loader."""
SIDE = 8
"""Images are compared at so many pixels a side."""
NEAR = 0.12
"""Copies differ by less than this share of how far items lie from the mean."""
WHOLE = 0.9
"""A set of which so many are exactly training items is the training set, tested on purpose."""
LEAST = 2
_Key = tuple[int, int | None, Place]


class TrainTestCopies(Check):
    """Items of the evaluation are copies, or near copies, of items of the training.

    Where both sides are parts of one data set, the split has torn groups apart: frames of a film,
    pictures of a patient, crops of a photograph.
    """

    code: ClassVar[str] = "train-test-copies"
    cost: ClassVar[str] = "the figure is too good: the network has seen what it is tested on"

    def __init__(self) -> None:
        self.groups: dict[_Key, list[tuple[Pass, NDArray[np.float32]]]] = {}
        self.whole: dict[int, tuple[int, bool]] = {}
        self.sources = Sources()

    def on_batch(self, seen: Batch, scene: Scene) -> None:
        """Take note of which data set a loader's items are part of."""
        number = seen.loader.number
        self.sources.note(seen)
        if number not in self.whole:
            whole = getattr(seen.dataset, "dataset", None)
            self.whole[number] = (id(whole), whole is not None)

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Keep small versions of what a network is given."""
        if seen.failed:
            return
        loader = self.sources.same(seen.loader)
        group = self.groups.setdefault((seen.network.number, loader, seen.place), [])
        if sum(len(small) for _, small in group) >= ROWS:
            return
        given = replay.images_of(seen)
        rows = given if given is not None else replay.rows_of(seen)
        if rows is not None:
            small = _small(rows)
            if small is not None:
                group.append((seen, small))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every network."""
        told: set[int] = set()
        for key, group in self.groups.items():
            tested = [(p, s) for p, s in group if p.purpose in ("evaluation", "extraction")]
            if not tested or key[0] in told:
                continue
            if tested[0][0].purpose == "extraction" and self.sources.is_random(key[1]):
                continue  # views of the same pictures, one after the other
            for other, more in self.groups.items():
                if other == key or other[0] != key[0] or not more or more[0][0] is tested[0][0]:
                    continue
                trained = [(p, s) for p, s in more if p.purpose == _counterpart(tested)]
                if not trained or trained[0][0].number > tested[0][0].number:
                    continue
                found = self._compare(trained, tested)
                if found:
                    told.add(key[0])
                    yield self._said(scene, key, other, tested[0][0], *found)
                    break

    def _compare(
        self,
        trained: list[tuple[Pass, NDArray[np.float32]]],
        tested: list[tuple[Pass, NDArray[np.float32]]],
    ) -> tuple[int, int, float] | None:
        """Return how many of the tested items are copies, of how many, and their similarity."""
        one = _distinct(np.concatenate([small for _, small in trained]))
        other = _distinct(np.concatenate([small for _, small in tested]))
        if one.shape[1] != other.shape[1] or len(one) < 8 or len(other) < 4:
            return None
        leaks = find_leaks(one, other, threshold=0.99)
        centre = one.mean(0)
        near: dict[int, float] = {}
        same = 0
        for leak in leaks:
            a, b = other[leak.test], one[leak.train]
            if np.linalg.norm(a - b) <= NEAR * np.linalg.norm(b - centre):
                near[leak.test] = leak.similarity
                same += bool(np.array_equal(a, b))
        if len(near) < LEAST or same >= WHOLE * len(other):
            return None
        return len(near), len(other), float(np.median(list(near.values())))

    def _said(
        self,
        scene: Scene,
        tested: _Key,
        trained: _Key,
        seen: Pass,
        count: int,
        of: int,
        similarity: float,
    ) -> Finding:
        parts = [self.whole.get(n, (0, False)) for n in (tested[1], trained[1]) if n is not None]
        same = len(parts) == 2 and parts[0] == parts[1] and parts[0][1]
        evidence: dict[str, Any] = {
            "copies": count,
            "items": of,
            "median cosine": round(similarity, 4),
            "parts of one data set": same,
        }
        why = (
            " Both sides are parts of one data set: the split has torn apart what belongs together."
            if same
            else ""
        )
        return self.finding(
            f"{count} of {of} items that {scene.networks[tested[0]].kind} is tested on are near"
            f" copies of items that it was trained on (line {trained[2].line}).{why}",
            place=seen.place,
            confidence=0.85,
            evidence=evidence,
            fix="divide by group, not by item: all of a film, a patient or a photograph on one side"
            if same
            else "remove the copies from the test data (headstart examine lists them)",
        )


def _counterpart(tested: list[tuple[Pass, NDArray[np.float32]]]) -> str:
    return "training" if tested[0][0].purpose == "evaluation" else "extraction"


def _small(rows: Tensor) -> NDArray[np.float32] | None:
    few = rows.detach()[:ROWS].float()
    if few.ndim == 4:
        few = torch.nn.functional.adaptive_avg_pool2d(few, SIDE).flatten(1)
    return None if few.shape[1] < 16 else few.cpu().numpy().astype(np.float32)


def _distinct(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.unique(rows, axis=0)


__all__ = ["TrainTestCopies"]
