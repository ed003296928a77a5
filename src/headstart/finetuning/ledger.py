"""Which rows are stored, or will be when a stage begins, and what room that leaves on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from headstart.core.files import free_bytes
from headstart.data import Split, View
from headstart.finetuning.circumstances import Circumstances
from headstart.finetuning.network import Classifier
from headstart.finetuning.plan import PlannedPlace
from headstart.finetuning.rows import BoundaryRows
from headstart.finetuning.stages import Stage
from headstart.finetuning.weighing import ROW_OVERHEAD
from headstart.prefix import Candidate
from headstart.prefix.tracing import UntraceableError

_Part = Literal["train", "validation"]


class Ledger:
    """Keeps account of rows while stages are planned one after the other.

    Args:
        network: whose rows they are.
        around: the parts and the store.

    Attributes:
        free: bytes on the disk that the stages planned so far leave.
    """

    def __init__(self, network: Classifier, around: Circumstances) -> None:
        self._network, self._around = network, around
        self._promised: set[tuple[str, str, int]] = set()
        self.free = free_bytes(around.store.root)

    def missing(self, candidate: Candidate, stage: Stage, stable: bool) -> int | None:
        """Return how many rows of a cut a stage will have to compute.

        Args:
            candidate: the cut.
            stage: the stage.
            stable: whether the frozen part is now what it will be when the stage begins.

        Returns:
            None if that is not known yet.
        """
        around = self._around
        if not stable:
            return None
        if not self._promised and not around.store.root.exists():
            return sum(len(set(split.ids)) for _, split, _ in self._wanted(stage))
        try:
            rows = around.rows_of(self._network, candidate, stage)
        except UntraceableError:  # such a cut cannot be built, and is not taken
            return None
        return sum(
            rows.missing(split, view)
            for part, split, view in self._wanted(stage)
            if _key(rows, part, view) not in self._promised
        )

    def promise(self, candidate: Candidate, at: PlannedPlace, stage: Stage, stable: bool) -> None:
        """Take down that a stage will have stored the rows of a cut.

        Args:
            candidate, at: the cut, and what it costs.
            stage, stable: as for :meth:`missing`.
        """
        computed = at.bytes // at.bytes_per_item if at.missing is None else at.missing
        self.free = max(0, self.free - computed * (at.bytes_per_item + ROW_OVERHEAD))
        if stable:
            rows = self._around.rows_of(self._network, candidate, stage)
            self._promised |= {_key(rows, part, view) for part, _, view in self._wanted(stage)}

    def _wanted(self, stage: Stage) -> Iterator[tuple[_Part, Split, View | None]]:
        for view in self._around.views(stage) or (None,):
            yield "train", self._around.train, view
        yield "validation", self._around.validation, None


def _key(rows: BoundaryRows, part: _Part, view: View | None) -> tuple[str, str, int]:
    return rows.space(view).key, part, 0 if view is None else view.number


__all__ = ["Ledger"]
