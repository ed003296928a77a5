"""From a model, an example and what is frozen to a checked cut.

A model is recorded once, for many searches: the stages of fine-tuning differ in what is frozen,
not in code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from headstart.core.errors import ConfigError
from headstart.prefix import timing
from headstart.prefix.boundary import Dtype, RoundingError, checked_dtype, rounding_error
from headstart.prefix.call_form import CallForm, probe_batches, read_example
from headstart.prefix.checking import check, evaluate_model
from headstart.prefix.dividing import Divider, Division
from headstart.prefix.graph import Trace, UntraceableError
from headstart.prefix.parts import compute_rows
from headstart.prefix.purity import Purity, examine
from headstart.prefix.result import Cut, NoCut, Placed
from headstart.prefix.terms import Frozen, Terms, read_terms
from headstart.prefix.tracing import trace

READ_BANDWIDTH = 5e8
"""Bytes a second at which stored rows are read. A mapped file on a local disk gives random rows
about twice as fast; the other half accounts for writing them once and for disk space."""


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
            of :func:`headstart.plan_freeze` that has not been applied yet, a function from the name
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
    recording = record(model, example)
    with torch.inference_mode(False):
        search = Search(recording, read_terms(model, frozen), dtype, read_bandwidth)
        placed = search.place(measure)
        return search.checked(placed) if isinstance(placed, Placed) else placed


@dataclass(eq=False)
class Recording:
    """A model with the graph of its operations; outdated once weights have changed.

    Attributes:
        model: the model.
        form: how it is called.
        tensors: the example.
        batches: two items, the same first item with another second one, and three items.
        graph: its operations; None where it cannot be recorded.
        fault: why, then.
    """

    model: nn.Module
    form: CallForm
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
        """Return the batches that a cut is checked on, and functions that run the model on them.

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
            self._evaluated[number] = evaluate_model(self.model, self.form, batch)
        return self._evaluated[number]


def record(model: nn.Module, example: Any) -> Recording:
    """Record a model's operations on an example.

    Args:
        model: any module; it is left as it was.
        example: as for :func:`find_cut`.

    Raises:
        ConfigError: the example holds no batch.
    """
    form, tensors = read_example(model, example)
    batches = probe_batches(tensors)
    with torch.inference_mode(False):
        try:
            graph = trace(model, form, (batches[0], batches[2]))
        except UntraceableError as error:
            reason = f"{type(model).__name__} cannot be recorded as a graph: {error}"
            return Recording(model, form, tensors, batches, None, reason)
    graph.forget()
    return Recording(model, form, tensors, batches, graph)


class Search:
    """The search for a cut of one model under one stage's terms.

    Args:
        recording: of the model.
        terms: what is frozen, and the modes of training.
        dtype: of stored floating values.
        bandwidth: bytes a second at which rows are read.
        items: how many items of the example a cut is checked on, beside a batch of three.

    Attributes:
        purity: which operations may be computed once; None where the model cannot be recorded.
        divider: divides them.
    """

    def __init__(
        self, recording: Recording, terms: Terms, dtype: Dtype, bandwidth: float, items: int = 8
    ) -> None:
        self.recording, self.terms, self.dtype = recording, terms, dtype
        self.bandwidth, self.items = bandwidth, items
        self.purity: Purity | None = None
        self.divider: Divider | None = None
        if recording.graph is not None:
            pairs, others, _ = recording.batches
            self.purity = examine(recording.graph, terms, (pairs, others))
            self.divider = Divider(recording.graph, self.purity, dtype)

    def place(self, measure: bool) -> Placed | NoCut:
        """Return the cut where reading and recomputing take the least time together."""
        division = self.division(measure)
        if isinstance(division, NoCut):
            return division
        try:
            return self.assemble(division, measure)
        except UntraceableError as error:
            return NoCut(str(error), () if self.purity is None else self.purity.blockers)

    def division(self, measure: bool) -> Division | NoCut:
        """Return how the graph is divided there."""
        if self.purity is None or self.divider is None:
            return NoCut(self.recording.fault)
        if not any(node.op != "placeholder" for node in self.purity.varying):
            return NoCut(_nothing(self.purity), self.purity.blockers)
        seconds = self.recording.seconds(self.purity, measure=measure)
        division = self.divider.cheapest(seconds, self.bandwidth)
        if not division.computes:
            return NoCut(
                "computing the frozen part takes less time than reading its result would",
                self.purity.blockers,
            )
        return division

    def assemble(self, division: Division, measure: bool) -> Placed:
        """Build the two parts of a division; see :meth:`Divider.assemble`."""
        assert self.purity is not None
        assert self.divider is not None
        seconds = self.recording.seconds(self.purity, measure=measure)
        return self.divider.assemble(division, seconds, self.bandwidth)

    def checked(self, placed: Placed) -> Cut | NoCut:
        """Prove a cut on the example and on a batch of another size; measure the rounding."""
        recording = self.recording
        parts = (placed.prefix, placed.suffix)
        batches, evaluated = recording.check_batches(self.items)
        found = check(recording.model, *parts, recording.form, batches, self.terms, evaluated)
        if found.fault is not None:
            return NoCut(f"the cut does not hold: {found.fault}", placed.ends)
        rounding = self._rounding(placed)
        return Cut(*parts, placed.boundary, found, rounding, *placed.seconds, placed.ends)

    def _rounding(self, placed: Placed) -> tuple[RoundingError | None, ...]:
        """Return what storing costs for every boundary tensor; None for those of whole numbers."""
        floating = [getattr(torch, spec.compute).is_floating_point for spec in placed.boundary]
        if all(spec.dtype == spec.compute for spec in placed.boundary):
            return tuple(
                RoundingError(spec.dtype, 0.0, 0.0, fits=True) if real else None
                for spec, real in zip(placed.boundary, floating, strict=True)
            )
        threes = [tensor.clone() for tensor in self.recording.batches[2]]
        rows = compute_rows(placed.prefix, *self.recording.form.call(threes))
        return tuple(
            rounding_error(row, spec.dtype) if real else None  # type: ignore[arg-type]
            for row, spec, real in zip(rows, placed.boundary, floating, strict=True)
        )


def _nothing(purity: Purity) -> str:
    if not purity.blockers:
        return "no operation of the model depends on its inputs"
    return f"no operation can be computed once: {purity.blockers[0]}"


__all__ = ["READ_BANDWIDTH", "Recording", "Search", "find_cut", "record"]
