"""The door of the room: from a model, an example and what is frozen to a checked cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from headstart.cut import timing
from headstart.cut.assembly import build_prefix, build_suffix
from headstart.cut.boundary import TensorSpec, specify
from headstart.cut.checking import check
from headstart.cut.effects import needs, overwritten_aliases
from headstart.cut.inputs import Inputs, probe_batches, read_example
from headstart.cut.placing import place
from headstart.cut.precision import Dtype, checked_dtype, rounding_error
from headstart.cut.purity import Purity, examine
from headstart.cut.replay import cut_modules
from headstart.cut.result import Cut, NoCut, Placed
from headstart.cut.rows import compute_rows
from headstart.cut.terms import Frozen, Terms, read_terms
from headstart.cut.tracing import Trace, UntraceableError, trace
from headstart.errors import ConfigError

READ_BANDWIDTH = 5e8
"""Bytes a second at which stored rows are read. A mapped file on a local disk gives random rows
about twice as fast; the other half stands for writing them once and for the disk they take."""


def find_cut(
    model: nn.Module,
    example: Any,
    frozen: Frozen,
    *,
    dtype: Dtype = "float32",
    measure: bool = True,
    read_bandwidth: float = READ_BANDWIDTH,
) -> Cut | NoCut:
    """Find the largest part of a model that is frozen and deterministic, and cut behind it.

    The part is found in the graph of operations, across the borders of blocks and along skip
    connections. Within it the boundary is placed where reading what is stored and recomputing the
    rest take the least time together. The model is left as it was: modes, statistics, the state
    of torch's generators.

    Args:
        model: any module.
        example: one small batch as the model takes it: a tensor, a tuple of arguments or a
            mapping of named ones, items along the first axis; any number of items, 8 to 16 for
            good times. The cut holds for items of this shape and for every batch size.
        frozen: what does not move in this stage: the handle of :func:`headstart.freeze`, a plan
            of :func:`headstart.plan_freeze` that is not carried out yet, a function from the name
            of a parameter or buffer to whether it stays, or a mapping from names of tensors or
            modules to that.
        dtype: the type in which floating boundary tensors are stored. float32 (the default)
            loses nothing of a float32 model; float16 and bfloat16 halve the bytes at the error
            that ``Cut.rounding`` reports.
        measure: time operations here; False estimates from their work, the same on any machine.
        read_bandwidth: bytes a second at which stored rows are read.

    Returns:
        A checked cut, or why there is none.

    Raises:
        FreezeError: ``frozen`` does not fit the model, or contradicts ``requires_grad``.
        ConfigError: the example holds no batch, or an argument is out of range.
    """
    checked_dtype(dtype)
    if not read_bandwidth > 0:
        raise ConfigError((f"read_bandwidth must be positive, not {read_bandwidth}",))
    inputs, tensors = read_example(model, example)
    terms = read_terms(model, frozen)
    question = _Question(model, inputs, tensors, terms, dtype, measure, read_bandwidth)
    with torch.inference_mode(False):
        return _answer(question)


@dataclass(frozen=True, eq=False)
class _Question:
    """What :func:`find_cut` is asked, taken apart."""

    model: nn.Module
    inputs: Inputs
    tensors: list[Tensor]
    terms: Terms
    dtype: Dtype
    measure: bool
    bandwidth: float


def _answer(asked: _Question) -> Cut | NoCut:
    pairs, others, threes = probe_batches(asked.tensors)
    try:
        graph = trace(asked.model, asked.inputs, (pairs, threes))
        graph.forget()
        purity = examine(graph, asked.terms, (pairs, others))
        found = _cut_graph(asked, graph, purity)
    except UntraceableError as error:
        reason = f"{type(asked.model).__name__} cannot be recorded as a graph ({error})"
        between = _cut_between(asked)
        if isinstance(between, Placed):
            return _checked(between, asked)
        return NoCut(f"{reason}, and cannot be cut between modules either: {between}")
    if purity.mixed:
        # A module that had to stay whole has frozen parts: its own code can be run around them.
        between = _cut_between(asked)
        if isinstance(between, Placed) and _size(between) > _size(found):
            checked = _checked(between, asked)
            return checked or (_checked(found, asked) if isinstance(found, Placed) else found)
    return _checked(found, asked) if isinstance(found, Placed) else found


def _size(placed: Placed | NoCut) -> int:
    """Return how many numbers the frozen part holds: what the better of two cuts has more of."""
    if isinstance(placed, NoCut):
        return 0
    return sum(parameter.numel() for parameter in placed.prefix.parameters())


def _cut_between(asked: _Question) -> Placed | str:
    return cut_modules(
        asked.model, asked.inputs, asked.tensors, asked.terms, asked.dtype, asked.bandwidth
    )


def _cut_graph(asked: _Question, graph: Trace, purity: Purity) -> Placed | NoCut:
    if not any(node.op != "placeholder" for node in purity.varying):
        return NoCut(_nothing(purity), purity.blockers)
    timer = timing.measured_seconds if asked.measure else timing.estimated_seconds
    seconds = timer(graph, purity, asked.tensors)
    before, boundary, specs = _placed(graph, purity, seconds, asked.dtype, asked.bandwidth)
    if all(node.op == "placeholder" for node in boundary):
        return NoCut(
            "computing the frozen part takes less time than reading its result would",
            purity.blockers,
        )
    prefix = build_prefix(graph, boundary, before | (purity.pure - purity.varying))
    suffix = build_suffix(graph, boundary, before, specs)
    costs = (
        sum(seconds.get(node, 0.0) for node in before),
        sum(cost for node, cost in seconds.items() if node not in before),
        sum(spec.bytes for spec in specs) / asked.bandwidth,
    )
    return Placed(prefix, suffix, specs, "graph", costs, purity.blockers, prefix.describe)


def _nothing(purity: Purity) -> str:
    if not purity.blockers:
        return "no operation of the model depends on its inputs"
    return f"no operation can be computed once: {purity.blockers[0]}"


def _placed(
    graph: Trace, purity: Purity, seconds: dict[fx.Node, float], dtype: Dtype, bandwidth: float
) -> tuple[frozenset[fx.Node], list[fx.Node], tuple[TensorSpec, ...]]:
    """Divide the pure operations; return those before, the stored ones and their description."""
    order = {node: number for number, node in enumerate(graph.graph.nodes)}
    before_all = needs(graph)
    varying = purity.varying
    aliases = overwritten_aliases(graph)
    specs = {
        node: spec for node in varying - aliases if (spec := _spec(graph, node, dtype)) is not None
    }
    consumers: dict[fx.Node, set[int]] = {node: set() for node in varying}
    for node in graph.graph.nodes:
        for other in node.all_input_nodes:
            if node not in graph.shapes and other in varying:
                consumers[other].add(order[node] if node in varying else -1)
    chosen = place(
        {order[n]: [order[o] for o in before_all[n] if o in varying] for n in varying},
        {order[n]: consumers[n] for n in varying},
        {order[n]: _time(n, seconds) for n in sorted(varying, key=order.__getitem__)},
        {order[n]: spec.bytes / bandwidth for n, spec in specs.items()},
    )
    before = frozenset(node for node in varying if order[node] in chosen)
    boundary = [
        node
        for node in graph.graph.nodes
        if node in before and any(user not in chosen for user in consumers[node])
    ]
    return before, boundary, tuple(specs[node] for node in boundary)


def _time(node: fx.Node, seconds: dict[fx.Node, float]) -> float:
    """Return the time to compute a value behind the cut; inputs cannot be computed there."""
    return math.inf if node.op == "placeholder" else seconds.get(node, 0.0)


def _spec(graph: Trace, node: fx.Node, dtype: Dtype) -> TensorSpec | None:
    """Describe the value of a node as a boundary tensor; None where it cannot be stored."""
    two, three = graph.values[node]
    if not isinstance(two, Tensor) or not two.ndim or two.shape[1:] != three.shape[1:]:
        return None
    return specify(node.name, two, 2, dtype) if len(three) == 3 else None


def _checked(placed: Placed, asked: _Question) -> Cut | NoCut:
    """Prove a cut on the example and on a batch of another size; measure the rounding."""
    inputs = asked.inputs
    small = [tensor.detach()[:8] for tensor in asked.tensors]
    threes = probe_batches(asked.tensors)[2]
    found = check(asked.model, placed.prefix, placed.suffix, inputs, (small, threes), asked.terms)
    if found.fault is not None:
        return NoCut(f"the cut does not hold: {found.fault}", placed.ends)
    rows = compute_rows(placed.prefix, *inputs.call([tensor.clone() for tensor in threes]))
    return Cut(
        placed.prefix,
        placed.suffix,
        placed.boundary,
        placed.method,
        found,
        tuple(
            rounding_error(row, spec.dtype)  # type: ignore[arg-type]
            if row.is_floating_point()
            else None
            for row, spec in zip(rows, placed.boundary, strict=True)
        ),
        *placed.seconds,
        placed.ends,
        placed.describe,
    )


__all__ = ["READ_BANDWIDTH", "find_cut"]
