"""What the observer tells checks about: passes, calls, backward passes, steps, batches, losses.

Records hold plain values and weak references, so that an audit keeps no network, batch or graph
alive. What exists only while an event is told (``Pass.args``, ``Pass.output``, ``Loss.input``, …)
is None afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from headstart.audit.facts import LoaderFacts, Network, OptimizerFacts, Part
from headstart.audit.places import Trail
from headstart.audit.records import Place

Purpose = Literal["training", "evaluation", "extraction"]


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


__all__ = ["Backward", "Batch", "Call", "Fit", "Load", "Loss", "Pass", "Purpose", "Split", "Step"]
