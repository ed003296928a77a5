"""After an evaluation, training continues in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Pass
from headstart.audit.facts import ModeCall
from headstart.audit.records import NOWHERE, Finding
from headstart.core.wording import count, listed

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class TrainedInEvaluationMode(Check):
    """The script calls ``eval()`` before an evaluation, and never ``train()`` after it."""

    code = "trained-in-evaluation-mode"
    cost = "dropout is off and batch norm no longer follows the data, from the first evaluation on"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network that was trained in both modes."""
        for network in scene.networks:
            trained = list(scene.trained_passes(network))
            first = next((p for p in trained if p.training), None)
            if first is None:
                continue
            # Gradients that no step follows train nothing: those of a saliency map at the end.
            later = [
                p
                for p in trained
                if not p.training and p.number > first.number and p.step < scene.steps
            ]
            call = None if not later else self._call(first, later[0], scene)
            if call is None or not self._evaluated(later[0], call, scene):
                continue
            parts = [c.part for c in first.calls if c.training]
            names = [p.name for p in parts if p.normalises or p.random]
            if not names:
                continue
            yield self.finding(
                f"{network.kind} was trained in training mode at first, and in"
                f" {count(len(later), 'observed pass', 'observed passes')} after an evaluation in"
                f" evaluation mode, which changes {listed(names, 3)}",
                place=call.place,
                module=network.kind,
                confidence=0.95,
                evidence={
                    "passes_in_evaluation_mode": len(later),
                    "from_step": later[0].step,
                    "eval_at": str(call.place),
                    "forward_at": str(later[0].place),
                    "layers": names,
                },
                fix="model.train()  # at the beginning of every epoch",
            )

    def _call(self, first: Pass, later: Pass, scene: Scene) -> ModeCall | None:
        """Return the latest ``eval()`` between two passes."""
        between = [m for m in scene.modes if first.number <= m.passes < later.number and not m.mode]
        return between[-1] if between and between[-1].place != NOWHERE else None

    def _evaluated(self, later: Pass, call: ModeCall, scene: Scene) -> bool:
        """Whether the network was evaluated between the call and the pass, as it was meant to."""
        return any(
            p.network is later.network and not p.trained
            for p in scene.passes
            if call.passes < p.number < later.number
        )


__all__ = ["TrainedInEvaluationMode"]
