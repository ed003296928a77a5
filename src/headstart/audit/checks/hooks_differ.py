"""Rows were cached from a network whose hooks differ from those of the served network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import nn

from headstart.audit.check import Check
from headstart.audit.events import Pass
from headstart.audit.facts import Network
from headstart.audit.records import Finding, Place
from headstart.audit.scene import Scene

Hooks = dict[str, tuple[int, int]]


class HooksDiffer(Check):
    """Forward hooks were added or removed between caching the rows and using the network."""

    code: ClassVar[str] = "cached-without-hooks"
    cost: ClassVar[str] = "accuracy: the served features differ from those the head was trained on"

    def __init__(self) -> None:
        self.before: dict[int, tuple[Pass, Hooks]] = {}
        self.found: dict[int, tuple[Pass, Pass, str]] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Compare the hooks of a network with those that it had when it ran before."""
        if seen.failed:
            return
        for network in self._inside(seen, scene):
            module = network.module
            if module is None or network.number in self.found:
                continue
            hooks = _hooks(module)
            if network.number not in self.before:
                if network is seen.network:
                    self.before[network.number] = (seen, hooks)
                continue
            first, known = self.before[network.number]
            changed = [name for name in {**known, **hooks} if known.get(name) != hooks.get(name)]
            if changed:
                self.found[network.number] = (first, seen, sorted(changed)[0])

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield a finding where rows had been extracted before the hooks changed."""
        for number, (first, later, name) in self.found.items():
            if first.purpose != "extraction" or later.step <= first.step:
                continue
            evidence: dict[str, Any] = {"cached at line": first.place.line, "module": name}
            place: Place = later.place
            yield self.finding(
                f"{scene.networks[number].kind} has other forward hooks (at '{name}') than when its"
                f" rows were cached, in line {first.place.line}; a head was trained in between.",
                place=place,
                module=name,
                confidence=0.8,
                evidence=evidence,
                fix="register the hooks before the rows are cached",
            )

    def _inside(self, seen: Pass, scene: Scene) -> Iterator[Network]:
        yield seen.network
        if len(scene.networks) < 2:
            return
        ran = {id(module) for call in seen.calls[:512] if (module := call.part.ref()) is not None}
        for other in scene.networks:
            if other is not seen.network and other.number in self.before:
                module = other.module
                if module is not None and id(module) in ran:
                    yield other


def _hooks(module: nn.Module) -> Hooks:
    """Return how many hooks each module has that may change what it puts out."""
    return {
        name: (len(part._forward_hooks), len(part._forward_pre_hooks))
        for name, part in module.named_modules()
        if part._forward_hooks or part._forward_pre_hooks
    }


__all__ = ["HooksDiffer"]
