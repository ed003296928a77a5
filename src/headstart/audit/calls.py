"""Watches functions of torch: modes, loaded states, backward passes and losses."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from headstart.audit import events
from headstart.audit.facts import ModeCall
from headstart.audit.hub import Hub
from headstart.audit.passes import PassWatcher
from headstart.audit.places import user_place

LOSSES = (
    "cross_entropy",
    "nll_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "kl_div",
    "multi_margin_loss",
    "multilabel_soft_margin_loss",
)


class CallWatcher:
    """Wraps functions that global hooks do not see."""

    def __init__(self, hub: Hub, passes: PassWatcher) -> None:
        self.hub, self.passes = hub, passes
        self._in_train = 0
        self._mode_call: ModeCall | None = None

    def around_train(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``nn.Module.train``, which ``eval`` calls too."""

        def train(module: nn.Module, mode: bool = True) -> Any:
            if self.hub.elsewhere():
                return original(module, mode)
            scene = self.hub.scene
            if not self._in_train:
                call = ModeCall(
                    number=len(scene.modes) + 1,
                    mode=bool(mode),
                    kind=type(module).__name__,
                    place=user_place(),
                    step=scene.steps,
                    passes=scene.n_passes,
                    module=module,
                    target=weakref.ref(module),
                )
                self._mode_call = call
                self.hub.tell("on_mode", call)
                call.module = None
                if len(scene.modes) < 2000:
                    scene.modes.append(call)
                self.passes.look_closely()
            scene.set_modes[module] = self._mode_call
            self._in_train += 1
            try:
                return original(module, mode)
            finally:
                self._in_train -= 1

        return train

    def around_load(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``load_state_dict``."""

        def load(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            result = original(module, *args, **kwargs)
            if self.hub.elsewhere():
                return result
            self.hub.scene.loaded(module)
            if self.hub.listens("on_load"):
                seen = events.Load(
                    user_place(), self.hub.scene.steps, self.hub.scene.n_passes, module
                )
                self.hub.tell("on_load", seen)
                seen.module = None
            return result

        return load

    def around_backward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``torch.autograd.backward``."""

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if self.hub.elsewhere():
                return original(tensors, *args, **kwargs)
            scene = self.hub.scene
            self.passes.surface()
            with self.hub.aside():  # gradient checkpointing runs modules again
                result = original(tensors, *args, **kwargs)
            scene.backwards += 1
            scene.passes_at_backward = scene.n_passes
            scene.backwards_since_step += 1
            if self.hub.listens("on_backward"):
                seen = events.Backward(scene.backwards, user_place(), tensors)
                self.hub.tell("on_backward", seen)
                seen.tensors = None
            return result

        return backward

    def around_grad(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``torch.autograd.grad``."""

        def grad(*args: Any, **kwargs: Any) -> Any:
            if self.hub.elsewhere():
                return original(*args, **kwargs)
            with self.hub.aside():
                return original(*args, **kwargs)

        return grad

    def around_loss(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a loss of ``torch.nn.functional``."""

        def loss(input: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            output = original(input, target, *args, **kwargs)
            if self.hub.listens("on_loss") and not self.hub.elsewhere():
                grad = torch.is_grad_enabled()
                seen = events.Loss(name, user_place(), grad, input, target, kwargs, output)
                self.hub.tell("on_loss", seen)
                seen.input = seen.target = seen.output = None
                seen.options = {}
            return output

        return loss


__all__ = ["LOSSES", "CallWatcher"]
