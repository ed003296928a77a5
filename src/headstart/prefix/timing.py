"""What it costs to compute an operation for one item: measured, or estimated from its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from headstart.core.devices import synchronize
from headstart.modules.modes import evaluate, untouched
from headstart.prefix.comparing import tensors_in
from headstart.prefix.graph import Trace
from headstart.prefix.purity import Purity

_ITEMS = 16
_REPEATS, _LONG = 2, 0.5
"""Runs that count; one is enough where a run takes this many seconds: it is long enough."""
_FLOPS_A_SECOND = 2e10
_BYTES_A_SECOND = 2e10
"""Nominal rates of one processor core, for estimates that are equal on every machine. Moving memory
costs next to nothing beside reading it from a store: a row is not made larger to save a copy."""


def measured_seconds(
    trace: Trace, purity: Purity, tensors: Sequence[Tensor]
) -> dict[fx.Node, float]:
    """Time every pure operation that depends on the inputs, in seconds an item.

    The best of two runs after a first one that does not count, on at most 16 items; a single run
    where it takes long.
    """
    batch = [tensor.detach()[:_ITEMS] for tensor in tensors]
    count = len(batch[0])
    best: dict[fx.Node, float] = {}
    with untouched(trace.model):
        evaluate(trace.model)
        for repeat in range(1 + _REPEATS):
            found = dict(_timed(trace, purity, batch))
            if not repeat:
                continue  # the first run warms up
            best = {node: min(best.get(node, time), time) for node, time in found.items()}
            if sum(found.values()) > _LONG:
                break
    return {node: seconds / count for node, seconds in best.items()}


def estimated_seconds(
    trace: Trace, purity: Purity, tensors: Sequence[Tensor]
) -> dict[fx.Node, float]:
    """Estimate the same from floating point operations and bytes written: equal in every run.

    A view of what is there writes nothing.
    """
    batch = [tensor.detach()[:1] for tensor in tensors]
    found: dict[fx.Node, float] = {}
    with untouched(trace.model):
        evaluate(trace.model)
        for node, run in _stepped(trace, purity, batch):
            with FlopCounterMode(display=False) as counter:
                value = run()
            written = 0
            if node in trace.mutates or not trace.aliases.get(node):
                written = sum(t.numel() * t.element_size() for t in tensors_in(value))
            found[node] = counter.get_total_flops() / _FLOPS_A_SECOND + written / _BYTES_A_SECOND
    return found


def _timed(
    trace: Trace, purity: Purity, batch: Sequence[Tensor]
) -> Iterator[tuple[fx.Node, float]]:
    for node, run in _stepped(trace, purity, batch):
        _wait(batch)
        begun = time.perf_counter()
        run()
        _wait(batch)
        yield node, time.perf_counter() - begun


def _wait(batch: Sequence[Tensor]) -> None:
    synchronize(batch[0].device)


def _stepped(
    trace: Trace, purity: Purity, batch: Sequence[Tensor]
) -> Iterator[tuple[fx.Node, Callable[[], object]]]:
    """Yield every pure operation that depends on the inputs, with a function that runs it."""
    values: dict[fx.Node, object] = {}
    size = len(batch[0])
    left = {node: len(node.users) for node in trace.graph.nodes}
    places = iter(batch)

    def value_of(node: fx.Node) -> object:
        if node not in trace.shapes:
            return values[node]
        two, three = trace.values[node]
        return two if two == three else two + (three - two) * (size - 2)

    for node in trace.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(places).clone()
        elif node in trace.modes:
            values[node] = False
        elif node in purity.pure:

            def run(node: fx.Node = node) -> object:
                values[node] = trace.run(node, value_of)
                return values[node]

            if node in purity.varying:
                yield node, run
            else:
                run()
        for other in node.all_input_nodes:  # memory of what nobody needs any more
            left[other] -= 1
            if not left[other]:
                values.pop(other, None)


__all__ = ["estimated_seconds", "measured_seconds"]
