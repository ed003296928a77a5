"""What torch.fx does not see by itself: reads of a mode, and functions that make tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

_FACTORIES = ("zeros", "ones", "full", "empty", "arange", "linspace", "eye", "rand", "randn")


class Recorder(Protocol):
    """What records."""

    def read_training(self, module: nn.Module) -> Any:
        """Answer ``module.training``."""

    def create_proxy(
        self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record one operation."""


class _ModeReads:
    """Replaces ``nn.Module.training`` while a model is recorded, so that reads of it are seen."""

    def __init__(self, tracer: Recorder) -> None:
        self.tracer = tracer

    def __get__(self, module: nn.Module | None, owner: type) -> Any:
        return self if module is None else self.tracer.read_training(module)

    def __set__(self, module: nn.Module, value: bool) -> None:
        module.__dict__["training"] = value


@contextmanager
def watched(tracer: Recorder) -> Iterator[None]:
    """Let the tracer see reads of the mode and calls of functions that make tensors.

    As ``torch.fx`` itself does with ``nn.Module.__call__``, attributes are replaced while the
    recording runs, and put back.
    """
    makers = {name: getattr(torch, name) for name in _FACTORIES}

    def recording(maker: Callable[..., Any]) -> Callable[..., Any]:
        def make(*args: Any, **kwargs: Any) -> Any:
            if any(isinstance(leaf, fx.Proxy) for leaf in pytree.tree_leaves((args, kwargs))):
                return tracer.create_proxy("call_function", maker, args, kwargs)
            return maker(*args, **kwargs)

        return make

    nn.Module.training = _ModeReads(tracer)  # type: ignore[assignment]
    try:
        for name, maker in makers.items():
            setattr(torch, name, recording(maker))
        yield
    finally:
        for name, maker in makers.items():
            setattr(torch, name, maker)
        del nn.Module.training


__all__ = ["watched"]
