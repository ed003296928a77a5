"""What is searched for: items of the data, files, texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.text_tower import has_text_tower, text_weights
from headstart.commands.collection import Collection
from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions
from headstart.core.errors import ConfigError, DataError
from headstart.core.records import Excerpt
from headstart.core.wording import did_you_mean, quoted, shorten
from headstart.data import Split


@dataclass(frozen=True, eq=False)
class Query:
    """One thing that is searched for.

    Attributes:
        name: what it is called: the item, the file, the text.
        row: ``(d,)``, its features; None where it is an item of the collection.
        key: content id; None of a text about pictures.
        excerpt: a glimpse of it.
        towers: whether it is a text that is compared with pictures.
    """

    name: str
    row: NDArray[Any] | None = None
    key: str | None = None
    excerpt: Excerpt | None = None
    towers: bool = False


def resolve(
    session: Session,
    among: Collection,
    queries: Any,
    text: str | None,
    reading: ReadOptions,
) -> tuple[Query, ...]:
    """Find out what is searched for.

    A name is an item of the collection if it has one of that name, else a file or folder, else a
    text if the backbone reads texts or has a tower of them.

    Args:
        session: computes the features of what is new.
        among: where is searched.
        queries: names, or anything :func:`headstart.load_items` takes.
        text: a query that is a text for certain; None: none is.
        reading: how files are read.

    Raises:
        ConfigError: there is no query.
        DataError: a name is none of these; all of them, with the nearest.
    """
    if isinstance(queries, str | Path):
        queries = [queries]
    named = isinstance(queries, Sequence) and all(isinstance(each, str | Path) for each in queries)
    found: list[list[Query]] = []
    words: dict[int, str] = {}
    if queries is not None and not named:
        found.append(
            _items(session, among, session.open_items(queries, reading, kind=_kind(among)))
        )
        queries = []
    places = _places(among) if queries else {}
    unknown = []
    for each in map(str, queries or ()):
        if each in places:
            i = places[each]
            _, split, at = among.place(i)
            found.append([Query(each, None, split.ids[at], among.excerpt(i))])
        elif _exists(each):
            split = session.open_items(each, reading, kind=_kind(among))
            found.append(_items(session, among, split))
        elif _reads_texts(among):
            words[len(found)] = each
            found.append([])
        else:
            unknown.append(each)
    if unknown:
        raise DataError(
            f"{quoted(unknown, 3)} {'is' if len(unknown) == 1 else 'are'} neither a file nor an"
            f" item of {among.name}, and {among.backbone.name} has no text tower",
            hint=did_you_mean(unknown[0], places)
            or "give a file, or the name of an item as in tables",
        )
    if text is not None:
        words[len(found)] = text
        found.append([])
    made = _texts(session, among, list(words.values()), reading)
    for at, query in zip(words, made, strict=True):
        found[at] = [query]
    if not any(found):
        raise ConfigError(
            ("there is nothing to search for",), hint="give an item, a file or a text"
        )
    return tuple(query for part in found for query in part)


def _kind(among: Collection) -> str:
    return among.backbone.inputs.kind


def _exists(name: str) -> bool:
    try:
        return bool(name) and Path(name).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _places(among: Collection) -> dict[str, int]:
    """Return where the items are by name; of equal names the first."""
    names = [origin for split in among.splits.values() for origin in split.origins]
    return {name: i for i, name in reversed(list(enumerate(names)))}


def _reads_texts(among: Collection) -> bool:
    return _kind(among) == "text" or has_text_tower(among.backbone)


def _items(session: Session, among: Collection, split: Split) -> list[Query]:
    """Return items that were read, with their features."""
    known = set(among.packed.view(np.dtype("u8,u8"))[:, 0].tolist()) if len(split) else set()
    features = session.cache.features(
        among.backbone,
        split,
        settings=among.settings,
        on_bad=session.run.on_bad,
        reporter=session.reporter,
    )
    split = split.take(features.kept)
    rows = np.asarray(features.sets[0].array())
    found = []
    for at, (key, origin) in enumerate(zip(split.ids, split.origins, strict=True)):
        inside = _packed(key) in known
        glimpse = among.backbone.inputs.excerpt(split.content(at)) if at < 64 else None
        found.append(Query(origin, None if inside else rows[at], key, glimpse))
    return found


def _packed(key: str) -> tuple[int, int]:
    from headstart.store.layout import pack_ids

    first, second = pack_ids([key])[0].tolist()
    return first, second


def _texts(
    session: Session, among: Collection, words: Sequence[str], reading: ReadOptions
) -> list[Query]:
    if not words:
        return []
    if any(not word.strip() for word in words):
        raise DataError("a text to search for is empty")
    if _kind(among) == "text":
        import pyarrow as pa

        split = session.open_items(
            pa.table({"text": list(words)}),
            ReadOptions(text_column="text", encoding=reading.encoding),
            kind="text",
        )
        items = _items(session, among, split)
        return [
            Query(shorten(word, 60), item.row, item.key, item.excerpt)
            for word, item in zip(words, items, strict=True)
        ]
    if not has_text_tower(among.backbone):
        raise ConfigError(
            (f"{among.backbone.name} has no text tower",),
            hint="text finds images if the backbone is a two-tower model, such as"
            " backbone='hf/openai/clip-vit-base-patch32'",
        )
    made = text_weights(among.backbone, words)
    if made.cut:
        session.say(f"longer than the text tower reads, so truncated: {quoted(made.cut, 3)}")
    return [
        Query(word, made.weight[:, at], None, Excerpt(text=word), towers=True)
        for at, word in enumerate(words)
    ]


__all__ = ["Query", "resolve"]
