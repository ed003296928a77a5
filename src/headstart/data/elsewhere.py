"""Who reads pieces of files: this machine's disk, or a file system at an address."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

from headstart.core.addresses import FarFile, open_file_system, why
from headstart.core.errors import HeadstartError, UnreachableError
from headstart.data.content import UndecodableError

_GAP = 64 * 2**10
"""Bytes between two pieces that are cheaper to read than to ask for separately."""
_MOST = 16 * 2**20  # bytes of one request
_PAUSES = (0.5, 2.0)
_STREAM_BLOCK = 8 * 2**20


class Piece(NamedTuple):
    """Where one content is.

    Attributes:
        file: that holds it.
        start: its first byte.
        size: its bytes; −1: all of the file.
    """

    file: FarFile
    start: int
    size: int


class Reader(Protocol):
    """Reads pieces of files."""

    def read(self, pieces: Sequence[Piece], /) -> list[bytes | UndecodableError]:
        """Return the bytes of each piece, or why one of them cannot be read.

        Raises:
            UnreachableError: none of them can be: the service refuses, or does not answer.
        """

    def stream(self, file: FarFile, /) -> Any:
        """Return a context with a file to be read once, from its beginning."""

    def table(self, file: FarFile, /) -> Any:
        """Return a file to be read here and there."""


class DiskReader:
    """Reads files of this machine."""

    def read(self, pieces: Sequence[Piece], /) -> list[bytes | UndecodableError]:
        """Return the bytes of each piece, or why it cannot be read."""
        return [self._read(piece) for piece in pieces]

    def stream(self, file: FarFile, /) -> BinaryIO:
        """Open a file."""
        return open(file.path, "rb")  # noqa: PTH123  (a context for the caller)

    table = stream

    def _read(self, piece: Piece) -> bytes | UndecodableError:
        try:
            with open(piece.file.path, "rb") as file:  # noqa: PTH123
                file.seek(piece.start)
                found = file.read(piece.size)
        except OSError as error:
            return UndecodableError(error.strerror or str(error))
        return _whole(found, piece)


class AddressReader:
    """Reads files through fsspec, many at a time.

    Args:
        files: the file system.
    """

    def __init__(self, files: Any) -> None:
        self._files = files

    def read(self, pieces: Sequence[Piece], /) -> list[bytes | UndecodableError]:
        """Return the bytes of each piece; neighbours in one file are read by one request.

        Raises:
            UnreachableError: the service refuses, or does not answer.
        """
        found: list[bytes | UndecodableError] = [UndecodableError("it was not read")] * len(pieces)
        groups = list(_together(pieces))
        spans = [_span([pieces[i] for i in group]) for group in groups]
        for group, span, answer in zip(groups, spans, self._ask(spans), strict=True):
            for i in group:
                if isinstance(answer, UndecodableError):
                    found[i] = answer
                    continue
                at = pieces[i].start - span.start
                size = pieces[i].size
                part = answer if size < 0 else answer[at : at + size]
                found[i] = _whole(part, pieces[i])
        return found

    def stream(self, file: FarFile, /) -> Any:
        """Open a file to be read from its beginning, some MB ahead."""
        return self._files.open(file.path, "rb", block_size=_STREAM_BLOCK, cache_type="readahead")

    def table(self, file: FarFile, /) -> Any:
        """Open a file to be read here and there; where a server gives no parts, all is read."""
        handle = self._files.open(file.path, "rb", block_size=_STREAM_BLOCK)
        if handle.seekable() and self._gives_parts(file):
            return handle
        with handle:
            return io.BytesIO(handle.read())

    def _gives_parts(self, file: FarFile) -> bool:
        if not file.address.startswith(("http:", "https:")):
            return True
        return bool(self._files.info(file.path).get("partial"))

    def _ask(self, spans: Sequence[Piece]) -> list[bytes | UndecodableError]:
        for pause in (*_PAUSES, None):
            answers = self._files.cat_ranges(
                [span.file.path for span in spans],
                [span.start if span.size >= 0 else None for span in spans],
                [span.start + span.size if span.size >= 0 else None for span in spans],
                on_error="return",
            )
            failed = [answer for answer in answers if _is_failure(answer)]
            if not failed and (pause is None or not any(map(_is_cut, spans, answers))):
                break  # what is still cut off is a bad item
            if failed and (pause is None or isinstance(failed[0], PermissionError)):
                reason, hint = why(failed[0])
                at = answers.index(failed[0])
                raise UnreachableError(
                    f"cannot read '{spans[at].file.address}': {reason}",
                    hint=f"{hint}; what is committed stays",
                ) from failed[0]
            time.sleep(pause or 0.0)
        return [_answer(span, answer) for span, answer in zip(spans, answers, strict=True)]


def _is_failure(answer: Any) -> bool:
    """Whether the service has refused or not answered; a missing file is one bad item."""
    return isinstance(answer, BaseException) and not isinstance(answer, FileNotFoundError)


def _is_cut(span: Piece, answer: Any) -> bool:
    """Whether a connection has ended before the end of the file: not every protocol notices."""
    wanted = span.file.size if span.size < 0 else span.size
    return isinstance(answer, bytes) and len(answer) < wanted


def _answer(span: Piece, answer: Any) -> bytes | UndecodableError:
    if isinstance(answer, FileNotFoundError):
        return UndecodableError("no such file")
    data = cast(bytes, answer)
    if span.size >= 0 and len(data) > span.size:  # a server that knows no parts of files
        return data[span.start : span.start + span.size]
    return data


def _together(pieces: Sequence[Piece]) -> Iterator[list[int]]:
    """Yield the positions of pieces that one request reads."""
    order = sorted(range(len(pieces)), key=lambda i: (pieces[i].file.path, pieces[i].start))
    group: list[int] = []
    begin = end = 0
    for i in order:
        piece = pieces[i]
        near = (
            bool(group)
            and piece.size >= 0
            and pieces[group[0]].size >= 0
            and pieces[group[0]].file.path == piece.file.path
            and piece.start - end <= _GAP
            and piece.start + piece.size - begin <= _MOST
        )
        if group and not near:
            yield group
            group = []
        if not group:
            begin = piece.start
            end = piece.start
        group.append(i)
        end = max(end, piece.start + max(0, piece.size))
    if group:
        yield group


def _span(pieces: Sequence[Piece]) -> Piece:
    first = pieces[0]
    if first.size < 0:
        return first
    stop = max(piece.start + piece.size for piece in pieces)
    return Piece(first.file, first.start, stop - first.start)


def _whole(found: bytes, piece: Piece) -> bytes | UndecodableError:
    wanted = piece.file.size if piece.size < 0 else piece.size
    if wanted < 0 or len(found) == wanted or (piece.size < 0 and len(found) > wanted):
        return found  # a file may have grown since it was listed; a part of one is no content
    return UndecodableError(f"only {len(found):,} of its {wanted:,} bytes are there")


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turn whatever a file system raises into one line that names the address.

    Raises:
        UnreachableError: with the reason.
    """
    try:
        yield
    except HeadstartError:
        raise
    except Exception as error:  # every file system has exceptions of its own
        reason, hint = why(error)
        raise UnreachableError(f"cannot read '{address}': {reason}", hint=hint) from error


def read_address_once(address: str) -> bytes:
    """Return the bytes of one file at an address, as a table may name it.

    Raises:
        UndecodableError: it does not exist.
        UnreachableError: the service refuses, or does not answer.
    """
    with reaching(address):
        files, path = open_file_system(address, what="an image", kind=UnreachableError)
    (found,) = AddressReader(files).read([Piece(FarFile(address, path), 0, -1)])
    if isinstance(found, UndecodableError):
        raise found
    return found


def disk_file(path: str | os.PathLike[str]) -> FarFile:
    """Return a file of this machine as readers take it."""
    return FarFile(str(path), str(path), os.stat(path).st_size)  # noqa: PTH116


__all__ = [
    "AddressReader",
    "DiskReader",
    "Piece",
    "Reader",
    "disk_file",
    "reaching",
    "read_address_once",
]
