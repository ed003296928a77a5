"""Items whose contents are pieces of files elsewhere: objects, or members of tar files.

Contents are read many at a time, in the order of the items, and kept until there are too many: what
was read to identify an item need not be read again to decode it, as long as both follow each other.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.addresses import FarFile
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.wording import format_bytes
from headstart.data.content import UndecodableError, digest
from headstart.data.elsewhere import Piece, Reader
from headstart.data.item_files import MAX_FILE, DigestMemo
from headstart.data.items import Items

KEPT_BYTES = 256 * 2**20
"""Contents that are kept for the next reader, at most."""
STRETCH_BYTES = 128 * 2**20
"""A stretch of items that is identified and computed before the next one is read."""
_STRETCH_ITEMS = 8192
_TOGETHER_BYTES, _TOGETHER = 16 * 2**20, 64
_NEAR = 8  # items that a reader in order may pass over: those of another split
_NOWHERE = -(2**62)  # the first item that is read says nothing of the next
_UNKNOWN_SIZE = 256 * 2**10  # what an item of unknown size is taken for


class PieceItems(Items):
    """Contents in files elsewhere.

    Args:
        reader: reads the files.
        files: which hold the contents.
        file: ``(n,) int``, the file of each item.
        start, size: ``(n,) int64``, its place there; None: each item is a file.
        origins: what to call the items.
        kind: ``image`` or ``text``.
        memo: remembers digests between sessions, for items that are files with a version.
        digests: of the items, where they are known; None for one that is not.
    """

    far = True

    def __init__(
        self,
        reader: Reader,
        files: Sequence[FarFile],
        file: NDArray[Any],
        start: NDArray[np.int64] | None,
        size: NDArray[np.int64] | None,
        origins: Sequence[str],
        *,
        kind: str = "image",
        memo: DigestMemo | None = None,
        digests: Sequence[str | None] | None = None,
    ) -> None:
        super().__init__(len(file))
        self.kind, self.encoded = kind, kind == "image"
        self._reader, self._files, self._file = reader, tuple(files), np.asarray(file, np.int64)
        self._start, self._size, self._memo = start, size, memo
        self._origins = tuple(origins)
        if digests is not None:
            self._digests = list(digests)
        self._open()

    def _open(self) -> None:
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_bytes, self._at = 0, _NOWHERE
        self._guard, self._reading = threading.Lock(), threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_kept", "_kept_bytes", "_at", "_guard", "_reading")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def origin(self, i: int) -> str:
        """Return where an item is, below its source."""
        return self._origins[i]

    def content(self, i: int) -> bytes:
        """Return the bytes of one item; those behind it are read ahead where they follow."""
        found: bytes | UndecodableError | None = self._known(i)
        if found is None:
            with self._reading:
                found = self._known(i) or self._read(self._ahead(i), i)
        if isinstance(found, UndecodableError):
            raise found
        return found

    def keep(self, i: int, content: bytes) -> None:
        """Keep a content that was read anyhow, until there are too many."""
        with self._guard:
            if i not in self._kept:
                self._kept_bytes += len(content)
            self._kept[i] = content
            while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
                _, old = self._kept.popitem(last=False)
                self._kept_bytes -= len(old)

    def stretches(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield positions of ``rows``, in order, so many as are read once and kept meanwhile."""
        yield from _by_bytes([self._bytes(int(i)) for i in rows], STRETCH_BYTES, _STRETCH_ITEMS)

    def digests(self, rows: NDArray[np.int64], reporter: Reporter | None = None) -> tuple[str, ...]:
        """Return the ids of ``rows``; what is not remembered is read, many at a time."""
        todo = [int(i) for i in np.unique(rows) if self._digests[i] is None]
        todo = [i for i in todo if not self._remembered(i)]
        if todo:
            groups = _by_bytes([self._bytes(i) for i in todo], _TOGETHER_BYTES, _TOGETHER)
            with (
                (reporter or SilentReporter()).task("Identifying", len(todo), "items") as task,
                ThreadPoolExecutor(1) as pool,
            ):
                waiting = None
                for group in groups:
                    chosen = [todo[at] for at in group]
                    with self._reading:
                        self._read([i for i in chosen if self._known(i) is None], chosen[0])
                    if waiting is not None:
                        task.advance(waiting.result())
                    waiting = pool.submit(self._digest_chunk, chosen)  # beside the next reading
                if waiting is not None:
                    task.advance(waiting.result())
            if self._memo is not None:
                self._memo.flush()
        return tuple(self.digest(int(i)) for i in rows)

    def _compute_digest(self, i: int) -> str:
        found = digest(self.content(i))
        if self._memo is not None and self._is_versioned(i):
            self._memo.remember(self._files[self._file[i]], found)
        return found

    def _remembered(self, i: int) -> bool:
        if self._memo is None or not self._is_versioned(i):
            return False
        found = self._memo.lookup(self._files[self._file[i]])
        if found is not None:
            self._digests[i] = found
        return found is not None

    def _is_versioned(self, i: int) -> bool:
        return self._start is None and bool(self._files[self._file[i]].version)

    def _known(self, i: int) -> bytes | None:
        with self._guard:
            return self._kept.get(i)

    def _bytes(self, i: int) -> int:
        size = self._files[self._file[i]].size if self._size is None else int(self._size[i])
        return size if size >= 0 else _UNKNOWN_SIZE

    def _ahead(self, i: int) -> list[int]:
        """Return an item, and those behind it if the last reader stopped shortly before it."""
        follows = self._at < i <= self._at + _NEAR
        last = min(len(self), i + _TOGETHER) if follows else i + 1
        chosen: list[int] = []
        total = 0
        for j in range(i, last):
            total += self._bytes(j)
            if chosen and total > _TOGETHER_BYTES:
                break
            if self._known(j) is None:
                chosen.append(j)
        return chosen

    def _read(self, chosen: list[int], wanted: int) -> bytes | UndecodableError:
        """Read and keep some items; return one of them."""
        large = {i for i in chosen if self._bytes(i) > MAX_FILE}
        small = [i for i in chosen if i not in large]
        found = self._reader.read([self._piece(i) for i in small]) if small else []
        answer: bytes | UndecodableError = UndecodableError(
            f"{format_bytes(self._bytes(wanted))}, more than the limit of {format_bytes(MAX_FILE)}"
            " for one item"
        )
        for i, content in zip(small, found, strict=True):
            if isinstance(content, bytes):
                self.keep(i, content)
            if i == wanted:
                answer = content
        self._at = max(chosen, default=self._at)
        return answer

    def _piece(self, i: int) -> Piece:
        file = self._files[self._file[i]]
        if self._start is None or self._size is None:
            return Piece(file, 0, -1)
        return Piece(file, int(self._start[i]), int(self._size[i]))


def _by_bytes(sizes: Sequence[int], most: int, items: int) -> Iterator[NDArray[np.int64]]:
    """Yield successive positions whose sizes come to no more than ``most``, one at least."""
    first = total = 0
    for i, size in enumerate(sizes):
        if i > first and (total + size > most or i - first >= items):
            yield np.arange(first, i, dtype=np.int64)
            first, total = i, 0
        total += size
    if len(sizes):
        yield np.arange(first, len(sizes), dtype=np.int64)


__all__ = ["KEPT_BYTES", "PieceItems"]
