"""Which rows a network is trained on: those that another network put out before, pooled or not."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from headstart.audit.events import Pass
from headstart.audit.scene import Scene
from headstart.modules.observing import tensors_in

MOST = 8192
"""Rows that are remembered."""
LOOK = 16
"""Rows of a batch that are looked up."""
KEY = 6
"""Leading values by which a row is known, to three digits: pooling in another order rounds."""


class Source(NamedTuple):
    """Where a row came from.

    Attributes:
        seen: the pass that put it out.
        way: how it was made of the output: ``rows`` (as it is), ``mean over 2, 3``, ….
    """

    seen: Pass
    way: str


@dataclass
class Ledger:
    """The rows that networks have put out in one run."""

    rows: dict[tuple[str, ...], Source]
    noted: int = -1

    def note(self, seen: Pass) -> None:
        """Remember the rows of a pass that is being told about; once, whoever calls."""
        if seen.number <= self.noted:
            return
        self.noted = seen.number
        if len(self.rows) > MOST or seen.failed:
            return
        output = next(tensors_in(seen.output), None)
        if output is None or not output.is_floating_point() or output.ndim < 2:
            return
        for way, made in _made(output.detach()):
            for key in keys_of(made):
                self.rows[key] = Source(seen, way)

    def source(self, rows: Tensor) -> Source | None:
        """Return where most of these ``(n, d)`` rows came from; None if that is not known."""
        found = [each for key in keys_of(rows[:LOOK]) if (each := self.rows.get(key))]
        if 2 * len(found) <= min(LOOK, len(rows)):
            return None
        (number, way), _ = Counter((s.seen.network.number, s.way) for s in found).most_common(1)[0]
        return next(s for s in found if (s.seen.network.number, s.way) == (number, way))


def _made(output: Tensor) -> Iterator[tuple[str, Tensor]]:
    if output.ndim == 2:
        yield "rows", output
    elif output.ndim == 3:
        yield "mean over 1", output.mean(1)
        yield "mean over 2", output.mean(2)
        yield "first token", output[:, 0]
    elif output.ndim == 4:
        for axes in ((2, 3), (1, 2), (1, 3)):
            yield f"mean over {axes[0]}, {axes[1]}", output.mean(axes)
        if output.shape[2:] == (1, 1):
            yield "rows", output.flatten(1)


def keys_of(rows: Tensor) -> Iterator[tuple[str, ...]]:
    """Yield what each of these ``(n, d)`` rows is known by."""
    width = rows.shape[1]
    for row in rows[:, :KEY].float().tolist():
        yield (str(width), *(f"{value:.3g}" for value in row))


_ledgers: weakref.WeakKeyDictionary[Scene, Ledger] = weakref.WeakKeyDictionary()


def ledger_of(scene: Scene) -> Ledger:
    """Return the one ledger of a run."""
    return _ledgers.setdefault(scene, Ledger({}))


__all__ = ["Ledger", "Source", "keys_of", "ledger_of"]
