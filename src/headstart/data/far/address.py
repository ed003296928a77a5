"""Folders, tables and images at an address: ``s3://bucket/photos``, ``https://host/x.parquet``.

What a folder's names mean, which column holds the labels and where the splits are is decided by the
readers of local data. They are given a *skeleton*: a scratch folder with the names of the files and
nothing in them, thin Parquet tables, and the small tables of text. Then the items that they found
are replaced by such that read where the data lie. No content is copied.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow.parquet as pq

from headstart.core.addresses import FarFile, far_file, open_file_system, why
from headstart.core.errors import DataError, UnreachableError
from headstart.core.scratch import scratch_folder
from headstart.core.wording import count, quoted
from headstart.data.elsewhere import AddressReader, reaching
from headstart.data.far.pieces import PieceItems
from headstart.data.far.rows import RowItems, thin_table, tokens_of
from headstart.data.far.tar_names import is_tar
from headstart.data.far.tars import read_tars
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.items import ArrowItems, FileItems, Items
from headstart.data.sound_files import AUDIO_SUFFIXES
from headstart.data.source import TABLE_SUFFIXES, Part, Request, Source

ReadLocal = Callable[[Path, Request], Source]
"""Reads what lies at a path; see :mod:`headstart.data.loading`."""

_LONGEST = 255  # bytes of a name on a disk
_WHAT = "data"


@dataclasses.dataclass
class _Place:
    """An address, opened.

    Attributes:
        address: as the user wrote it.
        files: its file system.
        root: the path in it.
        reader: of its files.
    """

    address: str
    files: Any
    root: str

    def __post_init__(self) -> None:
        self.reader = AddressReader(self.files)

    @property
    def name(self) -> str:
        """The last part of the path."""
        path = self.root.split("?")[0].split("#")[0].rstrip("/")
        return unquote(path.rsplit("/", 1)[-1]) or "data"

    @property
    def suffix(self) -> str:
        """The ending, in lower case."""
        return PurePosixPath(self.name).suffix.lower()


def read_address(address: str, request: Request, read: ReadLocal) -> Source:
    """Read the data at an address.

    Args:
        address: with its protocol.
        request: what to read.
        read: reads the skeleton.

    Raises:
        DataError: nothing is there, or not what is expected; the service refuses.
        MissingExtraError: a package for this protocol is not installed.
    """
    with reaching(address):
        place = _Place(address, *open_file_system(address, what=_WHAT, kind=DataError))
        found = list(_listed(place, request))
    tars = [file for file, _ in found if is_tar(file.path)]
    if tars and not any(_suffix(name) in IMAGE_SUFFIXES for _, name in found):
        return read_tars(tars, place.reader, request, place.name)
    with scratch_folder() as scratch:
        skeleton = _Skeleton(scratch, place)
        for file, name in found:
            skeleton.add(file, name)
        start = skeleton.folder if skeleton.is_folder else skeleton.folder / place.name
        try:
            source = read(start, request)
        except DataError as error:
            raise skeleton.spoken(error) from error
        return skeleton.filled(source, request)


def _listed(place: _Place, request: Request) -> Iterator[tuple[FarFile, str]]:
    """Yield the files of a source with their names below it."""
    single = {*TABLE_SUFFIXES, *IMAGE_SUFFIXES, *AUDIO_SUFFIXES, ".npz", ".txt"}
    known = place.suffix in single or is_tar(place.root)
    if not known or (not _speaks_http(place) and place.files.isdir(place.root)):
        place.files.invalidate_cache()
        yield from _below(place, place.root, empty=not known)
        return
    yield _file(place, place.root), place.name
    for other in (request.train, request.test):
        if other and PurePosixPath(other).suffix.lower() in TABLE_SUFFIXES:
            yield _file(place, f"{place.root.rsplit('/', 1)[0]}/{other}"), other
    if place.suffix in TABLE_SUFFIXES and place.suffix != ".parquet" and request.kind != "text":
        beside = place.root.rsplit("/", 1)[0]  # files whose paths start from the table's folder
        if not _speaks_http(place):
            for file, name in _below(place, beside):
                if _suffix(name) in IMAGE_SUFFIXES | AUDIO_SUFFIXES:
                    yield file, name


def _speaks_http(place: _Place) -> bool:
    return place.address.startswith(("http:", "https:"))


def _file(place: _Place, path: str) -> FarFile:
    with reaching(str(place.files.unstrip_protocol(path))):
        return far_file(place.files, path, place.files.info(path))


def _below(place: _Place, root: str, *, empty: bool = False) -> Iterator[tuple[FarFile, str]]:
    """Yield what lies below a folder; refuse one in which nothing is, where it was asked for."""
    base = root.rstrip("/")
    seen = False
    for _, _, files in _walk(place, root):
        for path, info in files.items():
            full = str(info.get("name", path))
            seen = True
            yield far_file(place.files, full, info), _readable(place, full[len(base) :].lstrip("/"))
    if empty and not seen:
        place.files.info(root)  # says why: there is no such bucket, no permission, ...
        hint = _UNLISTED if _speaks_http(place) else "check the address"
        raise DataError(f"'{place.address}' holds no files", hint=hint)


_UNLISTED = (
    "a server over HTTP lists a folder only where it is set up to; name a table, a tar or one file"
)


def _walk(place: _Place, root: str) -> Iterator[Any]:
    """Walk below a folder.

    Raises:
        UnreachableError: a server over HTTP does not list it.
    """
    try:
        yield from place.files.walk(root, detail=True, on_error="raise")
    except Exception as error:
        if not _speaks_http(place) or getattr(error, "status", 404) not in (403, 404, 405):
            raise
        if not isinstance(error, FileNotFoundError) and not hasattr(error, "status"):
            raise
        raise UnreachableError(
            f"cannot list '{place.address}': {why(error)[0]}", hint=_UNLISTED
        ) from error


def _readable(place: _Place, name: str) -> str:
    """Return a name as people read it: those of HTTP are quoted."""
    return unquote(name.split("?")[0]) if _speaks_http(place) else name


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


class _Skeleton:
    """The names of the files of a source, in a scratch folder."""

    def __init__(self, scratch: Path, place: _Place) -> None:
        self.place = place
        self.folder = scratch / _safe_name(place.name)
        self.is_folder = True
        self._numbers: dict[str, int] = {}  # of files, by their names below the source
        self._files: list[FarFile] = []
        self._columns: dict[int, list[str]] = {}  # of Parquet files
        self._odd: list[str] = []
        self.folder.mkdir()

    def add(self, file: FarFile, name: str) -> None:
        """Enter a file; a table of text is read, of Parquet all but its images."""
        if file.path == self.place.root:
            self.is_folder = False
        number = len(self._files)
        target = self.folder / name
        if not _is_safe(name):
            self._odd.append(name)
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fill(file, number, target)
        except OSError:  # a file and a folder of one name, or two that differ in case only
            self._odd.append(name)
            return
        self._numbers[name] = number
        self._files.append(file)

    def _fill(self, file: FarFile, number: int, target: Path) -> None:
        suffix = target.suffix.lower()
        with target.open("xb") as there:
            if suffix == ".parquet":
                with reaching(file.address), self.place.reader.table(file) as handle:
                    table = thin_table(handle, number, file.address)
                self._columns[number] = table.schema.names
                pq.write_table(table, there)
            elif suffix in TABLE_SUFFIXES or (suffix == ".npz" and not self.is_folder):
                with reaching(file.address), self.place.reader.stream(file) as source:
                    shutil.copyfileobj(source, there)

    def spoken(self, error: DataError) -> DataError:
        """Return an error with the address in the place of the scratch folder."""
        hint = None if error.hint is None else self._spoken(error.hint)
        return DataError(self._spoken(error.message), hint=hint)

    def _spoken(self, text: str) -> str:
        address = self.place.address.rstrip("/")
        whole = address if self.is_folder else address.rsplit("/", 1)[0]
        return text.replace(str(self.folder), whole)

    def filled(self, source: Source, request: Request) -> Source:
        """Return a source whose items are read where they lie."""
        parts = {
            role: dataclasses.replace(part, items=self._items(part, request))
            for role, part in source.parts.items()
        }
        notes = tuple(self._spoken(note) for note in source.notes)
        if self._odd:
            verb = "is" if len(self._odd) == 1 else "are"
            notes += (
                f"{count(len(self._odd), 'file')} whose names are not valid file paths {verb}"
                f" skipped: {quoted(self._odd, 3)}.",
            )
        return dataclasses.replace(source, parts=parts, notes=notes)

    def _items(self, part: Part, request: Request) -> Items:
        items = part.items
        if isinstance(items, ArrowItems) and items.column is not None:
            tokens = tokens_of(items.column)
            if tokens is not None:
                file, column = int(tokens[0, 0]), int(tokens[0, 2])
                name = self._columns[file][column]
                names = list(self._numbers)
                return RowItems(self.place.reader, self._files, tokens[:, :2], name, names)
            return items
        if not isinstance(items, ArrowItems | FileItems):
            return items
        if isinstance(items, ArrowItems) and all(map(items.address, range(len(items)))):
            return items  # whole addresses, perhaps of another place: each is read where it lies
        files = dict(enumerate(self._files))
        numbers = np.array([self._number(items, i, files) for i in range(len(items))], np.int64)
        return PieceItems(
            self.place.reader,
            [files[i] for i in range(len(files))],
            numbers,
            None,
            None,
            [self._spoken(items.origin(i)) for i in range(len(items))],
            kind=items.kind,
            memo=request.memo,
        )

    def _number(self, items: ArrowItems | FileItems, i: int, files: dict[int, FarFile]) -> int:
        """Return the file of an item; one that is not there is found out when it is read."""
        path = items.file(i)
        name = "" if path is None else str(path)[len(str(self.folder)) :].lstrip("/")
        known = self._numbers.get(PurePosixPath(name).as_posix())
        if known is None:
            root = self.place.root if self.is_folder else self.place.root.rsplit("/", 1)[0]
            full = f"{root.rstrip('/')}/{name}"
            known = self._numbers[name] = len(files)
            files[known] = FarFile(full, full)
        return known


def _is_safe(name: str) -> bool:
    """Whether a name stays below its folder, and a disk takes it."""
    parts = name.split("/")
    return bool(name) and not any(
        part in ("", ".", "..") or "\0" in part or len(part.encode("utf-8", "replace")) > _LONGEST
        for part in parts
    )


def _safe_name(name: str) -> str:
    return name if _is_safe(name) and "/" not in name else "data"


__all__ = ["read_address"]
