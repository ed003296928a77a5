"""Which policy governs which module and tensor: a mapping of selectors, spelled out for a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from headstart.core.errors import FreezeError
from headstart.core.patterns import is_glob, matches
from headstart.core.wording import nearest, quoted
from headstart.freezing.policy import FreezePolicy, as_policy
from headstart.modules import kinds

Selector = str | re.Pattern[str] | nn.Module
PolicyLike = FreezePolicy | str
Spec = PolicyLike | Mapping[Selector, PolicyLike] | Mapping[str, PolicyLike]


@dataclass(frozen=True, eq=False)
class OwnedTensor:
    """A parameter or buffer, and what its policy means for it.

    Attributes:
        name: its full name.
        owner: the name of the module that registers it.
        tensor: the tensor itself.
        is_parameter: whether it is a parameter rather than a buffer.
        frozen: whether it must not move.
        trainable: whether it is a parameter that trains.
    """

    name: str
    owner: str
    tensor: Tensor
    is_parameter: bool
    frozen: bool
    trainable: bool

    @property
    def governed(self) -> bool:
        """Whether a policy decides whether it moves; any policy does so for its parameters."""
        return self.frozen or self.trainable


@dataclass(frozen=True, eq=False)
class Governance:
    """The policies of a model, spelled out.

    Attributes:
        named: every name of every module, parents first.
        direct: the policies of the parts that selectors name.
        governing: the policy of every governed module name.
        tensors: every parameter and buffer, under each of its names.
    """

    named: Mapping[str, nn.Module]
    direct: Mapping[str, FreezePolicy]
    governing: Mapping[str, FreezePolicy]
    tensors: tuple[OwnedTensor, ...]


def govern(model: nn.Module, spec: Spec) -> tuple[Governance, list[str]]:
    """Work out which policy governs which module, and what that means for every tensor.

    Args:
        model: the model.
        spec: as for :func:`headstart.freezing.plan_freeze`.

    Returns:
        The policies, and a sentence for each module that would get two different ones.

    Raises:
        FreezeError: selectors match nothing or contradict each other; all faults together.
    """
    named = dict(model.named_modules(remove_duplicate=False))
    direct, faults = _resolve(model, spec, list(named))
    if faults:
        raise refusal(faults)
    governing, faults = _inherit(named, direct)
    return Governance(named, direct, governing, tuple(_tensors(named, governing))), faults


def refusal(faults: Iterable[str]) -> FreezeError:
    """Return the error that reports all faults of a mapping together."""
    return FreezeError("; ".join(dict.fromkeys(faults)))


def _resolve(
    model: nn.Module, spec: Spec, names: list[str]
) -> tuple[dict[str, FreezePolicy], list[str]]:
    """Return the policy of each module that a selector names, and all faults of the selectors."""
    if not isinstance(spec, Mapping):
        return {"": as_policy(spec)}, []
    faults: list[str] = []
    chosen: dict[str, tuple[int, str, FreezePolicy]] = {}
    for selector, value in spec.items():
        policy = as_policy(value)
        rank, label, selected = _select(model, selector, names)
        if not selected:
            faults.append(_unmatched(model, selector, label, names))
        for name in selected:
            known = chosen.get(name)
            if known is None or rank < known[0]:
                chosen[name] = (rank, label, policy)
            elif rank == known[0] and policy != known[2]:
                faults.append(
                    f"{known[1]} and {label} both select {name!r}, with different policies"
                )
    if not spec:
        faults.append("the mapping is empty: name at least one part")
    return {name: policy for name, (_, _, policy) in chosen.items()}, faults


def _select(
    model: nn.Module, selector: Selector, names: list[str]
) -> tuple[int, str, tuple[str, ...]]:
    """Return a selector's rank (lower wins), its label for messages, and the names it selects."""
    if isinstance(selector, nn.Module):
        label = f"the module {type(selector).__name__}"
        found = [n for n, m in model.named_modules(remove_duplicate=False) if m is selector]
        return 0, label, tuple(found[:1])
    if isinstance(selector, re.Pattern):
        label = f"the regular expression {selector.pattern!r}"
        return 2, label, _outermost(n for n in names if matches(selector, n))
    found = [n for n in names if matches(selector, n)]
    return (1 if is_glob(selector) else 0), repr(selector), _outermost(found)


def _outermost(names: Iterable[str]) -> tuple[str, ...]:
    """Keep the names that are not below another: a part is selected with everything in it."""
    kept: list[str] = []
    for name in names:  # parents come first
        if not any(not parent or name.startswith(parent + ".") for parent in kept):
            kept.append(name)
    return tuple(kept)


def _unmatched(model: nn.Module, selector: Selector, label: str, names: list[str]) -> str:
    if isinstance(selector, nn.Module):
        return f"{label} is not part of the model"
    if isinstance(selector, str) and selector in dict(model.named_parameters()):
        owner = selector.rpartition(".")[0]
        return f"{label} is a parameter; policies govern modules, so name {owner!r}"
    text = selector.pattern if isinstance(selector, re.Pattern) else selector
    close = nearest(text, [name for name in names if name])
    offer = f" (the nearest names are {quoted(close)})" if close else ""
    return f"{label} selects no part of the model{offer}"


def _inherit(
    named: Mapping[str, nn.Module], direct: Mapping[str, FreezePolicy]
) -> tuple[dict[str, FreezePolicy], list[str]]:
    """Return the policy of every governed name; ``named`` lists parents before children."""
    governing: dict[str, FreezePolicy] = {}
    seen: dict[int, str] = {}
    faults = []
    for name, module in named.items():
        policy = direct.get(name)
        if policy is None and name:
            policy = governing.get(name.rpartition(".")[0])
        if policy is None:
            continue
        governing[name] = policy
        first = seen.setdefault(id(module), name)
        if governing[first] != policy:
            faults.append(
                f"{first!r} and {name!r} are one module, used twice, and would get different"
                f" policies"
            )
    return governing, faults


def _tensors(
    named: Mapping[str, nn.Module], governing: Mapping[str, FreezePolicy]
) -> Iterator[OwnedTensor]:
    for owner, module in named.items():
        policy = governing.get(owner)
        prefix = f"{owner}." if owner else ""
        norm, running = kinds.is_norm(module), kinds.running_buffers(module)
        for key, parameter in module._parameters.items():
            if parameter is None:
                continue
            trains = policy is not None and (
                policy.affine_trainable if norm else policy.parameters == "trainable"
            )
            # Only values that can have a gradient train; quantised and integer ones cannot.
            trains = trains and (parameter.is_floating_point() or parameter.is_complex())
            frozen = policy is not None and not trains
            yield OwnedTensor(prefix + key, owner, parameter, True, frozen, trains)
        for key, buffer in module._buffers.items():
            if buffer is None:
                continue
            if policy is None:
                frozen = False
            elif key in running:
                frozen = not policy.norm_updates or kinds.is_constant_norm(module)
            else:
                frozen = policy.parameters == "frozen"
            yield OwnedTensor(prefix + key, owner, buffer, False, frozen, False)


def autograd_tops(plan: Governance) -> frozenset[str]:
    """Return the modules whose forward is wrapped: selected parts, or the children of a list."""
    tops: set[str] = set()
    queue = [name for name in plan.direct if plan.governing[name].autograd != "grad"]
    while queue:
        name = queue.pop()
        if isinstance(plan.named[name], nn.ModuleList | nn.ModuleDict):
            prefix = f"{name}." if name else ""
            queue += [prefix + child for child, _ in plan.named[name].named_children()]
        else:
            tops.add(name)
    return frozenset(tops)


def keeps_statistics(module: nn.Module, policy: FreezePolicy) -> bool:
    """Whether a module should normalise by the batch but leave its running statistics alone."""
    batch = policy.norm == "batch" and not policy.norm_updates
    return batch and kinds.is_running_norm(module) and not kinds.is_constant_norm(module)


__all__ = [
    "Governance",
    "OwnedTensor",
    "PolicyLike",
    "Selector",
    "Spec",
    "autograd_tops",
    "govern",
    "keeps_statistics",
    "refusal",
]
