"""From what the user meant to what will be done: a mapping of parts to policies becomes a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from headstart.core.cards import Card, Grid, Shown
from headstart.core.wording import quoted
from headstart.freezing.conflicts import conflicts
from headstart.freezing.governance import (
    Governance,
    PolicyLike,
    Selector,
    Spec,
    autograd_tops,
    govern,
    keeps_statistics,
    refusal,
)
from headstart.freezing.policy import FreezePolicy
from headstart.modules import kinds, writers
from headstart.modules.keras_contract import as_module, named_by_keras


@dataclass(frozen=True)
class ModuleIntent:
    """What one module is meant to do.

    Attributes:
        name: its first name in the model; empty for the model itself.
        policy: the policy that governs it.
        held: whether it stays in evaluation mode whatever is called.
        keeps_statistics: whether it normalises by the batch but keeps its running statistics.
        autograd: whether its forward is wrapped, because it is the top of a part whose policy is
            ``no_grad`` or ``inference``.
        writes: whether its forward is replaced, because it would write to its frozen state.
    """

    name: str
    policy: FreezePolicy
    held: bool
    keeps_statistics: bool
    autograd: bool
    writes: bool = False


@dataclass(frozen=True)
class PlanRow:
    """One row of the table: everything that one entry of the mapping governs.

    Attributes:
        part: the part's name; empty for the model itself.
        policy: its policy.
        parameters: the number of its parameters, without those of parts that have their own row.
        trainable: how many of them train.
        norms: its layers with running statistics, and what they normalise by.
        chance: its sources of randomness, and whether they are off.
    """

    part: str
    policy: FreezePolicy
    parameters: int
    trainable: int
    norms: str
    chance: str

    @property
    def state(self) -> str:
        """The effective state in one word or two."""
        if not self.policy.trains:
            return "fixed" if not self.policy.norm_updates else "statistics move"
        return "trains" if self.trainable == self.parameters else "trains in part"


@dataclass(frozen=True, repr=False)
class FreezePlan(Shown):
    """What :func:`headstart.freeze` does, or would do.

    Attributes:
        rows: the parts, in the order of the model.
        intents: every governed module.
        frozen: the names of parameters and buffers that must not move.
        trainable: the names of parameters that train.
        notes: other things worth knowing, such as parts that no entry governs.
    """

    rows: tuple[PlanRow, ...]
    intents: tuple[ModuleIntent, ...]
    frozen: tuple[str, ...]
    trainable: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def regions(self) -> dict[str, FreezePolicy]:
        """The parts and their policies: a mapping that reproduces this plan."""
        return {row.part: row.policy for row in self.rows}

    def card(self) -> Card:
        """Return what there is to see: one line a part."""
        header = ("part", "policy", "parameters", "trainable", "norms", "chance", "state")
        rows = tuple(
            (
                row.part or "(model)",
                str(row.policy).split(":")[0],
                row.parameters,
                row.trainable,
                row.norms,
                row.chance,
                row.state,
            )
            for row in self.rows
        )
        return Card("Plan of a freeze", "", (), (Grid(header, rows),), self.notes)

    def __str__(self) -> str:
        head = ("part", "policy", "parameters", "trainable", "batch-norm source", "chance", "state")
        body = [
            (
                row.part or "(model)",
                str(row.policy).split(":")[0],
                f"{row.parameters:,}",
                f"{row.trainable:,}",
                row.norms,
                row.chance,
                row.state,
            )
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        lines = [
            "  ".join(
                cell.rjust(width) if i in (2, 3) else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in [head, *body]
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def plan_freeze(model: nn.Module, spec: Spec) -> FreezePlan:
    """Work out what a freeze would do, without changing the model.

    Args:
        model: the model.
        spec: a policy (or the name of a preset) for the whole model, or a mapping from selectors
            to policies. A selector is a module's name, a glob, a compiled regular expression that
            matches a whole name, or the module itself; the empty name is the model. A pattern
            selects the outermost parts that match. A selector governs its part and everything
            below it, except where another selector names a deeper part: the longest matched name
            wins. For the same part a plain name or a module wins over a glob, and a glob over a
            regular expression.

    Raises:
        FreezeError: selectors match nothing or contradict each other, or a policy cannot be
            carried out on some layer. All faults are reported together.
    """
    model = as_module(model)
    plan, faults = govern(model, named_by_keras(model, spec))
    if faults := [*faults, *conflicts(plan)]:
        raise refusal(faults)
    return FreezePlan(
        rows=tuple(_rows(plan)),
        intents=tuple(_intents(plan)),
        frozen=tuple(t.name for t in plan.tensors if t.frozen),
        trainable=tuple(t.name for t in plan.tensors if t.trainable),
        notes=tuple(_notes(plan)),
    )


def _intents(plan: Governance) -> Iterator[ModuleIntent]:
    tops = autograd_tops(plan)
    seen: set[int] = set()
    for name, policy in plan.governing.items():
        module = plan.named[name]
        if id(module) in seen:
            continue
        seen.add(id(module))
        if kinds.is_running_norm(module):
            held = policy.norm != "batch"
        else:
            fixed = policy.parameters == "frozen" and writers.moves_in_training(module)
            held = policy.stochastic == "off" or fixed
        yield ModuleIntent(
            name=name,
            policy=policy,
            held=held,
            keeps_statistics=keeps_statistics(module, policy),
            autograd=name in tops,
            writes=policy.parameters == "frozen" and writers.writes(module) is not None,
        )


def _rows(plan: Governance) -> Iterator[PlanRow]:
    region: dict[str, str] = {}
    for name in plan.governing:
        region[name] = name if name in plan.direct else region[name.rpartition(".")[0]]
    firsts: dict[int, str] = {}
    for name, module in plan.named.items():
        firsts.setdefault(id(module), name)
    unique = {id(t.tensor): t for t in reversed(plan.tensors) if t.is_parameter}
    for part in (name for name in plan.named if name in plan.direct):
        policy = plan.direct[part]
        own = [t for t in unique.values() if region.get(t.owner) == part]
        modules = [
            m
            for name, m in plan.named.items()
            if region.get(name) == part and firsts[id(m)] == name
        ]
        yield PlanRow(
            part=part,
            policy=policy,
            parameters=sum(t.tensor.numel() for t in own),
            trainable=sum(t.tensor.numel() for t in own if t.trainable),
            norms=_norms(modules, policy),
            chance=_chance(modules, policy),
        )


def _norms(modules: list[nn.Module], policy: FreezePolicy) -> str:
    count = sum(kinds.is_running_norm(module) for module in modules)
    if not count:
        return "none"
    return f"{count} {policy.norm}, {'moving' if policy.norm_updates else 'fixed'}"


def _chance(modules: list[nn.Module], policy: FreezePolicy) -> str:
    sources = Counter(source for m in modules if (source := kinds.randomness(m)) is not None)
    if not sources:
        return "none known"
    listed = ", ".join(f"{count} {name}" for name, count in sources.most_common(3))
    return f"{listed} {policy.stochastic}"


def _notes(plan: Governance) -> Iterator[str]:
    tensors = plan.tensors
    loose = [t.name for t in tensors if t.is_parameter and not t.governed]
    if loose:
        count = len(loose)
        yield (
            f"no entry governs {quoted(loose, 3)}: {count} parameter{'s' * (count > 1)} are left"
            " unchanged"
        )
    tied: dict[int, list[str]] = {}
    for tensor in tensors:
        tied.setdefault(id(tensor.tensor), []).append(tensor.name)
    for names in tied.values():
        if len(names) > 1:
            yield f"{quoted(names, 4)} are one tensor and are governed together"
    writing: dict[str, list[str]] = {}
    for name, policy in plan.governing.items():
        what = writers.writes(plan.named[name])
        if what is not None and policy.parameters == "frozen":
            writing.setdefault(what, []).append(name or "the model")
    for what, names in writing.items():
        yield f"each of {quoted(names, 4)} {what} in every pass; frozen, it does so on a copy"


__all__ = [
    "FreezePlan",
    "ModuleIntent",
    "PlanRow",
    "PolicyLike",
    "Selector",
    "Spec",
    "plan_freeze",
]
