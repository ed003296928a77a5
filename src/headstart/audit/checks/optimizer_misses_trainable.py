"""Parameters get gradients at every step, but no optimizer updates them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Step
from headstart.audit.held import count_graded, is_prefix, looks, missed_by_network
from headstart.audit.parameters import ParameterFacts, common_path
from headstart.audit.records import Finding, Place
from headstart.core.wording import count

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class OptimizerMissesTrainable(Check):
    """Parameters get gradients at every step, but no optimizer updates them."""

    code = "optimizer-misses-trainable"
    severity = "error"
    cost = "they never change: a new layer stays random, an unfrozen one stays as it was"

    def __init__(self) -> None:
        self.graded: dict[ParameterFacts, int] = {}
        self.places: dict[int, Place] = {}

    def before_step(self, seen: Step, scene: Scene) -> None:
        """Count parameters with a gradient that this optimizer does not hold."""
        if not looks(seen.number):
            return
        count_graded(self.graded, scene)
        for facts in self.graded:
            self.places.setdefault(facts.networks[-1].number, seen.place)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network of which a part that is not the first is missed."""
        for network, missed in missed_by_network(self.graded, scene).items():
            if is_prefix(scene.networks[network], missed, scene):
                continue
            names = [facts.names[-1] for facts in missed]
            strange = all(facts.stranger for facts in missed)
            own = scene.networks[network]
            made = [o for o in scene.optimizers if o.number in scene.steppers.get(network, set())]
            unfrozen = any(facts.flips for facts in missed)
            yield self.finding(
                f"{count(len(names), 'trainable parameter')} of {own.kind}, such as {names[0]},"
                f" got gradients, and no optimizer holds"
                f" {'it' if len(names) == 1 else 'them'}"
                + ("; they were unfrozen after it was made" if unfrozen else "")
                + ("; in a plain list, parameters() does not return them" if strange else ""),
                place=self.places.get(network, own.place),
                module=common_path([name.rpartition(".")[0] for name in names]) or own.kind,
                confidence=0.9,
                evidence={
                    "parameters": names[:50],
                    "count": len(names),
                    "optimizer_made_at": [str(o.place) for o in made],
                    "unfrozen_later": unfrozen,
                },
                fix="self.layers = nn.ModuleList(layers)  # instead of a Python list, or dict"
                if strange
                else 'optimizer.add_param_group({"params": new_parameters})',
            )


__all__ = ["OptimizerMissesTrainable"]
