"""A loss that expects logits gets probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from headstart.audit.check import Check
from headstart.audit.events import Loss
from headstart.audit.records import Finding, Place
from headstart.audit.scene import Scene

ENOUGH = 3
"""Losses in a row, all of them of probabilities."""
VALUES = 200
"""Values that a binary loss must have seen: a few logits may happen to lie between 0 and 1."""


@dataclass
class _Seen:
    place: Place
    losses: int = 0
    probabilities: int = 0
    values: int = 0
    classes: int = 0


class SoftmaxBeforeLoss(Check):
    """Probabilities reach a loss that expects logits or log-probabilities."""

    code: ClassVar[str] = "softmax-before-loss"
    cost: ClassVar[str] = "accuracy: gradients are small and the loss cannot fall far"

    def __init__(self) -> None:
        self.seen: dict[tuple[str, Place], _Seen] = {}

    def on_loss(self, seen: Loss, scene: Scene) -> None:
        """Look whether the rows of the input are probabilities."""
        if seen.name not in _TAKES or not seen.grad or not isinstance(seen.input, Tensor):
            return
        known = self.seen.setdefault((seen.name, seen.place), _Seen(seen.place))
        known.losses += 1
        if known.losses > 64:
            return
        known.values += seen.input.numel()
        known.probabilities += _TAKES[seen.name](seen.input.detach())
        known.classes = int(seen.input.shape[1]) if seen.input.ndim > 1 else 1

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every line whose losses were all of probabilities."""
        for (name, place), known in self.seen.items():
            looked = min(known.losses, 64)
            if looked < ENOUGH or known.probabilities < looked:
                continue
            if name == "binary_cross_entropy_with_logits" and known.values < VALUES:
                continue
            what, fix = _SAID[name]
            evidence: dict[str, Any] = {"loss": name, "losses": looked, "classes": known.classes}
            yield self.finding(
                f"{name} was given {what} in all of {looked} losses.",
                place=place,
                confidence=0.95 if name != "binary_cross_entropy_with_logits" else 0.7,
                evidence=evidence,
                fix=fix,
            )


def _on_simplex(values: Tensor) -> bool:
    if values.ndim < 2 or values.shape[1] < 2 or not values.is_floating_point():
        return False
    sums = values.float().sum(1)
    return bool((values >= 0).all()) and bool(((sums - 1).abs() < 1e-2).all())


def _between(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all()) and not bool(torch.all(values == values[0]))


_TAKES = {
    "cross_entropy": _on_simplex,
    "nll_loss": _on_simplex,
    "binary_cross_entropy_with_logits": _between,
}
_SAID = {
    "cross_entropy": (
        "probabilities (rows that sum to 1), and expects logits: it applies a softmax of its own",
        "remove the softmax from the network; apply it to what the network predicts, not to"
        " what the loss gets",
    ),
    "nll_loss": (
        "probabilities, and expects their logarithms",
        "loss = torch.nn.functional.nll_loss(probabilities.log(), target)",
    ),
    "binary_cross_entropy_with_logits": (
        "numbers between 0 and 1, and expects logits: it applies a sigmoid of its own",
        "remove the sigmoid from the network",
    ),
}


__all__ = ["SoftmaxBeforeLoss"]
