"""What a configuration computes: the function from an item to a row, apart from its name.

Configurations that compute the same function share its rows; only what differs is run.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from headstart.backbones import Backbone
from headstart.data import Inputs
from headstart.study.configurations import Autograd, Configuration, Order, Statistics

Cut = tuple[str | None, str]
"""Layer and pooling."""


@dataclass(frozen=True)
class Facts:
    """What the network contains up to its deepest cut, found by looking and by running it.

    Attributes:
        norms: layers that keep running statistics, in the order of the network.
        chance: modules that draw random numbers in training mode, with their class.
        random: whether two passes in training mode (with running statistics) differ.
    """

    norms: tuple[str, ...]
    chance: tuple[tuple[str, str], ...]
    random: bool


@dataclass(frozen=True)
class Function:
    """A function from items to rows.

    Attributes:
        statistics, alpha: what batch norms use.
        dropout: whether dropout and the like are on.
        recompute: whether training rows come from several passes in training mode.
        inputs: of the network.
        batch_size: items in a batch; None where rows do not depend on it.
        order: of the items that the head is tested on; ``shuffled`` where it does not matter.
        autograd: the mode that it runs in; one for all modes that were shown to be equal.
    """

    statistics: Statistics
    alpha: float | None
    dropout: bool
    recompute: bool
    inputs: Inputs
    batch_size: int | None
    order: Order = "shuffled"
    autograd: Autograd = "inference"

    @property
    def row_wise(self) -> bool:
        """Whether a row is a function of its item alone."""
        return not (self.batch_dependent or self.dropout or self.recompute)

    @property
    def cached(self) -> bool:
        """Whether rows go through the feature cache, whose extraction runs in inference mode."""
        return self.row_wise and self.autograd == "inference"

    @property
    def batch_dependent(self) -> bool:
        """Whether a row depends on the batch that it is computed in."""
        return self.statistics == "batch"

    @property
    def measured_statistics(self) -> bool:
        """Whether statistics of the training split have to be measured first."""
        return self.statistics in ("reestimated", "blend")

    def but(self, **changes: Any) -> Function:
        """Return the function with some attributes changed."""
        return dataclasses.replace(self, **changes)

    def describe(self) -> dict[str, Any]:
        """Return plain values for keys and reports."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            "preprocessing" if name == "inputs" else name: value for name, value in values.items()
        } | {"preprocessing": self.inputs.describe()}


def function_of(
    configuration: Configuration, backbone: Backbone, facts: Facts, batch_size: int
) -> Function:
    """Return what a configuration computes on this network.

    A network without running statistics offers no choice among them, and in one without
    randomness dropout is neither on nor off: configurations that differ in these become one.
    """
    statistics = configuration.normalises_by if facts.norms else "running"
    alpha = configuration.alpha if statistics == "blend" else None
    if alpha == 0.0:
        statistics, alpha = "running", None
    elif alpha == 1.0:
        statistics, alpha = "reestimated", None
    by_batch = statistics == "batch"
    dropout = configuration.draws and facts.random
    varies = by_batch or dropout
    return Function(
        statistics=statistics,
        alpha=alpha,
        dropout=dropout,
        recompute=configuration.recompute and varies,
        inputs=configuration.inputs_from(backbone.inputs),
        batch_size=(configuration.batch_size or batch_size) if varies else None,
        order=configuration.order if by_batch else "shuffled",
        autograd=configuration.autograd,
    )


def cut_of(configuration: Configuration, backbone: Backbone) -> Cut:
    """Return layer and pooling of a configuration.

    A layer without a pooling is averaged; a pooling alone changes that of the backbone's cut.
    """
    if configuration.layer is None:
        return backbone.layer, configuration.pooling or backbone.pooling
    return configuration.layer, configuration.pooling or "avg"


__all__ = ["Cut", "Facts", "Function", "cut_of", "function_of"]
