"""One tar, read once from its beginning to its end: members become the fields of samples."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from headstart.core.addresses import FarFile
from headstart.core.errors import DataError
from headstart.data.content import digest
from headstart.data.elsewhere import Reader, reaching
from headstart.data.far.packed import is_packed
from headstart.data.far.pieces import KEPT_BYTES
from headstart.data.far.rows import token
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.item_files import MAX_FILE

_BLOCK = 512
_SMALL = 2**20  # bytes of a member that is no image
_TEXTS = frozenset({"txt", "text", "cls", "cls2", "class", "label", "index", "inx", "id"})


@dataclasses.dataclass
class Samples:
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


def read_tar(file: FarFile, number: int, reader: Reader, rows: Samples) -> None:
    """Add the samples of one tar.

    Raises:
        DataError: it is damaged, or ends before its end.
    """
    seen: dict[str, tuple[dict[str, Any], set[str]]] = {}  # by key, the sample and its endings
    before = len(rows.values)
    for name, member, content in _members(file, reader):
        folder, _, base = name.rpartition("/")
        stem, _, ending = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        if base.startswith("__") or not ending:
            continue
        sample, endings = seen.get(key, ({}, {ending}))
        if ending in endings:  # the members of one sample need not follow each other
            sample, endings = {"__key__": key}, set()
            rows.values.append(sample)
            seen[key] = (sample, endings)
        endings.add(ending)
        _enter(sample, ending.lower(), member, content, number, rows)
    rows.values[before:] = [row for row in rows.values[before:] if len(row) > 1]


def _enter(
    sample: dict[str, Any],
    ending: str,
    member: tarfile.TarInfo,
    content: bytes | None,
    number: int,
    rows: Samples,
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


class _Watched:
    """A stream that remembers what was read last, and can be read to its end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._recent: list[bytes] = []
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        found: bytes = self._stream.read(size)
        self._recent = [*self._recent[-1:], found]
        self._at += len(found)
        return found

    def block(self, start: int) -> bytes:
        """Return the block at a place that was read last, or as much of it as there is."""
        recent = b"".join(self._recent)
        while self._at < start + _BLOCK and (more := self.read(_BLOCK * 128)):
            recent += more
        first = self._at - len(recent)
        return recent[max(0, start - first) : max(0, start - first) + _BLOCK]

    def finish(self) -> None:
        """Read to the end, where a packed file has its checksum."""
        while self.read(_BLOCK * 2048):
            pass


def _members(file: FarFile, reader: Reader) -> Iterator[tuple[str, tarfile.TarInfo, bytes | None]]:
    """Yield the files in a tar with their contents; None for what is too large to be looked at."""
    end = 0
    try:
        with reaching(file.address), reader.stream(file) as stream:
            watched: Any = _Watched(stream)
            with tarfile.open(fileobj=watched, mode="r|", bufsize=_BLOCK * 128) as tar:
                for member in tar:
                    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                    if member.isfile():
                        yield member.name, member, _content(tar, member)
            last = watched.block(end)
            if is_packed(file.path):
                watched.finish()
    except DataError as error:
        damage = error.__cause__
        if isinstance(damage, tarfile.TarError | EOFError):
            raise _damaged(file, str(damage)) from damage
        raise
    _require_end(file, last, end)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    ending = PurePosixPath(member.name).suffix.lower()
    if member.size > (MAX_FILE if ending in IMAGE_SUFFIXES else _SMALL):
        return None
    handle = tar.extractfile(member)
    content = b"" if handle is None else handle.read()
    if len(content) != member.size:
        raise tarfile.ReadError(f"'{member.name}' ends after {len(content):,} bytes")
    return content


def _require_end(file: FarFile, found: bytes, end: int) -> None:
    """Refuse a tar that ends without the mark of its end: reading stopped before all was read."""
    if len(found) < _BLOCK:
        raise _damaged(file, "it ends without the mark of its end")
    if any(found):
        raise _damaged(file, f"there is no member at byte {end:,}")


def _damaged(file: FarFile, reason: str) -> DataError:
    return DataError(
        f"'{file.address}' is truncated or damaged: {' '.join(reason.split())}",
        hint="copy or write it again",
    )


__all__ = ["Samples", "read_tar"]
