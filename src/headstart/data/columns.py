"""Which column of a table holds the images, sounds or texts, and which the groups and splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.types as types

from headstart.core.errors import DataError
from headstart.core.wording import quoted
from headstart.data.column_types import (
    LABEL_NAMES,
    SAMPLE,
    SPLIT_NAMES,
    columns_hint,
    holds_paths,
    image_parts,
    is_bytes,
    is_index,
    is_scalar,
    is_text,
    require_column,
)
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.sound_files import AUDIO_SUFFIXES, is_sound

_IMAGE_NAMES = (
    "image", "img", "images", "image_path", "img_path", "path", "filepath", "file_path", "file",
    "filename", "file_name", "image_name", "image_file",
)  # fmt: skip


_ID_NAMES = (
    "image_id", "img_id", "imageid", "image_name", "id_code", "isic_id", "id", "name", "uid",
    "uuid", "file_id", "photo_id",
)  # fmt: skip


@dataclass(frozen=True)
class Encoded:
    """A kind of items that a table holds as bytes of files, or names by their paths.

    Attributes:
        noun: what one is called.
        option: the parameter that names their column.
        suffixes: endings of their files.
        usual: the two endings that messages name.
        names: customary names of their column.
    """

    noun: str
    option: str
    suffixes: frozenset[str]
    usual: str
    names: tuple[str, ...]


_FILE_NAMES = _IMAGE_NAMES[4:10]
IMAGES = Encoded("image", "image_column", IMAGE_SUFFIXES, ".jpg, .png", _IMAGE_NAMES)
SOUNDS = Encoded(
    "sound", "audio_column", AUDIO_SUFFIXES, ".wav, .flac",
    ("audio", "sound", "wav", "clip", "recording", "audio_path", "audio_file", "audio_filepath",
     "wav_path", "slice_file_name", "track", *_FILE_NAMES),
)  # fmt: skip


def image_column(
    table: Any, where: str, asked: str | None, *, ids: bool = False, kind: Encoded = IMAGES
) -> str:
    """Return the name of the column that holds bytes or paths of images, or of sounds.

    A column of bytes wins over a column of paths; among several of a kind a customary name
    decides, if it is one alone.

    Args:
        table: ``pyarrow.Table``; some first rows are looked at.
        where: the table's name, for messages.
        asked: the name the user gave, if any.
        ids: whether images may be named without their ending, in text or whole numbers.
        kind: images or sounds.

    Raises:
        DataError: no such column, no candidate, or several.
    """
    if asked is not None:
        require_column(table, asked, where, kind.option)
        found = table.schema.field(asked).type
        number = ids and types.is_integer(found)
        if not (is_bytes(found) or is_text(found) or number):
            raise DataError(
                f"column '{asked}' of {where} has the type {found},"
                f" expected {kind.noun} bytes or paths",
                hint=columns_hint(table),
            )
        return asked
    with_bytes = [f.name for f in table.schema if is_bytes(f.type)]
    with_paths = [f.name for f in table.schema if holds_paths(table, f.name, kind.suffixes)]
    for candidates in (with_bytes, with_paths):
        if len(candidates) == 1:
            return str(candidates[0])
        if candidates:
            named = [name for name in candidates if name.casefold() in kind.names]
            if len(named) == 1:
                return str(named[0])
            raise DataError(
                f"{where} has several columns that could hold the {kind.noun}s:"
                f" {quoted(candidates, 5)}",
                hint=f"choose one with {kind.option}=NAME",
            )
    if ids and (named := id_columns(table)):
        return named[0]
    raise DataError(
        f"{where} has no {kind.noun} column: expected {kind.noun} bytes, or paths that end in"
        f" {kind.usual} or the like",
        hint=f"{columns_hint(table)}; choose one with {kind.option}=NAME",
    )


_TEXT_NAMES = (
    "text", "texts", "sentence", "sentences", "content", "document", "body", "question", "review",
    "comment", "message", "utterance", "tweet", "headline", "title", "abstract", "description",
    "query", "prompt", "passage", "premise", "hypothesis",
)  # fmt: skip


def text_column(
    table: Any, where: str, asked: str | None, label: str | None = None, *, wanted: bool = False
) -> str:
    """Return the name of the column that holds the texts.

    It is the only column of text that is neither labels, nor ids, nor names of splits or images.
    Where several columns could be meant, nothing decides but the user.

    Args:
        table: ``pyarrow.Table``; some first rows are looked at.
        where: the table's name, for messages.
        asked: the name the user gave, if any.
        label: the column of labels, where the user has named it.
        wanted: whether items are texts for certain, so that a column of single words may hold them.

    Raises:
        DataError: no such column, no candidate, or several.
    """
    if asked is not None:
        require_column(table, asked, where, "text_column")
        if not is_text(table.schema.field(asked).type):
            raise DataError(
                f"column '{asked}' of {where} has the type {table.schema.field(asked).type},"
                " expected texts",
                hint=columns_hint(table),
            )
        return asked
    candidates = text_columns(table, label)
    if wanted and not candidates:
        candidates = text_columns(table, label, words=False)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise DataError(
            f"{where} has several columns that could hold the texts: {quoted(candidates, 5)}",
            hint="choose one with text_column=NAME",
        )
    raise DataError(
        f"{where} has no text column",
        hint=f"{columns_hint(table)}; choose one with text_column=NAME",
    )


def text_columns(table: Any, label: str | None = None, *, words: bool = True) -> list[str]:
    """Return the columns that could hold the texts.

    They have a customary name or, if ``words``, several words in most rows; most of their rows
    differ. Where none is such, those of a customary name whose rows recur.
    """
    named_label = [] if label is None else label.split(",")
    found: list[str] = []
    recurring: list[str] = []
    for field in table.schema:
        name = field.name
        if (
            not is_text(field.type)
            or name in named_label
            or name.casefold() in LABEL_NAMES
            or is_index(name)
            or holds_paths(table, name)
        ):
            continue
        sample = [v for v in table.column(name).slice(0, SAMPLE).to_pylist() if v and v.strip()]
        long = not words or sum(len(v.split()) > 1 for v in sample) * 2 > len(sample)
        differ = len(set(sample)) * 2 > len(sample)
        customary = name.casefold() in _TEXT_NAMES
        if sample and (customary or (differ and long)):
            (found if differ else recurring).append(name)
    return found or recurring


def holds_sounds(table: Any, name: str) -> bool:
    """Return whether a column holds bytes that begin as those of a sound file do."""
    data, _ = image_parts(table.column(name))
    for value in () if data is None else data.slice(0, SAMPLE):
        if value.is_valid:
            return is_sound(value.as_py())
    return False


def names_sounds(table: Any) -> bool:
    """Return whether a column holds paths of sounds."""
    return any(holds_paths(table, field.name, AUDIO_SUFFIXES) for field in table.schema)


def id_columns(table: Any) -> list[str]:
    """Return columns that may name images without their ending, by their customary names."""
    found = [
        field.name
        for field in table.schema
        if (is_text(field.type) or types.is_integer(field.type))
        and field.name.casefold() in _IMAGE_NAMES + _ID_NAMES
    ]
    order = {name: i for i, name in enumerate(_IMAGE_NAMES + _ID_NAMES)}
    return sorted(found, key=lambda name: order[name.casefold()])


def group_column(table: Any, where: str, asked: str | None) -> str | None:
    """Return the name of the column that says which rows belong together, as it was given.

    Raises:
        DataError: no such column, or its values name nothing.
    """
    if asked is None:
        return None
    require_column(table, asked, where, "group_column")
    kind = table.schema.field(asked).type
    if types.is_nested(kind) or is_bytes(kind):
        raise DataError(
            f"column '{asked}' of {where} has the type {kind}, expected names or numbers of groups",
            hint=columns_hint(table),
        )
    return asked


def metadata(table: Any, taken: Sequence[str]) -> Any:
    """Return the other columns of plain values: numbers, truth values, texts; None without any."""
    names = [f.name for f in table.schema if f.name not in taken and is_scalar(f.type)]
    return table.select(names) if names else None


def split_column(table: Any, taken: Sequence[str | None]) -> str | None:
    """Return the column that says for each row which split it belongs to, if there is one."""
    for name in table.schema.names:
        if name.casefold() in SPLIT_NAMES and name not in taken:
            kind = table.schema.field(name).type
            if is_text(kind):
                return str(name)
    return None
