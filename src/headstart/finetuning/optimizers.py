"""Optimizers whose state lives longer than a stage, and moving averages of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from headstart.finetuning.stages import Stage
from headstart.finetuning.targets import GroupRate, optimizer_groups


def build_optimizer(
    network: nn.Module,
    stage: Stage,
    rates: Sequence[GroupRate],
    before: torch.optim.Optimizer | None = None,
) -> torch.optim.Optimizer:
    """Build the optimizer of a stage; parameters that trained before keep their state.

    Args:
        network: owns the parameters.
        stage: names the optimizer.
        rates: the groups.
        before: the optimizer of the stage before; its state goes on where the kind is the same.
    """
    groups = optimizer_groups(network, rates)
    optimizer: torch.optim.Optimizer
    if stage.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=stage.lr, momentum=stage.momentum)
    else:
        kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(groups, lr=stage.lr)
    if before is not None and type(before) is type(optimizer):
        # All states, not only those of parameters that train now: a part that freezes for a stage
        # and thaws again finds its own.
        for parameter, state in before.state.items():
            optimizer.state[parameter] = state
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Scale the rates of all groups from their base; return that of the last, the head's."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimizer.param_groups[-1]["lr"])


def optimizer_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """Return the state as named tensors: ``PARAMETER/KEY``."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        f"{names[id(parameter)]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, network: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    parameters = dict(network.named_parameters())
    optimizer.state.clear()
    for name, value in tensors.items():
        owner, _, key = name.rpartition("/")
        parameter = parameters[owner]
        # Adam's step counters stay on the CPU, where its default implementation wants them.
        place = "cpu" if key == "step" else parameter.device
        optimizer.state[parameter][key] = value.to(place)


class Average:
    """Exponential moving average of the weights that train (Polyak and Juditsky 1992).

    Args:
        network: owns the weights.
        names: which of them.
        decay: share of the old average in the new one; in the first steps it is smaller,
            ``(1 + t) / (10 + t)``, so that the start is forgotten.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], decay: float) -> None:
        named = dict(network.named_parameters())
        self.decay, self.steps = decay, 0
        self._live = {name: named[name] for name in names}
        self.shadow = {name: p.detach().clone() for name, p in self._live.items()}

    def update(self) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for name, parameter in self._live.items():
                self.shadow[name].lerp_(parameter, 1 - decay)

    def restore(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Put back a saved average."""
        self.steps = steps
        for name, value in tensors.items():
            self.shadow[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averaged weights for the time of the context."""
        kept = {name: p.detach().clone() for name, p in self._live.items()}
        self._write(self.shadow)
        try:
            yield
        finally:
            self._write(kept)

    def _write(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._live.items():
                parameter.copy_(values[name])


__all__ = ["Average", "build_optimizer", "optimizer_tensors", "restore_optimizer", "set_rates"]
