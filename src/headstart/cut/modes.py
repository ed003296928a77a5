"""Run a user's model without leaving a trace on it: modes, statistics and chance are given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from headstart.freezing.hold import HeldTrain, hold_of


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Give back, at the end, every mode, every buffer and the state of torch's generators.

    Inside, autograd is off. Buffers keep their identity: what an operation changed in place is
    put back in place.
    """
    modes = [(part, part.training) for part in model.modules()]
    requested = [(held, held.requested) for part in model.modules() if (held := _held_train(part))]
    buffers = [(buffer, buffer.detach().clone(), buffer._version) for buffer in model.buffers()]
    places = [
        (part, key, buffer)
        for part in model.modules()
        for key, buffer in part._buffers.items()
        if buffer is not None
    ]
    cuda = sorted({t.device.index or 0 for t in _tensors(model) if t.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training
        for held, mode in requested:
            held.requested = mode
        for part, key, buffer in places:
            part._buffers[key] = buffer
        with torch.no_grad():
            for buffer, before, version in buffers:
                if buffer._version != version:
                    buffer.copy_(before)


def evaluate(model: nn.Module) -> None:
    """Put every part in evaluation mode, whatever its own ``train`` does."""
    for part in model.modules():
        part.training = False


def _held_train(module: nn.Module) -> HeldTrain | None:
    train = module.__dict__.get("train")
    return train if isinstance(train, HeldTrain) else None


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def is_held(module: nn.Module) -> bool:
    """Whether a freeze contract keeps the module in evaluation mode."""
    hold = hold_of(module)
    return hold is not None and hold.held


__all__ = ["evaluate", "is_held", "untouched"]
