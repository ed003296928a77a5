"""What an audit keeps of a script's objects: modules, networks, optimizers, schedulers, loaders.

Records hold plain values and weak references, so that an audit keeps no network alive.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from headstart.audit.records import NOWHERE, Place


@dataclass(eq=False)
class Part:
    """A module of a network, as it was when it first ran.

    Attributes:
        name: its path in the network; "" for the network itself.
        kind: name of its class.
        ref: the module, while it lives.
        running: its buffers of running statistics, by name; empty where it is no such norm.
        batch_only: whether it is a batch norm without running statistics.
        items_only: whether it normalises every item by itself (instance norm), or its running
            statistics are constants.
        random: what makes it random in training mode, such as ``Dropout``; None: nothing known.
        leaf: whether it has no modules inside.
        own: how many parameters are its own.
        first: copies of its running statistics before its first run.
        mode: the call of ``train()`` that put it into the mode of its latest pass in training mode.
    """

    name: str
    kind: str
    ref: weakref.ref[nn.Module]
    running: tuple[str, ...]
    batch_only: bool
    items_only: bool
    random: str | None
    leaf: bool
    own: int
    first: dict[str, Tensor] = field(default_factory=dict)
    mode: ModeCall | None = None

    @property
    def normalises(self) -> bool:
        """Whether it normalises by the batch in training mode."""
        return (bool(self.running) or self.batch_only) and not self.items_only


@dataclass(eq=False)
class ModeCall:
    """The user's code, or a trainer, called ``train()`` or ``eval()`` on a module.

    Attributes:
        number: from 1.
        mode: True for training mode.
        kind: name of the module's class.
        place: the line that did.
        step: how many steps of optimizers had been taken before.
        passes: how many passes had been seen before.
        target: the module, while it lives.
        module: the module; only while it is told about.
    """

    number: int
    mode: bool
    kind: str
    place: Place
    step: int
    passes: int
    target: weakref.ref[nn.Module]
    module: nn.Module | None


@dataclass(eq=False)
class Network:
    """A module that the user's code calls itself: not from inside another module.

    Attributes:
        number: in the order of first calls.
        kind: name of its class.
        ref: the module, while it lives.
        place: where it was first called.
        parameters: how many parameters it has; events are told only for networks that have some.
        passes: how many passes were seen.
        stepped: names of its parameters that a step of an optimizer was to move.
        held: names of its parameters that a stepping optimizer held, whether it moved them or not.
        moved_directly: whether its parameters move towards those of a trained network without an
            optimizer, as those of a moving average do.
        flips: by name of a parameter, how often its ``requires_grad`` was found changed.
    """

    number: int
    kind: str
    ref: weakref.ref[nn.Module]
    place: Place
    parameters: int
    passes: int = 0
    stepped: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    moved_directly: bool = False
    flips: dict[str, int] = field(default_factory=dict)

    @property
    def module(self) -> nn.Module | None:
        """The module, while it lives."""
        return self.ref()


@dataclass(eq=False)
class OptimizerFacts:
    """An optimizer.

    Attributes:
        number: in the order of construction.
        kind: name of its class.
        ref: the optimizer, while it lives.
        place: where it was made.
        steps: how many steps it has taken.
    """

    number: int
    kind: str
    ref: weakref.ref[Optimizer]
    place: Place
    steps: int = 0


@dataclass(eq=False)
class SchedulerFacts:
    """A scheduler of learning rates.

    Attributes:
        kind: name of its class.
        ref: the scheduler, while it lives.
        place: where it was made.
        optimizer: what it schedules, if that was seen.
        total, period: how many steps it plans (``total_steps``), and half of its period
            (``T_max``); None where it has no such thing.
        steps: how often it was stepped, its own first step not counted.
        first: steps that its optimizer had taken before its first step; None: never stepped.
        backwards: backward passes of any network before its first step.
        last: where it was stepped last.
        rates: learning rates of the first group, as they were after its steps; the first 4,096.
    """

    kind: str
    ref: weakref.ref[Any]
    place: Place
    optimizer: OptimizerFacts | None
    total: int | None = None
    period: int | None = None
    steps: int = 0
    first: int | None = None
    backwards: int = 0
    last: Place = NOWHERE
    rates: list[float] = field(default_factory=list)


@dataclass(eq=False)
class LoaderFacts:
    """A data loader.

    Attributes:
        number: in the order of first use.
        ref: the loader, while it lives.
        place: where it was first iterated over.
        epochs: how often an iteration over it began.
        batches: batches taken, over all epochs.
        complete: epochs that were taken to their end.
    """

    number: int
    ref: weakref.ref[Any]
    place: Place
    epochs: int = 0
    batches: int = 0
    complete: int = 0


__all__ = ["LoaderFacts", "ModeCall", "Network", "OptimizerFacts", "Part", "SchedulerFacts"]
