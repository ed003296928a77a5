"""Freezing a model: :func:`freeze`, :func:`refreeze` and the handle that they return."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from headstart.core.cards import Card
from headstart.core.errors import FreezeError
from headstart.core.wording import quoted
from headstart.freezing import checkpoint, hold
from headstart.freezing import contract as contracting
from headstart.freezing.contract import Contract, Verification, contract_on, contracts
from headstart.freezing.norm import require_reestimated
from headstart.freezing.plan import FreezePlan, Spec, plan_freeze
from headstart.modules.keras_contract import as_module


class FreezeHandle:
    """Access to the contract on a model: its plan, its verification, its release.

    A handle has no state: the contract is stored on the model, and all handles of a model are
    equivalent. :meth:`of` returns the handle of a copy.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @classmethod
    def of(cls, model: nn.Module) -> FreezeHandle:
        """Return the handle of the contract on a model or, in a wrapper, on the wrapped model.

        Raises:
            FreezeError: there is no contract, or several parts have one each.
        """
        model = as_module(model)
        roots = [module for _, module in contracts(model)]
        if len(roots) == 1:
            return cls(roots[0])
        if not roots:
            raise FreezeError(
                f"no contract is on this {type(model).__name__}",
                hint="freeze it first: headstart.freeze(model, ...)",
            )
        names = [name or "the model" for name, _ in contracts(model)]
        raise FreezeError(
            f"several parts have a contract each: {', '.join(names)}",
            hint="pass one of them",
        )

    @property
    def plan(self) -> FreezePlan:
        """The plan that was carried out; ``print`` shows it as a table."""
        return self._contract().plan

    def check(self) -> Verification:
        """Compare every frozen tensor with its record, and every module with its intent."""
        return contracting.check(self.model, self._contract())

    def verify(self) -> Verification:
        """Check, and raise if the contract does not hold.

        Raises:
            FreezeError: frozen tensors moved (the message names each and by how much), a mode or a
                ``requires_grad`` was flipped, or a module was replaced.
        """
        found = self.check()
        if not found.holds:
            raise FreezeError(
                f"the freeze contract does not hold: {found}",
                hint="run the loop under headstart.guard(model) to find the step and the cause",
            )
        return found

    def release(self) -> None:
        """Remove the contract: modules follow ``train()`` again, ``requires_grad`` is as before.

        Weights and statistics do not change.
        """
        contracting.remove(self.model, self._contract())
        checkpoint.unhook(self.model)

    def card(self) -> Card:
        """Return what there is to see: the plan."""
        made = self.plan.card()
        return dataclasses.replace(made, kind="Frozen", title=type(self.model).__name__)

    def _repr_html_(self) -> str:
        return self.card().html()

    def __repr__(self) -> str:
        return f"FreezeHandle of {type(self.model).__name__}\n{self.plan}"

    def _contract(self) -> Contract:
        contract = contract_on(self.model)
        if contract is None:
            raise FreezeError("the contract on this model was released", hint="freeze it again")
        return contract


def freeze(model: nn.Module, spec: Spec = "frozen") -> FreezeHandle:
    """Freeze a model, or parts of it, in place, so that no later ``train()`` undoes it.

    Each call defines the whole contract: parts that the new mapping does not name are released.
    Staged unfreezing is therefore a sequence of calls, and repeating a call changes nothing.
    Parameters keep their identity, so that optimizers stay valid; a gradient left on a parameter
    that is now frozen is dropped, since an optimizer would still apply it.

    Args:
        model: any module. Freeze before wrapping it in DistributedDataParallel.
        spec: a :class:`FreezePolicy`, the name of a preset (``frozen``, ``trainable``,
            ``trainable-fixed-norm``, ...), or a mapping from parts to those::

                freeze(model, {"encoder": "frozen", "encoder.layer4": "trainable"})

            Selectors are names, globs, compiled regular expressions or modules; the longest
            matched name wins. :func:`plan_freeze` shows what would happen.

    Returns:
        A handle with ``plan``, ``check()``, ``verify()`` and ``release()``.

    Raises:
        FreezeError: a selector matches nothing, the mapping contradicts itself or cannot be
            carried out (all faults together), or another contract already governs a part. The
            model is then unchanged.
    """
    model = _unwrapped(model)
    plan = plan_freeze(model, spec)
    before = contract_on(model)
    _refuse_overlap(model, plan, before)
    require_reestimated(model, plan)
    records = contracting.take_records(model, plan)
    if before is not None:
        contracting.remove(model, before)
    contracting.apply(model, plan, records)
    checkpoint.hook(model)
    return FreezeHandle(model)


def refreeze(model: nn.Module, state_dict: Mapping[str, Any]) -> FreezeHandle:
    """Apply a checkpoint's contract to a model without one, after loading its weights.

    Loading into a model that has a contract restores the checkpoint's contract by itself; this
    function is for a newly built model.

    Args:
        model: the model, with the checkpoint's weights loaded.
        state_dict: what ``model.state_dict()`` returned when the checkpoint was saved, as
            ``torch.load`` returns it. Its metadata contains the contract; formats that store
            tensors only (safetensors) do not have it.

    Raises:
        FreezeError: the checkpoint has no contract, or one that does not fit the model.
    """
    name, saved = checkpoint.find(state_dict)
    root = dict(model.named_modules()).get(name)
    if root is None:
        raise FreezeError(
            f"the checkpoint's contract is on a part {name!r}, which the model does not have"
        )
    checkpoint.adopt(root, saved)
    checkpoint.hook(root)
    return FreezeHandle(root)


def _unwrapped(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise FreezeError(
            f"expected a torch.nn.Module to freeze, found {type(model).__name__}",
            hint="pass the model itself",
        )
    model = as_module(model)
    inner = model._modules.get("_orig_mod")  # what torch.compile returns wraps the model
    model = inner if inner is not None else model
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise FreezeError(
            f"the model is already wrapped in {type(model).__name__}, which has decided which"
            " parameters have gradients",
            hint="freeze the model before wrapping it, and wrap it again after each thaw",
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise FreezeError(
            "a scripted model cannot be frozen: its compiled code keeps a mode of its own",
            hint="freeze the model it was scripted from",
        )
    return model


def _refuse_overlap(model: nn.Module, plan: FreezePlan, before: Contract | None) -> None:
    """Refuse a part that another contract governs: each would undo the other."""
    own = {intent.name for intent in before.plan.intents} if before else set()
    modules = dict(model.named_modules())
    taken = [
        intent.name or "the model"
        for intent in plan.intents
        if intent.name not in own and hold.hold_of(modules[intent.name]) is not None
    ]
    if taken:
        raise FreezeError(
            f"another contract already governs {quoted(taken, 3)}",
            hint="release that one first, or set all parts in one mapping",
        )


__all__ = ["FreezeHandle", "freeze", "refreeze"]
