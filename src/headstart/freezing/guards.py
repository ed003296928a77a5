"""Watching any training loop, and stopping it at the first step that moves a frozen tensor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.optim.swa_utils import AveragedModel

from headstart.core.errors import FreezeError
from headstart.freezing import hold
from headstart.freezing.contract import Contract, contract_on, contracts
from headstart.modules import kinds
from headstart.modules.digests import Record, change, named_tensors, record
from headstart.modules.keras_contract import as_module


@dataclass
class GuardReport:
    """What a guard has seen so far.

    Attributes:
        steps: steps of any optimizer.
        checks: how often all frozen tensors were compared.
        idle: after the guarded block, the trainable parameters that no step moved: they received
            no gradient, or no optimizer has them.
    """

    steps: int = 0
    checks: int = 0
    idle: tuple[str, ...] = ()


@contextmanager
def guard(model: nn.Module, every: int = 1) -> Iterator[GuardReport]:
    """Raise at the first optimizer step that moves a frozen tensor, naming it and the cause.

    It watches every ``torch.optim`` optimizer and so works inside any trainer. A step is also
    refused if a mode or a ``requires_grad`` is not what the contract says, in both directions: a
    frozen layer in training mode, or a trainable part left in evaluation mode. At the end of the
    block everything is checked once more.

    Tensors are compared by content, since neither batch-norm updates nor fused optimizers show in
    torch's version counters. Every frozen tensor is read once per step (about 10 GB/s on one CPU
    core; tensors on other devices are copied to it).

    Args:
        model: a frozen model, or anything that contains one: a wrapper, a LightningModule, an
            ``AveragedModel``.
        every: compare parameters only every this many steps; modes and buffers at every step.

    Yields:
        The report, updated while the block runs.

    Raises:
        FreezeError: there is no contract, it is already broken, or a step breaks it.
    """
    if every < 1:
        raise FreezeError(f"every is {every}, expected at least 1")
    model = as_module(model)
    watches = [_Watch(name, root, model) for name, root in contracts(model)]
    if not watches:
        raise FreezeError(
            f"no contract is on this {type(model).__name__}",
            hint="freeze it first: headstart.freeze(model, ...)",
        )
    report = GuardReport()
    for watch in watches:
        watch.check("before the first guarded step", None, buffers_only=False)

    def before(_optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        for watch in watches:
            watch.check(f"before step {report.steps + 1}", None, buffers_only=True)

    def after(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        report.steps += 1
        whole = report.steps % every == 0
        report.checks += whole
        for watch in watches:
            watch.modes(f"at step {report.steps}", optimizer)
            watch.check(f"at step {report.steps}", optimizer, buffers_only=not whole)

    handles = (register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after))
    try:
        yield report
    finally:
        for handle in handles:
            handle.remove()
    for watch in watches:
        watch.check(f"after step {report.steps}", None, buffers_only=False)
    report.idle = tuple(name for watch in watches for name in watch.idle())


@dataclass
class _Watch:
    """The watch over one contract.

    Attributes:
        prefix: the name of the contract's root in the guarded model.
        root: that root.
        model: the guarded model.
    """

    prefix: str
    root: nn.Module
    model: nn.Module
    owners: dict[str, nn.Module] = field(init=False)
    before: dict[str, Record] = field(init=False)
    objects: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.owners = dict(self.root.named_modules(remove_duplicate=False))
        tensors = dict(named_tensors(self.root))
        self.before = {name: record(tensors[name]) for name in self.contract.plan.trainable}
        self.objects = {name: id(tensor) for name, tensor in tensors.items()}

    @property
    def contract(self) -> Contract:
        contract = contract_on(self.root)
        if contract is None:
            raise FreezeError("the contract was released inside the guarded block")
        return contract

    def check(self, when: str, optimizer: Optimizer | None, buffers_only: bool) -> None:
        """Raise if a frozen tensor has changed."""
        tensors = dict(named_tensors(self.root))
        for name, known in self.contract.records.items():
            tensor = tensors.get(name)
            if tensor is None:
                raise FreezeError(f"{when}, the frozen tensor {self._full(name)!r} is gone")
            if buffers_only and isinstance(tensor, nn.Parameter):
                continue
            moved = change(self._full(name), tensor, known)
            if moved is not None:
                raise FreezeError(
                    f"{when}, a frozen tensor had moved: {moved}",
                    hint=f"cause: {self._cause(name, tensor, optimizer)}",
                )

    def modes(self, when: str, optimizer: Optimizer) -> None:
        """Raise if a step was taken in another mode than the contract says."""
        contract = self.contract
        modules = dict(self.root.named_modules())
        tensors = dict(named_tensors(self.root))
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        trains = any(id(tensors[n]) in stepped for n in contract.plan.trainable if n in tensors)
        for intent in contract.plan.intents:
            module = modules.get(intent.name)
            if module is None:
                raise FreezeError(f"{when}, the part {self._full(intent.name)!r} is gone")
            # A part that does not train may be in evaluation mode, whatever else is stepped.
            expected = trains and intent.policy.trains
            for fault in hold.faults(self._full(intent.name), module, intent, expected):
                raise FreezeError(f"{when}, {fault}", hint=_mode_hint(intent.held))
        for name in contract.plan.frozen:
            if name in tensors and tensors[name].requires_grad:
                raise FreezeError(
                    f"{when}, {self._full(name)!r} is frozen, but its requires_grad is on",
                    hint="cause: something called requires_grad_(True) after the freeze",
                )

    def idle(self) -> Iterator[str]:
        """Yield the trainable parameters that are bit-identical to the start."""
        tensors = dict(named_tensors(self.root))
        for name, known in self.before.items():
            if name in tensors and change(name, tensors[name], known) is None:
                yield self._full(name)

    def _full(self, name: str) -> str:
        return f"{self.prefix}.{name}".strip(".")

    def _cause(self, name: str, tensor: Tensor, optimizer: Optimizer | None) -> str:
        if self.objects.get(name) != id(tensor):
            return "direct assignment: it was replaced by another tensor"
        if isinstance(self.model, AveragedModel):
            return (
                "EMA copy: the averaging function does not keep equal values equal (torch's"
                " multi_avg_fn variants do: get_ema_multi_avg_fn)"
            )
        if isinstance(tensor, nn.Parameter):
            return parameter_cause(tensor, optimizer, self.owners[name.rpartition(".")[0]])
        owner = self.owners[name.rpartition(".")[0]]
        if name.rpartition(".")[2] not in kinds.running_buffers(owner):
            return f"the forward of {type(owner).__name__}, or a direct assignment, wrote to it"
        if owner.training:
            return "batch-norm update: the layer ran in training mode"
        return (
            f"direct assignment, or {type(owner).__name__} updates its statistics in evaluation"
            " mode too, or an earlier pass ran in training mode"
        )


def parameter_cause(parameter: Tensor, optimizer: Optimizer | None, owner: nn.Module) -> str:
    """Explain how an optimizer came to move a frozen parameter, if an optimizer did."""
    groups = optimizer.param_groups if optimizer is not None else []
    group = next((g for g in groups if any(p is parameter for p in g["params"])), None)
    if optimizer is None or group is None:
        return (
            f"direct assignment: the forward of {type(owner).__name__}, or something other than"
            " its optimizer, wrote to it"
        )
    reasons = []
    if parameter.requires_grad:
        reasons.append("its requires_grad was switched on after the freeze")
    elif parameter.grad is not None:
        reasons.append("something set its gradient, although it requires none")
    if group.get("weight_decay"):
        reasons.append(f"weight_decay={group['weight_decay']:g} in its group")
    if group.get("momentum") or "exp_avg" in optimizer.state.get(parameter, {}):
        reasons.append("momentum from earlier steps")
    known = f" ({', '.join(reasons)})" if reasons else ""
    return f"the optimizer {type(optimizer).__name__} stepped it{known}"


def _mode_hint(held: bool) -> str:
    if held:
        return "cause: something set the mode without calling train(); call model.train() again"
    return "call model.train() before the training loop, or freeze this part too"


__all__ = ["GuardReport", "guard", "parameter_cause"]
