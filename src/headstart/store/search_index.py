"""An index of feature rows for millions of them, by usearch, with its measured recall.

It is a graph (HNSW, Malkov and Yashunin 2018), which finds most of the nearest rows and not all:
how many of the true ten nearest it finds is measured when it is built, on up to 200 of its own
rows, and kept beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import StoreError
from headstart.core.files import clear_errors, write_json
from headstart.core.fingerprints import sha256
from headstart.core.nearest import Metric, Rows, mean_row, nearest_rows
from headstart.core.progress import Reporter, SilentReporter
from headstart.store.layout import PackedIds

_FORMAT = 1
_BLOCK = 8192
_ASKED, _K = 200, 10
_KINDS = {"cosine": "cos", "euclidean": "l2sq"}
_GRAPH = {"connectivity": 24, "expansion_add": 200, "expansion_search": 200}
"""Neighbours of a node, and how many nodes are kept in view: more than the library's own 16, 128
and 64, with which one in ten of the nearest rows may be missing."""


class SearchIndex:
    """Candidates for the nearest rows. Get it from :meth:`of`.

    Attributes:
        recall: the share of the true ten nearest rows that it finds, measured on its own rows.
        asked: on how many.
        built: whether it was built now, not found.
    """

    def __init__(self, index: Any, centre: Any, recall: float, asked: int, built: bool) -> None:
        self._index, self._centre = index, centre
        self.recall, self.asked, self.built = recall, asked, built

    @classmethod
    def of(
        cls,
        path: Path,
        rows: Rows,
        packed: PackedIds,
        *,
        metric: Metric = "cosine",
        centre: bool = False,
        reporter: Reporter | None = None,
    ) -> SearchIndex:
        """Open the index of a file if it is that of these rows, else build it there.

        Args:
            path: of the index; ``path.json`` beside it says what it is of.
            rows: ``(n, d)``.
            packed: ``(n, 2) uint64``, their ids.
            metric, centre: as for :func:`~headstart.store.neighbours.neighbours`.
            reporter: shown progress.

        Raises:
            StoreError: usearch is not installed, the file cannot be written, or it is another
                file than an index.
        """
        about = {
            "format": _FORMAT,
            "rows": len(rows),
            "features": int(np.asarray(rows[0:1]).shape[1]),
            "ids": sha256(np.ascontiguousarray(packed).tobytes()),
            "metric": metric,
            "centre": centre,
        }
        middle = mean_row(rows) if centre else None
        found = _known(path, about)
        if found is not None:
            return cls(_open(path), middle, found["recall"], found["asked"], False)
        if path.exists() and not _beside(path).is_file():
            raise StoreError(
                f"'{path}' is a file but not a headstart index", hint="choose another file"
            )
        return cls._build(path, rows, about, metric, middle, reporter or SilentReporter())

    @classmethod
    def _build(
        cls,
        path: Path,
        rows: Rows,
        about: dict[str, Any],
        metric: Metric,
        middle: NDArray[np.float64] | None,
        reporter: Reporter,
    ) -> SearchIndex:
        index = _library()(ndim=about["features"], metric=_KINDS[metric], dtype="f16", **_GRAPH)
        n = len(rows)
        with reporter.task("build the index", n, "rows") as task:
            for start in range(0, n, _BLOCK):
                part = _moved(rows[start : start + _BLOCK], middle)
                index.add(np.arange(start, start + len(part), dtype=np.uint64), part)
                task.advance(len(part))
        made = cls(index, middle, 0.0, min(_ASKED, n), True)
        made.recall = made._measured(rows, metric)
        with clear_errors(f"write {path}", StoreError):
            _beside(path).unlink(missing_ok=True)  # last: a file with it is a whole index
            index.save(str(path))
            said = {**about, "bytes": path.stat().st_size}
            write_json(_beside(path), {**said, "recall": made.recall, "asked": made.asked})
        return made

    def candidates(self, queries: NDArray[Any], k: int) -> NDArray[np.int64]:
        """Return ``(m, k) int64`` row numbers that may be the nearest, −1 where there are fewer."""
        asked = _moved(queries, self._centre)
        k = min(k, len(self._index))
        keys = np.asarray(self._index.search(asked, k).keys).reshape(len(asked), -1)
        found = np.full((len(asked), k), -1, dtype=np.int64)
        found[:, : keys.shape[1]] = keys.astype(np.int64)
        found[(found < 0) | (found >= len(self._index))] = -1
        return found

    def _measured(self, rows: Rows, metric: Metric) -> float:
        """Return the share of the true nearest of some rows that are among the candidates."""
        own = np.unique(np.linspace(0, len(rows) - 1, self.asked).astype(np.int64))
        asked = np.concatenate([np.asarray(rows[int(i) : int(i) + 1]) for i in own])
        k = min(_K, len(rows))
        _, true = nearest_rows(asked, rows, k, metric, centre=self._centre)
        proposed = self.candidates(asked, k)
        hits = [len(np.intersect1d(a, b)) for a, b in zip(true, proposed, strict=True)]
        return float(np.mean(hits)) / k


def _moved(part: Any, middle: NDArray[np.float64] | None) -> NDArray[np.float32]:
    values = np.asarray(part) if middle is None else np.asarray(part) - middle
    return np.ascontiguousarray(np.atleast_2d(values), dtype=np.float32)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _known(path: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """Return what is known of an index that is whole and of these rows; None: it is not."""
    try:
        said = json.loads(_beside(path).read_bytes())
        same = all(said[name] == value for name, value in about.items())
        whole = path.stat().st_size == said["bytes"]
        recall, asked = float(said["recall"]), int(said["asked"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return {"recall": recall, "asked": asked} if same and whole else None


def _open(path: Path) -> Any:
    try:
        index = _library().restore(str(path), view=True)
    except Exception as error:
        raise StoreError(f"'{path}' is damaged ({error})", hint="remove it") from error
    if index is None:
        raise StoreError(f"'{path}' is damaged", hint="remove it")
    return index


def _library() -> Any:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise StoreError(
            "usearch, which makes indexes, is not installed", hint="pip install 'headstart[index]'"
        ) from error
    return Index


__all__ = ["SearchIndex"]
