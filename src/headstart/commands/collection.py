"""The items of a run, or of data, with their features: what ``similar`` and ``view`` look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.commands.examined import Examined
from headstart.commands.kept_rows import joined_rows
from headstart.core.errors import BadFilesError
from headstart.core.fingerprints import sha256
from headstart.core.records import Excerpt
from headstart.core.wording import format_number
from headstart.data import Inputs, Split, UndecodableError
from headstart.data.label_texts import one_text
from headstart.data.table_columns import Encodings, encoded_columns
from headstart.extraction import Extraction
from headstart.heads import Head
from headstart.store.layout import PackedIds, pack_ids


class JoinedRows:
    """The rows of several splits, one after another, read in slices or at indices."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = [part for part in parts if len(part)]
        self._ends = np.cumsum([len(part) for part in self._parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        """Return the rows of a slice without a step, or at ``(m,)`` indices."""
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self))
            return self._between(start, max(start, stop))
        wanted = np.asarray(key, dtype=np.int64)
        of = np.searchsorted(self._ends, wanted, side="right")
        found: NDArray[Any] | None = None
        for at in np.unique(of):
            part, begin = self._parts[at], 0 if at == 0 else int(self._ends[at - 1])
            here = np.asarray(part[wanted[of == at] - begin])
            if found is None:
                found = np.empty((len(wanted), here.shape[1]), dtype=here.dtype)
            found[of == at] = here
        return np.empty((0, 0), np.float32) if found is None else found

    def _between(self, start: int, stop: int) -> NDArray[Any]:
        pieces, begin = [], 0
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            low, high = max(start, begin), min(stop, end)
            if low < high:
                pieces.append(np.asarray(part[low - begin : high - begin]))
            begin = end
        if not pieces:
            return np.asarray(self._parts[0][0:0]) if self._parts else np.empty((0, 0), np.float32)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


@dataclass(frozen=True, eq=False)
class Collection:
    """Items with their features, split by split.

    Attributes:
        name: of the data.
        splits: by name; of a run those that trained and tested it.
        features: by split ``(n, d)``, one row an item, read on demand.
        backbone: that computed them.
        settings: how they were computed.
        head: of the run; None for data.
        columns: how columns of a table join the features before the head.
        run: the folder of the run; None for data, or a run in memory.
        space: the key of the space of the features.
        examined: what ``examine`` has found of the items of the run; None: it was not asked.
        head_digest: of the files of the head; None where it lies in memory alone.
        tables: by split the columns as numbers ``(n, w)``, where the run has kept them.
    """

    name: str
    splits: Mapping[str, Split]
    features: Mapping[str, Any]
    backbone: Backbone
    settings: Extraction
    space: str
    head: Head | None = None
    columns: Encodings = ()
    run: Path | None = None
    examined: Examined | None = None
    head_digest: str | None = None
    tables: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    @cached_property
    def rows(self) -> JoinedRows:
        """All features, ``(n, d)``."""
        return JoinedRows(list(self.features.values()))

    def joined(self, name: str) -> Any:
        """Return what the head is given of a split: its features, and the columns behind them.

        Raises:
            DataError: the columns are neither in the run nor in the data.
        """
        if not self.columns:
            return self.features[name]
        table = self.tables.get(name)
        if table is None:
            table = encoded_columns(self.splits[name], self.columns)
        return joined_rows(self.features[name], table)

    @cached_property
    def packed(self) -> PackedIds:
        """All ids, ``(n, 2) uint64``."""
        return np.concatenate([pack_ids(split.ids) for split in self.splits.values()])

    @cached_property
    def ids_digest(self) -> str:
        """The digest of all ids, in order."""
        return sha256(np.ascontiguousarray(self.packed).tobytes())

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """All labels, ``(n,)``; −1 without."""
        return np.concatenate([split.labels for split in self.splits.values()])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of classes, labels or targets."""
        return next(iter(self.splits.values())).classes

    @property
    def task(self) -> str:
        """What the targets mean."""
        return next(iter(self.splits.values())).task

    @cached_property
    def split_of(self) -> NDArray[np.uint8]:
        """Which split each item is in, ``(n,)``."""
        sizes = [len(split) for split in self.splits.values()]
        return np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes)

    @cached_property
    def _starts(self) -> dict[str, int]:
        sizes = [len(split) for split in self.splits.values()]
        return dict(zip(self.splits, np.cumsum([0, *sizes]).tolist(), strict=False))

    def place(self, i: int) -> tuple[str, Split, int]:
        """Return the name of the split of item ``i``, the split, and the position in it."""
        name = list(self.splits)[int(self.split_of[i])]
        return name, self.splits[name], i - self._starts[name]

    def origin(self, i: int) -> str:
        """Return where item ``i`` is."""
        _, split, at = self.place(i)
        return split.items.origin(int(split.rows[at]))

    def excerpt(self, i: int) -> Excerpt | None:
        """Return a glimpse of item ``i``; None where its content is not there (any more)."""
        _, split, at = self.place(i)
        return glimpse(self.backbone.inputs, split, at)

    def said(self, i: int) -> str:
        """Return the label or the targets of item ``i`` in words; empty without."""
        _, split, at = self.place(i)
        return label_text(split, at)

    def metadata(self, i: int) -> dict[str, Any]:
        """Return what else the source says of item ``i``, by column."""
        _, split, at = self.place(i)
        if split.metadata is None:
            return {}
        row = split.metadata.slice(int(split.rows[at]), 1).to_pylist()
        return dict(row[0]) if row else {}


def glimpse(inputs: Inputs, split: Split, at: int) -> Excerpt | None:
    """Return an excerpt of an item of a split; None where its content is gone, or is damaged."""
    try:
        return inputs.excerpt(split.content(at))
    except (BadFilesError, UndecodableError):
        return None


def label_text(split: Split, at: int) -> str:
    """Return the label or the targets of an item of a split in words; empty without."""
    if split.targets is None:
        label = int(split.labels[at])
        return split.classes[label] if 0 <= label < len(split.classes) else ""
    values = split.targets[at]
    if split.task == "regression":
        return ", ".join(format_number(float(value)) for value in values)
    return one_text(n for n, has in zip(split.classes, values, strict=True) if has > 0.5)


__all__ = ["Collection", "JoinedRows", "glimpse", "label_text"]
