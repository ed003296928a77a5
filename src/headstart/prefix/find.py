"""The door of the room: from a model, an example and what is frozen to a checked cut."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from headstart.core.errors import ConfigError
from headstart.prefix.checking import check
from headstart.prefix.dividing import Divider, Division
from headstart.prefix.precision import Dtype, RoundingError, checked_dtype, rounding_error
from headstart.prefix.purity import Purity, examine
from headstart.prefix.recording import Recording, record
from headstart.prefix.replay import cut_modules
from headstart.prefix.result import Cut, NoCut, Placed
from headstart.prefix.rows import compute_rows
from headstart.prefix.terms import Frozen, Terms, read_terms
from headstart.prefix.tracing import UntraceableError

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
    recording = record(model, example)
    with torch.inference_mode(False):
        search = Search(recording, read_terms(model, frozen), dtype, read_bandwidth)
        placed = search.place(measure)
        return search.checked(placed) if isinstance(placed, Placed) else placed


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
        reason = self.recording.fault
        if self.purity is not None:
            try:
                found = self._in_graph(measure)
            except UntraceableError as error:
                reason = f"{type(self.recording.model).__name__} cannot be recorded ({error})"
            else:
                return self._larger(found) if self.purity.mixed else found
        between = self._between()
        if isinstance(between, Placed):
            return between
        return NoCut(f"{reason}, and cannot be cut between modules either: {between}")

    def division(self, measure: bool) -> Division | NoCut:
        """Return how the graph is divided; it has one."""
        assert self.purity is not None
        assert self.divider is not None
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
        recording, inputs = self.recording, self.recording.inputs
        parts = (placed.prefix, placed.suffix)
        batches, evaluated = recording.check_batches(self.items)
        found = check(recording.model, *parts, inputs, batches, self.terms, evaluated)
        if found.fault is not None:
            return NoCut(f"the cut does not hold: {found.fault}", placed.ends)
        return Cut(
            *parts,
            placed.boundary,
            placed.method,
            found,
            self._rounding(placed),
            *placed.seconds,
            placed.ends,
            placed.describe,
        )

    def _rounding(self, placed: Placed) -> tuple[RoundingError | None, ...]:
        """Return what storing costs for every boundary tensor; None for those of whole numbers."""
        floating = [getattr(torch, spec.compute).is_floating_point for spec in placed.boundary]
        if all(spec.dtype == spec.compute for spec in placed.boundary):
            return tuple(
                RoundingError(spec.dtype, 0.0, 0.0, fits=True) if real else None
                for spec, real in zip(placed.boundary, floating, strict=True)
            )
        threes = [tensor.clone() for tensor in self.recording.batches[2]]
        rows = compute_rows(placed.prefix, *self.recording.inputs.call(threes))
        return tuple(
            rounding_error(row, spec.dtype) if real else None  # type: ignore[arg-type]
            for row, spec, real in zip(rows, placed.boundary, floating, strict=True)
        )

    def _in_graph(self, measure: bool) -> Placed | NoCut:
        division = self.division(measure)
        return self.assemble(division, measure) if isinstance(division, Division) else division

    def _larger(self, found: Placed | NoCut) -> Placed | NoCut:
        """Return the cut between modules where it computes more of the frozen part once.

        A module that had to stay whole has frozen parts: its own code can be run around them.
        """
        between = self._between()
        if not isinstance(between, Placed) or _size(between) <= _size(found):
            return found
        return between if self.checked(between) else found

    def _between(self) -> Placed | str:
        recording = self.recording
        return cut_modules(
            recording.model,
            recording.inputs,
            recording.tensors,
            self.terms,
            self.dtype,
            self.bandwidth,
        )


def _size(placed: Placed | NoCut) -> int:
    """Return how many numbers the frozen part holds: what the better of two cuts has more of."""
    if isinstance(placed, NoCut):
        return 0
    return sum(parameter.numel() for parameter in placed.prefix.parameters())


def _nothing(purity: Purity) -> str:
    if not purity.blockers:
        return "no operation of the model depends on its inputs"
    return f"no operation can be computed once: {purity.blockers[0]}"


__all__ = ["READ_BANDWIDTH", "Search", "find_cut"]
