"""Tar files as WebDataset writes them: the members of one sample share their name up to its ending.

A tar is read once from its beginning to its end. What is small (``cls``, ``txt``, ``json``, ...)
becomes a row of a table, so that labels, groups and other columns are found as in any table; of
images only the place in the tar is kept, and the id, which is computed on the way. Later an image
is read alone, or with its neighbours; in a packed tar with all that lies before it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headstart.core.addresses import FarFile, is_address, open_file_system
from headstart.core.errors import DataError
from headstart.core.wording import count, quoted, verb
from headstart.data import label_columns, tables
from headstart.data.elsewhere import AddressReader, DiskReader, Reader, disk_file, reaching
from headstart.data.far.packed import UnpackingReader, is_packed
from headstart.data.far.pieces import PieceItems
from headstart.data.far.rows import tokens_of
from headstart.data.far.tar_members import Samples, read_tar
from headstart.data.far.tar_names import BRACES, braced, is_tar, tar_title
from headstart.data.items import ArrowItems
from headstart.data.roles import role_of
from headstart.data.source import WHOLE, Part, Request, Source, roles
from headstart.data.table_files import FROM_TEXT
from headstart.data.walking import survey

_MOST_KINDS = 4  # of images that samples may have, however few samples there are


def read_tar_path(path: Path, request: Request) -> Source:
    """Read a tar file of this machine, or all that lie below a folder."""
    found = [path]
    if path.is_dir():
        found = [file for file in survey([path])[0].files if is_tar(file.name)]
    title = path.name if path.is_dir() else tar_title(path.name)
    return read_tars([disk_file(file) for file in found], DiskReader(), request, title)


def read_tar_pattern(source: str | Path, request: Request) -> Source:
    """Read the tar files that a name with braces stands for: ``train-{000..009}.tar``.

    Raises:
        DataError: one of them does not exist.
    """
    names = braced(str(source))
    title = tar_title(BRACES.sub("", str(source))).strip("-_.") or "tars"
    if not is_address(str(source)):
        paths = [Path(name).expanduser() for name in names]
        if absent := [str(path) for path in paths if not path.is_file()]:
            raise DataError(
                f"{len(absent):,} of {count(len(paths), 'tar file')} of '{source}' do not exist:"
                f" {quoted(absent, 3)}",
                hint="check the numbers and how many digits they have",
            )
        return read_tars([disk_file(path) for path in paths], DiskReader(), request, title)
    with reaching(str(source)):
        files, _ = open_file_system(names[0], what="data", kind=DataError)
    found = []
    for name in names:
        with reaching(name):
            path = str(files._strip_protocol(name))
            info = files.info(path)
        size = info.get("size")
        found.append(FarFile(name, path, size if isinstance(size, int) else -1))
    return read_tars(found, AddressReader(files), request, title)


def read_tars(files: Sequence[FarFile], reader: Reader, request: Request, name: str) -> Source:
    """Read tar files, divided into splits as their names or folders say.

    Raises:
        DataError: one is damaged or truncated; no sample; or labels cannot be found.
    """
    files = sorted(files, key=lambda file: file.address) if len(files) > 1 else list(files)
    divided = _divided(files, request)
    parts, notes = {}, []
    if packed := sum(is_packed(file.path) for file in files):
        reader = UnpackingReader(reader)
        notes.append(
            f"{count(packed, 'tar')} of {name} {verb(packed)} compressed: to read an image,"
            " everything before it is read too. Plain .tar files are faster, and images are"
            " compressed already."
        )
    for role, numbers in divided.items():
        rows = Samples()
        with request.reporter.task("Reading tars", len(numbers), "tars") as task:
            for number in numbers:
                read_tar(files[number], number, reader, rows)
                task.advance()
        where = name if role == WHOLE else f"{role} of {name}"
        parts[role], said = _part(rows, files, reader, where, request)
        notes += said
    return Source(name, parts, notes=tuple(notes))


def _divided(files: Sequence[FarFile], request: Request) -> dict[str, list[int]]:
    """Return the numbers of the files of each split; of one only where names say nothing."""
    if request.splits == "none":
        return {WHOLE: list(range(len(files)))}
    names = [PurePosixPath(file.path.split("?")[0]) for file in files]
    titles = [tar_title(one.name) for one in names]
    said = roles([*(one.name for one in names), *titles], request)
    found: dict[str, list[int]] = {}
    left = []
    for number, one in enumerate(names):
        role = said.get(one.name) or said.get(titles[number]) or role_of(one.parent.name)
        if role:
            found.setdefault(role, []).append(number)
        else:
            left.append(number)
    if left and len(found) != 0 and len(left) < len(files):
        raise DataError(
            f"the names of {count(len(left), 'tar file')} do not name a split, while the others"
            f" do: {quoted([names[i].name for i in left], 3)}",
            hint="remove them, or read all of them together with splits='none'",
        )
    if left or "train" not in found:
        return {WHOLE: list(range(len(files)))} if len(found) < 2 else found
    return dict(sorted(found.items(), key=lambda pair: pair[0] != "train"))


def _part(
    rows: Samples, files: Sequence[FarFile], reader: Reader, where: str, request: Request
) -> tuple[Part, list[str]]:
    wants_text = (
        request.kind is not None and not request.wants_images
    ) or request.text_column is not None
    _require_keys(rows, where, request)
    image = None if wants_text else request.image_column or next(iter(sorted(rows.images)), None)
    notes = []
    kept = rows.values
    if image is not None:
        kept = [row for row in rows.values if row.get(image) is not None]
        if len(kept) < len(rows.values):
            left = [row["__key__"] for row in rows.values if row.get(image) is None]
            notes.append(
                f"{count(len(left), 'sample')} of {where} without a member '{image}' skipped:"
                f" {quoted(left, 3)}."
            )
    if not kept:
        raise DataError(
            f"{where} holds no samples that can be read",
            hint="expected tar files whose members are called KEY.jpg and KEY.cls, KEY.json or"
            " KEY.txt",
        )
    drop = rows.images - {image} if image else set(rows.images)
    asked = (request.label_column, request.group_column, request.text_column)
    table = _table(kept, drop=drop if "__key__" in asked else {*drop, "__key__"})
    if request.label_column is None and (label := _label(table, image)):
        request = dataclasses.replace(request, label_column=label)
    if image is not None and request.image_column is None:
        request = dataclasses.replace(request, image_column=image)
    part = tables.read_part(table, where, Path(), request)
    if isinstance(part.items, ArrowItems):
        places = tokens_of(part.items.column)
        if places is not None:
            keys = [row["__key__"] for row in kept]
            part = dataclasses.replace(part, items=_items(rows, files, reader, places, keys))
    return part, notes


def _require_keys(rows: Samples, where: str, request: Request) -> None:
    """Refuse keys with dots, which fall into one: a sample ends where another key begins.

    Raises:
        DataError: there are more kinds of images than samples.
    """
    if request.image_column is None and len(rows.images) > max(_MOST_KINDS, len(rows.values)):
        first = sorted(rows.images)[:3]
        raise DataError(
            f"{count(len(rows.values), 'sample')} of {where} with {len(rows.images):,} kinds of"
            f" images ({quoted(first, 3)}): a key ends at the first dot of the name",
            hint="write names with one dot, KEY.jpg and KEY.cls; or choose a kind with"
            " image_column='...'",
        )


def _items(
    rows: Samples,
    files: Sequence[FarFile],
    reader: Reader,
    places: NDArray[np.int64],
    keys: Sequence[str],
) -> PieceItems:
    found = [(int(file), int(start)) for file, start, _ in places]
    names = [PurePosixPath(file.path.split("?")[0]).name for file in files]
    origins = [f"{names[file]}: {key}" for (file, _), key in zip(found, keys, strict=True)]
    digests = [rows.digests.get(place) for place in found]
    items = PieceItems(
        reader, files, places[:, 0], places[:, 1], places[:, 2], origins, digests=digests
    )
    for i, place in enumerate(found):
        if (content := rows.kept.pop(place, None)) is not None:
            items.keep(i, content)
    return items


def _label(table: Any, image: str | None) -> str | None:
    """Return the column of labels that WebDataset's names say; None: as in any table."""
    names = set(table.schema.names)
    if "cls" in names:
        return "cls"
    rest = [name for name in table.schema.names if name not in ("__key__", image)]
    if label_columns.names_its_labels(table):
        return None
    return "txt" if image is not None and rest == ["txt"] else None


def _table(values: Sequence[Mapping[str, Any]], drop: set[str]) -> Any:
    """Return samples as a table; what does not fit into one type is written as text."""
    names = dict.fromkeys(name for row in values for name in row if name not in drop)
    made = {}
    for name in names:
        column = [row.get(name) for row in values]
        try:
            made[name] = pa.array(column)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            made[name] = pa.array([None if v is None else _as_text(v) for v in column], pa.string())
    return pa.table(made).replace_schema_metadata(FROM_TEXT)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


__all__ = ["read_tar_path", "read_tar_pattern", "read_tars"]
