"""A part was put in evaluation mode, but a later ``train()`` of its parent undid that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.checks.frozen_statistics_moved import eval_line
from headstart.audit.events import Pass
from headstart.audit.facts import ModeCall, Part
from headstart.audit.records import Finding

if TYPE_CHECKING:
    from headstart.audit.scene import Scene

_MOST = 64
"""Calls of ``train()`` that are looked into; later ones repeat the first."""


@dataclass(frozen=True)
class _Undone:
    part: Part
    set_by: ModeCall
    undone_by: ModeCall


class EvalUndone(Check):
    """``part.eval()`` lasts only until the next ``model.train()``."""

    code = "eval-undone"
    cost = "the part runs in training mode although the code says otherwise"

    def __init__(self) -> None:
        self.candidates: list[_Undone] = []
        self.looked = 0

    def on_mode(self, seen: ModeCall, scene: Scene) -> None:
        """Look for parts that somebody put in evaluation mode by themselves."""
        if not seen.mode or seen.module is None or self.looked >= _MOST:
            return
        self.looked += 1
        for name, part in seen.module.named_modules():
            call = scene.mode_call(part)
            own = call is not None and not call.mode and call.target() is part
            if own and part is not seen.module and call is not None and any(part.children()):
                self.candidates.append(_Undone(scene.part(part, name), call, seen))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each line that undoes."""
        told: set[object] = set()
        for each in self.candidates:
            found = self._ran_in_training(each, scene)
            if found is None or each.undone_by.place in told or not self._meant(each, scene):
                continue
            told.add(each.undone_by.place)
            name = each.part.name
            yield self.finding(
                f"{name or found.network.kind} was put in evaluation mode at {each.set_by.place},"
                f" and {each.undone_by.kind}.train() put it back in training mode; it was then"
                " trained with batch statistics or dropout on",
                place=each.undone_by.place,
                module=name or found.network.kind,
                evidence={
                    "eval_at": str(each.set_by.place),
                    "train_at": str(each.undone_by.place),
                    "forward_at": str(found.place),
                },
                fix=eval_line([name]),
            )

    def _ran_in_training(self, each: _Undone, scene: Scene) -> Pass | None:
        """Return a pass after the ``train()`` in which something inside of the part was live."""
        for seen in scene.passes_for("training"):
            if seen.number <= each.undone_by.passes:
                continue
            live = [*scene.live_norms(seen), *scene.live_chance(seen)]
            within = f"{each.part.name}."
            if any(c.training and c.part.name.startswith(within) for c in live):
                return seen
        return None

    def _meant(self, each: _Undone, scene: Scene) -> bool:
        """Whether the part was to stay in evaluation mode.

        Not where it was only evaluated between the two calls: then ``train()`` ends an evaluation.
        """
        between = [
            seen
            for seen in scene.passes
            if each.set_by.passes < seen.number <= each.undone_by.passes
            and any(call.part is each.part for call in seen.calls)
        ]
        return not between or any(seen.trained for seen in between)


__all__ = ["EvalUndone"]
