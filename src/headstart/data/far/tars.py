"""Tar files as WebDataset writes them: the members of one sample share their name up to its ending.

A tar is read once from its beginning to its end. What is small (``cls``, ``txt``, ``json``, ...)
becomes a row of a table, so that labels, groups and other columns are found as in any table; of
images only the place in the tar is kept, and the id, which is computed on the way. Later an image
is read alone, or with its neighbours.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headstart.core.addresses import FarFile, is_address, open_file_system
from headstart.core.errors import DataError
from headstart.core.wording import count, quoted
from headstart.data import columns, tables
from headstart.data.content import UndecodableError, digest
from headstart.data.elsewhere import (
    AddressReader,
    DiskReader,
    Piece,
    Reader,
    disk_file,
    reaching,
)
from headstart.data.far.pieces import KEPT_BYTES, PieceItems
from headstart.data.far.rows import token, tokens_of
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.items import MAX_FILE, ArrowItems
from headstart.data.roles import folder_role, role_of
from headstart.data.source import WHOLE, Part, Request, Source, roles
from headstart.data.table_files import FROM_TEXT
from headstart.data.walking import files_in, subfolders, survey

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BLOCK = 512
_SMALL = 2**20  # bytes of a member that is no image
_TEXTS = frozenset({"txt", "text", "cls", "cls2", "class", "label", "index", "inx", "id"})
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_MOST_NAMES = 1_000_000


def is_tar(name: str) -> bool:
    """Return whether a file's name is that of a tar file, packed or not."""
    low = name.split("?")[0].lower()
    return low.endswith((".tar", *_PACKED))


def is_tar_pattern(source: object, request: Request) -> bool:  # noqa: ARG001
    """Return whether a source names several tar files in braces, and is no path that exists."""
    if not isinstance(source, str | Path) or not is_tar(str(source)):
        return False
    return _BRACES.search(str(source)) is not None and not (
        not is_address(source) and Path(source).exists()
    )


def holds_tars(path: Path, request: Request) -> bool:  # noqa: ARG001
    """Return whether a path is a tar file, or a folder of them without loose images."""
    if not path.is_dir():
        return is_tar(path.name)
    places = [path, *(one for one in subfolders(path) if folder_role(one.name))]
    names = [file.name for place in places for file in files_in(place)]
    return any(map(is_tar, names)) and not any(
        PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in names
    )


def read_tar_path(path: Path, request: Request) -> Source:
    """Read a tar file of this machine, or all that lie below a folder."""
    found = [path]
    if path.is_dir():
        found = [file for file in survey([path])[0].files if is_tar(file.name)]
    return read_tars([disk_file(file) for file in found], DiskReader(), request, path.stem)


def read_tar_pattern(source: str | Path, request: Request) -> Source:
    """Read the tar files that a name with braces stands for: ``train-{000..009}.tar``.

    Raises:
        DataError: one of them does not exist.
    """
    names = braced(str(source))
    title = PurePosixPath(_BRACES.sub("", str(source))).stem.strip("-_.") or "tars"
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


def one_by_one(source: Any) -> list[Any]:
    """Return the sources that are best read one after the other, each of them once.

    Tars that are named in braces at an address are; any other source is one.
    """
    if isinstance(source, str) and is_address(source) and is_tar(source):
        return list(braced(source))
    return [source]


def braced(text: str) -> list[str]:
    """Return what a name with braces stands for: ``{000..009}``, ``{a,b}``, several of them.

    Raises:
        DataError: there are more than a million.
    """
    found = _BRACES.search(text)
    if found is None:
        return [text]
    first, last, listed = found.groups()
    if listed is not None:
        inner = listed.split(",")
    else:
        if abs(int(last) - int(first)) > _MOST_NAMES:
            raise DataError(f"'{text}' stands for more than {_MOST_NAMES:,} files")
        step = 1 if int(last) >= int(first) else -1
        width = len(first) if first.startswith("0") or last.startswith("0") else 0
        inner = [f"{i:0{width}d}" for i in range(int(first), int(last) + step, step)]
    ends = braced(text[found.end() :])
    return [text[: found.start()] + one + end for one in inner for end in ends]


# -- from tars to a source -------------------------------------------------------------------------


@dataclasses.dataclass
class _Rows:
    """The samples of the tars of one split.

    Attributes:
        values: by column, by sample; a sample lacks what it does not have.
        digests: of the images, by column and sample.
        kept: contents that were read on the way, by file and place, as far as they may be kept.
        bare: keys of samples that hold nothing that is known.
    """

    values: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    digests: dict[tuple[int, int], str] = dataclasses.field(default_factory=dict)
    kept: dict[tuple[int, int], bytes] = dataclasses.field(default_factory=dict)
    kept_bytes: int = 0
    images: set[str] = dataclasses.field(default_factory=set)


def read_tars(files: Sequence[FarFile], reader: Reader, request: Request, name: str) -> Source:
    """Read tar files, divided into splits as their names or folders say.

    Raises:
        DataError: one is packed, damaged or truncated; no sample; or labels cannot be found.
    """
    if packed := [file.address for file in files if file.address.lower().endswith(_PACKED)]:
        raise DataError(
            f"{quoted(packed, 3)}: in a packed tar no member can be read alone",
            hint="write plain .tar files; images are compressed already",
        )
    files = sorted(files, key=lambda file: file.address) if len(files) > 1 else list(files)
    divided = _divided(files, request)
    parts, notes = {}, []
    for role, numbers in divided.items():
        rows = _Rows()
        with request.reporter.task("Reading tars", len(numbers), "tars") as task:
            for number in numbers:
                _read_tar(files[number], number, reader, rows)
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
    said = roles([*(one.name for one in names), *(one.stem for one in names)], request)
    found: dict[str, list[int]] = {}
    left = []
    for number, one in enumerate(names):
        role = said.get(one.name) or said.get(one.stem) or role_of(one.parent.name)
        if role:
            found.setdefault(role, []).append(number)
        else:
            left.append(number)
    if left and len(found) != 0 and len(left) < len(files):
        raise DataError(
            f"the names of {count(len(left), 'tar file')} say no split, those of the others do:"
            f" {quoted([names[i].name for i in left], 3)}",
            hint="leave them out, or read all as one with splits='none'",
        )
    if left or "train" not in found:
        return {WHOLE: list(range(len(files)))} if len(found) < 2 else found
    return dict(sorted(found.items(), key=lambda pair: pair[0] != "train"))


def _part(
    rows: _Rows, files: Sequence[FarFile], reader: Reader, where: str, request: Request
) -> tuple[Part, list[str]]:
    wants_text = (
        request.kind is not None and not request.wants_images
    ) or request.text_column is not None
    image = None if wants_text else request.image_column or next(iter(sorted(rows.images)), None)
    notes = []
    kept = rows.values
    if image is not None:
        kept = [row for row in rows.values if row.get(image) is not None]
        if len(kept) < len(rows.values):
            left = [row["__key__"] for row in rows.values if row.get(image) is None]
            notes.append(
                f"{count(len(left), 'sample')} of {where} without a member '{image}' left out:"
                f" {quoted(left, 3)}."
            )
    if not kept:
        raise DataError(
            f"{where} holds no samples that can be read",
            hint="expected tar files whose members are called KEY.jpg and KEY.cls, KEY.json or"
            " KEY.txt",
        )
    table = _table(kept, drop=rows.images - {image} if image else rows.images)
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


def _items(
    rows: _Rows,
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
    if columns.names_its_labels(table):
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


# -- one tar ---------------------------------------------------------------------------------------


def _read_tar(file: FarFile, number: int, reader: Reader, rows: _Rows) -> None:
    """Add the samples of one tar.

    Raises:
        DataError: it is damaged, or ends before its end.
    """
    sample: dict[str, Any] = {}
    before = len(rows.values)
    for name, member, content in _members(file, reader):
        folder, _, base = name.rpartition("/")
        stem, _, ending = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        if base.startswith("__") or not ending:
            continue
        if sample.get("__key__") != key:
            sample = {"__key__": key}
            rows.values.append(sample)
        _enter(sample, ending.lower(), member, content, number, rows)
    rows.values[before:] = [row for row in rows.values[before:] if len(row) > 1]


def _enter(
    sample: dict[str, Any],
    ending: str,
    member: tarfile.TarInfo,
    content: bytes | None,
    number: int,
    rows: _Rows,
) -> None:
    if f".{ending.rpartition('.')[2]}" in IMAGE_SUFFIXES:
        place = (number, member.offset_data)
        sample[ending] = token(*place, member.size)
        rows.images.add(ending)
        if content is not None:
            rows.digests[place] = digest(content)
            if rows.kept_bytes + len(content) <= KEPT_BYTES:
                rows.kept[place] = content
                rows.kept_bytes += len(content)
        return
    if content is None:
        return
    text = content.decode("utf-8", "replace")
    if ending == "json":
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        fields = found if isinstance(found, dict) else {"json": found}
        for name, value in fields.items():
            if not isinstance(value, dict) and name not in sample:
                sample[str(name)] = value
    elif ending in _TEXTS:
        sample[ending] = text.strip() if ending != "txt" else text.rstrip("\r\n")


def _members(file: FarFile, reader: Reader) -> Iterator[tuple[str, tarfile.TarInfo, bytes | None]]:
    """Yield the files in a tar with their contents; None for what is too large to be looked at."""
    end = 0
    try:
        with (
            reaching(file.address),
            reader.stream(file) as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK * 128) as tar,
        ):
            for member in tar:
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if member.isfile():
                    yield member.name, member, _content(tar, member)
    except DataError as error:
        damage = error.__cause__
        if isinstance(damage, tarfile.TarError | EOFError):
            raise _damaged(file, str(damage)) from damage
        raise
    _require_end(file, reader, end)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    ending = PurePosixPath(member.name).suffix.lower()
    if member.size > (MAX_FILE if ending in IMAGE_SUFFIXES else _SMALL):
        return None
    handle = tar.extractfile(member)
    content = b"" if handle is None else handle.read()
    if len(content) != member.size:
        raise tarfile.ReadError(f"'{member.name}' ends after {len(content):,} bytes")
    return content


def _require_end(file: FarFile, reader: Reader, end: int) -> None:
    """Refuse a tar that ends without the mark of its end: reading stopped before all was read."""
    there = file.size < 0 or file.size >= end + _BLOCK
    (found,) = reader.read([Piece(file, end, _BLOCK)]) if there else (b"",)
    if isinstance(found, UndecodableError) or len(found) < _BLOCK:
        raise _damaged(file, "it ends without the mark of its end")
    if any(found):
        raise _damaged(file, f"there is no member at byte {end:,}")


def _damaged(file: FarFile, reason: str) -> DataError:
    return DataError(
        f"'{file.address}' is truncated or damaged: {' '.join(reason.split())}",
        hint="copy or write it again",
    )


__all__ = [
    "braced",
    "holds_tars",
    "is_tar",
    "is_tar_pattern",
    "one_by_one",
    "read_tar_path",
    "read_tar_pattern",
    "read_tars",
]
