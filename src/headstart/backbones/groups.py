"""One ordered list of block groups per model: it drives freezing and layer-wise learning rates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from headstart.backbones.families import families
from headstart.core.errors import FreezeError
from headstart.core.patterns import covers
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.wording import did_you_mean, quoted
from headstart.modules import kinds


@dataclass(frozen=True)
class BlockGroup:
    """A step on the way from the input to the output of a network.

    Attributes:
        name: a short name: the common part of its parameters' names, or ``stem``.
        parameters: the names of its parameters; every parameter of a model is in one group.
        modules: the outermost modules all of whose parameters are in this group, for
            :func:`headstart.freeze`.
    """

    name: str
    parameters: tuple[str, ...]
    modules: tuple[str, ...]


def block_groups(model: nn.Module) -> tuple[BlockGroup, ...]:
    """Divide a model's parameters into blocks, from the input to the output.

    A network may say it itself, by a method ``grouped_parameters()`` that returns the names of each
    group; else the family that it belongs to does (timm's models have a ``group_matcher``). For
    others, torchvision's and transformers' among them, the module tree is read: the children of
    its lists of blocks
    (``Sequential``, ``ModuleList``) are a group each, what comes before the first list is the
    ``stem``, and other modules are a group of their own. Modules count as ordered as they are
    registered, which is the order of the forward in every family this was tested with.

    Args:
        model: any module with parameters.

    Returns:
        The groups; each parameter is in exactly one, a tied one in the first that has it.

    Raises:
        FreezeError: the model has no parameters, or its own grouping or that of its family left
            some out.
    """
    names = [name for name, _ in model.named_parameters()]
    if not names:
        raise FreezeError(f"this {type(model).__name__} has no parameters to group")
    by, found = _grouped(model)
    grouped = [list(group) for group in found if group]
    listed = [name for group in grouped for name in group]
    if sorted(listed) != sorted(names):
        wrong = sorted(set(names) ^ set(listed)) or sorted(
            {n for n in listed if listed.count(n) > 1}
        )
        raise FreezeError(
            f"the grouping by {by} does not cover every parameter once: {quoted(wrong, 6)}",
            hint="let it name each parameter in one group",
        )
    grouped = _together(grouped)
    groups: list[BlockGroup] = []
    for index, group in enumerate(grouped):
        modules = _modules(model, set(group))
        label = _label(group, modules, index)
        taken = {each.name for each in groups}
        groups.append(BlockGroup(_other(label, taken), tuple(group), modules))
    return tuple(groups)


def _together(grouped: Sequence[Sequence[str]]) -> list[list[str]]:
    """Keep the parameters of one module in one group: the first that has any of them.

    A freeze policy governs a module, and what ``cls_token`` and ``pos_embed`` belong to is the
    whole network.
    """
    first: dict[str, int] = {}
    for number, group in enumerate(grouped):
        for name in group:
            first.setdefault(name.rpartition(".")[0], number)
    found: list[list[str]] = [[] for _ in grouped]
    for group in grouped:
        for name in group:
            found[first[name.rpartition(".")[0]]].append(name)
    return [group for group in found if group]


def _other(label: str, taken: Collection[str]) -> str:
    """Return a label, with a number where another group has it."""
    number = 2
    chosen = label
    while chosen in taken:
        chosen, number = f"{label} ({number})", number + 1
    return chosen


class ParamGroups(list[dict[str, Any]]):
    """Parameter groups for an optimizer; ``print`` shows the effective rate of each."""

    def __str__(self) -> str:
        width = max(len(str(group["name"])) for group in self)
        lines = [f"{'group'.ljust(width)}  {'rate':>10}  {'decay':>8}  {'parameters':>12}"]
        for group in self:
            count = sum(parameter.numel() for parameter in group["params"])
            lines.append(
                f"{group['name']!s:<{width}}  {group['lr']:>10.3g}"
                f"  {group['weight_decay']:>8.3g}  {count:>12,}"
            )
        return "\n".join(lines)


def param_groups(
    model: nn.Module,
    lr: float,
    decay: float = 0.75,
    weight_decay: float = 0.05,
    *,
    no_decay: Sequence[str] = (),
    scales: Mapping[str, float] | None = None,
    reporter: Reporter | None = None,
) -> ParamGroups:
    """Return optimizer groups with learning rates that shrink from the output to the input.

    Group i of n gets ``lr · decay ** (n - 1 - i)``, so that the last one, the head, gets ``lr``
    itself (layer-wise decay: Howard and Ruder 2018, arXiv 1801.06146; Clark et al. 2020, arXiv
    2003.10555). Groups are counted with the frozen ones, so that a block keeps its rate when
    others thaw. Frozen parameters (``requires_grad`` off) are left out.

    Norms' scales and shifts and biases get no weight decay, nor does what the model names itself
    (timm's ``no_weight_decay()``: class tokens, position embeddings).

    Args:
        model: the model.
        lr: the rate of the last group.
        decay: the factor from one group to the one before it; 1 gives one rate to all. 0.75 suits
            about a dozen blocks; nearer 1 suits deeper networks.
        weight_decay: for weights; 0.05 as is usual with AdamW.
        no_decay: further names, globs or parts without weight decay.
        scales: further factors by name, glob or part, such as ``{"encoder": 0.1}`` to train a
            part slowly instead of freezing it; the longest that covers a parameter counts.
        reporter: shown the table of effective rates.

    Returns:
        A list of dicts with ``params``, ``lr``, ``weight_decay`` and ``name``.

    Raises:
        FreezeError: a number is out of range, a name matches nothing, or nothing trains.
    """
    _check_numbers(lr, decay, weight_decay, scales or {})
    parameters = dict(model.named_parameters())
    spared = _undecayed(model, no_decay)
    factors = _factors(model, scales or {})
    groups = block_groups(model)
    found = ParamGroups()
    for index, group in enumerate(groups):
        rate = lr * decay ** (len(groups) - 1 - index)
        parts: dict[tuple[float, bool], list[str]] = {}
        for name in group.parameters:
            if parameters[name].requires_grad:
                parts.setdefault((factors.get(name, 1.0), name in spared), []).append(name)
        for factor, bare in sorted(parts):
            scaled = f" (× {factor:g})" if factor != 1.0 else ""
            found.append(
                {
                    "params": [parameters[name] for name in parts[factor, bare]],
                    "lr": rate * factor,
                    "weight_decay": 0.0 if bare else weight_decay,
                    "name": f"{group.name}{scaled}{' (no decay)' if bare else ''}",
                }
            )
    if not found:
        raise FreezeError(
            "every parameter of the model is frozen: there is nothing to optimise",
            hint="thaw a part with headstart.freeze(model, {...: 'trainable'})",
        )
    (reporter or SilentReporter()).note(str(found))
    return found


def _check_numbers(
    lr: float, decay: float, weight_decay: float, scales: Mapping[str, float]
) -> None:
    faults = [
        f"{name} is {value}, expected {wanted}"
        for name, value, wanted, good in (
            ("lr", lr, "a positive number", lr > 0),
            ("decay", decay, "a number above 0, at most 1", 0 < decay <= 1),
            ("weight_decay", weight_decay, "0 or more", weight_decay >= 0),
            *((f"the scale of {n!r}", v, "a positive number", v > 0) for n, v in scales.items()),
        )
        if not good
    ]
    if faults:
        raise FreezeError("; ".join(faults))


def _factors(model: nn.Module, scales: Mapping[str, float]) -> dict[str, float]:
    names = [name for name, _ in model.named_parameters()]
    _require_match("scales", scales, names)
    factors = {}
    for name in names:
        covering = [pattern for pattern in scales if covers(pattern, name)]
        if covering:
            factors[name] = scales[max(covering, key=len)]
    return factors


def _require_match(argument: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(covers(pattern, name) for name in names):
            parts = {name.rpartition(".")[0] for name in names} - {""}
            raise FreezeError(
                f"{argument} has {pattern!r}, which matches no parameter",
                hint=did_you_mean(pattern, [*names, *sorted(parts)]),
            )


def _undecayed(model: nn.Module, patterns: Sequence[str]) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    _require_match("no_decay", patterns, names)
    own = getattr(model, "no_weight_decay", None)
    listed = [*patterns, *(own() if callable(own) else ())]
    spared = {name for name in names if any(covers(pattern, name) for pattern in listed)}
    for prefix, module in model.named_modules():
        norm = kinds.is_norm(module)
        for key, parameter in module.named_parameters(recurse=False):
            if norm or key.endswith("bias") or parameter.ndim <= 1:
                spared.add(f"{prefix}.{key}".strip("."))
    return spared & set(names)


def _grouped(model: nn.Module) -> tuple[str, Sequence[Sequence[str]]]:
    """Return who groups the parameters of a model, and the names of each group."""
    own = getattr(model, "grouped_parameters", None)
    if callable(own):
        return f"{type(model).__name__}.grouped_parameters()", own()
    for family in families():
        found = None if family.groups is None else family.groups(model)
        if found is not None:
            return f"the family '{family.name}'", found
    return "the module tree", _by_tree(model)


def _by_tree(model: nn.Module) -> list[list[str]]:
    """Group by the module tree: the children of lists of blocks are a group each."""
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    aliases = dict(model.named_parameters(remove_duplicate=False))
    units, seen = [], set()
    for unit in _units(model, ""):
        names = [canonical[id(aliases[name])] for name in unit.parameters]
        fresh = [name for name in dict.fromkeys(names) if name not in seen]
        seen.update(fresh)
        units.append(_Unit(fresh, unit.listed))
    first = next((i for i, unit in enumerate(units) if unit.listed), None)
    if first is None:
        return [unit.parameters for unit in units]
    stem = [name for unit in units[:first] for name in unit.parameters]
    return [stem, *(unit.parameters for unit in units[first:])]


@dataclass(frozen=True)
class _Unit:
    parameters: list[str]
    listed: bool


def _units(module: nn.Module, prefix: str, within: bool = False) -> Iterator[_Unit]:
    """Yield the units of a module in order.

    Args:
        module: the module to divide.
        prefix: its name with a trailing dot, or nothing.
        within: whether it is an entry of a list already: then only a bare list of blocks is
            divided further, so that the inside of a block stays together.
    """
    own = [prefix + name for name, _ in module.named_parameters(recurse=False)]
    if own:
        yield _Unit(own, listed=False)
    is_list = _is_list(module)
    pending: _Unit | None = None
    for key, child in module.named_children():
        name = f"{prefix}{key}"
        names = [f"{name}.{n}" for n, _ in child.named_parameters(remove_duplicate=False)]
        if not names:
            continue
        if is_list and pending is not None and kinds.is_norm(child):
            pending = _Unit(pending.parameters + names, listed=True)  # a norm joins its layer
            continue
        if pending is not None:
            yield pending
            pending = None
        if _divides(child, within or is_list):
            yield from _units(child, f"{name}.", within=within or is_list)
        else:
            pending = _Unit(names, listed=is_list)
    if pending is not None:
        yield pending


def _divides(module: nn.Module, within: bool) -> bool:
    """Whether a module is divided into units, rather than being one."""
    if _is_list(module):
        return _entries(module) > 1 and (not within or _holds_blocks(module))
    # A container such as a transformer's encoder holds one list of blocks; an Inception block,
    # whose branches are short lists side by side, holds several.
    return not within and _block_lists(module) == 1


def _block_lists(module: nn.Module) -> int:
    """Count the outermost lists of blocks in a module."""
    count = 0
    for child in module.children():
        if _is_list(child) and _entries(child) > 1 and _holds_blocks(child):
            count += 1
        else:
            count += _block_lists(child)
    return count


def _is_list(module: nn.Module) -> bool:
    # Only the bare classes: a subclass, such as torchvision's Conv2dNormActivation, is a block.
    return type(module) in (nn.Sequential, nn.ModuleList)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _entries(module: nn.Module) -> int:
    """Count the entries that hold parameters and are not norms."""
    return sum(_size(child) > 0 and not kinds.is_norm(child) for child in module.children())


def _holds_blocks(module: nn.Module) -> bool:
    """Whether entries are made of several layers, rather than layers that make up one block."""
    filled = [child for child in module.children() if _size(child) > 0]
    return all(any(True for _ in child.children()) for child in filled)


def _label(group: Sequence[str], modules: Sequence[str], index: int) -> str:
    """Return the name of the group's module or modules, or the leading parts that names share."""
    if 1 <= len(modules) <= 2 and all(any(covers(m, n) for m in modules) for n in group):
        return "+".join(modules)
    pieces = [name.split(".")[:-1] or [name] for name in group]
    shared = [column[0] for column in zip(*pieces, strict=False) if len(set(column)) == 1]
    same = all(piece[: len(shared)] == shared for piece in pieces)
    return ".".join(shared) if shared and same else ("stem" if index == 0 else f"group {index}")


def _modules(model: nn.Module, names: set[str]) -> tuple[str, ...]:
    """Return the outermost modules whose parameters all lie among ``names``.

    A tied parameter counts where it has its first name.
    """
    first = {name for name, _ in model.named_parameters()}
    chosen: list[str] = []
    for prefix, module in model.named_modules():
        if not prefix or any(prefix.startswith(parent + ".") for parent in chosen):
            continue
        own = {f"{prefix}.{name}" for name, _ in module.named_parameters()} & first
        if own and own <= names:
            chosen.append(prefix)
    return tuple(chosen)


__all__ = ["BlockGroup", "ParamGroups", "block_groups", "param_groups"]
