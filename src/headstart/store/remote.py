"""Sharing a space through any fsspec file system: immutable shards and a log of small records.

A record says which rows a shard holds. Records are numbered without gaps and created only if
absent, so all processes on all machines agree on the order of the log, in which the first
publication of a row wins. The local store is a mirror: its index follows the log, and shards are
fetched when they are first read.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

from headstart.core.addresses import open_file_system, why
from headstart.core.errors import StoreError
from headstart.core.files import replacing, sync_file, sync_folder, write_if_absent
from headstart.core.fingerprints import canonical_json
from headstart.core.scratch import locked_temporary
from headstart.store.folder import description_text
from headstart.store.index import Index, ShardEntry, columns_from_json
from headstart.store.layout import FORMAT, SHARD_SUFFIX, Layout, PackedIds, is_hex32, pack_ids
from headstart.store.shard import file_digest

_DIGITS = 12
_POSITION = "log"  # entry of the index's meta table: the number of the next record to read
_MEMORY_LOCK = threading.Lock()


class Remote:
    """One space on a remote file system.

    Args:
        url: the remote store, such as ``s3://bucket/features`` or ``file:///mnt/features``.
        layout: the local mirror of the space.
        description: the checked description.
        options: passed to the file system (credentials, endpoint).

    Raises:
        MissingExtraError: fsspec, or the package for this kind of URL, is not installed.
        StoreError: the URL has an unknown protocol.
    """

    def __init__(
        self,
        url: str,
        layout: Layout,
        description: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.url = url
        self.options = dict(options or {})
        self._layout, self._description = layout, description
        self._files, root = open_file_system(
            url, self.options, what="a remote store", kind=StoreError
        )
        self._root = f"{root.rstrip('/')}/{layout.key}"
        self._described = False

    # -- following the log -----------------------------------------------------------------------

    def sync(self, index: Index) -> int:
        """Register the records that the mirror does not know; return the next free number.

        Raises:
            StoreError: the log cannot be read, or a record is damaged.
        """
        position = _position(index)
        with self._errors("read the log"):
            self._files.invalidate_cache()
            numbers = self._numbers(position)
            paths = [self._record_path(number) for number in numbers]
            found = self._files.cat(paths) if paths else {}
        if not numbers:
            return position
        records = [
            self._parse(number, found[path]) for number, path in zip(numbers, paths, strict=True)
        ]
        with index.transaction() as connection:
            position = _position(index)
            for number, (entry, ids, view) in zip(numbers, records, strict=True):
                if number == position:
                    index.register(connection, entry, ids, view)
                    position += 1
            _set_position(connection, position)
        return max(position, numbers[-1] + 1)

    def fetch(self, entry: ShardEntry, index: Index) -> None:
        """Copy a shard into the mirror, whole and verified, or not at all.

        Raises:
            StoreError: it cannot be read, or the remote copy is damaged.
        """
        target = self._layout.shard(entry.name)
        with locked_temporary(self._layout.tmp, SHARD_SUFFIX) as temporary:
            with self._errors("fetch a shard"):
                self._files.get_file(self._shard_path(entry.name), str(temporary))
            if file_digest(temporary) != entry.name:
                raise StoreError(
                    f"shard {entry.name}{SHARD_SUFFIX} in {self.url} is damaged: its content does"
                    " not match its digest",
                    hint="remove it from the remote store and publish its rows again",
                )
            sync_file(temporary)
            with index.transaction() as connection:
                temporary.replace(target)
                sync_folder(self._layout.shards)
                connection.execute("UPDATE shards SET present = 1 WHERE name = ?", (entry.name,))

    # -- publishing ------------------------------------------------------------------------------

    def publish(
        self, index: Index, shard: Path, entry: ShardEntry, ids: PackedIds, view: int
    ) -> int:
        """Upload and record a shard, unless others have published all its rows in the meantime.

        Args:
            index: the mirror's index, which follows the log.
            shard: the local file.
            entry: the shard to record.
            ids: (m, 2) uint64.
            view: number of the view.

        Returns:
            The number of rows that this record is the first to name.
        """
        self._describe()
        number = self.sync(index)
        uploaded = False
        while new := int((index.locate(ids, view).shard < 0).sum()):
            with self._errors("upload a shard"):
                if not uploaded:
                    self._files.makedirs(f"{self._root}/shards", exist_ok=True)
                    self._upload(shard, self._shard_path(entry.name))
                    uploaded = True
                record = _record(number, entry, ids, view)
                if put_if_absent(self._files, self._record_path(number), record):
                    return new
            # Another process took this number. Its record may hold some of these rows.
            number = self.sync(index)
        return 0

    def _upload(self, shard: Path, target: str) -> None:
        # The name is the digest of the content: an object of the same name and size is the same.
        with contextlib.suppress(FileNotFoundError):
            if self._files.info(target)["size"] == shard.stat().st_size:
                return
        if _is_local(self._files):
            with shard.open("rb") as source, replacing(Path(target)) as copy:
                shutil.copyfileobj(source, copy)
        else:
            self._files.put_file(str(shard), target)

    def _describe(self) -> None:
        if self._described:
            return
        path, text = f"{self._root}/space.json", description_text(self._description)
        with self._errors("describe the space"):
            self._files.makedirs(f"{self._root}/log", exist_ok=True)
            if not put_if_absent(self._files, path, text) and self._files.cat_file(path) != text:
                raise StoreError(
                    f"{self.url}/{self._layout.key}/space.json is damaged: it describes another"
                    " space",
                    hint="remove it; the next run rewrites it",
                )
        self._described = True

    # -- names and records -----------------------------------------------------------------------

    def _shard_path(self, name: str) -> str:
        return f"{self._root}/shards/{self._layout.shard(name).name}"

    def _record_path(self, number: int) -> str:
        return f"{self._root}/log/{number:0{_DIGITS}d}.json"

    def _numbers(self, position: int) -> list[int]:
        """Return the numbers of the records from ``position`` on, up to the first gap."""
        try:
            names = self._files.ls(f"{self._root}/log", detail=False)
        except FileNotFoundError:
            return []
        stems = (name.rsplit("/", 1)[-1].removesuffix(".json") for name in names)
        there = {int(stem) for stem in stems if len(stem) == _DIGITS and stem.isdecimal()}
        numbers: list[int] = []
        while position + len(numbers) in there:
            numbers.append(position + len(numbers))
        return numbers

    def _parse(self, number: int, data: bytes) -> tuple[ShardEntry, PackedIds, int]:
        try:
            record = json.loads(data)
            digest = record.pop("digest")
            if digest != _digest(record) or record["number"] != number:
                raise ValueError("its content does not match its digest")
            if record["format"] != FORMAT or not is_hex32(record["shard"]):
                raise ValueError("it is not of this version of the format")
            text = record["ids"]
            ids = pack_ids([text[i : i + 32] for i in range(0, len(text), 32)])
            if len(ids) != record["rows"] or type(record["view"]) is not int:
                raise ValueError("its rows are not as many as it says")
            columns = columns_from_json(record["columns"])
            entry = ShardEntry(
                0, record["shard"], len(ids), int(record["bytes"]), columns, time.time(), False
            )
        except (ValueError, KeyError, TypeError, AttributeError, StoreError) as error:
            raise StoreError(
                f"record {self._record_path(number)} of {self.url} is damaged: {error}",
                hint="restore it from a backup; the records after it depend on it",
            ) from error
        return entry, ids, record["view"]

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            # Every file system has its own exceptions (botocore's are not OSErrors).
            reason, hint = why(error)
            raise StoreError(
                f"cannot {doing} in {self.url}: {reason}", hint=f"{hint}; what is committed stays"
            ) from error


def put_if_absent(files: Any, path: str, data: bytes) -> bool:
    """Create a small file, whole, only if it does not exist; return whether this call did.

    This uses a hard link on a local disk, a lock in memory, and elsewhere the conditional put of
    the service (``If-None-Match: *`` on S3).
    """
    if _is_local(files):
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        return write_if_absent(place, data)
    if type(files).__name__ == "MemoryFileSystem":
        with _MEMORY_LOCK:
            if files.exists(path):
                return False
            files.pipe_file(path, data)
            return True
    try:
        files.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    except Exception as error:
        if any(word in str(error) for word in ("PreconditionFailed", "pre-conditions", "412")):
            return False
        raise
    return True


def _is_local(files: Any) -> bool:
    return type(files).__name__ == "LocalFileSystem"


def _record(number: int, entry: ShardEntry, ids: PackedIds, view: int) -> bytes:
    record = {
        "format": FORMAT,
        "number": number,
        "shard": entry.name,
        "bytes": entry.bytes,
        "rows": len(ids),
        "view": view,
        "columns": json.dumps([spec.to_json() for spec in entry.columns]),
        "ids": ids.tobytes().hex(),
    }
    return json.dumps(record | {"digest": _digest(record)}).encode()


def _digest(record: Mapping[str, Any]) -> str:
    return str(xxhash.xxh3_128(canonical_json(record).encode()).hexdigest())


def _position(index: Index) -> int:
    found = index.database.query("SELECT value FROM meta WHERE name = ?", _POSITION)
    if not found:
        return 0
    ((value,),) = found
    if not str(value).isdecimal():
        raise index.database.damaged("its position in the remote log is not a number")
    return int(value)


def _set_position(connection: sqlite3.Connection, position: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_POSITION, str(position)))
