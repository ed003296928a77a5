"""The possible cuts of a network under one stage: behind each of its blocks, with what each costs.

The boundary that :func:`find_cut` chooses is one of them. The others are the boundaries with the
fewest bytes behind every block of the frozen part, so that a plan can show, from times measured
here, what reading and recomputing cost at each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from headstart.prefix.boundary import Dtype, TensorSpec, checked_dtype
from headstart.prefix.dividing import Divider, Division, split_seconds
from headstart.prefix.graph import UntraceableError
from headstart.prefix.result import Cut, NoCut, Placed, described
from headstart.prefix.search import READ_BANDWIDTH, Recording, Search
from headstart.prefix.terms import Frozen, read_terms

MOST = 10
"""Candidates that are returned at most: a table that can be read at a glance."""


@dataclass(eq=False)
class Candidate:
    """One possible cut.

    Attributes:
        place: where it is, in words: ``behind layer3``.
        boundary: what would be stored.
        prefix_seconds: to compute the boundary of one item, measured here.
        recomputed_seconds: of the frozen operations behind it, an item, measured here.
        chosen: whether :func:`find_cut` cuts here (with ``measure=False``: on every machine).
    """

    place: str
    boundary: tuple[TensorSpec, ...]
    prefix_seconds: float
    recomputed_seconds: float
    chosen: bool
    _assemble: Callable[[], Placed]
    _check: Callable[[Placed], Cut | NoCut]
    _placed: Placed | None = field(default=None, repr=False)
    _cut: Cut | NoCut | None = field(default=None, repr=False)

    @property
    def bytes_per_item(self) -> int:
        """What one item takes."""
        return sum(spec.bytes for spec in self.boundary)

    def assembled(self) -> Placed:
        """Build the two parts, which are not checked yet."""
        if self._placed is None:
            with torch.inference_mode(False):
                self._placed = self._assemble()
        return self._placed

    @property
    def prefix(self) -> nn.Module:
        """The part that would be computed once."""
        return self.assembled().prefix

    def only_runs(self, names: Collection[str]) -> bool:
        """Return what :meth:`Cut.only_runs` will return."""
        return self.assembled().suffix.only_runs(names)

    def describe(self) -> dict[str, Any]:
        """Return what :meth:`Cut.describe` will return."""
        placed = self.assembled()
        return described(placed.prefix, placed.boundary)

    def cut(self) -> Cut | NoCut:
        """Build and check the cut; the same one at every call."""
        if self._cut is None:
            try:
                with torch.inference_mode(False):
                    self._cut = self._check(self.assembled())
            except UntraceableError as error:
                self._cut = NoCut(f"no cut can be made {self.place}: {error}")
        return self._cut


def candidates(
    recording: Recording,
    frozen: Frozen,
    blocks: Mapping[str, Sequence[str]],
    *,
    dtype: Dtype = "float32",
    read_bandwidth: float = READ_BANDWIDTH,
) -> tuple[Candidate, ...] | NoCut:
    """Return the possible cuts of a network, from the input to the output.

    Args:
        recording: of the network; one serves for all stages.
        frozen: what does not move in the stage, as for :func:`find_cut`.
        blocks: in the order of the forward, the name of every block and the names of its modules.
        dtype: as for :func:`find_cut`.
        read_bandwidth: as for :func:`find_cut`.

    Returns:
        At most :data:`MOST`, the chosen one among them; or why there is none.

    Raises:
        FreezeError: ``frozen`` does not fit the network.
    """
    checked_dtype(dtype)
    with torch.inference_mode(False):
        terms = read_terms(recording.model, frozen)
        search = Search(recording, terms, dtype, read_bandwidth, items=2)
        placed = search.place(measure=False)
        if isinstance(placed, NoCut):
            return placed
        division = search.division(measure=False)
        assert isinstance(division, Division)
        return _in_graph(search, division, placed, blocks)


def _in_graph(
    search: Search, chosen: Division, placed: Placed, blocks: Mapping[str, Sequence[str]]
) -> tuple[Candidate, ...]:
    assert search.divider is not None
    assert search.purity is not None
    found = _divisions(search.divider, blocks, chosen, search.bandwidth)
    seconds = search.recording.seconds(search.purity, measure=True)
    listed = []
    for place, division in found.items():
        costs = split_seconds(division, seconds)
        make = partial(search.assemble, division, True)
        if division is chosen:
            known = dataclasses.replace(placed, seconds=(*costs, placed.seconds[2]))
            make = partial(_itself, known)
        listed.append(
            Candidate(place, division.specs, *costs, division is chosen, make, search.checked)
        )
    return _thinned(listed)


def _itself(placed: Placed) -> Placed:
    return placed


def _divisions(
    divider: Divider, blocks: Mapping[str, Sequence[str]], chosen: Division, bandwidth: float
) -> dict[str, Division]:
    """Return the divisions behind the blocks by place, in order, with the chosen one."""
    own, level, unfinished = _levels(divider, blocks)
    names = list(blocks)
    found: dict[int, Division] = {}
    for number in sorted(set(own.values()) - unfinished):
        part = frozenset(node for node in divider.nodes if level[node] <= number)
        whole = frozenset(node for node in part if node in own)
        division = divider.behind(part, whole, bandwidth)
        if division is not None and division.computes:
            found[number] = division
    last = max((level[node] for node in chosen.boundary), default=-1)
    inside = last in unfinished or any(
        level[n] <= last and n in own and n not in chosen.before for n in divider.nodes
    )
    places = {f"behind {names[number]}": division for number, division in found.items()}
    if last < 0:
        return {"before the first block": chosen, **places}
    if not inside or (last in found and found[last].boundary == chosen.boundary):
        places[f"behind {names[last]}"] = chosen  # where it is already, or at the end
        return places
    ordered: dict[str, Division] = {}
    for number in sorted({*found, last}):
        if number == last:
            ordered[f"in {names[number]}"] = chosen
        if number in found:
            ordered[f"behind {names[number]}"] = found[number]
    return ordered


def _levels(
    divider: Divider, blocks: Mapping[str, Sequence[str]]
) -> tuple[dict[fx.Node, int], dict[fx.Node, int], frozenset[int]]:
    """Number the operations by their blocks.

    Returns:
        The block of every operation that is in one; for all operations the last block that has a
        part in their value, -1 before the first; and the blocks that do not lie in the frozen
        part as a whole.
    """
    known = {module: number for number, names in enumerate(blocks.values()) for module in names}
    impure = (
        _block(node, known)
        for node in divider.graph.graph.nodes
        if node.op.startswith("call") and node not in divider.graph.shapes
        if node not in divider.purity.pure
    )
    unfinished = frozenset(number for number in impure if number is not None)
    own: dict[fx.Node, int] = {}
    level: dict[fx.Node, int] = {}
    for node in divider.nodes:
        number = _block(node, known)
        if number is not None:
            own[node] = number
        reached = [level[other] for other in divider.needs[node]]
        level[node] = max([*reached, -1 if number is None else number])
    return own, level, unfinished


def _block(node: fx.Node, known: Mapping[str, int]) -> int | None:
    """Return the number of the block that an operation belongs to, by the modules around it."""
    name = str(node.target) if node.op == "call_module" else _owner(node)
    parts = name.split(".") if name else []
    for end in range(len(parts), 0, -1):
        number = known.get(".".join(parts[:end]))
        if number is not None:
            return number
    return None


def _owner(node: fx.Node) -> str:
    stack: Mapping[str, Any] = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def _thinned(listed: list[Candidate]) -> tuple[Candidate, ...]:
    """Return at most :data:`MOST`: the chosen one, the last one, and others evenly between."""
    if len(listed) <= MOST:
        return tuple(listed)
    kept = {next(i for i, one in enumerate(listed) if one.chosen), len(listed) - 1}
    others = [i for i in range(len(listed)) if i not in kept]
    room = MOST - len(kept)
    kept |= {others[round(i * (len(others) - 1) / (room - 1))] for i in range(room)}
    return tuple(one for i, one in enumerate(listed) if i in kept)


__all__ = ["MOST", "Candidate", "candidates"]
