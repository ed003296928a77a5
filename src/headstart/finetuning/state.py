"""What a training carries from step to step: weights, optimizer state, and their moving average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from headstart.finetuning.optimizers import OPTIMIZERS
from headstart.finetuning.recipe import Stage
from headstart.finetuning.targets import GroupRate, Target

_MODEL, _OPTIMIZER, _AVERAGE = "model:", "optimizer:", "average:"


class TrainingState:
    """The tensors of a training that move, and how they are copied, saved and restored.

    Args:
        network: owns them.
        targets: all stages: what trains in one of them may move, and so may every buffer.

    Attributes:
        optimizer: of the current stage.
        average: of the weights of the current stage; None keeps none.
    """

    optimizer: torch.optim.Optimizer

    def __init__(self, network: nn.Module, targets: Sequence[Target]) -> None:
        self.network = network
        trained = {name for target in targets for name in target.trainable}
        names = [name for name, _ in network.named_parameters() if name in trained]
        self._moving = (*names, *(name for name, _ in network.named_buffers()))
        self._previous: torch.optim.Optimizer | None = None
        self.average: Average | None = None

    def begin_stage(self, target: Target) -> None:
        """Build the optimizer and the average of a stage; the optimizer's state carries over."""
        stage = target.stage
        self.optimizer = build_optimizer(self.network, stage, target.rates, self._previous)
        self._previous = self.optimizer
        names = target.trainable
        self.average = Average(self.network, names, stage.ema) if stage.ema else None

    def weights(self) -> dict[str, Tensor]:
        """Copy every tensor that may move."""
        named = self._named()
        return {name: named[name].detach().clone() for name in self._moving}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`weights` returned."""
        named = self._named()
        with torch.no_grad():
            for name, value in weights.items():
                named[name].copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a checkpoint keeps, by name."""
        named = {_MODEL + name: tensor for name, tensor in self.weights().items()}
        for name, tensor in _optimizer_tensors(self.optimizer, self.network).items():
            named[_OPTIMIZER + name] = tensor
        if self.average is not None:
            named |= {_AVERAGE + name: value for name, value in self.average.shadow.items()}
        return named

    def load_model(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the weights of a checkpoint, before its stage begins."""
        self.load_weights(_part(tensors, _MODEL))

    def load_optimizer(self, tensors: Mapping[str, Tensor], average_steps: int) -> None:
        """Restore optimizer and average of a checkpoint, once its stage has begun."""
        _restore_optimizer(self.optimizer, self.network, _part(tensors, _OPTIMIZER))
        if self.average is not None:
            self.average.restore(_part(tensors, _AVERAGE), average_steps)

    def _named(self) -> dict[str, Tensor]:
        return {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}


def _part(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(kind): t for name, t in tensors.items() if name.startswith(kind)}


def build_optimizer(
    network: nn.Module,
    stage: Stage,
    rates: Sequence[GroupRate],
    previous: torch.optim.Optimizer | None = None,
) -> torch.optim.Optimizer:
    """Build the optimizer of a stage; parameters that trained before keep their state.

    Args:
        network: owns the parameters.
        stage: names the optimizer.
        rates: the parameter groups. ``base_lr`` of each is the rate that schedules scale.
        previous: the optimizer of the stage before; its state carries over if it is of the same
            kind.
    """
    parameters = dict(network.named_parameters())
    groups: list[dict[str, Any]] = [
        {
            "params": [parameters[name] for name in rate.parameters],
            "lr": rate.lr,
            "base_lr": rate.lr,
            "weight_decay": rate.weight_decay,
            "name": rate.name,
        }
        for rate in rates
    ]
    optimizer = OPTIMIZERS[stage.optimizer].build(groups, stage)
    if previous is not None and type(previous) is type(optimizer):
        # All of it, not only that of parameters which train now: a part that freezes for a stage
        # and thaws again finds its own.
        for parameter, state in previous.state.items():
            optimizer.state[parameter] = state
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale the rates of all groups from their base."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _optimizer_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """Return the state as named tensors: ``PARAMETER/KEY``."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        f"{names[id(parameter)]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, network: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Restore what :func:`_optimizer_tensors` returned."""
    parameters = dict(network.named_parameters())
    optimizer.state.clear()
    for name, value in tensors.items():
        owner, _, key = name.rpartition("/")
        parameter = parameters[owner]
        # Adam's step counters stay on the CPU, where its default implementation expects them.
        place = "cpu" if key == "step" else parameter.device
        optimizer.state[parameter][key] = value.to(place)


class Average:
    """Exponential moving average of the weights that train (Polyak and Juditsky 1992).

    Args:
        network: owns the weights.
        names: which of them.
        decay: share of the old average in the new one; in the first steps it is smaller,
            ``(1 + t) / (10 + t)``, so that the initial weights are forgotten.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], decay: float) -> None:
        named = dict(network.named_parameters())
        self.decay, self.steps = decay, 0
        self._live = {name: named[name] for name in names}
        self.shadow = {name: p.detach().clone() for name, p in self._live.items()}

    def update(self) -> None:
        """Include the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for name, parameter in self._live.items():
                self.shadow[name].lerp_(parameter, 1 - decay)

    def restore(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Restore a saved average."""
        self.steps = steps
        for name, value in tensors.items():
            self.shadow[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averaged weights while the context is open."""
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


__all__ = ["Average", "TrainingState", "build_optimizer", "set_rates"]
