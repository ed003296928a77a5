"""On the same data, training mode and evaluation mode give two different networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from headstart.audit import replay
from headstart.audit.check import Check
from headstart.audit.events import Loss, Pass
from headstart.audit.facts import Part
from headstart.audit.records import Finding
from headstart.audit.scene import Scene
from headstart.modules.modes import evaluate, untouched

GAP = 1.0
"""Nats that the loss in evaluation mode is above that in training mode, and …"""
TIMES = 4.0
"""… so many times as large."""
SETTLED = 0.1
"""Statistics of which more than this share is still that of the beginning have not settled yet."""
STEPS = 10
ROWS = 64


@dataclass
class _Kept:
    """The latest training batch of a network: small, and replaced by the next."""

    inputs: Tensor
    target: Tensor
    loss: float
    step: int


@dataclass(frozen=True)
class _Gap:
    seen: Pass
    part: Part
    training: float
    evaluation: float
    share: float
    momentum: float
    steps: int


class TrainEvaluationGap(Check):
    """A network fits its training data in training mode, but not in evaluation mode.

    The latest training batch is run again in evaluation mode when the script evaluates.
    """

    code: ClassVar[str] = "train-evaluation-gap"
    cost: ClassVar[str] = "accuracy: the network that is evaluated is not the one that was trained"

    def __init__(self) -> None:
        self.kept: dict[int, _Kept] = {}
        self.open: tuple[Pass, Tensor] | None = None
        self.gaps: dict[int, _Gap | None] = {}
        self.looked: dict[int, int] = {}
        self.updates: dict[int, int] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Keep the batch of a training pass; look again at it where the script evaluates."""
        self.open = None
        if seen.failed or not _by_batch(seen):
            if not seen.failed and not seen.grad and not seen.training:
                self._evaluated(seen, scene)
            return
        number = seen.network.number
        self.updates[number] = self.updates.get(number, 0) + 1
        given = next(
            (t for t in (replay.images_of(seen), replay.rows_of(seen)) if t is not None), None
        )
        if seen.grad and given is not None and len(seen.args or ()) == 1 and not seen.kwargs:
            self.open = (seen, given.detach()[:ROWS])

    def on_loss(self, seen: Loss, scene: Scene) -> None:
        """Join the loss to the pass before it."""
        if self.open is None or seen.name != "cross_entropy" or seen.options:
            return
        latest, inputs = self.open
        self.open = None
        target, output = seen.target, seen.output
        whole = isinstance(target, Tensor) and target.ndim == 1 and latest.rows == len(target)
        if whole and isinstance(output, Tensor) and output.ndim == 0:
            few = target.detach()[:ROWS]
            number = latest.network.number
            self.kept[number] = _Kept(
                inputs.clone(), few.clone(), float(output.detach()), scene.steps
            )

    def _evaluated(self, seen: Pass, scene: Scene) -> None:
        number, module = seen.network.number, seen.network.module
        kept = self.kept.get(number)
        if kept is None or module is None or scene.steps < STEPS:
            return
        last = self.looked.get(number, -1)
        if last >= 0 and scene.steps < 2 * last:  # at steps 10, 20, 40, …
            return
        self.looked[number] = scene.steps
        slowest = _slowest(seen, self.updates.get(number, 0))
        if slowest is None:
            return
        with untouched(module):
            evaluate(module)
            output = module(kept.inputs)
            if not isinstance(output, Tensor) or output.ndim != 2:
                return
            loss = float(nn.functional.cross_entropy(output.float(), kept.target))
            training = self._again(module, kept)
        if not loss > training + GAP or loss < TIMES * training:
            self.gaps[number] = None
            return
        part, momentum, share = slowest
        self.gaps[number] = _Gap(seen, part, training, loss, share, momentum, scene.steps)

    def _again(self, module: nn.Module, kept: _Kept) -> float:
        for part in module.modules():
            part.training = True
        output = module(kept.inputs)
        return float(nn.functional.cross_entropy(output.float(), kept.target))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield a finding for every network that was two networks when it was last evaluated."""
        for gap in self.gaps.values():
            if gap is None or (gap.share > SETTLED and gap.momentum >= 0.01):
                continue
            evidence: dict[str, Any] = {
                "loss in training mode": round(gap.training, 4),
                "loss in evaluation mode": round(gap.evaluation, 4),
                "momentum": gap.momentum,
                "share of the statistics that is still the first": round(gap.share, 4),
                "steps": gap.steps,
            }
            slow = (
                f" The running statistics of '{gap.part.name}' follow with momentum"
                f" {gap.momentum:g}, and {gap.share:.0%} of them are still those of the beginning."
                if gap.share > SETTLED
                else ""
            )
            yield self.finding(
                f"On the same training batch, the loss of {gap.seen.network.kind} is"
                f" {gap.training:.3g} in training mode and {gap.evaluation:.3g} in evaluation"
                f" mode.{slow}",
                place=gap.seen.place,
                module=gap.part.name,
                confidence=0.85,
                evidence=evidence,
                fix="module.momentum = 0.1  # or torch.optim.swa_utils.update_bn(loader, model)",
            )


def _by_batch(seen: Pass) -> bool:
    return any(call.training and call.part.normalises for call in seen.calls)


def _slowest(seen: Pass, updates: int) -> tuple[Part, float, float] | None:
    """Return the norm whose statistics follow slowest: itself, its momentum, what is still old."""
    found: tuple[Part, float, float] | None = None
    for call in seen.calls:
        module, part = call.part.ref(), call.part
        if not part.running or module is None:
            continue
        momentum = getattr(module, "momentum", 0.1)
        share = 0.0 if momentum is None else (1 - float(momentum)) ** updates
        if found is None or share > found[2]:
            found = part, 1.0 if momentum is None else float(momentum), share
    return found


__all__ = ["TrainEvaluationGap"]
