"""Packed tars (``.tar.gz``, ``.tgz``, ``.tar.zst``, …), read as if they were not.

A packed file can only be read from its beginning. One stays open where the last reader stopped, so
that reading in the order of the file unpacks it once; a reader that goes back begins anew. Nothing
is unpacked to disk, and no more than a block at a time in memory.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa

from headstart.core.addresses import FarFile
from headstart.data.content import UndecodableError
from headstart.data.elsewhere import Piece, Reader, reaching

_BLOCK = 2**16
_SKIPPED = 2**20  # bytes that are unpacked at a time to be passed over


class PackedError(tarfile.ReadError):
    """A packed file is truncated or damaged."""


class _Decoder(Protocol):
    """As those of :mod:`bz2` and :mod:`lzma` are."""

    eof: bool
    unused_data: bytes
    needs_input: bool

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return no more than so many bytes."""


class _Gzip:
    """One member of a gzip file, whose checksum is looked at."""

    def __init__(self) -> None:
        self._own = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._own.eof

    @property
    def unused_data(self) -> bytes:
        return self._own.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._own.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._own.decompress(self._own.unconsumed_tail + data, max(0, max_length))


_DECODERS: dict[str, Callable[[], Any]] = {
    ".tar.gz": _Gzip,
    ".tgz": _Gzip,
    ".tar.bz2": bz2.BZ2Decompressor,
    ".tbz2": bz2.BZ2Decompressor,
    ".tar.xz": lzma.LZMADecompressor,
    ".txz": lzma.LZMADecompressor,
}
_ZSTD = (".tar.zst", ".tzst")
PACKED = (*_DECODERS, *_ZSTD)
"""Endings of packed tars."""


def is_packed(name: str) -> bool:
    """Return whether a file's name is that of a packed tar."""
    return name.split("?")[0].lower().endswith(PACKED)


def unpacked(name: str, packed: Any) -> io.RawIOBase:
    """Return what a packed file holds, to be read once from its beginning.

    Args:
        name: of the file; its ending says how it is packed.
        packed: the open file.
    """
    low = name.split("?")[0].lower()
    if low.endswith(_ZSTD):
        return _Zstd(packed)
    return _Unpacked(packed, next(make for end, make in _DECODERS.items() if low.endswith(end)))


class _Unpacked(io.RawIOBase):
    """Reads through a decoder; a file of several members, as pigz writes them, is all of them."""

    def __init__(self, packed: Any, make: Callable[[], _Decoder]) -> None:
        self._packed, self._make = packed, make
        self._decoder = make()
        self._begun = False  # the member that is being read

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Unpack into a buffer; return how many bytes, 0 at the end.

        Raises:
            PackedError: it is truncated or damaged.
        """
        found = b""
        while not found:
            data = b""
            if self._decoder.eof:
                data, self._decoder, self._begun = self._decoder.unused_data, self._make(), False
            if not data and self._decoder.needs_input:
                data = self._packed.read(_BLOCK)
                if not data:
                    if self._begun:
                        raise PackedError("it ends before what is packed in it does")
                    return 0
            if not self._begun and not data.strip(b"\0"):
                continue  # padding behind the last member
            self._begun = True
            try:
                found = self._decoder.decompress(data, len(buffer))
            except (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
                raise PackedError(str(error)) from error
        buffer[: len(found)] = found
        return len(found)


class _Zstd(io.RawIOBase):
    """Reads through Arrow's codec; errors of the file itself stay what they are."""

    def __init__(self, packed: Any) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Unpack into a buffer; return how many bytes, 0 at the end."""
        try:
            found = self._stream.read(len(buffer))
        except OSError as error:
            if not any(said in str(error) for said in ("ZSTD", "compressed stream")):
                raise
            raise PackedError(str(error)) from error
        buffer[: len(found)] = found
        return len(found)


class UnpackingReader:
    """Reads files of which some are packed; pieces of those count bytes of what is in them.

    Args:
        reader: of the files as they are.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._open = contextlib.ExitStack()
        self._at: tuple[str, int] = ("", 0)  # the file that is open, and the place in it
        self._stream: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_reader": self._reader}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @contextlib.contextmanager
    def stream(self, file: FarFile, /) -> Iterator[Any]:
        """Open what is in a file, to be read once from its beginning."""
        with self._reader.stream(file) as found:
            yield io.BufferedReader(unpacked(file.path, found)) if is_packed(file.path) else found

    def table(self, file: FarFile, /) -> Any:
        """Return a file to be read here and there."""
        return self._reader.table(file)

    def read(self, pieces: Sequence[Piece], /) -> list[bytes | UndecodableError]:
        """Return the bytes of each piece, or why it cannot be read."""
        found: list[bytes | UndecodableError] = [UndecodableError("it was not read")] * len(pieces)
        plain = [i for i, piece in enumerate(pieces) if not is_packed(piece.file.path)]
        if plain:
            answers = self._reader.read([pieces[i] for i in plain])
            for i, answer in zip(plain, answers, strict=True):
                found[i] = answer
        with self._lock:
            for i in sorted(
                set(range(len(pieces))) - set(plain),
                key=lambda i: (pieces[i].file.path, pieces[i].start),
            ):
                found[i] = self._piece(pieces[i])
        return found

    def _piece(self, piece: Piece) -> bytes | UndecodableError:
        path, at = self._at
        try:
            with reaching(piece.file.address):
                if path != piece.file.path or at > piece.start or self._stream is None:
                    self._close()
                    self._stream = self._open.enter_context(self.stream(piece.file))
                    at = 0
                while at < piece.start:
                    passed = len(self._stream.read(min(_SKIPPED, piece.start - at)))
                    if not passed:
                        break
                    at += passed
                content: bytes = self._stream.read(piece.size)
        except BaseException as error:
            self._close()
            if isinstance(error.__cause__, PackedError):
                return UndecodableError(str(error.__cause__))
            raise
        self._at = (piece.file.path, at + len(content))
        if len(content) != piece.size:
            return UndecodableError(f"only {len(content):,} of its {piece.size:,} bytes are there")
        return content

    def _close(self) -> None:
        self._open.close()
        self._stream, self._at = None, ("", 0)


__all__ = ["PACKED", "PackedError", "UnpackingReader", "is_packed", "unpacked"]
