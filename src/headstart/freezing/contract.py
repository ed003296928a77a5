"""The contract itself: what is stored on a model, how it is applied, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from headstart.core.wording import count, verb
from headstart.freezing import hold
from headstart.freezing.plan import FreezePlan, ModuleIntent
from headstart.modules import kinds
from headstart.modules.digests import (
    Change,
    Record,
    change,
    named_tensors,
    record,
    require_readable,
)
from headstart.modules.keras_contract import hold_keras

_CONTRACT = "_headstart_contract"


@dataclass(eq=False)
class Contract:
    """Stored on the module at the root of a contract, and copied and pickled with it.

    Attributes:
        plan: the plan that was carried out.
        records: the content of every frozen tensor at the freeze, by name.
        gradients: ``requires_grad`` of every governed parameter before the contract.
    """

    plan: FreezePlan
    records: dict[str, Record]
    gradients: dict[str, bool]


@dataclass(frozen=True)
class Verification:
    """Whether a contract holds.

    Attributes:
        checked: how many frozen tensors were compared.
        moved: the frozen tensors whose content changed, and by how much.
        faults: everything else that contradicts the plan, one sentence each: gradients switched on
            or off, modes flipped, modules replaced.
    """

    checked: int
    moved: tuple[Change, ...]
    faults: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing moved and nothing contradicts the plan."""
        return not self.moved and not self.faults

    def __str__(self) -> str:
        if self.holds:
            return (
                f"{count(self.checked, 'frozen tensor')} {verb(self.checked)} bit-identical to"
                f" {verb(self.checked, 'its', 'their')} state at the freeze"
            )
        lines = []
        if self.moved:
            shown = "; ".join(str(item) for item in self.moved[:8])
            more = f" and {len(self.moved) - 8} more" if len(self.moved) > 8 else ""
            lines.append(
                f"{len(self.moved)} of {count(self.checked, 'frozen tensor')} moved: {shown}{more}"
            )
        if self.faults:
            more = f" and {len(self.faults) - 8} more" if len(self.faults) > 8 else ""
            lines.append("; ".join(self.faults[:8]) + more)
        return "; ".join(lines)


def contract_on(model: nn.Module) -> Contract | None:
    """Return the contract whose root is this module, if there is one."""
    return model.__dict__.get(_CONTRACT)


def contracts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name and module of every root of a contract in a model."""
    for name, module in model.named_modules():
        if contract_on(module) is not None:
            yield name, module


def take_records(model: nn.Module, plan: FreezePlan) -> dict[str, Record]:
    """Record the tensors that a plan freezes, refusing those without values.

    Separate from :func:`apply`, so that everything that can fail happens before any change.
    """
    tensors = dict(named_tensors(model))
    require_readable({name: tensors[name] for name in plan.frozen})
    return {name: record(tensors[name]) for name in plan.frozen}


def apply(model: nn.Module, plan: FreezePlan, records: dict[str, Record]) -> Contract:
    """Carry a plan out on a model that has no contract, and store the contract on it."""
    modules = dict(model.named_modules())
    mode = hold.requested_mode(model)
    for intent in plan.intents:
        hold.put(modules[intent.name], intent, mode)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    frozen = [name for name in plan.frozen if name in parameters]
    gradients = {name: parameters[name].requires_grad for name in (*frozen, *plan.trainable)}
    for name in frozen:
        parameters[name].requires_grad_(False)
        parameters[name].grad = None
    for name in plan.trainable:
        parameters[name].requires_grad_(True)
    hold_keras(model, [intent.name for intent in plan.intents if intent.held or intent.autograd])
    contract = Contract(plan, records, gradients)
    model.__dict__[_CONTRACT] = contract
    return contract


def remove(model: nn.Module, contract: Contract) -> None:
    """Remove a contract: modules follow ``train()`` again, ``requires_grad`` is as before it."""
    mode = hold.requested_mode(model)
    modules = dict(model.named_modules())
    for intent in contract.plan.intents:
        if intent.name in modules:
            hold.remove(modules[intent.name], mode)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, requires_grad in contract.gradients.items():
        if name in parameters:
            parameters[name].requires_grad_(requires_grad)
    hold_keras(model, None)
    model.__dict__.pop(_CONTRACT, None)


def check(model: nn.Module, contract: Contract) -> Verification:
    """Compare every frozen tensor with its record, and every module with its intent."""
    tensors = dict(named_tensors(model))
    moved = [
        found
        for name, before in contract.records.items()
        if name in tensors and (found := change(name, tensors[name], before)) is not None
    ]
    gone = [f"{name!r} is gone" for name in contract.records if name not in tensors]
    faults = (*gone, *_faults(model, contract, tensors))
    return Verification(len(contract.records), tuple(moved), faults)


def _faults(model: nn.Module, contract: Contract, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    modules = dict(model.named_modules())
    mode = hold.requested_mode(model)
    for intent in contract.plan.intents:
        if intent.name not in modules:
            yield f"the part {intent.name!r} is gone"
            continue
        yield from hold.faults(intent.name, modules[intent.name], intent, mode)
        yield from _appeared(intent, modules[intent.name], contract.plan)
    for name in contract.plan.frozen:
        if name in tensors and tensors[name].requires_grad:
            yield f"{name!r} is frozen, but its requires_grad was switched on"
    for name in contract.plan.trainable:
        if name in tensors and not tensors[name].requires_grad:
            yield f"{name!r} is trainable, but its requires_grad was switched off"


def _appeared(intent: ModuleIntent, module: nn.Module, plan: FreezePlan) -> Iterator[str]:
    """Yield the tensors that a frozen part has got since, such as a state made in its first pass.

    Buffers that a checkpoint does not hold are caches, which may come and go.
    """
    if intent.policy.parameters != "frozen":
        return
    kept = [key for key in module._buffers if key not in module._non_persistent_buffers_set]
    running = kinds.running_buffers(module)
    prefix = f"{intent.name}." if intent.name else ""
    known = {*plan.frozen, *plan.trainable}
    for key in [*module._parameters, *(key for key in kept if key not in running)]:
        if getattr(module, key, None) is not None and prefix + key not in known:
            yield f"{prefix + key!r} appeared after the freeze, in a part that is frozen"


__all__ = [
    "Contract",
    "Verification",
    "apply",
    "check",
    "contract_on",
    "contracts",
    "remove",
    "take_records",
]
