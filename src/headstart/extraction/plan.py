"""The execution plan: which engine runs a network, chosen by what a job costs with each.

With ``engine='auto'`` a small job runs the network as it is written, without any preparation. For a
larger one runs on a copy with folded batch norms.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from headstart.backbones import Backbone, features_of
from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError
from headstart.core.records import Precision
from headstart.extraction.engines import EAGER, EngineUnfitError, find_engine
from headstart.extraction.engines.eager import arranged
from headstart.extraction.engines.table import Engine
from headstart.extraction.precision import TOLERANCE

if TYPE_CHECKING:
    from headstart.extraction.engines.table import Run

AS_WRITTEN = "as written"
_SMALL_SECONDS = 1.0
"""A job that takes no longer than this is not worth any preparation."""


class Memory(Protocol):
    """Keeps small figures by what they depend on; the cache has one on disk."""

    def get(self, about: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return what is remembered; None: nothing."""

    def put(self, about: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Remember values; what cannot be kept is forgotten."""


@dataclass(frozen=True)
class Plan:
    """How a network runs in this job.

    Attributes:
        engine: name of an engine, or ``as written``.
        reason: why, as the end of a sentence; empty where nothing was chosen.
    """

    engine: str
    reason: str = ""

    def __str__(self) -> str:
        return f"the network runs on the engine '{self.engine}': {self.reason}"


@dataclass
class Trial:
    """What is known of a network and a job when its engine is chosen.

    Attributes:
        cuts: one network.
        precision, device: of the passes.
        inputs: the first batch, filled up to the shape of all.
        count: items that have to be computed.
        expected: rows of the first items, from the network as it is written.
        item_seconds: as it is written.
        enter: keeps a context open as long as the extractor.
        memory: of earlier trials.
    """

    cuts: Sequence[Backbone]
    precision: Precision
    device: torch.device
    inputs: Arguments
    count: int
    expected: Sequence[Tensor]
    item_seconds: float
    enter: Callable[[contextlib.AbstractContextManager[Run]], Run]
    memory: Memory | None = None
    notes: list[str] = field(default_factory=list)

    def named(self, name: str) -> tuple[Run, Plan]:
        """Open the engine that was asked for; one that is unfit gives way, with a note.

        Raises:
            BackboneError: its rows are not those of the network.
            MissingExtraError: it is not installed.
        """
        engine = find_engine(name)
        missing = engine.missing()
        if missing is not None:
            raise missing
        try:
            return self._opened(engine), Plan(name)
        except EngineUnfitError as unfit:
            self.notes.append(
                f"the engine '{name}' does not run this network ({unfit}): it runs as it is written"
            )
            return self._as_written()

    def chosen(self) -> tuple[Run, Plan]:
        """Choose an engine for the job, and open it."""
        if self.count * self.item_seconds <= _SMALL_SECONDS:
            return self._as_written()
        return self._opened(find_engine(EAGER)), Plan(EAGER)

    def _as_written(self) -> tuple[Run, Plan]:
        return (lambda inputs: features_of(self.cuts, arranged(inputs))), Plan(AS_WRITTEN)

    def _opened(self, engine: Engine) -> Run:
        """Open an engine, run it, and check its rows; the eager one checks its own copy."""
        run = self.enter(engine.open(self.cuts, self.precision, self.device))
        if engine.name != EAGER:
            check_engine(engine.name, self.cuts, self.expected, run(self.inputs), self.precision)
        return run


def check_engine(
    name: str,
    cuts: Sequence[Backbone],
    expected: Sequence[Tensor],
    found: Sequence[Tensor],
    precision: Precision,
) -> None:
    """Refuse an engine whose rows are not those of the network.

    Raises:
        BackboneError: they differ by more than the tolerance of the precision.
    """
    for cut, rows, other in zip(cuts, expected, found, strict=True):
        scale = float(rows.float().abs().max()) or 1.0
        change = float((rows.float() - other[: len(rows)].float()).abs().max()) / scale
        if not change <= TOLERANCE[precision]:  # written so that NaN fails, too
            raise BackboneError(
                f"the engine '{name}' returns other features of {cut.name} than the network itself"
                f" (they differ by {change:.2g} of the largest feature)",
                hint="use engine='eager'",
            )


__all__ = ["AS_WRITTEN", "Memory", "Plan", "Trial", "check_engine"]
