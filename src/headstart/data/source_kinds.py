"""Every kind of source, and reading a source by the first kind that accepts it.

That is one that :func:`~headstart.data.source.register_source` has added, or one of
:data:`BUILT_IN`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from headstart.core.addresses import is_address
from headstart.core.errors import DataError
from headstart.data import (
    arrays,
    folders,
    keras_batches,
    lists,
    objects,
    other_folders,
    tables,
)
from headstart.data.decoding import ranged
from headstart.data.far import tar_names, tars
from headstart.data.far.address import read_address
from headstart.data.first_look import first_look
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.item_groups import groups_of_names
from headstart.data.items import RangedItems
from headstart.data.levels import checked_range
from headstart.data.samples import shares
from headstart.data.sound_files import AUDIO_SUFFIXES
from headstart.data.source import (
    Part,
    Request,
    Source,
    SourceKind,
    is_table,
    registered_sources,
)
from headstart.data.walking import existing

_IMAGES = SourceKind(
    "an image or a folder of images", folders.holds_images, folders.read_images, path=True
)


BUILT_IN: tuple[SourceKind, ...] = (
    SourceKind(
        "the word 'digits'",
        lambda source, _: isinstance(source, str) and source == "digits",
        lambda _, __: arrays.read_digits(),
    ),
    SourceKind(
        "the word 'photographs'",
        lambda source, _: isinstance(source, str) and source == "photographs",
        lambda _, __: arrays.read_photographs(),
    ),
    SourceKind(
        "(to predict for) a list of paths, PIL images or arrays", lists.is_list, lists.read_list
    ),
    SourceKind(
        "a datasets.Dataset", lambda source, _: objects.is_hub_dataset(source),
        objects.read_hub_dataset,
    ),
    SourceKind(
        "a data frame or Arrow table", lambda source, _: tables.is_arrow(source),
        lambda source, request: tables.read_arrow(source, "table", request),
    ),
    SourceKind(
        "a keras.utils.PyDataset or a tf.data.Dataset", keras_batches.are_batches,
        keras_batches.read_batches,
    ),
    SourceKind(
        "torch data sets by split", lambda source, _: objects.are_torch_datasets(source),
        objects.read_torch_datasets,
    ),
    SourceKind("arrays (x, y)", lambda source, _: arrays.is_arrays(source), arrays.read_arrays),
    SourceKind(
        "a map-style torch data set",
        lambda source, _: objects.is_map_style(source) and not isinstance(source, str | Path),
        objects.read_whole_torch_dataset,
    ),
    SourceKind(
        "tar files in braces, such as train-{000..009}.tar", tar_names.is_tar_pattern,
        tars.read_tar_pattern,
    ),
    SourceKind(
        "an address such as s3://bucket/photos", lambda source, _: is_address(source),
        lambda source, request: read_address(source, request, _read_plain),
    ),
    SourceKind(
        "a saved datasets.Dataset", lambda path, _: objects.is_saved_hub_dataset(path),
        objects.read_saved_hub_dataset, path=True,
    ),
    SourceKind(
        "a .tar file of WebDataset or a folder of them", tar_names.holds_tars, tars.read_tar_path,
        path=True,
    ),
    SourceKind(
        "a folder of text files", other_folders.TEXT_FILES.holds, other_folders.TEXT_FILES.read,
        path=True,
    ),
    SourceKind(
        "a folder of sound files", other_folders.SOUND_FILES.holds,
        other_folders.SOUND_FILES.read, path=True,
    ),
    _IMAGES,
    SourceKind("a folder of tables", folders.is_table_folder, tables.read_table_folder, path=True),
    SourceKind(
        "a folder of class folders", lambda path, _: path.is_dir(), folders.read_folder, path=True
    ),
    SourceKind(
        "a .npz file", lambda path, _: path.suffix.lower() == ".npz", arrays.read_npz, path=True
    ),
    SourceKind(
        "a .csv, .tsv, .jsonl or .parquet file", lambda path, _: is_table(path),
        tables.read_table_file, path=True,
    ),
)  # fmt: skip
"""The kinds of sources, in the order in which they are tried."""


def read_agreeing(source: Any, request: Request) -> Source:
    """Read a source; where only some splits look like another task, that task counts for all."""
    found = read_source(source, request)
    tasks = {"" if p.targets is None else p.targets.task for p in found.parts.values()}
    labelled = {r: p for r, p in found.parts.items() if set(p.names) != {None}}
    other = tasks - {""}
    if request.task != "auto" or len(other) != 1 or len(labelled) < 2 or tasks == other:
        return found
    task = next(iter(other))
    whys = [part.targets.why for part in found.parts.values() if part.targets is not None]
    again = read_source(source, dataclasses.replace(request, task=task))  # type: ignore[arg-type]
    return dataclasses.replace(again, parts={r: _found(p, whys[0]) for r, p in again.parts.items()})


def _found(part: Part, why: str) -> Part:
    """Return a part whose task was found, though it was read as if it were given."""
    if part.targets is None:
        return part
    return dataclasses.replace(part, targets=dataclasses.replace(part.targets, why=why))


def read_source(source: Any, request: Request) -> Source:
    """Read a source, scale its files where a range of values is given, and look at a few."""
    if request.value_range is not None:
        request = dataclasses.replace(request, value_range=checked_range(request.value_range))
    found = _grouped(_read_plain(source, request), request)
    limits = request.value_range
    if limits is None:
        looked = () if request.native else first_look(found)
        return dataclasses.replace(found, notes=found.notes + looked)
    convert = shares if request.native else ranged
    parts = {
        role: dataclasses.replace(part, items=RangedItems(part.items, limits, convert))
        if part.items.encoded
        else part
        for role, part in found.parts.items()
    }
    return dataclasses.replace(found, parts=parts)


def _grouped(found: Source, request: Request) -> Source:
    """Add the groups that names of files say; refuse a column where there are none."""
    pattern, column = request.group_pattern, request.group_column
    if pattern is None:
        if column is not None and all(part.groups is None for part in found.parts.values()):
            raise DataError(
                f"the data has no columns, so that group_column='{column}' has no meaning",
                hint="for files, say what they belong to with group_pattern=REGEX",
            )
        return found
    if column is not None:
        raise DataError(
            "both group_column and group_pattern are given",
            hint="give one of them",
        )
    parts = {
        role: dataclasses.replace(part, groups=groups_of_names(part.items, pattern))
        for role, part in found.parts.items()
    }
    return dataclasses.replace(found, parts=parts)


def _require_table(request: Request, kind: SourceKind) -> None:
    """Refuse options of tables for a source that is none; they would do nothing."""
    given = [
        name
        for name in ("image_folder", "image_suffix", "encoding")
        if getattr(request, name) is not None
    ]
    if given and kind in BUILT_IN and "table" not in kind.name and ".csv" not in kind.name:
        raise DataError(
            f"{', '.join(given)} {'applies' if len(given) == 1 else 'apply'} to tables, and the"
            f" data is {kind.name}",
            hint="omit it, or give the table",
        )


def _what(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "one image"
    if suffix in AUDIO_SUFFIXES:
        return "one sound"
    if suffix in (".xlsx", ".xls", ".xlsm", ".ods", ".numbers"):
        return "a spreadsheet, which has to be saved as CSV (UTF-8)"
    if suffix == ".json":
        return "JSON, which is read with one object a line and called .jsonl"
    return "a file of unknown kind"


def _read_plain(source: Any, request: Request) -> Source:
    """Read a source by the first kind that accepts it."""
    if isinstance(source, str) and not source.strip():
        raise DataError(
            "the name of the data is empty, and would mean the working directory",
            hint="give a path; '.' is the working directory",
        )
    kinds = (*registered_sources(), *BUILT_IN)
    for kind in kinds:
        if not kind.path and kind.accepts(source, request):
            _require_table(request, kind)
            return kind.read(source, request)
    if isinstance(source, str | Path):
        path = existing(Path(source).expanduser())
        for kind in kinds:
            if kind.path and kind.accepts(path, request):
                if kind.read is not folders.read_folder:  # which may find tables in its splits
                    _require_table(request, kind)
                return kind.read(path, request)
        what = _what(path)
        known = [kind.name for kind in kinds if kind.path and kind is not _IMAGES]
        raise DataError(
            f"'{path}' is {what}, expected labelled data", hint=f"give {', '.join(known)}"
        )
    raise DataError(
        f"data of type {type(source).__name__} cannot be read",
        hint="expected a path, " + ", ".join(kind.name for kind in kinds if not kind.path),
    )


__all__ = [
    "BUILT_IN",
    "read_agreeing",
    "read_source",
]
