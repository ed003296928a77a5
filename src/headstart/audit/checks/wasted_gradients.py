"""Gradients are computed through a part that nothing trains."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from headstart.audit.check import Check
from headstart.audit.events import Pass, Step
from headstart.audit.held import count_graded, is_prefix, looks, missed_by_network
from headstart.audit.measuring import trial
from headstart.audit.parameters import ParameterFacts, common_path
from headstart.audit.records import Finding
from headstart.core.wording import count, format_bytes
from headstart.modules.observing import tensors_in

if TYPE_CHECKING:
    from headstart.audit.scene import Scene

_NODES = 64
"""Nodes of a graph that are followed from an input to what it was made of."""


@dataclass(frozen=True)
class _Cost:
    with_gradients: float
    without: float
    kept_bytes: int


class WastedGradients(Check):
    """A frozen part needs no autograd graph and no gradients."""

    code = "wasted-gradients"
    cost = "time and memory for gradients that nothing uses"

    def __init__(self) -> None:
        self.graded: dict[ParameterFacts, int] = {}
        self.costs: dict[int, _Cost] = {}
        self.inputs: dict[int, tuple[Pass, int]] = {}
        self.built: dict[int, set[int]] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Measure the cost where it may be in vain, and look at inputs that require gradients."""
        network, module = seen.network, seen.network.module
        if module is None or not seen.grad or seen.failed or seen.args is None:
            return
        idle = any(
            p.requires_grad and (f := scene.facts_of(p)) is not None and not f.held
            for p in module.parameters()
        )
        given = bool(seen.frozen) and any(
            _is_left_over(t) for t in tensors_in([seen.args, seen.kwargs])
        )
        if given:
            known = self.inputs.get(network.number)
            self.inputs[network.number] = (seen, 1 if known is None else known[1] + 1)
        output = next(tensors_in(seen.output), None)
        if not network.stepped and output is not None and output.requires_grad:
            self.built.setdefault(network.number, set()).add(seen.number)
        known_cost = network.number in self.costs
        if (idle or given) and scene.steps >= 1 and not known_cost and network.passes > 1:
            found = _measured(module, seen)
            if found is not None:
                self.costs[network.number] = found

    def before_step(self, seen: Step, scene: Scene) -> None:
        """Count parameters with a gradient that no optimizer holds."""
        if looks(seen.number):
            count_graded(self.graded, scene)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for number, missed in missed_by_network(self.graded, scene).items():
            network = scene.networks[number]
            if not is_prefix(network, missed, scene):
                continue
            seen = next((p for p in scene.trained_passes(network)), None)
            if seen is not None:
                yield self._of_parameters(seen, missed)
        yield from self._thrown_away(scene)
        for number, (seen, times) in self.inputs.items():
            steps = len({p.step for p in scene.trained_passes(seen.network)})
            if times < 3 or steps < 3 or not seen.trained:
                continue
            cost = self._text(number)
            yield self.finding(
                f"The inputs of {seen.network.kind} require gradients, so that every backward pass"
                f" goes through its frozen part ({count(len(seen.frozen), 'module')}) to an input"
                f" that no optimizer holds{cost}",
                place=seen.place,
                module=common_path(sorted(seen.frozen - {""})) or seen.network.kind,
                confidence=0.85,
                evidence=self._evidence(number) | {"passes": times},
                fix="x = x.detach()  # or: x.requires_grad_(False)",
            )

    def _thrown_away(self, scene: Scene) -> Iterator[Finding]:
        """Yield the networks whose graphs nothing ever went back through."""
        for number, built in self.built.items():
            network = scene.networks[number]
            passes = [
                p
                for p in scene.passes_for("extraction")
                if p.number in built and p.network is network and not scene.was_cut_off(p)
            ]
            if network.stepped or len(passes) < 3 or any(scene.trained_passes(network)):
                continue
            steps = len({p.step for p in passes})
            yield self.finding(
                f"{network.kind} recorded a graph for gradients in"
                f" {count(len(passes), 'observed pass', 'observed passes')}, and no backward pass"
                f" went through it{self._text(number)}",
                place=passes[0].place,
                module=network.kind,
                severity=None if steps >= 3 else "info",
                confidence=0.8 if steps >= 3 else 0.5,
                evidence=self._evidence(number) | {"passes": len(passes), "steps": steps},
                fix="with torch.no_grad():  # around the call; or backbone.requires_grad_(False)",
            )

    def _of_parameters(self, seen: Pass, missed: list[ParameterFacts]) -> Finding:
        names = [facts.names[-1] for facts in missed]
        number = seen.network.number
        return self.finding(
            f"{count(len(names), 'parameter')} of {seen.network.kind} got gradients, and no"
            f" optimizer holds them: they run before everything that is trained, as a frozen part"
            f" does{self._text(number)}",
            place=seen.place,
            module=common_path([name.rpartition(".")[0] for name in names]) or seen.network.kind,
            confidence=0.85,
            evidence=self._evidence(number) | {"parameters": names[:50], "count": len(names)},
            fix="backbone.requires_grad_(False)  # or add its parameters to the optimizer",
        )

    def _text(self, number: int) -> str:
        cost = self.costs.get(number)
        if cost is None:
            return ""
        return (
            f"; a forward and backward pass takes {1000 * cost.with_gradients:.1f} ms and keeps"
            f" {format_bytes(cost.kept_bytes)}, a forward pass without gradients"
            f" {1000 * cost.without:.1f} ms and nothing"
        )

    def _evidence(self, number: int) -> dict[str, Any]:
        cost = self.costs.get(number)
        if cost is None:
            return {}
        return {
            "seconds_with_gradients": cost.with_gradients,
            "seconds_without": cost.without,
            "kept_bytes": cost.kept_bytes,
        }


def _is_left_over(tensor: Tensor) -> bool:
    """Whether a tensor requires gradients that go to no parameter: a leaf that nobody trains."""
    if not tensor.requires_grad:
        return False
    if tensor.grad_fn is None:
        return not isinstance(tensor, nn.Parameter)
    waiting, seen = [tensor.grad_fn], 0
    leaves: list[Any] = []
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > _NODES:
            return False
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.append(variable)
        waiting += [each for each, _ in node.next_functions if each is not None]
    return bool(leaves) and not any(isinstance(leaf, nn.Parameter) for leaf in leaves)


def _measured(module: nn.Module, seen: Pass) -> _Cost | None:
    """Time a pass with and without gradients, on a stand-in; the faster of two each."""
    args, kwargs = seen.args or (), dict(seen.kwargs or {})
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    try:
        with trial(module) as stand_in:
            without, graded = [], []
            leaves = [p for p in stand_in.parameters() if p.requires_grad]
            for _ in range(2):
                begun = time.perf_counter()
                stand_in(*args, **kwargs)
                without.append(time.perf_counter() - begun)
            for _ in range(2):
                begun = time.perf_counter()
                with torch.enable_grad():
                    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                        output = next(tensors_in(stand_in(*args, **kwargs)))
                    inputs = [t for t in tensors_in([args, kwargs]) if t.requires_grad]
                    total = output.float().sum()
                    torch.autograd.grad(total, [*leaves, *inputs], allow_unused=True)
                graded.append(time.perf_counter() - begun)
    except Exception:
        return None
    return _Cost(min(graded), min(without), sum(kept.values()))


__all__ = ["WastedGradients"]
