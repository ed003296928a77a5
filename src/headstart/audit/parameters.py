"""What an audit knows of parameters, and which modules are frozen by theirs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from headstart.audit.facts import Network


class ParameterFacts:
    """A parameter.

    Attributes:
        name: its path in the network that it was first seen in.
        networks: all networks that hold it, that one first.
        names: its path in each of them.
        stranger: whether it is in a module of a Python list, which its network does not know.
        size: its number of elements.
        flips: how often its ``requires_grad`` was found changed.
        trainable: the latest ``requires_grad``.
        steps: steps of optimizers that held it while it was trainable and had a gradient.
        held: steps of optimizers that held it at all.
        frozen_since: steps that had been taken when it was found frozen; None while trainable.
        loads: how often ``load_state_dict`` has set it since.
        frozen_steps: the largest number of steps that it was frozen for at a time.
    """

    __slots__ = (
        "flips",
        "frozen_since",
        "frozen_steps",
        "held",
        "loads",
        "name",
        "names",
        "networks",
        "size",
        "steps",
        "stranger",
        "trainable",
    )

    def __init__(self, name: str, network: Network, size: int, trainable: bool, step: int) -> None:
        self.name, self.networks, self.size = name, [network], size
        self.names = [name]
        self.stranger = False
        self.trainable, self.flips = trainable, 0
        self.steps, self.held, self.loads = 0, 0, 0
        self.frozen_since: int | None = None if trainable else step
        self.frozen_steps = 0

    def places(self) -> Iterator[tuple[Network, str]]:
        """Yield every network that holds it, with its path there."""
        return zip(self.networks, self.names, strict=True)


def sample_of(tensor: Tensor) -> Tensor:
    """Return up to 2,048 evenly spread values ``float64``, on the CPU, as a copy."""
    flat = tensor.detach().reshape(-1)
    step = max(1, -(-flat.numel() // 2048))
    return flat[::step].to("cpu", torch.float64, copy=True)


def frozen_modules(module: nn.Module) -> frozenset[str]:
    """Return the names of the modules of which no parameter is trainable.

    A module without parameters, such as dropout, is frozen if the nearest module around it that has
    some is frozen as a whole.
    """
    trained: set[str] = set()
    some: set[str] = set()
    for name, parameter in module.named_parameters(remove_duplicate=False):
        target = trained if parameter.requires_grad else some
        path = name
        while path:
            path = path.rpartition(".")[0]
            target.add(path)
            if not path:
                break
    found: set[str] = set()
    for name, _ in module.named_modules(remove_duplicate=False):
        around = name
        while around not in trained and around not in some and around:
            around = around.rpartition(".")[0]
        if around in some and around not in trained:
            found.add(name)
    return frozenset(found)


def common_path(names: list[str]) -> str:
    """Return the module that holds all these modules; the first of them if that is the network."""
    if not names:
        return ""
    parts = [name.split(".") for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared) or names[0]


__all__ = ["ParameterFacts", "common_path", "frozen_modules", "sample_of"]
