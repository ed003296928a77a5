"""The features of a run, kept in its folder, so that items can join it without the old images.

``rows.safetensors`` holds ids, labels and features of the training items and of the test items. The
choice of a penalty, the calibration and the centre of a prototype head depend on every row, so that
the rows themselves are the statistics that a refit needs. Above 64 MB only ids and labels are kept,
and the features are those of the cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from headstart.cache.fill import missing_rows
from headstart.core.errors import DataError
from headstart.core.files import own_file, write_bytes
from headstart.core.wording import count
from headstart.data import Content, Items, Split, UndecodableError
from headstart.store import FeatureSet

if TYPE_CHECKING:
    from headstart.backbones import Backbone
    from headstart.cache import FeatureCache
    from headstart.extraction import Extraction

ROWS_FILE = "rows.safetensors"
MOST_BYTES = 64 * 2**20
"""Of features; with 1,280 of them an item, those of 13,000 items."""

_ID_BYTES = 16


def joined_rows(rows: FeatureSet | NDArray[Any], table: NDArray[np.float64]) -> NDArray[Any]:
    """Return rows with columns behind them, ``(n, d + w) float32``, in memory."""
    whole = rows.array() if isinstance(rows, FeatureSet) else rows
    return np.concatenate([np.asarray(whole, np.float32), table.astype(np.float32)], axis=1)


@dataclass(frozen=True, eq=False)
class KeptSplit:
    """Items of a run.

    Attributes:
        ids: content ids.
        labels: ``(n,) int64``, indices into the classes of the run.
        origins: where each item was.
        rows: ``(n, d)``, their features, as the cache has them; None: not kept.
        targets: ``(n, k)``, memberships or numbers; None for classes.
        table: ``(n, w)``, the columns that join the features, as numbers; None: there are none.
        groups: ``(n,)`` of text, what each item belongs to; None: nothing says so.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    origins: tuple[str, ...]
    rows: NDArray[Any] | None
    targets: NDArray[np.float64] | None = None
    table: NDArray[np.float64] | None = None
    groups: NDArray[np.str_] | None = None

    @classmethod
    def of(
        cls,
        split: Split,
        rows: NDArray[Any] | None,
        table: NDArray[np.float64] | None = None,
    ) -> KeptSplit:
        """Keep the items of a split with their features."""
        return cls(split.ids, split.labels, split.origins, rows, split.targets, table, split.groups)

    def joined(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return what a head is given: the features, and the columns behind them."""
        return rows if self.table is None else joined_rows(rows, self.table)


@dataclass(frozen=True, eq=False)
class KeptRows:
    """What a run keeps of its training and test items."""

    train: KeptSplit
    test: KeptSplit

    @classmethod
    def of(
        cls,
        train: Split,
        first: FeatureSet,
        test: Split,
        second: FeatureSet,
        tables: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> KeptRows:
        """Keep what a run was made from; the features where they are small enough."""
        tables = tables or {}
        width = first.shape[1] * first.dtype.itemsize
        small = (len(first) + len(second)) * width <= MOST_BYTES
        return cls(
            KeptSplit.of(train, np.asarray(first.array()) if small else None, tables.get("train")),
            KeptSplit.of(test, np.asarray(second.array()) if small else None, tables.get("test")),
        )

    def save(self, folder: Path) -> None:
        """Write :data:`ROWS_FILE`."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, split in (("train", self.train), ("test", self.test)):
            ids = np.frombuffer(bytes.fromhex("".join(split.ids)), dtype=np.uint8)
            arrays[f"{name}.ids"] = ids.reshape(len(split.ids), _ID_BYTES)
            arrays[f"{name}.labels"] = np.ascontiguousarray(split.labels)
            arrays[f"{name}.origins"] = _packed(split.origins)
            for part in ("rows", "targets", "table"):
                if (array := getattr(split, part)) is not None:
                    arrays[f"{name}.{part}"] = np.ascontiguousarray(array)
            if split.groups is not None:
                arrays[f"{name}.groups"] = _packed(split.groups.tolist())
        write_bytes(folder / ROWS_FILE, safetensors.numpy.save(arrays))


class KeptItems(Items):
    """Items of which ids and origins are left; their contents lie wherever they were."""

    def __init__(self, kept: KeptSplit) -> None:
        super().__init__(len(kept.ids))
        self._digests = list(kept.ids)
        self._origins = kept.origins

    def content(self, i: int) -> Content:
        """There is none."""
        raise UndecodableError(f"{self._origins[i]} is not kept with the run")

    def origin(self, i: int) -> str:
        """Return where it was."""
        return self._origins[i]

    @classmethod
    def split(cls, kept: KeptSplit, classes: tuple[str, ...], task: str) -> Split:
        """Return kept items as a split."""
        rows = np.arange(len(kept.ids), dtype=np.int64)
        return Split(
            cls(kept),
            rows,
            kept.labels,
            classes,
            groups=kept.groups,
            task=task,
            targets=kept.targets,
        )


def features_of(
    kept: KeptSplit, cache: FeatureCache, backbone: Backbone, settings: Extraction
) -> NDArray[Any]:
    """Return the features of kept items ``(n, d)``: those that were kept, or those of the cache.

    Raises:
        DataError: they are in neither.
    """
    if kept.rows is not None:
        return kept.rows
    space = cache.space(backbone, settings)
    lacking = missing_rows((space,), kept.ids)
    if lacking:
        raise DataError(
            f"the features of {count(len(lacking), 'old item')} are neither in the run, which"
            " was too large to keep them, nor in the cache",
            hint="give the cache that the run was made with, cache=PLACE, or fit again",
        )
    return np.asarray(space.read(kept.ids).array())


def read_rows(
    place: Path, n_classes: int, n_features: int, *, task: str = "classification", width: int = 0
) -> KeptRows | None:
    """Read what a run has kept; None where it has kept nothing.

    Args:
        place: where the files of the run lie; the digest of the file has been checked.
        n_classes, n_features: of the run.
        task: of the run; of labels and numbers it keeps the targets.
        width: of the columns that join the features, which ``n_features`` counts.

    Raises:
        DataError: the file is damaged or is not that of this run.
    """
    path = own_file(place, ROWS_FILE)
    if not path.is_file():
        return None
    try:
        arrays = safetensors.numpy.load(path.read_bytes())
        sizes = (n_classes, n_features - width, width)
        return KeptRows(*(_split(arrays, name, sizes, task) for name in ("train", "test")))
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(f"'{path}' is damaged ({error})", hint="fit again") from error


def _split(
    arrays: dict[str, NDArray[Any]], name: str, sizes: tuple[int, int, int], task: str
) -> KeptSplit:
    n_classes, n_features, width = sizes
    ids, labels = arrays[f"{name}.ids"], arrays[f"{name}.labels"]
    origins, rows = _unpacked(arrays[f"{name}.origins"]), arrays.get(f"{name}.rows")
    n = len(ids)
    if ids.dtype != np.uint8 or ids.shape != (n, _ID_BYTES):
        raise ValueError(f"{name}.ids have the shape {ids.shape}")
    if labels.dtype != np.int64 or labels.shape != (n,) or len(origins) != n:
        raise ValueError(f"{name}.labels or origins are not one per item")
    plain = task == "classification"
    if plain and n and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(f"{name}.labels name unknown classes")
    targets, table = arrays.get(f"{name}.targets"), arrays.get(f"{name}.table")
    for part, array, wanted in (
        ("targets", targets, None if plain else n_classes),
        ("table", table, width or None),
    ):
        found = None if array is None else (str(array.dtype), array.shape, np.isfinite(array).all())
        if found != (None if wanted is None else ("float64", (n, wanted), True)):
            raise ValueError(f"{name}.{part} do not fit the run")
    groups = None
    if f"{name}.groups" in arrays:
        groups = np.array(_unpacked(arrays[f"{name}.groups"]), dtype=np.str_)
        if len(groups) != n:
            raise ValueError(f"{name}.groups are not one per item")
    if rows is not None and (rows.dtype.kind != "f" or rows.shape != (n, n_features)):
        raise ValueError(f"{name}.rows have the shape {rows.shape}, expected ({n}, {n_features})")
    names = tuple(bytes(one).hex() for one in ids)
    return KeptSplit(names, labels, origins, rows, targets, table, groups)


def _packed(texts: Sequence[str]) -> NDArray[np.uint8]:
    payload = json.dumps(list(texts), separators=(",", ":")).encode()
    return np.frombuffer(payload, dtype=np.uint8)


def _unpacked(array: NDArray[Any]) -> tuple[str, ...]:
    values = json.loads(array.tobytes())
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise ValueError("origins are not strings")
    return tuple(values)


__all__ = [
    "MOST_BYTES",
    "ROWS_FILE",
    "KeptItems",
    "KeptRows",
    "KeptSplit",
    "features_of",
    "joined_rows",
    "read_rows",
]
