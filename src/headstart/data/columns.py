"""Which column of a table holds the images, sounds or texts, and which the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from headstart.core.errors import DataError
from headstart.core.wording import did_you_mean, quoted
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.labels import number_of
from headstart.data.sound_files import AUDIO_SUFFIXES, is_sound
from headstart.data.targets import Asked, zeros_and_ones

_LABEL_NAMES = (
    "label", "labels", "class", "class_name", "classname", "class_label", "class_id", "classid",
    "category", "target", "targets", "y", "species", "label_name", "category_name", "fine_label",
)  # fmt: skip
_IMAGE_NAMES = (
    "image", "img", "images", "image_path", "img_path", "path", "filepath", "file_path", "file",
    "filename", "file_name", "image_name", "image_file",
)  # fmt: skip
_NOT_LABELS = frozenset({"", "id", "index", "idx", "uid", "uuid"})
SPLIT_NAMES = frozenset({"split", "subset", "partition"})
"""Names (lower case) of a column that says which split a row belongs to."""

_SAMPLE = 200


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
        _require(table, asked, where, kind.option)
        found = table.schema.field(asked).type
        number = ids and types.is_integer(found)
        if not (is_bytes(found) or is_text(found) or number):
            raise DataError(
                f"column '{asked}' of {where} has the type {found},"
                f" expected {kind.noun} bytes or paths",
                hint=_columns_hint(table),
            )
        return asked
    with_bytes = [f.name for f in table.schema if is_bytes(f.type)]
    with_paths = [f.name for f in table.schema if _holds_paths(table, f.name, kind.suffixes)]
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
        f"{where} has no column of {kind.noun}s: expected {kind.noun} bytes, or paths that end in"
        f" {kind.usual} or the like",
        hint=f"{_columns_hint(table)}; choose one with {kind.option}=NAME",
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
        _require(table, asked, where, "text_column")
        if not _is_text(table, asked):
            raise DataError(
                f"column '{asked}' of {where} has the type {table.schema.field(asked).type},"
                " expected texts",
                hint=_columns_hint(table),
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
        f"{where} has no column of texts",
        hint=f"{_columns_hint(table)}; choose one with text_column=NAME",
    )


def text_columns(table: Any, label: str | None = None, *, words: bool = True) -> list[str]:
    """Return the columns that could hold the texts.

    They have a customary name or, if ``words``, several words in most rows; most of their rows
    differ.
    """
    named_label = [] if label is None else label.split(",")
    found = []
    for field in table.schema:
        name = field.name
        if (
            not is_text(field.type)
            or name in named_label
            or name.casefold() in _LABEL_NAMES
            or _is_index(name)
            or _holds_paths(table, name)
        ):
            continue
        sample = [v for v in table.column(name).slice(0, _SAMPLE).to_pylist() if v and v.strip()]
        long = not words or sum(len(v.split()) > 1 for v in sample) * 2 > len(sample)
        differ = len(set(sample)) * 2 > len(sample)
        if differ and (name.casefold() in _TEXT_NAMES or long) and sample:
            found.append(name)
    return found


def holds_sounds(table: Any, name: str) -> bool:
    """Return whether a column holds bytes that begin as those of a sound file do."""
    data, _ = image_parts(table.column(name))
    for value in () if data is None else data.slice(0, _SAMPLE):
        if value.is_valid:
            return is_sound(value.as_py())
    return False


def names_sounds(table: Any) -> bool:
    """Return whether a column holds paths of sounds."""
    return any(_holds_paths(table, field.name, AUDIO_SUFFIXES) for field in table.schema)


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


def label_column(
    table: Any,
    where: str,
    asked: str | None,
    image: str,
    *,
    required: bool,
    beside: Sequence[str] = (),
    task: Asked = "auto",
) -> str | tuple[str, ...] | None:
    """Return the name of the column that holds the labels.

    A customary name (label, class, category, target, y, ...) decides if it is one alone; else the
    only column of text, whole numbers or truth values that is left.

    Args:
        table: ``pyarrow.Table``.
        where: the table's name, for messages.
        asked: the name the user gave, if any; or the names of several columns, with commas.
        image: the image column.
        required: whether it is an error that there is none, or that several could be meant.
        beside: columns that hold no labels unless asked for: groups, what joins the features.
        task: what the labels mean; numbers with fractions are labels of a regression alone.

    Returns:
        The name; or the names of several columns: one-hot ones, 0 and 1 of several labels, or
        the targets of a regression.

    Raises:
        DataError: no such column; or ``required`` and no or several candidates.
    """
    if asked is not None and asked not in table.schema.names and "," in asked:
        several = tuple(name.strip() for name in asked.split(","))
        for name in several:
            _require(table, name, where, "label_column")
        if task == "classification":
            one_hot_names(table, several, where)
        return several
    if asked is not None:
        _require(table, asked, where, "label_column")
        return asked
    rest = [f for f in table.schema if f.name not in (image, *beside) and not _is_index(f.name)]
    lists = [f.name for f in rest if _is_list(f.type)]
    rest = [f for f in rest if _is_scalar(f.type) and not _holds_paths(table, f.name)]
    named = [f.name for f in rest if f.name.casefold() in _LABEL_NAMES]
    named += [name for name in lists if name.casefold() in _LABEL_NAMES]
    candidates = named or _candidates(table, rest, lists, task)
    if len(candidates) == 1:
        return str(candidates[0])
    if not required:
        return None
    part = [f.name for f in rest if _zeros_and_ones(table, f.name) is not None]
    whole = len(part) > 1 and one_hot(table, part)
    bits = len(part) > 1 and (whole or task in ("auto", "multi-label"))
    if bits and not named and set(candidates) <= set(part):
        return tuple(part)
    if candidates:
        hint = "choose one with label_column=NAME"
        if whole:
            hint = f"of these, {quoted(part)} are one-hot: label_column='{','.join(part)}'"
        elif bits:
            hint += f", or several that hold 0 and 1: label_column='{','.join(part)}'"
        raise DataError(
            f"{where} has several columns that could hold the labels: {quoted(candidates, 12)}",
            hint=hint,
        )
    raise DataError(
        f"{where} has no column of labels beside '{image}': expected text, whole numbers or truth"
        " values",
        hint=f"{_columns_hint(table)}; choose one with label_column=NAME",
    )


def _candidates(table: Any, rest: Sequence[Any], lists: list[str], task: Asked) -> list[str]:
    """Return the columns that could hold the labels of a task, where no name says which."""
    fractions = [f.name for f in rest if _holds_fractions(table, f)]
    if task == "regression":
        return fractions or [f.name for f in rest if not is_text(f.type)] or [f.name for f in rest]
    if task == "multi-label" and lists:
        return lists
    whole = [f.name for f in rest if f.name not in fractions]
    if task == "classification":
        return whole
    return whole or lists or fractions


def are_classes(table: Any, names: Sequence[str], task: Asked) -> bool:
    """Return whether several columns of labels are one-hot, so that they mean one class an item."""
    return task == "classification" or (task == "auto" and one_hot(table, names))


def one_hot(table: Any, names: Sequence[str]) -> bool:
    """Return whether exactly one of these columns is 1 in every row, and the others 0."""
    found = [_zeros_and_ones(table, name) for name in names]
    if any(values is None for values in found):
        return False
    return all(sum(row) == 1 for row in zip(*found, strict=True))


def one_hot_names(
    table: Any, names: Sequence[str], where: str = "the table"
) -> tuple[str | None, ...]:
    """Return the name of the column that is 1, for every row.

    Raises:
        DataError: they are not one-hot.
    """
    if not one_hot(table, names):
        raise DataError(
            f"the columns {quoted(names, 6)} of {where} are not one-hot: expected 0 and 1, and"
            " exactly one 1 in every row",
            hint="task='multi-label' takes 0 and 1 of several labels an item, task='regression'"
            " numbers; for one class an item name one column with label_column=NAME",
        )
    rows = zip(*(_zeros_and_ones(table, name) or () for name in names), strict=True)
    return tuple(names[row.index(1)] for row in rows)


def _zeros_and_ones(table: Any, name: str) -> list[int] | None:
    """Return the values of a column that holds 0 and 1 in any form; None for another."""
    column = table.column(name)
    if len(pc.unique(column)) > 2:
        return None
    return zeros_and_ones(column.to_pylist())


def names_its_labels(table: Any) -> bool:
    """Return whether exactly one column has a customary name of labels."""
    return sum(name.casefold() in _LABEL_NAMES for name in table.schema.names) == 1


def group_column(table: Any, where: str, asked: str | None) -> str | None:
    """Return the name of the column that says which rows belong together, as it was given.

    Raises:
        DataError: no such column, or its values name nothing.
    """
    if asked is None:
        return None
    _require(table, asked, where, "group_column")
    kind = table.schema.field(asked).type
    if types.is_nested(kind) or is_bytes(kind):
        raise DataError(
            f"column '{asked}' of {where} has the type {kind}, expected names or numbers of groups",
            hint=_columns_hint(table),
        )
    return asked


def metadata(table: Any, taken: Sequence[str]) -> Any:
    """Return the other columns of plain values: numbers, truth values, texts; None without any."""
    names = [f.name for f in table.schema if f.name not in taken and _is_scalar(f.type)]
    return table.select(names) if names else None


def split_column(table: Any, taken: Sequence[str | None]) -> str | None:
    """Return the column that says for each row which split it belongs to, if there is one."""
    for name in table.schema.names:
        if name.casefold() in SPLIT_NAMES and name not in taken:
            kind = table.schema.field(name).type
            if is_text(kind):
                return str(name)
    return None


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type holds text, dictionary-encoded or not."""
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_bytes(kind: Any) -> bool:
    """Return whether an Arrow type holds image bytes: binary, or a struct with ``bytes``."""
    if types.is_struct(kind):
        return any(field.name == "bytes" and is_bytes(field.type) for field in kind)
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _is_text(table: Any, name: str) -> bool:
    return is_text(table.schema.field(name).type)


def _holds_paths(
    table: Any, name: str, suffixes: frozenset[str] = IMAGE_SUFFIXES | AUDIO_SUFFIXES
) -> bool:
    if not _is_text(table, name):
        return False
    sample = [v for v in table.column(name).slice(0, _SAMPLE).to_pylist() if v]
    files = sum(PurePosixPath(v.replace("\\", "/")).suffix.lower() in suffixes for v in sample)
    return files > len(sample) // 2


def _is_list(kind: Any) -> bool:
    """Return whether a column holds lists of names or whole numbers: several labels an item."""
    listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(listed) and (is_text(kind.value_type) or types.is_integer(kind.value_type))


def _is_scalar(kind: Any) -> bool:
    numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return bool(numeric) or is_text(kind)


def _holds_fractions(table: Any, field: Any) -> bool:
    """Return whether a column holds floats, or texts that are numbers and not all whole."""
    if not is_text(field.type):
        return bool(types.is_floating(field.type))
    sample = [v for v in table.column(field.name).slice(0, _SAMPLE).to_pylist() if v]
    numbers = [number_of(value) for value in sample]
    known = [number for number in numbers if number is not None]
    return len(known) == len(numbers) and any(
        math.isfinite(number) and not number.is_integer() for number in known
    )


def _is_index(name: str) -> bool:
    folded = name.casefold()
    return folded in _NOT_LABELS | SPLIT_NAMES or folded.startswith(("unnamed:", "__index_level_"))


def _require(table: Any, name: str, where: str, option: str) -> None:
    if name not in table.schema.names:
        raise DataError(
            f"{where} has no column '{name}' ({option}='{name}')",
            hint=did_you_mean(name, table.schema.names) or _columns_hint(table),
        )


def _columns_hint(table: Any) -> str:
    columns = ", ".join(f"'{field.name}' ({field.type})" for field in table.schema)
    return f"its columns are {columns}" if columns else "it has no columns"


def as_text(values: Any) -> Any:
    """Return a chunked array of plain strings from one of any text type, or of whole numbers."""
    return values.cast(pa.string()) if not types.is_string(values.type) else values


def image_parts(column: Any) -> tuple[Any, Any]:
    """Return (bytes or None, paths or None) of an image column, without copying the bytes."""
    if not types.is_struct(column.type):
        named = is_text(column.type) or types.is_integer(column.type)
        return (None, as_text(column)) if named else (column, None)
    names = [field.name for field in column.type]
    data = pc.struct_field(column, "bytes")
    return data, (as_text(pc.struct_field(column, "path")) if "path" in names else None)
