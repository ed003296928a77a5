"""Which column of a table holds the items, and what kind of items they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from headstart.core.errors import DataError
from headstart.data import columns
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


def _texts(table: Any, where: str, request: Request) -> ItemColumn:
    wanted = request.kind == "text" or _is_own(request)
    name = columns.text_column(
        table, where, request.text_column, request.label_column, wanted=wanted
    )
    return ItemColumn(name, "text")


def _is_own(request: Request) -> bool:
    """Return whether the backbone takes a kind of items from outside, such as DNA."""
    return not request.wants_images and request.kind not in (None, "audio", "text")


__all__ = ["ItemColumn", "item_column"]
