"""Which parameters get gradients that no optimizer uses. Shared by several checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from headstart.audit.facts import Network
from headstart.audit.parameters import ParameterFacts

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


def looks(step: int) -> bool:
    """Whether to look closely at a step: the first 32, and then every 64th, for late unfreezing."""
    return step <= 32 or step % 64 == 0


def has_gradient(parameter: Tensor) -> bool:
    """Whether a parameter is trainable and has a gradient; computed ones keep none."""
    return parameter.requires_grad and parameter.is_leaf and parameter.grad is not None


def count_graded(graded: dict[ParameterFacts, int], scene: Scene) -> None:
    """Count, for each parameter with a gradient that no optimizer holds, the steps seen so."""
    listed = {
        id(p)
        for facts in scene.optimizers
        if (optimizer := facts.ref()) is not None
        for group in optimizer.param_groups
        for p in group["params"]
    }
    for parameter, facts in scene.parameters.items():
        if not has_gradient(parameter):
            continue
        if facts.held or id(parameter) in listed:
            graded.pop(facts, None)
        else:
            graded[facts] = graded.get(facts, 0) + 1


def missed_by_network(
    graded: dict[ParameterFacts, int], scene: Scene
) -> dict[int, list[ParameterFacts]]:
    """Return the parameters that got gradients twice and are held by no optimizer, by network."""
    found: dict[int, list[ParameterFacts]] = {}
    for facts, times in graded.items():
        if not facts.held and times >= min(2, scene.steps):
            found.setdefault(facts.networks[-1].number, []).append(facts)
    return found


def is_prefix(network: Network, missed: list[ParameterFacts], scene: Scene) -> bool:
    """Whether all that is missed runs before all that an optimizer moves: frozen, but not said so.

    A network of which nothing is moved is such a prefix, unless it takes what a trained one gives.
    """
    if any(facts.stranger for facts in missed):
        return False
    if not network.stepped:
        before = (p for p in scene.passes if p.trained and p.network.stepped)
        return not any(taken.network is network for p in before for taken in p.consumers)
    seen = next((p for p in scene.trained_passes(network)), None)
    if seen is None:
        return False
    order = {call.part.name: i for i, call in reversed(list(enumerate(seen.calls)))}
    last = max(order.get(facts.names[-1].rpartition(".")[0], -1) for facts in missed)
    first = min(order.get(name.rpartition(".")[0], len(order)) for name in network.stepped)
    return last < first and not any(facts.flips for facts in missed)


__all__ = ["count_graded", "has_gradient", "is_prefix", "looks", "missed_by_network"]
