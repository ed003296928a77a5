"""Which column of a table holds the items, and what kind of items they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headstart.core.errors import DataError
from headstart.core.wording import quoted
from headstart.data import columns
from headstart.data.column_types import holds_paths, is_bytes
from headstart.data.image_paths import ids_hint, image_folder
from headstart.data.source import Request


class ItemColumn(NamedTuple):
    """The column that holds the items.

    Attributes:
        name: of the column.
        kind: of the items: ``image``, ``audio`` or ``text``.
    """

    name: str
    kind: str


def item_column(table: Any, where: str, folder: Path, request: Request) -> ItemColumn:
    """Return the column of images, or of sounds or texts where these are asked for or alone.

    Args:
        table: ``pyarrow.Table``.
        where: its name, for messages.
        folder: that its paths start from, unless the request names another.
        request: the columns that the user named, and what the backbone takes.

    Raises:
        DataError: no such column, no candidate, or several.
    """
    wants_text = request.kind == "text" and request.image_column is None
    if request.text_column is not None or wants_text:
        return _texts(table, where, request)
    ids = request.image_suffix is not None
    if request.audio_column is not None or (
        request.kind == "audio" and request.image_column is None
    ):
        named = request.audio_column
        return ItemColumn(
            columns.image_column(table, where, named, ids=ids, kind=columns.SOUNDS), "audio"
        )
    try:
        name = columns.image_column(table, where, request.image_column, ids=ids)
        sounds = request.image_column is None and columns.holds_sounds(table, name)
        return ItemColumn(name, "audio" if sounds else "image")
    except DataError as error:
        if request.image_column is None and not ids and columns.names_sounds(table):
            found = columns.image_column(table, where, None, kind=columns.SOUNDS)
            return ItemColumn(found, "audio")
        own = _is_own(request)
        texts = columns.text_columns(table, request.label_column, words=not own)
        hint = None if ids else ids_hint(table, image_folder(folder, request))
        unsure = request.wants_images and len(texts) > 1
        if request.image_column is not None or not texts or hint or unsure:
            raise DataError(error.message, hint=hint or error.hint) from error
        return _texts(table, where, request)


def other_items(table: Any, found: ItemColumn, request: Request, taken: Sequence[str]) -> str:
    """Say which columns hold items of another kind than those that are read; empty where none do.

    Args:
        table: ``pyarrow.Table``.
        found: the column of the items; nothing is said where the user has named it.
        request: the columns that the user named.
        taken: columns that are read for another purpose.
    """
    if request.image_column or request.audio_column or request.text_column:
        return ""
    free = [name for name in table.schema.names if name not in (found.name, *taken)]
    if found.kind == "text":
        kinds = {"audio_column": "sounds", "image_column": "images"}
        for option, kind in kinds.items():
            if names := _files(table.select(free), option):
                return _unread(found, names, kind, option)
        return ""
    texts = columns.text_columns(table.select(free), request.label_column)
    return _unread(found, texts, "texts", "text_column") if texts else ""


def _files(table: Any, option: str) -> list[str]:
    """Return the columns of a table that hold sounds, or else images."""
    sounds = option == "audio_column"
    kind = columns.SOUNDS if sounds else columns.IMAGES
    return [
        field.name
        for field in table.schema
        if holds_paths(table, field.name, kind.suffixes)
        or (is_bytes(field.type) and columns.holds_sounds(table, field.name) == sounds)
    ]


def _unread(found: ItemColumn, names: Sequence[str], kind: str, option: str) -> str:
    read = {"text": "texts", "audio": "sounds"}.get(found.kind, "images")
    one = len(names) == 1
    return (
        f"The {read} of the column '{found.name}' are read, and not the {kind} of"
        f" {'the column' if one else 'the columns'} {quoted(names, 3)}; {option}={names[0]!r} and a"
        f" backbone for {kind} read them."
    )


def _texts(table: Any, where: str, request: Request) -> ItemColumn:
    wanted = request.kind == "text" or _is_own(request)
    name = columns.text_column(
        table, where, request.text_column, request.label_column, wanted=wanted
    )
    return ItemColumn(name, "text")


def _is_own(request: Request) -> bool:
    """Return whether the backbone takes a kind of items from outside, such as DNA."""
    return not request.wants_images and request.kind not in (None, "audio", "text")


__all__ = ["ItemColumn", "item_column", "other_items"]
