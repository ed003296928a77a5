"""Small results by key: named arrays and plain JSON values, stored whole and verified on reading.

Results that take seconds to compute and little space to keep (trained heads, baselines, the state
of an interrupted study) are one safetensors file each, named by its key. The metadata holds the
JSON values and a digest of everything. A result that was damaged, edited or swapped fails the
digest, counts as absent, and is computed again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy
import xxhash
from safetensors import SafetensorError

from headstart.core.errors import HeadstartError, StoreError
from headstart.core.files import clear_errors, last_used, make_folder, share, write_bytes
from headstart.core.fingerprints import canonical_json, fingerprint
from headstart.store import errors
from headstart.store.errors import NewerFormatError
from headstart.store.layout import checked_hex, is_hex32

_T = TypeVar("_T")
_FORMAT = "1"
SUFFIX = ".safetensors"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, eq=False)
class Result:
    """The content of one result.

    Attributes:
        arrays: arrays by name, of any shape; read-only if they were read from disk.
        values: plain JSON values by name.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultInfo:
    """One result on disk.

    Attributes:
        key: 32 hexadecimal characters, the stem of the file name.
        path: the file.
        nbytes: its size.
        last_used: when it was last read or written, in seconds since the epoch.
    """

    key: str
    path: Path
    nbytes: int
    last_used: float


class Results:
    """Results of one kind in a folder. Get it from :meth:`Store.results`.

    Several threads and processes may use it: a key determines the content, whoever computes it.

    Args:
        folder: created by the first :meth:`put`.
        below: where results are looked for as well, and none is put.
    """

    def __init__(self, folder: Path, below: Results | None = None) -> None:
        self.folder, self._below = folder, below

    def get(self, key: str) -> Result | None:
        """Return the result of a key; None if it is absent or damaged."""
        path = self._path(key)
        try:
            result = _decode(key, path.read_bytes())
        except (*_UNREADABLE, NewerFormatError, SafetensorError):
            return None if self._below is None else self._below.get(key)
        with contextlib.suppress(OSError):
            os.utime(path)
        return result

    def put(
        self,
        key: str,
        arrays: Mapping[str, np.ndarray] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a result durably; a reader sees all of it or nothing.

        Args:
            key: from :func:`result_key`.
            arrays: named arrays of any shapes.
            values: plain JSON values.

        Raises:
            StoreError: the disk is full or not writable.
        """
        content = _encode(key, arrays or {}, values or {})
        with clear_errors(f"store a result in {self.folder}", StoreError):
            self.folder.parent.parent.mkdir(parents=True, exist_ok=True)
            make_folder(self.folder.parent)
            make_folder(self.folder)
            write_bytes(self._path(key), content)
            share(self._path(key))

    def once(
        self,
        key: str,
        compute: Callable[[], _T],
        pack: Callable[[_T], Result],
        unpack: Callable[[Result], _T],
    ) -> tuple[_T, bool]:
        """Return the object stored under a key, or compute and store it.

        An object that cannot be stored (full disk, read-only cache) is returned all the same; only
        a later run has to compute it again.

        Args:
            key: from :func:`result_key`.
            compute: makes the object.
            pack, unpack: convert it to a result and back. If ``unpack`` fails, as it may on a
                result of another version, the object is computed again.

        Returns:
            The object, and whether it was found.
        """
        found = self.get(key)
        if found is not None:
            with contextlib.suppress(*_UNREADABLE, HeadstartError):
                return unpack(found), True
        made = compute()
        packed = pack(made)
        with contextlib.suppress(StoreError):
            self.put(key, packed.arrays, packed.values)
        return made, False

    def check(self, key: str) -> None:
        """Check one result.

        Raises:
            DamagedError: it does not match its digest.
            UnreadableError: it cannot be read now, or is of a newer format.
        """
        path = self._path(key)
        try:
            _decode(key, path.read_bytes())
        except OSError as error:
            raise errors.unreadable(f"the result {path}", error) from error
        except NewerFormatError:
            raise
        except (*_UNREADABLE, SafetensorError) as error:
            raise errors.damaged(f"the result {path}", str(error)) from error

    def remove(self, key: str) -> None:
        """Remove the result of a key, if there is one."""
        with clear_errors(f"remove a result in {self.folder}", StoreError):
            self._path(key).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[ResultInfo]:
        """Yield all results by key, ignoring any other file."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")) if self.folder.is_dir() else []:
            if is_hex32(path.stem) and path.is_file():
                stat = path.stat()
                yield ResultInfo(path.stem, path, stat.st_size, last_used(stat))

    def _path(self, key: str) -> Path:
        return self.folder / f"{checked_hex(key, 'the key of a result')}{SUFFIX}"


def result_key(description: Mapping[str, Any]) -> str:
    """Return the key of everything that a result depends on.

    Args:
        description: plain values, NumPy scalars and arrays; an array counts by its type, shape and
            content.

    Raises:
        TypeError: a value has no unambiguous description.
    """
    return fingerprint(canonical_json(description, compact=False, default=_described))


def _described(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray):
        about = {"dtype": str(value.dtype), "shape": list(value.shape)}
        if value.dtype.hasobject:  # its bytes are addresses
            return {**about, "values": value.tolist()}
        return {**about, "fingerprint": fingerprint(value.tobytes())}
    kind = type(value).__name__
    raise TypeError(f"the key of a result consists of plain values and arrays, not a {kind}")


def _encode(key: str, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> bytes:
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps(values, ensure_ascii=False)
    metadata = {"format": _FORMAT, "key": key, "values": text}
    metadata["digest"] = _digest(key, text, plain)
    return bytes(safetensors.numpy.save(plain, metadata))


def _decode(key: str, content: bytes) -> Result:
    """Parse and check a file.

    Raises:
        ValueError, KeyError, TypeError, SafetensorError: it is not a sound result of this key.
    """
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header["__metadata__"]
    arrays = safetensors.numpy.load(content)
    if errors.is_newer(metadata["format"]):
        raise errors.newer("the result", metadata["format"])
    if metadata["format"] != _FORMAT or metadata["key"] != key:
        raise ValueError("it is another result")
    if metadata["digest"] != _digest(key, metadata["values"], arrays):
        raise ValueError("its content does not match its digest")
    return Result(arrays, json.loads(metadata["values"]))


def _digest(key: str, text: str, arrays: Mapping[str, np.ndarray]) -> str:
    shapes = [[name, str(arrays[name].dtype), arrays[name].shape] for name in sorted(arrays)]
    state = xxhash.xxh3_128(canonical_json([_FORMAT, key, text, shapes]).encode())
    for name in sorted(arrays):
        state.update(arrays[name].data)
    return str(state.hexdigest())
