"""Run a user's network without leaving a trace: its modes, statistics and random state return."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from headstart.core.devices import kept_randomness
from headstart.modules.writers import held_states


def evaluate(module: nn.Module) -> None:
    """Put every part in evaluation mode, whatever its own ``train`` does.

    Flags are set one by one rather than by ``module.eval()``: a ``train`` of the network's own may
    do more than set a flag (merge adapter weights, say) or refuse (exported programs), and a freeze
    contract remembers the mode that was last requested through it.
    """
    for part in module.modules():
        if getattr(part, "training", False):  # frozen TorchScript has no modes
            part.training = False


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put every part of ``module`` in evaluation mode, and restore each part's own mode.

    Layers that write to their own state in every pass, such as ``Embedding`` with ``max_norm``,
    leave it as it is: features are of the weights that the network came with.
    """
    modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    evaluate(module)
    try:
        with held_states(module):
            yield
    finally:
        for part, training in modes:
            if part.training != training:  # setting an attribute of a module is slow
                part.training = training


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Restore every mode, attribute and buffer, and the state of torch's generators.

    Autograd is off inside. Buffers keep their identity: what an operation changed in place is
    restored in place.
    """
    parts = list(module.modules())
    attributes = [(part, dict(part.__dict__)) for part in parts]
    # A `train` set on an instance may keep a state: a freeze contract's remembers the last request.
    trains = [train for part in parts if hasattr(train := part.__dict__.get("train"), "__dict__")]
    states = [(train, dict(vars(train))) for train in trains]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    places = [
        (part, key, buffer)
        for part in parts
        for key, buffer in part._buffers.items()
        if buffer is not None
    ]
    tensors = (*module.parameters(), *module.buffers())
    devices = {t.device for t in tensors}
    try:
        with kept_randomness(devices), torch.no_grad():
            yield
    finally:
        for owner, before in (*attributes, *states):
            for key in vars(owner).keys() - before.keys():
                del vars(owner)[key]
            vars(owner).update(before)
        for part, key, buffer in places:
            part._buffers[key] = buffer
        with torch.no_grad():
            for buffer, content in buffers:
                # By content: kernels of batch norms move statistics without counting a version.
                if not torch.equal(buffer, content):
                    buffer.copy_(content)


__all__ = ["evaluate", "evaluation_mode", "untouched"]
