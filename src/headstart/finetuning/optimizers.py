"""Optimizers and learning-rate schedules by name: two open tables.

:func:`register_optimizer` and :func:`register_schedule` add to them; a recipe may then use the new
name. Nothing here imports torch before an optimizer is built, so that recipes stay plain values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch.optim import Optimizer


class Rates(Protocol):
    """What optimizers and schedules read of a :class:`~headstart.finetuning.recipe.Stage`."""

    @property
    def epochs(self) -> int:
        """Passes over the training items."""

    @property
    def lr(self) -> float:
        """Learning rate of the head."""

    @property
    def momentum(self) -> float:
        """Momentum of sgd."""

    @property
    def gamma(self) -> float:
        """Factor of the schedule step."""

    @property
    def step_size(self) -> int:
        """Epochs between its steps."""

    @property
    def warmup(self) -> float:
        """Epochs of linear warm-up."""


@dataclass(frozen=True)
class OptimizerKind:
    """An optimizer that a stage may name.

    Attributes:
        name: as a recipe writes it.
        build: from parameter groups (each with ``params``, ``lr`` and ``weight_decay``) and the
            stage to the optimizer.
        describe: the stage's optimizer in a few words, for the plan.
        state_tensors: how many tensors the optimizer keeps for every parameter, for the plan's
            memory estimate.
    """

    name: str
    build: Callable[[list[dict[str, Any]], Rates], Optimizer]
    describe: Callable[[Rates], str]
    state_tensors: Callable[[Rates], int]


@dataclass(frozen=True)
class Schedule:
    """How learning rates change within a stage, after the warm-up.

    Attributes:
        name: as a recipe writes it.
        factor: from the stage and the epochs since its start (a fraction is fine) to the factor on
            every learning rate.
        describe: the stage's schedule in a few words, for the plan.
    """

    name: str
    factor: Callable[[Rates, float], float]
    describe: Callable[[Rates], str]


OPTIMIZERS: dict[str, OptimizerKind] = {}
SCHEDULES: dict[str, Schedule] = {}


def register_optimizer(kind: OptimizerKind) -> None:
    """Add an optimizer to those that recipes may name; a known name is replaced."""
    OPTIMIZERS[kind.name] = kind


def register_schedule(schedule: Schedule) -> None:
    """Add a schedule to those that recipes may name; a known name is replaced."""
    SCHEDULES[schedule.name] = schedule


def _adamw(groups: list[dict[str, Any]], stage: Rates) -> Optimizer:
    from torch.optim import AdamW

    return AdamW(groups, lr=stage.lr)


def _adam(groups: list[dict[str, Any]], stage: Rates) -> Optimizer:
    from torch.optim import Adam

    return Adam(groups, lr=stage.lr)


def _sgd(groups: list[dict[str, Any]], stage: Rates) -> Optimizer:
    from torch.optim import SGD

    return SGD(groups, lr=stage.lr, momentum=stage.momentum)


def _cosine(stage: Rates, progress: float) -> float:
    done = (progress - stage.warmup) / (stage.epochs - stage.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _step(stage: Rates, progress: float) -> float:
    return float(stage.gamma ** (math.floor(progress) // stage.step_size))


for _kind in (
    OptimizerKind("adamw", _adamw, lambda _: "AdamW", lambda _: 2),
    OptimizerKind("adam", _adam, lambda _: "Adam", lambda _: 2),
    OptimizerKind(
        "sgd",
        _sgd,
        lambda stage: f"SGD (momentum {stage.momentum:g})",
        lambda stage: 1 if stage.momentum else 0,
    ),
):
    register_optimizer(_kind)

for _schedule in (
    Schedule("constant", lambda *_: 1.0, lambda _: "constant rates"),
    Schedule("cosine", _cosine, lambda _: "rates fall to zero by a cosine"),
    Schedule(
        "step",
        _step,
        lambda stage: f"rates times {stage.gamma:g} every {stage.step_size} epochs",
    ),
):
    register_schedule(_schedule)


__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "OptimizerKind",
    "Rates",
    "Schedule",
    "register_optimizer",
    "register_schedule",
]
