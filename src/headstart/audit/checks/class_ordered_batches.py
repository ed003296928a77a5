"""Batches in class order are normalised by their own statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from headstart.audit.check import Check
from headstart.audit.events import Batch, Loss, Pass
from headstart.audit.records import Finding
from headstart.audit.scene import Scene
from headstart.modules.observing import tensors_in

BATCHES = 3
"""The fewest batches that tell an order."""
LEAST = 4
"""The fewest items of a batch that counts."""
FEWER = 0.6
"""Batches are ordered if they have fewer classes than this share of what chance would give."""


class ClassOrderedBatches(Check):
    """Batch norm takes mean and variance from batches that hold one class, or few of many."""

    code: ClassVar[str] = "class-ordered-batches"
    cost: ClassVar[str] = "accuracy: the batch statistics cancel what distinguishes the classes"

    def __init__(self) -> None:
        self.batches: list[tuple[Pass, tuple[int, ...]]] = []
        self.pending: Tensor | None = None
        self.latest: Pass | None = None

    def on_batch(self, seen: Batch, scene: Scene) -> None:
        """Take note of the labels of a batch."""
        found = [t for t in tensors_in(seen.data) if _labels(t)]
        self.pending = found[0].detach() if len(found) == 1 else None

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Join the labels to the pass, if it normalises by the batch."""
        by_batch = any(call.training and call.part.normalises for call in seen.calls)
        self.latest = seen if by_batch and not seen.failed and len(self.batches) < 2000 else None
        if self.latest and self.pending is not None and seen.rows == len(self.pending):
            self.batches.append((seen, tuple(self.pending.tolist())))
            self.latest = None
        self.pending = None

    def on_loss(self, seen: Loss, scene: Scene) -> None:
        """Join the labels of a loss to the pass before it."""
        latest, self.latest = self.latest, None
        target = seen.target
        if latest is None or not isinstance(target, Tensor) or not _labels(target):
            return
        if latest.rows == len(target):
            self.batches.append((latest, tuple(target.detach().tolist())))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every line that runs ordered batches."""
        groups: dict[tuple[int, object], list[tuple[Pass, tuple[int, ...]]]] = {}
        for seen, labels in self.batches:
            if len(labels) >= LEAST:
                groups.setdefault((seen.network.number, seen.place), []).append((seen, labels))
        for batches in groups.values():
            found = _expected(labels for _, labels in batches)
            if len(batches) < BATCHES or found is None or found[0] > FEWER * found[1]:
                continue
            classes, expected = found
            seen = batches[0][0]
            norm = next(c.part.name for c in seen.calls if c.training and c.part.normalises)
            yield self.finding(
                f"Batches arrive in class order: {classes:.1f} classes per batch,"
                f" where a shuffled loader would give {expected:.1f}, and batch norm"
                " normalises by them.",
                place=seen.place,
                module=norm,
                confidence=0.9,
                evidence={
                    "classes a batch": round(classes, 2),
                    "classes a batch when shuffled": round(expected, 2),
                    "batches": len(batches),
                },
                fix="DataLoader(dataset, shuffle=True)  # or backbone.eval() where nothing trains",
            )


def _labels(tensor: Tensor) -> bool:
    integer = not tensor.is_floating_point() and not tensor.is_complex()
    return tensor.ndim == 1 and integer and len(tensor) > 0


def _expected(batches: Iterator[tuple[int, ...]]) -> tuple[float, float] | None:
    """Return the mean number of classes in a batch, and what chance would give."""
    every = list(batches)
    counts = Counter(label for labels in every for label in labels)
    total = sum(counts.values())
    if len(counts) < 2:
        return None
    by_chance = [
        sum(1 - (1 - count / total) ** len(labels) for count in counts.values()) for labels in every
    ]
    return sum(len(set(labels)) for labels in every) / len(every), sum(by_chance) / len(every)


__all__ = ["ClassOrderedBatches"]
