"""What the observer tells checks about: passes, calls, backward passes, steps, batches, losses.

Records hold plain values and weak references, so that an audit keeps no network, batch or graph
alive. What exists only while an event is told (``Pass.args``, ``Pass.output``, ``Loss.input``, …)
is None afterwards.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from headstart.audit.places import Trail
from headstart.audit.records import NOWHERE, Place

Purpose = Literal["training", "evaluation", "extraction"]


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


@dataclass(frozen=True)
class Call:
    """A module ran inside a pass.

    Attributes:
        part: the module.
        training: its mode, at that moment.
        grad: whether autograd was on.
        shape: of the first tensor that it was given; None where there was none.
    """

    part: Part
    training: bool
    grad: bool
    shape: tuple[int, ...] | None


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
class Pass:
    """One forward pass of a network.

    Attributes:
        number: counted over all networks.
        network: what ran.
        place: the line of the user's code that called it.
        trail: all functions of the user's code that were running: equal for equal calls.
        discarded: whether its result was used by nobody: the call is a statement of its own.
        training: the mode of the network as a whole.
        grad, inference: whether autograd was on, and whether inside ``inference_mode``.
        step: how many steps of optimizers had been taken before.
        loader: number of the data loader that the latest batch came from; None: none was seen.
        rows: size of the first axis of the first tensor; None where there is none.
        calls: the modules that ran, in order. Shared between equal passes.
        frozen: names of the modules of which no parameter was trainable, those without parameters
            that are inside of one included.
        quiet: names of the modules that ran without autograd though it was on for the network.
        trained: whether gradients came back to its output. Known only after the backward pass.
        consumers: later passes, of other networks, that took this one's output.
        failed: whether it raised an exception.
        cumulative: whether its live norms average over all batches (``momentum=None``).
        args, kwargs, output: only while the pass is told about.
        memo: measurements that several checks share; only while the pass is told about.
    """

    number: int
    network: Network
    place: Place
    discarded: bool
    training: bool
    grad: bool
    inference: bool
    step: int
    loader: int | None
    rows: int | None = None
    trail: Trail = ()
    calls: tuple[Call, ...] = ()
    frozen: frozenset[str] = frozenset()
    quiet: frozenset[str] = frozenset()
    trained: bool = False
    consumers: list[Pass] = field(default_factory=list)
    failed: bool = False
    cumulative: bool = False
    args: tuple[Any, ...] | None = None
    kwargs: Mapping[str, Any] | None = None
    output: Any = None
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def purpose(self) -> Purpose:
        """What it was for, as far as is known by now; final when the script has ended.

        ``training``: gradients came back. ``evaluation``: none did, and an optimizer trains the
        network at some time. ``extraction``: nothing trains the network.
        """
        if self.trained:
            return "training"
        return "evaluation" if self.network.stepped else "extraction"


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
class Step:
    """One step of an optimizer: told before and after it.

    Attributes:
        number: counted over all optimizers, from 1.
        optimizer: the optimizer itself; only while the step is told about.
        facts: what is known of it.
        place: the line that stepped it.
        backwards: backward passes since the last step of any optimizer.
    """

    number: int
    optimizer: Optimizer
    facts: OptimizerFacts
    place: Place
    backwards: int


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


@dataclass(eq=False)
class Batch:
    """A batch that a data loader gave out.

    Attributes:
        loader: where it came from.
        index: in the epoch, from 0.
        place: the line that asked for it.
        data: what it is; only while it is told about.
        dataset: what the loader reads; only while it is told about.
    """

    loader: LoaderFacts
    index: int
    place: Place
    data: Any
    dataset: Any = None


@dataclass(eq=False)
class Backward:
    """A backward pass.

    Attributes:
        number: from 1.
        place: the line that asked for it.
        tensors: what it starts from; only while it is told about.
    """

    number: int
    place: Place
    tensors: Any


@dataclass(eq=False)
class Loss:
    """A loss of ``torch.nn.functional`` was computed, directly or by a module of ``torch.nn``.

    Attributes:
        name: of the function: ``cross_entropy``, ``mse_loss``, ….
        place: the line that computed it.
        grad: whether autograd was on.
        input, target, output, options: only while it is told about; ``options`` are the other
            arguments, by name.
    """

    name: str
    place: Place
    grad: bool
    input: Any
    target: Any
    options: Mapping[str, Any]
    output: Any


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
class Fit:
    """An estimator of scikit-learn is fitted.

    Attributes:
        kind: name of its class.
        place: the line that fits it.
        x: the data; only while it is told about.
    """

    kind: str
    place: Place
    x: Any


@dataclass(eq=False)
class Split:
    """A splitter of scikit-learn has made its first division of data.

    Attributes:
        kind: name of its class.
        place: the line that asked for it.
        x: the data; only while it is told about.
        train, test: indices of the rows on both sides.
        grouped: whether groups were given, which it keeps together.
    """

    kind: str
    place: Place
    x: Any
    train: Any
    test: Any
    grouped: bool


@dataclass(eq=False)
class Load:
    """A state dict was loaded into a module.

    Attributes:
        place: the line that loaded it.
        step: how many steps of optimizers had been taken before.
        passes: how many passes had been seen before.
        module: the module; only while it is told about.
    """

    place: Place
    step: int
    passes: int
    module: nn.Module | None


__all__ = [
    "Backward",
    "Batch",
    "Call",
    "Fit",
    "Load",
    "LoaderFacts",
    "Loss",
    "ModeCall",
    "Network",
    "OptimizerFacts",
    "Part",
    "Pass",
    "Purpose",
    "SchedulerFacts",
    "Split",
    "Step",
]
