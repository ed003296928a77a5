"""How a module is held to its policy: what is stored in its ``__dict__``, and what that does.

What is stored is the intent, not the mode that happens to be observed. A held module has an
instance attribute ``train`` that replaces its class's method: it calls that method, then returns
the module itself to evaluation mode. ``nn.Module.train`` of any ancestor, ``eval``, ``apply`` and
trainers reach a module only through this attribute. The class is untouched, so ``isinstance``,
``type`` and ``state_dict`` keys do not change; ``forward`` is untouched, so a training step costs
nothing and ``torch.compile`` sees the same code with constant flags. The replacements refer to
their module by an ordinary attribute, so ``copy.deepcopy`` and ``pickle`` of a model yield a copy
that is held in the same way.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.errors import FreezeError
from headstart.freezing.plan import ModuleIntent
from headstart.freezing.policy import FreezePolicy
from headstart.modules import kinds
from headstart.modules.writers import HeldState

_HOLD = "_headstart_hold"
_TRACKING = "track_running_stats"
_RESET = "reset_running_stats"


@dataclass(frozen=True)
class Hold:
    """What is stored on a governed module.

    Attributes:
        policy: its policy.
        held: whether it stays in evaluation mode.
        tracked: its ``track_running_stats`` before the contract switched it off; None if it was
            not changed.
    """

    policy: FreezePolicy
    held: bool
    tracked: bool | None


class HeldTrain:
    """Replaces ``module.train``: calls the original, but keeps this module in evaluation mode.

    Attributes:
        module: the held module.
        requested: the mode last requested, which children that are not held are in.
    """

    def __init__(self, module: nn.Module, requested: bool) -> None:
        self.module = module
        self.requested = requested

    def __call__(self, mode: bool = True) -> nn.Module:
        """Switch the module's children to ``mode``; the module itself stays in evaluation mode."""
        type(self.module).train(self.module, mode)
        self.requested = mode
        self.module.training = False
        return self.module


class HeldReset:
    """Replaces ``module.reset_running_stats``: statistics that a contract keeps are not reset.

    torch's ``update_bn`` resets every batch norm and measures it anew by passes in training mode.
    A held norm takes part in neither, here and in copies; the norms that train are re-estimated.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self) -> None:
        """Leave the statistics as they are, and say so."""
        warnings.warn(
            "a freeze contract keeps the running statistics of this"
            f" {type(self.module).__name__}, which were not reset. To re-estimate them:"
            " FreezeHandle.of(model).release(), then headstart.reestimate(model, batches) or"
            " update_bn",
            stacklevel=2,
        )


class HeldForward:
    """Replaces ``module.forward`` at the top of a part that runs without autograd.

    Refuses an input that needs a gradient, which would otherwise be lost silently.
    """

    def __init__(self, module: nn.Module, name: str, inference: bool, inner: Any) -> None:
        self.module = module
        self.name = name
        self.inference = inference
        self.inner = inner

    @property
    def __signature__(self) -> inspect.Signature:
        """The signature of the module's own forward, since trainers inspect it."""
        return inspect.signature(self._own())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's own forward without recording gradients."""
        if torch.is_grad_enabled() and _needs_gradient((args, kwargs)):
            mode = "inference" if self.inference else "no_grad"
            raise FreezeError(
                f"the part {self.name!r} has autograd={mode!r} and received an input that needs"
                " a gradient, which would be lost",
                hint="freeze it with autograd='grad', or freeze what comes before it",
            )
        with self._context():
            return self._own()(*args, **kwargs)

    def _own(self) -> Callable[..., Any]:
        if self.inner is not None:
            return self.inner  # type: ignore[no-any-return]
        return type(self.module).forward.__get__(self.module)  # type: ignore[no-any-return]

    def _context(self) -> AbstractContextManager[Any]:
        return torch.inference_mode() if self.inference else torch.no_grad()


def _needs_gradient(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.requires_grad
    if isinstance(value, dict):
        return any(_needs_gradient(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_needs_gradient(item) for item in value)
    return False


def hold_of(module: nn.Module) -> Hold | None:
    """Return the hold stored on a module, or None if no contract governs it."""
    return module.__dict__.get(_HOLD)


def requested_mode(module: nn.Module) -> bool:
    """Return the mode last requested, which for a held module is not its ``training`` flag."""
    train = module.__dict__.get("train")
    return train.requested if isinstance(train, HeldTrain) else module.training


def put(module: nn.Module, intent: ModuleIntent, mode: bool) -> None:
    """Hold a module to its intent.

    Args:
        module: the module; no contract governs it.
        intent: what it is meant to do.
        mode: the mode of the model as a whole, which the module follows unless it is held.
    """
    tracked: bool | None = None
    if intent.keeps_statistics:
        # With tracking off but the buffers in place, torch's batch norms normalise by the batch in
        # training and by the running statistics in evaluation, and update nothing.
        tracked = bool(getattr(module, _TRACKING))
        setattr(module, _TRACKING, False)
    module.__dict__[_HOLD] = Hold(intent.policy, intent.held, tracked)
    module.training = mode and not intent.held
    if intent.held:
        module.__dict__["train"] = HeldTrain(module, mode)
    if _keeps_reset(module, intent):
        module.__dict__[_RESET] = HeldReset(module)
    if intent.writes:
        module.__dict__["forward"] = HeldState(module, module.__dict__.get("forward"))
    if intent.autograd:
        inner = module.__dict__.get("forward")
        inference = intent.policy.autograd == "inference"
        module.__dict__["forward"] = HeldForward(module, intent.name, inference, inner)


def remove(module: nn.Module, mode: bool) -> None:
    """Undo :func:`put`; the module follows the mode of the model again."""
    hold = module.__dict__.pop(_HOLD, None)
    if hold is None:
        return
    if hold.tracked is not None:
        setattr(module, _TRACKING, hold.tracked)
    if isinstance(module.__dict__.get("train"), HeldTrain):
        del module.__dict__["train"]
    if isinstance(module.__dict__.get(_RESET), HeldReset):
        del module.__dict__[_RESET]
    for wrapper in (HeldForward, HeldState):  # the outer one first
        forward = module.__dict__.get("forward")
        if isinstance(forward, wrapper):
            del module.__dict__["forward"]
            if forward.inner is not None:
                module.__dict__["forward"] = forward.inner
    module.training = mode


def _keeps_reset(module: nn.Module, intent: ModuleIntent) -> bool:
    """Whether a module has running statistics that must not be reset."""
    keeps = kinds.is_running_norm(module) and not intent.policy.norm_updates
    return keeps and callable(getattr(module, _RESET, None))


def faults(name: str, module: nn.Module, intent: ModuleIntent, mode: bool) -> Iterator[str]:
    """Yield everything that contradicts the intent of a module: a lost hold, a flipped mode."""
    label = repr(name) if name else "the model"
    hold = hold_of(module)
    if hold is None or hold.policy != intent.policy:
        yield f"{label} was replaced by a module that no contract holds"
        return
    if intent.held:
        train = module.__dict__.get("train")
        if not isinstance(train, HeldTrain) or train.module is not module:
            yield f"{label} lost its hold: its attribute 'train' was replaced"
        if module.training:
            yield f"{label} is in training mode: something set its attribute 'training' directly"
    elif mode and not module.training:
        yield f"{label} is in evaluation mode while the model trains"
    if intent.keeps_statistics and getattr(module, _TRACKING):
        yield f"{label} tracks running statistics again"
    forward = module.__dict__.get("forward")
    outer = isinstance(forward, HeldForward)
    inner = forward.inner if isinstance(forward, HeldForward) else forward
    if (intent.autograd and not outer) or (intent.writes and not isinstance(inner, HeldState)):
        yield f"{label} lost its hold: its attribute 'forward' was replaced"
    reset = module.__dict__.get(_RESET)
    if _keeps_reset(module, intent) and not (
        isinstance(reset, HeldReset) and reset.module is module
    ):
        yield f"{label} lost its hold: its attribute '{_RESET}' was replaced"


__all__ = [
    "HeldForward",
    "HeldReset",
    "HeldTrain",
    "Hold",
    "faults",
    "hold_of",
    "put",
    "remove",
    "requested_mode",
]
