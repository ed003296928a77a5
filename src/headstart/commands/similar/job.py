"""The items that are most like others, by their features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.collection import Collection
from headstart.commands.open_collection import open_collection
from headstart.commands.prediction_table import checked_file
from headstart.commands.session import Session
from headstart.commands.settings import BackboneLike, ReadOptions, RunOptions
from headstart.commands.similar.found import Answer, Match, Similar
from headstart.commands.similar.options import SIMILAR, SimilarConfig
from headstart.commands.similar.queries import Query, resolve
from headstart.core.nearest import Metric
from headstart.core.wording import count, format_percent
from headstart.store import SearchIndex
from headstart.store.layout import pack_ids
from headstart.store.neighbours import neighbours


def similar(
    items: Any,
    queries: Any = None,
    backbone: BackboneLike = "auto",
    *,
    config: SimilarConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Similar:
    """Find the items that are most like others, by their features.

    Every row is compared, block by block, so memory stays that of one block; with ``index``,
    candidates come from an index, whose recall is reported. An item of the data and its copies are
    not among its own results; a note says which were removed.

    Args:
        items: a run or its folder, or data as :func:`headstart.load_items` takes them, divided
            into splits or not.
        queries: an item of these by its name, a file, a text, or several of these; or
            anything else :func:`headstart.load_items` takes.
        backbone: of data; a run has its own.
        config: how many items are found, how they are compared, where tables and pages go.
        run, reading: how to run the backbone, and how to read data.
        **overrides: single fields of these, such as ``k=5`` or ``text="a red car"``.

    Raises:
        ConfigError: impossible settings.
        DataError, BackboneError, StoreError: something cannot be read, found or computed.
    """
    config, run, reading, spec = SIMILAR.settle(overrides, config, run, reading, backbone)
    if config.table is not None:
        checked_file(config.table)
    if config.page is not None:
        checked_file(config.page, (".html", ".htm"))
    session = Session(run)
    among = open_collection(
        session, items, reading, spec, data=config.data, trust_code=config.trust_code
    )
    asked = resolve(session, among, queries, config.text, reading)
    index = _index(among, config, session)
    answers: list[Answer] = []
    for towers in (False, True):
        some = [query for query in asked if query.towers is towers]
        answers += _answered(among, some, config, index, towers=towers) if some else []
    place = {id(query): at for at, query in enumerate(asked)}
    answers.sort(key=lambda answer: place[id(answer.query)])
    session.say(*_left_out(answers), *_fewer(answers, config))
    found = Similar(
        tuple(answers),
        among,
        config.compare,
        None if index is None else index.recall,
        tuple(session.notes),
    )
    if config.table is not None:
        found.write(config.table)
    if config.page is not None:
        from headstart.commands.similar.page import similar_page
        from headstart.report import write_page

        write_page(similar_page(found), config.page)
    return found


def _index(among: Collection, config: SimilarConfig, session: Session) -> SearchIndex | None:
    if config.index is None:
        return None
    metric, centre = _compared(config.compare, towers=False)
    found = SearchIndex.of(
        Path(config.index).expanduser(),
        among.rows,
        among.packed,
        metric=metric,
        centre=centre,
        reporter=session.reporter,
    )
    session.say(
        f"{'built' if found.built else 'found'} the index {config.index}: it has"
        f" {format_percent(found.recall)} of the true ten nearest, measured on {found.asked:,} of"
        f" its {len(among):,} rows"
    )
    return found


def _compared(compare: str, *, towers: bool) -> tuple[Metric, bool]:
    """Return metric and whether the mean is taken out; texts lie elsewhere than pictures do."""
    if compare == "euclidean" and not towers:
        return "euclidean", False
    return "cosine", compare == "centred" and not towers


def _answered(
    among: Collection,
    asked: Sequence[Query],
    config: SimilarConfig,
    index: SearchIndex | None,
    *,
    towers: bool,
) -> list[Answer]:
    """Search for queries; items of the data by id, so that they do not find themselves."""
    metric, centre = _compared(config.compare, towers=towers)
    answers = []
    for inside in (True, False):
        some = [query for query in asked if (query.row is None) is inside]
        if not some:
            continue
        given: Any = (
            [query.key for query in some] if inside else np.stack([query.row for query in some])  # type: ignore[misc]
        )
        wanted = min(len(among), 2 * config.k + 16)
        while True:
            found = neighbours(
                among.rows, among.packed, given, wanted, metric=metric, centre=centre,
                index=None if towers else index,
            )  # fmt: skip
            each = [
                _matches(among, rows, values, config.k)
                for rows, values in zip(found.rows, found.similarity, strict=True)
            ]
            enough = all(len(m) >= config.k for m in each)
            if enough or wanted >= len(among) or index is not None:
                break
            wanted = min(len(among), 4 * wanted)
        answers += [
            Answer(query, _same(among, query), matches)
            for query, matches in zip(some, each, strict=True)
        ]
    return answers


def _matches(
    among: Collection, rows: NDArray[np.int64], values: NDArray[np.float64], k: int
) -> tuple[Match, ...]:
    """Return the first k items that were found, items of equal content once."""
    seen: set[bytes] = set()
    matches: list[Match] = []
    for row, value in zip(rows.tolist(), values.tolist(), strict=True):
        if row < 0:
            break
        key = among.packed[row].tobytes()
        if key in seen or len(matches) == k:
            continue
        seen.add(key)
        same = np.flatnonzero((among.packed == among.packed[row]).all(axis=1))
        first = int(same[0])
        name, _, _ = among.place(first)
        found = among.origin(first), name, among.said(first), value
        matches.append(Match(*found, len(same) - 1, first))
    return tuple(matches)


def _same(among: Collection, query: Query) -> tuple[str, ...]:
    """Return where the content of a query is in the data."""
    if query.key is None:
        return ()
    own = pack_ids([query.key])[0]
    where = np.flatnonzero((among.packed == own).all(axis=1))
    return tuple(among.origin(int(i)) for i in where[:20])


def _left_out(answers: Sequence[Answer]) -> list[str]:
    """Say which queries are in the data themselves."""
    inside = [answer for answer in answers if answer.itself]
    if not inside:
        return []
    first = inside[0]
    if len(answers) == 1:
        copies = len(first.itself) - 1
        more = (
            f", with {count(copies, 'copy', 'copies')} such as {first.itself[1]}" if copies else ""
        )
        return [
            f"{first.query.name} is in the data itself ({first.itself[0]}{more}): not shown"
            " as a result"
        ]
    return [
        f"{len(inside):,} of {count(len(answers), 'query', 'queries')} are in the data"
        f" themselves (such as {first.itself[0]}): an item and its copies are not among its own"
        " results"
    ]


def _fewer(answers: Sequence[Answer], config: SimilarConfig) -> list[str]:
    """Say that fewer items were found than asked: there are no more, or the index misses some."""
    least = min((len(answer.matches) for answer in answers), default=config.k)
    if least >= config.k:
        return []
    there = f"{count(least, 'other item')} of different content" if least else "no other item"
    asked = f"{count(config.k, 'item')} were asked for, and"
    if config.index is None:
        return [f"{asked} the data hold {there}"]
    return [f"{asked} the index found {there}; without an index every item is compared"]


__all__ = ["Similar", "SimilarConfig", "similar"]
