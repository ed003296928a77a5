"""A model recorded once, for many searches: stages differ in what is frozen, not in code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from headstart.prefix import timing
from headstart.prefix.checking import evaluate_model
from headstart.prefix.inputs import Inputs, probe_batches, read_example
from headstart.prefix.purity import Purity
from headstart.prefix.tracing import Trace, UntraceableError, trace


@dataclass(eq=False)
class Recording:
    """What :func:`record` returns; of no use once weights have changed.

    Attributes:
        model: the model.
        inputs: how it is called.
        tensors: the example.
        batches: two items, the same first item with another second one, and three items.
        graph: its operations; None where it cannot be recorded.
        fault: why, then.
    """

    model: nn.Module
    inputs: Inputs
    tensors: list[Tensor]
    batches: tuple[list[Tensor], list[Tensor], list[Tensor]]
    graph: Trace | None
    fault: str = ""
    _times: dict[bool, dict[fx.Node, float]] = field(default_factory=dict)
    _evaluated: dict[int, Any] = field(default_factory=dict)

    def seconds(self, purity: Purity, *, measure: bool) -> dict[fx.Node, float]:
        """Return the time an item of every pure operation that depends on the inputs.

        An operation takes the same time in every stage: it is timed once.

        Args:
            purity: of the graph.
            measure: time them here; else estimate them, the same on every machine.
        """
        assert self.graph is not None
        known = self._times.setdefault(measure, {})
        wanted = [node for node in purity.varying if node.op != "placeholder"]
        if any(node not in known for node in wanted):
            timer = timing.measured_seconds if measure else timing.estimated_seconds
            known.update(timer(self.graph, purity, self.tensors))
        return {node: known[node] for node in known if node in purity.varying}

    def check_batches(self, items: int) -> tuple[list[list[Tensor]], list[Callable[[], Any]]]:
        """Return the batches that a cut is checked on, and what gives the model's evaluation.

        Args:
            items: of the example at most, in the first batch; the second one has three.
        """
        batches = [[tensor.detach()[:items] for tensor in self.tensors], self.batches[2]]
        return batches, [
            partial(self._evaluate, items, batches[0]),
            partial(self._evaluate, 0, batches[1]),
        ]

    def _evaluate(self, number: int, batch: list[Tensor]) -> Any:
        """Run the model on a batch, once for all stages."""
        if number not in self._evaluated:
            self._evaluated[number] = evaluate_model(self.model, self.inputs, batch)
        return self._evaluated[number]


def record(model: nn.Module, example: Any) -> Recording:
    """Record a model's operations on an example.

    Args:
        model: any module; it is left as it was.
        example: as for :func:`headstart.prefix.find_cut`.

    Raises:
        ConfigError: the example holds no batch.
    """
    inputs, tensors = read_example(model, example)
    batches = probe_batches(tensors)
    with torch.inference_mode(False):
        try:
            graph = trace(model, inputs, (batches[0], batches[2]))
        except UntraceableError as error:
            reason = f"{type(model).__name__} cannot be recorded as a graph ({error})"
            return Recording(model, inputs, tensors, batches, None, reason)
    graph.forget()
    return Recording(model, inputs, tensors, batches, graph)


__all__ = ["Recording", "record"]
