"""The optimizer holds frozen parameters; harmless as long as they have no gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Step
from headstart.audit.facts import OptimizerFacts
from headstart.audit.held import looks
from headstart.audit.parameters import ParameterFacts, common_path
from headstart.audit.records import Finding
from headstart.core.wording import count

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class OptimizerHoldsFrozen(Check):
    """The optimizer holds frozen parameters; harmless as long as they have no gradient."""

    code = "optimizer-holds-frozen"
    severity = "info"
    cost = "nothing at first; once a gradient of zero is left behind, weight decay moves them"

    def __init__(self) -> None:
        self.held: dict[int, tuple[OptimizerFacts, list[ParameterFacts], int]] = {}

    def before_step(self, seen: Step, scene: Scene) -> None:
        """Count what is frozen in the optimizer."""
        if not looks(seen.facts.steps + 1):
            return
        parameters = [p for g in seen.optimizer.param_groups for p in g["params"]]
        known = [scene.facts_of(p) for p in parameters if not p.requires_grad]
        frozen = [facts for facts in known if facts is not None]
        if frozen:
            self.held[seen.facts.number] = (seen.facts, frozen, len(parameters))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each optimizer."""
        for facts, held, total in self.held.values():
            frozen = [f for f in held if not f.trainable and not f.steps and not f.flips]
            if not frozen:
                continue
            names = [f.name for f in frozen]
            yield self.finding(
                f"{facts.kind} holds {count(len(names), 'parameter')} of {total} that"
                " never required a gradient while it stepped",
                place=facts.place,
                module=common_path([name.rpartition(".")[0] for name in names]),
                confidence=0.5,
                evidence={"parameters": names[:50], "frozen": len(names), "held": total},
                fix="optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=lr)",
            )


__all__ = ["OptimizerHoldsFrozen"]
