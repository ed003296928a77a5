"""Optimizers and learning-rate schedules by name: two open tables.

:func:`register_optimizer` and :func:`register_schedule` add to them; a recipe may then use the new
name. Nothing here imports torch before an optimizer is built, so that recipes stay plain values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from headstart.finetuning.recipe import Stage


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
    build: Callable[[list[dict[str, Any]], Stage], Optimizer]
    describe: Callable[[Stage], str]
    state_tensors: Callable[[Stage], int]


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
    factor: Callable[[Stage, float], float]
    describe: Callable[[Stage], str]


OPTIMIZERS: dict[str, OptimizerKind] = {}
SCHEDULES: dict[str, Schedule] = {}


def register_optimizer(kind: OptimizerKind) -> None:
    """Add an optimizer to those that recipes may name; a known name is replaced."""
    OPTIMIZERS[kind.name] = kind


def register_schedule(schedule: Schedule) -> None:
    """Add a schedule to those that recipes may name; a known name is replaced."""
    SCHEDULES[schedule.name] = schedule


def _adamw(groups: list[dict[str, Any]], stage: Stage) -> Optimizer:
    from torch.optim import AdamW

    return AdamW(groups, lr=stage.lr)


def _adam(groups: list[dict[str, Any]], stage: Stage) -> Optimizer:
    from torch.optim import Adam

    return Adam(groups, lr=stage.lr)


def _sgd(groups: list[dict[str, Any]], stage: Stage) -> Optimizer:
    from torch.optim import SGD

    return SGD(groups, lr=stage.lr, momentum=stage.momentum)


def _cosine(stage: Stage, progress: float) -> float:
    done = (progress - stage.warmup) / (stage.epochs - stage.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _step(stage: Stage, progress: float) -> float:
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
    "Schedule",
    "register_optimizer",
    "register_schedule",
]
