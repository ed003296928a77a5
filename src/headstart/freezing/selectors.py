"""From a mapping of selectors to the policy that governs each module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

from headstart.core.names import is_glob, matches
from headstart.core.wording import nearest, quoted
from headstart.freezing.policy import FreezePolicy, as_policy

Selector = str | re.Pattern[str] | nn.Module
PolicyLike = FreezePolicy | str
Spec = PolicyLike | Mapping[Selector, PolicyLike] | Mapping[str, PolicyLike]


def aliases(model: nn.Module) -> dict[str, nn.Module]:
    """Return every name of every module, parents first; one used twice has several names."""
    return dict(model.named_modules(remove_duplicate=False))


def resolve(model: nn.Module, spec: Spec) -> tuple[dict[str, FreezePolicy], list[str]]:
    """Return the policy of each module that a selector names, and all faults of the selectors."""
    if not isinstance(spec, Mapping):
        return {"": as_policy(spec)}, []
    faults: list[str] = []
    chosen: dict[str, tuple[int, str, FreezePolicy]] = {}
    names = list(aliases(model))
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
    """Return the selector's rank (lower wins), how to call it, and the names it selects."""
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
    """Keep the names that lie below no other: a part is selected with all that it holds."""
    kept: list[str] = []
    for name in names:  # parents come first
        if not any(not parent or name.startswith(parent + ".") for parent in kept):
            kept.append(name)
    return tuple(kept)


def _unmatched(model: nn.Module, selector: Selector, label: str, names: list[str]) -> str:
    if isinstance(selector, nn.Module):
        return f"{label} is no part of the model"
    if isinstance(selector, str) and selector in dict(model.named_parameters()):
        owner = selector.rpartition(".")[0]
        return f"{label} is a parameter; policies govern modules, so name {owner!r}"
    text = selector.pattern if isinstance(selector, re.Pattern) else selector
    close = nearest(text, [name for name in names if name])
    offer = f" (the nearest names are {quoted(close)})" if close else ""
    return f"{label} selects no part of the model{offer}"


def inherit(
    named: Mapping[str, nn.Module], direct: Mapping[str, FreezePolicy]
) -> tuple[dict[str, FreezePolicy], list[str]]:
    """Return the policy of every governed name; parents come before children in ``named``."""
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


__all__ = ["PolicyLike", "Selector", "Spec", "aliases", "inherit", "resolve"]
