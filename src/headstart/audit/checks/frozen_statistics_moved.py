"""Running statistics of a frozen part move, because its norms run in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from headstart.audit.check import Check
from headstart.audit.events import Pass
from headstart.audit.facts import Part
from headstart.audit.parameters import common_path
from headstart.audit.records import Finding, Place
from headstart.core.devices import doubled
from headstart.core.wording import count
from headstart.core.wording import format_number as number

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class FrozenStatisticsMoved(Check):
    """``requires_grad = False`` freezes parameters; in training mode the statistics still move."""

    code = "frozen-statistics-moved"
    severity = "error"
    cost = (
        "the frozen part computes different features before and after training, and in"
        " training and in evaluation"
    )

    def __init__(self) -> None:
        self.moved: dict[int, tuple[Pass, dict[str, float], dict[str, Place]]] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Measure how far the statistics are from what they were at first."""
        if seen.failed or not (seen.frozen or seen.network.stepped):
            return
        known = self.moved.get(seen.network.number)
        # One that is remembered already is measured again now and then: the shift grows.
        if known is not None and known[0].trained and seen.network.passes % 16:
            return
        shifts: dict[str, float] = {}
        places: dict[str, Place] = {}
        for call in seen.calls:
            part = call.part
            if call.training and part.running and scene.stays_frozen(seen, part):
                shift = shift_of(part)
                if shift > 0:
                    shifts[part.name] = shift
                    places[part.name] = scene.mode_place(part, seen.place)
        if shifts:
            self.moved[seen.network.number] = (seen, shifts, places)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for seen, shifts, places in self.moved.values():
            if scene.restates(seen) or seen.network.moved_directly:
                continue
            if seen.purpose == "extraction" and not scene.steps:
                continue  # nothing is trained: batch-statistics-in-extraction tells it
            left = {call.part.name for call in seen.calls if scene.stays_frozen(seen, call.part)}
            shifts = {name: shift for name, shift in shifts.items() if name in left}
            if not shifts:
                continue
            names = list(shifts)
            worst = max(shifts, key=lambda name: shifts[name])
            yield self.finding(
                f"The running statistics of {count(len(names), 'frozen norm')} moved:"
                f" {worst or seen.network.kind} by {number(shifts[worst])} standard deviations"
                f" within {count(seen.network.passes, 'pass', 'passes')}, since it ran in training"
                f" mode; {_stops(seen, worst)} does not stop that",
                place=places[worst],
                module=common_path(names) or seen.network.kind,
                confidence=0.95,
                evidence={
                    "layers": names,
                    "shift_in_deviations": shifts,
                    "passes": seen.network.passes,
                    "forward_at": str(seen.place),
                },
                fix=eval_line(names),
            )


def _stops(seen: Pass, name: str) -> str:
    """What keeps the parameters of a module as they are, in words."""
    if name in seen.frozen:
        return "requires_grad=False"
    return "no_grad()" if name in seen.quiet else "leaving it out of the optimizer"


def shift_of(part: Part) -> float:
    """Return how far the running mean is from what it was, in running deviations: the mean.

    Norms without a running mean count any change as 1.
    """
    module = part.ref()
    if module is None:
        return 0.0
    mean, before = module._buffers.get("running_mean"), part.first.get("running_mean")
    if mean is None or before is None or mean.shape != before.shape:
        changed = any(
            name in part.first and not torch.equal(part.first[name], module._buffers[name])  # type: ignore[arg-type]
            for name in part.running
            if name != "num_batches_tracked" and module._buffers.get(name) is not None
        )
        return float(changed)
    spread = part.first.get("running_var")
    gap = (doubled(mean.detach()) - doubled(before)).abs()
    return float((gap if spread is None else gap / (doubled(spread) + 1e-12).sqrt()).mean())


def eval_line(names: list[str]) -> str:
    """Return the line of code that puts modules in evaluation mode, after ``train()``."""
    path = common_path(names)
    if any(name != path and not name.startswith(f"{path}.") for name in names):
        return (
            "for m in model.modules(): isinstance(m, nn.modules.batchnorm._BatchNorm) and m.eval()"
            "  # after every model.train()"
        )
    target = f"model.{path}" if path and not path[0].isdigit() else "backbone"
    return f"{target}.eval()  # after every model.train()"


__all__ = ["FrozenStatisticsMoved", "eval_line", "shift_of"]
