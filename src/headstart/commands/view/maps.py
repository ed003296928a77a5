"""Where the items of a collection lie on a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.collection import Collection
from headstart.commands.session import Session
from headstart.core.errors import ConfigError, MissingExtraError
from headstart.core.nearest import nearest_rows
from headstart.core.projection import principal_plane
from headstart.core.wording import format_percent
from headstart.store import Result, result_key

NEIGHBOURS, _COMPONENTS = 15, 50
MOST = 300_000
"""Items up to which all nearest neighbours are found for UMAP."""
_QUERIES = 1024


@dataclass(frozen=True, eq=False)
class Map:
    """Where items lie.

    Attributes:
        places: ``(n, 2) float32``; nearly all of them in [−1, 1].
        about: what it is, a sentence.
    """

    places: NDArray[np.float32]
    about: str


def pca_map(among: Collection, session: Session) -> Map:
    """Return the plane in which the features differ most, kept in the cache."""
    key = result_key({"map": "pca", "version": 1, "space": among.space, "ids": among.ids_digest})

    def compute() -> tuple[NDArray[np.float32], tuple[float, ...], int]:
        plane = principal_plane(among.rows)
        return plane.project(among.rows), plane.shares, plane.looked

    (places, found, count), _ = session.cache.store.results("maps").once(
        key,
        compute,
        lambda made: Result({"places": made[0]}, {"shares": list(made[1]), "looked": made[2]}),
        lambda kept: (kept.arrays["places"], tuple(kept.values["shares"]), kept.values["looked"]),
    )
    shares = " and ".join(format_percent(share) for share in found)
    looked = f", found from {count:,} of them" if count < len(among) else ""
    about = (
        f"The plane in which the features differ most{looked}: its axes hold {shares} of their"
        " variance, so items far apart are different, but items close together need not be"
        " similar."
    )
    if not any(found):
        about = "All items have the same features, so they lie on one point."
    return Map(_boxed(np.asarray(places, dtype=np.float32)), about)


def umap_map(among: Collection, session: Session, seed: int) -> Map:
    """Return UMAP on the graph of the nearest neighbours, computed once and kept in the cache.

    Raises:
        ConfigError: there are too few or too many items.
        MissingExtraError: umap-learn is not installed.
    """
    n = len(among)
    if not 2 * NEIGHBOURS <= n <= MOST:
        raise ConfigError(
            (f"UMAP is for {2 * NEIGHBOURS} to {MOST:,} items, and these are {n:,}",),
            hint="take map='pca'",
        )
    results = session.cache.store.results("maps")
    key = result_key({
        "map": "umap", "version": 1, "space": among.space, "seed": seed,
        "ids": among.ids_digest,
    })  # fmt: skip
    found = results.get(key)
    if found is None:
        with session.clock("map"):
            results.put(key, {"places": _umap(among, session, seed)})
        found = results.get(key)
    assert found is not None
    about = (
        f"UMAP (McInnes et al. 2018) on the graph of the {NEIGHBOURS} nearest neighbours in"
        f" {_COMPONENTS} principal components: neighbours stay neighbours, but distances between"
        " groups mean little."
    )
    return Map(_boxed(np.asarray(found.arrays["places"], dtype=np.float32)), about)


def _umap(among: Collection, session: Session, seed: int) -> NDArray[np.float32]:
    try:
        import umap
    except ImportError as error:
        raise MissingExtraError("umap", "umap", "a map by UMAP") from error
    plane = principal_plane(among.rows, _COMPONENTS)
    rows = plane.project(among.rows)
    n = len(rows)
    graph, distances = np.empty((n, NEIGHBOURS), np.int64), np.empty((n, NEIGHBOURS), np.float32)
    with session.reporter.task("find neighbours", n, "items") as task:
        for start in range(0, n, _QUERIES):
            part = slice(start, min(start + _QUERIES, n))
            values, where = nearest_rows(rows[part], rows, NEIGHBOURS, "euclidean")
            graph[part], distances[part] = where, np.sqrt(np.maximum(-values, 0.0))
            task.advance(part.stop - part.start)
    _itself_first(graph, distances)
    session.say("UMAP lays the map out, which takes about a minute for 60,000 items")
    made: Any = umap.UMAP(
        n_neighbors=NEIGHBOURS, random_state=seed, n_jobs=1, verbose=False,
        precomputed_knn=(graph.astype(np.int32), distances, None),
    )  # fmt: skip
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that new items cannot be placed: none are
        return np.asarray(made.fit_transform(rows), dtype=np.float32)


def _itself_first(graph: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
    """Put every item at the head of its own neighbours, where copies of it may stand."""
    own = np.arange(len(graph))
    inside = graph == own[:, None]
    place = np.where(inside.any(axis=1), inside.argmax(axis=1), graph.shape[1] - 1)
    graph[own, place] = graph[:, 0]
    distances[own, place] = distances[:, 0]
    graph[:, 0], distances[:, 0] = own, 0.0


def _boxed(places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return places moved and scaled so that all but the outermost lie in [−1, 1]."""
    if not len(places):
        return places
    low, high = (np.quantile(places, q, axis=0) for q in (0.001, 0.999))
    middle, half = (low + high) / 2, float((high - low).max()) / 2
    return np.asarray((places - middle) / (half * 1.03 if half > 0 else 1.0), dtype=np.float32)


__all__ = ["MOST", "Map", "pca_map", "umap_map"]
