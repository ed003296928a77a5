"""Items: where the content of each item comes from, and its id.

An item's *content* is the bytes of a file, an array of samples, or a text; the
:class:`~headstart.data.inputs.Inputs` of a backbone decode it. Its *id* is a digest of the content
and of nothing else: no name, no position, no label. So renamed, re-ordered or duplicated items
keep their ids, and the same file found in a folder and in a Parquet table has the same id.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.addresses import is_address
from headstart.core.errors import UnreachableError
from headstart.core.fingerprints import fingerprint
from headstart.core.progress import Reporter, SilentReporter
from headstart.data.content import Content, UndecodableError, digest
from headstart.data.elsewhere import read_address_once
from headstart.data.item_files import DigestMemo, file_digest, read_file
from headstart.data.levels import ValueRange

_NOUNS = {"image": "image", "audio": "sound"}
_CHUNK = 64  # items per task: small items cost less than handing one task to a thread


class Items(ABC):
    """A fixed sequence of contents. Splits select from it; digests are computed once."""

    verify = True
    """Whether :meth:`checked` checks that the content is still what the id was computed from."""

    encoded = False
    """Whether contents are the bytes of image files."""

    kind = ""
    """What the contents are, where that is known: ``image``, ``audio`` or ``text``."""

    far = False
    """Whether contents lie elsewhere, so that reading them twice is to be avoided."""

    def __init__(self, length: int) -> None:
        self._digests: list[str | None] = [None] * length

    def __len__(self) -> int:
        return len(self._digests)

    @abstractmethod
    def content(self, i: int) -> Content:
        """Return the content of item ``i``.

        Raises:
            UndecodableError: with the reason.
        """

    @abstractmethod
    def origin(self, i: int) -> str:
        """Return where item ``i`` is, as a person would look for it."""

    def digest(self, i: int) -> str:
        """Return the id of item ``i``; computed at the first call.

        An item that cannot even be read gets an id made from its origin: unique, and never that
        of any content. Decoding it fails, so no row is ever stored under this id.
        """
        known = self._digests[i]
        if known is None:
            try:
                known = self._compute_digest(i)
            except UnreachableError:
                raise
            except Exception:  # decoding it says why, once for each item
                known = fingerprint(f"unreadable\0{self.origin(i)}")
            self._digests[i] = known
        return known

    def _compute_digest(self, i: int) -> str:
        return digest(self.content(i))

    def checked(self, i: int) -> Content:
        """Return the content of item ``i``, if it is still what the id was computed from.

        Raises:
            UndecodableError: with the reason.
        """
        content = self.content(i)
        known = self._digests[i]
        if self.verify and known is not None and digest(content) != known:
            raise UndecodableError("its content has changed since it was identified")
        return content

    def digests(self, rows: NDArray[np.int64], reporter: Reporter | None = None) -> tuple[str, ...]:
        """Return the ids of ``rows``, computing in threads those not known yet."""
        todo = [int(i) for i in np.unique(rows) if self._digests[i] is None]
        if todo:
            chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
            with (
                (reporter or SilentReporter()).task("Identifying", len(todo), "items") as task,
                ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
            ):
                for chunk in pool.map(self._digest_chunk, chunks):
                    task.advance(chunk)
        return tuple(self.digest(int(i)) for i in rows)

    def stretches(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield the positions of ``rows``, in order, in parts that are best done one by one."""
        yield np.arange(len(rows), dtype=np.int64)

    def _digest_chunk(self, chunk: list[int]) -> int:
        for i in chunk:
            self.digest(i)
        return len(chunk)


class FileItems(Items):
    """Image files.

    Args:
        paths: the files.
        origins: what to call them.
        memo: remembers digests between sessions.
    """

    encoded = True
    kind = "image"

    def __init__(
        self, paths: Sequence[Path], origins: Sequence[str], memo: DigestMemo | None = None
    ) -> None:
        super().__init__(len(paths))
        self._paths = tuple(paths)
        self._origins = tuple(origins)
        self._memo = memo

    def content(self, i: int) -> bytes:
        """Read the file."""
        return read_file(self._paths[i])

    def file(self, i: int) -> Path | None:
        """Return the file of item ``i``."""
        return self._paths[i]

    def origin(self, i: int) -> str:
        """Return the path, relative to the source where it is below it."""
        return self._origins[i]

    def _compute_digest(self, i: int) -> str:
        return file_digest(self._paths[i], self._memo)


class ArrowItems(Items):
    """Image bytes in a column of an Arrow table, with paths where a row has no bytes.

    Args:
        data: chunked array of ``binary`` / ``large_binary``, or None.
        paths: chunked array of ``string``, or None.
        folder: what relative paths start from.
        table: the table's name, for origins.
        memo: remembers digests of files between sessions.
    """

    verify = False  # the table in memory is immutable
    encoded = True
    kind = "image"

    def __init__(
        self, data: Any, paths: Any, folder: Path, table: str, memo: DigestMemo | None = None
    ) -> None:
        super().__init__(len(data if data is not None else paths))
        self._data, self._paths = data, paths
        self._folder, self._table, self._memo = folder, table, memo

    def content(self, i: int) -> bytes:
        """Copy the bytes out of the table, or read the file it names."""
        if self._data is not None:
            data: bytes | None = self._data[i].as_py()
            if data is not None:
                return data
        if (address := self.address(i)) is not None:
            return read_address_once(address)
        path = self._path(i)
        if path is None:
            raise UndecodableError(f"the table has no {_NOUNS[self.kind]} in this row")
        return read_file(path)

    @property
    def column(self) -> Any:
        """The column of bytes; None where the table holds paths only."""
        return self._data

    def file(self, i: int) -> Path | None:
        """Return the file that row ``i`` names; None where it names none."""
        return self._path(i)

    def origin(self, i: int) -> str:
        """Return ``"train.parquet row 12"``, or the path where the table holds paths only."""
        if self._data is None and (path := self._paths[i].as_py()):
            return str(path)
        return f"{self._table} row {i}"

    def address(self, i: int) -> str | None:
        """Return the address elsewhere that row ``i`` names; None where it names none."""
        text = self._paths[i].as_py() if self._paths is not None else None
        return text if is_address(text) else None

    def _path(self, i: int) -> Path | None:
        text: str | None = self._paths[i].as_py() if self._paths is not None else None
        if not text or is_address(text):
            return None
        # tables written on Windows name their files with backslashes
        return self._folder / (text if os.sep == "\\" else text.replace("\\", "/"))

    def _compute_digest(self, i: int) -> str:
        if self._data is not None and self._data[i].is_valid:
            return digest(self.content(i))
        path = self._path(i)
        return digest(self.content(i)) if path is None else file_digest(path, self._memo)


class SoundFileItems(FileItems):
    """Sound files."""

    encoded = False
    kind = "audio"


class TextFileItems(FileItems):
    """Text files."""

    encoded = False
    kind = "text"


class TextItems(Items):
    """Texts in a column of an Arrow table, or in a list.

    Args:
        texts: ``texts[i]`` is a string, an Arrow string, or None.
        where: what to call the table or list, and a row of it, for origins ("train.csv row").
    """

    verify = False
    kind = "text"

    def __init__(self, texts: Any, where: str) -> None:
        super().__init__(len(texts))
        self._texts, self._where = texts, where

    def content(self, i: int) -> str:
        """Return the text."""
        value = self._texts[i]
        text: str | None = value.as_py() if hasattr(value, "as_py") else value
        if text is None:
            raise UndecodableError("there is no text in this row")
        return text

    def origin(self, i: int) -> str:
        """Return ``"train.csv row 12"``."""
        return f"{self._where} {i}"


class SoundItems(ArrowItems):
    """Bytes of sound files in a column of an Arrow table, or their paths."""

    encoded = False
    kind = "audio"


class SampleItems(Items):
    """Samples in one array; each item is converted on access.

    Args:
        arrays: ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``.
        convert: one array → ``(h, w, 3) uint8``, or its samples as they are.
        name: what to call the array, for origins.
    """

    verify = False
    kind = "image"

    def __init__(self, arrays: NDArray[Any], convert: Any, name: str) -> None:
        super().__init__(len(arrays))
        self._arrays, self._convert, self._name = arrays, convert, name

    def content(self, i: int) -> NDArray[Any]:
        """Convert one array."""
        samples: NDArray[Any] = self._convert(self._arrays[i])
        return samples

    def origin(self, i: int) -> str:
        """Return ``"train item 12"``."""
        return f"{self._name} item {i}"


class ObjectItems(Items):
    """Items of a user's own sequence, fetched one at a time: its code need not be thread-safe.

    Args:
        length: number of items.
        fetch: index → content; may raise anything.
        name: what to call the sequence, for origins.
        encoded: whether contents are the bytes of image files.
    """

    def __init__(self, length: int, fetch: Any, name: str, *, encoded: bool = False) -> None:
        super().__init__(length)
        self.encoded = encoded
        self._fetch, self._name = fetch, name
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def content(self, i: int) -> Content:
        """Fetch and convert one item."""
        try:
            with self._lock:
                content: Content = self._fetch(i)
        except UndecodableError:
            raise
        except Exception as error:
            raise UndecodableError(f"{type(error).__name__}: {error}") from error
        return content

    def origin(self, i: int) -> str:
        """Return ``"train item 12"``."""
        return f"{self._name} item {i}"


class RangedItems(Items):
    """Image files whose samples are scaled from a range of values: to 8-bit levels, or to floats.

    The id is made of the file's own id and the range, so that files are not decoded to identify
    them, and rows of other ranges are never mixed up.

    Args:
        items: the files.
        value_range: the values of black and white.
        convert: bytes of a file and the range → ``(h, w, 3) uint8``, or floats of all bands.
    """

    kind = "image"

    def __init__(
        self,
        items: Items,
        value_range: ValueRange,
        convert: Callable[[bytes, ValueRange], NDArray[Any]],
    ) -> None:
        super().__init__(len(items))
        self._items, self._range, self._convert = items, value_range, convert

    def content(self, i: int) -> NDArray[Any]:
        """Decode and scale one file."""
        return self._scaled(self._items.content(i))

    def checked(self, i: int) -> NDArray[Any]:
        """Decode and scale one file, if it is still what the id was computed from."""
        return self._scaled(self._items.checked(i))

    def origin(self, i: int) -> str:
        """Return where the file is."""
        return self._items.origin(i)

    def _compute_digest(self, i: int) -> str:
        low, high = self._range
        return fingerprint(f"headstart value_range {low!r} {high!r}\0{self._items.digest(i)}")

    def _scaled(self, content: Content) -> NDArray[Any]:
        if not isinstance(content, bytes):
            raise UndecodableError("not the bytes of an image file")
        return self._convert(content, self._range)
