"""Run a user's model without leaving a trace on it: modes, statistics and chance are given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from headstart.freezing.hold import HeldTrain, hold_of
from headstart.prefix.comparing import version


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Give back, at the end, every mode, attribute and buffer, and the state of torch's generators.

    Inside, autograd is off. Buffers keep their identity: what an operation changed in place is
    put back in place.
    """
    attributes = [(part, dict(part.__dict__)) for part in model.modules()]
    requested = [(held, held.requested) for part in model.modules() if (held := _held_train(part))]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
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
        for part, before in attributes:
            for key in part.__dict__.keys() - before.keys():
                del part.__dict__[key]
            part.__dict__.update(before)
        for held, mode in requested:
            held.requested = mode
        for part, key, buffer in places:
            part._buffers[key] = buffer
        with torch.no_grad():
            for buffer, content in buffers:
                # By content: kernels of batch norms move statistics without counting a version.
                if not torch.equal(buffer, content):
                    buffer.copy_(content)


class Watch:
    """Tells whether the parameters or buffers of a module change."""

    def __init__(self, module: nn.Module | None) -> None:
        parameters = [] if module is None else list(module.parameters())
        buffers = [] if module is None else list(module.buffers())
        self._versions = [(parameter, version(parameter)) for parameter in parameters]
        self._contents = [(buffer, buffer.detach().clone()) for buffer in buffers]

    @property
    def changed(self) -> bool:
        """Whether anything changed since the watch was made."""
        return any(version(tensor) != count for tensor, count in self._versions) or any(
            not torch.equal(buffer, before) for buffer, before in self._contents
        )


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


__all__ = ["Watch", "evaluate", "is_held", "untouched"]
