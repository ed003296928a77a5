"""What ``predict`` returns: predictions for items, as a table, a file and a card."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.commands.abstaining import set_columns
from headstart.commands.prediction_table import Probabilities, save_table
from headstart.commands.task_report import joined, said_of, task_columns
from headstart.commands.unlike import Strangeness
from headstart.core.cards import Card, Grid, Shown
from headstart.core.errors import DataError
from headstart.core.records import CacheUse
from headstart.core.wording import count
from headstart.data import BadItem
from headstart.evaluation import most_likely
from headstart.evaluation.sets import AnySets
from headstart.heads import Head

_SHOWN, _COLUMNS = 12, 8
"""Rows and columns of predictions that a notebook shows."""


@dataclass(frozen=True, eq=False, repr=False)
class Predictions(Shown):
    """What a head predicts for some items, in the order of the input.

    Attributes:
        origins: where each item is found in the input.
        classes: class names, in the order of the columns of ``probabilities``.
        probabilities: ``(n, n_classes) float64``; rows sum to 1, but for several labels, each of
            which has its own. More than 50 million of them are made when they are read, by
            ``blocks()`` or ``numpy.asarray``. Of a regression they are the values.
        bad: items that could not be read and are left out (``on_bad="skip"``).
        cache: feature rows found and computed.
        head: what predicted them.
        sets: what is plausible of each item at the coverage that was chosen; None: none was.
        strange: how far out each item is; None: nobody asked.
        seconds: wall time by step: ``load``, ``extract``, ``predict``, ``total``.
    """

    origins: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Probabilities
    bad: tuple[BadItem, ...]
    cache: CacheUse
    head: Head
    seconds: Mapping[str, float] = field(default_factory=dict)
    sets: AnySets | None = None
    strange: Strangeness | None = None

    def __len__(self) -> int:
        return len(self.origins)

    def card(self) -> Card:
        """Return what there is to see: the first rows of the table."""
        facts: list[tuple[str, str | int]] = [("task", self.task)]
        if self.bad:
            facts.append(("skipped", f"{count(len(self.bad), 'item')} that cannot be read"))
        grids: tuple[Grid, ...] = ()
        if isinstance(self.probabilities, np.ndarray) and len(self):
            few = dataclasses.replace(
                self, origins=self.origins[:_SHOWN], probabilities=self.probabilities[:_SHOWN]
            )
            table = dict(list(few.columns(2).items())[:_COLUMNS])
            header = tuple(name.replace("_", " ") for name in table)
            grids = (Grid(header, tuple(zip(*table.values(), strict=True)), "", len(self)),)
        return Card("Predictions", count(len(self), "item"), tuple(facts), grids)

    @property
    def task(self) -> str:
        """What is predicted: ``classification``, ``multi-label`` or ``regression``."""
        return self.head.task

    @property
    def values(self) -> np.ndarray:
        """What is predicted as numbers ``(n, k)``: 0 and 1 of each label, or the targets."""
        if self.task == "classification":
            raise DataError(
                "a classifier does not predict values", hint="use labels or probabilities"
            )
        return said_of(self.head, np.asarray(self.probabilities))

    @property
    def labels(self) -> tuple[str, ...]:
        """The most probable class of each item; of several labels all, with ``|`` between them.

        Raises:
            DataError: numbers are predicted.
        """
        if self.task == "regression":
            raise DataError("a regression does not predict labels", hint="use values")
        if self.task != "classification":
            return tuple(joined(self.classes, self.values))
        return tuple(self.classes[i] for i in most_likely(self.probabilities)[0][:, 0])

    def columns(self, top: int = 3) -> dict[str, list[Any]]:
        """Return a table: item, class, probability, and the next classes with theirs.

        Args:
            top: how many classes per item; at most the number of classes.
        """
        more = {} if self.sets is None else set_columns(self.sets, self.classes)
        more |= {} if self.strange is None else self.strange.columns()
        if self.task != "classification":
            return {
                **task_columns(self.head, self.classes, self.origins, self.probabilities),
                **more,
            }
        top = max(1, min(top, len(self.classes)))
        order, values = most_likely(self.probabilities, top)
        table: dict[str, list[Any]] = {"item": list(self.origins)}
        for rank in range(top):
            suffix = "" if rank == 0 else f"_{rank + 1}"
            table[f"class{suffix}"] = [self.classes[i] for i in order[:, rank]]
            table[f"probability{suffix}"] = [float(v) for v in values[:, rank]]
        return {**table, **more}

    def write(self, path: Path | str, top: int = 3) -> Path:
        """Write the table as CSV or Parquet, by the suffix of ``path``.

        In CSV, names that a spreadsheet would run as a formula begin with an apostrophe.

        Raises:
            ConfigError: another suffix, or the file cannot be written.
        """
        return save_table(self.columns(top), path)


__all__ = ["Predictions"]
