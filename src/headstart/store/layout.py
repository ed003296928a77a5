"""Names and paths of a space on disk. Names read from files are checked here before use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.core.errors import StoreError

FORMAT = 1
ID_LENGTH = 32
ID_BYTES = 16

_HEX32 = re.compile(r"[0-9a-f]{32}\Z")
SHARD_SUFFIX = ".arrow"
RESULTS = "results"
MEMO = "files.sqlite"
REPAIR_HINT = "run 'headstart cache verify --repair'; only damaged rows are computed again"

PackedIds = npt.NDArray[np.uint64]
"""Item ids as raw bytes: (n, 2) uint64, 16 bytes per id. Only equality is meaningful."""


@dataclass(frozen=True)
class Layout:
    """The paths of one space."""

    root: Path
    key: str

    @property
    def folder(self) -> Path:
        """The folder of the space."""
        return self.root / self.key

    @property
    def description(self) -> Path:
        """The readable description, ``space.json``."""
        return self.folder / "space.json"

    @property
    def index(self) -> Path:
        """The SQLite index."""
        return self.folder / "index.sqlite"

    @property
    def shards(self) -> Path:
        """The folder of immutable shards."""
        return self.folder / "shards"

    @property
    def tmp(self) -> Path:
        """The folder for shards that are being written."""
        return self.folder / "tmp"

    @property
    def claims(self) -> Path:
        """The folder of lock files, one per claiming process."""
        return self.folder / "claims"

    @property
    def lock(self) -> Path:
        """The file on which every process that uses the space holds a shared lock."""
        return self.folder / "lock"

    def shard(self, name: str) -> Path:
        """Return the path of the shard called ``name`` (32 hexadecimal characters)."""
        return self.shards / f"{checked_hex(name, 'a shard name')}{SHARD_SUFFIX}"


def is_hex32(text: object) -> bool:
    """Whether ``text`` is a string of 32 lowercase hexadecimal characters."""
    return isinstance(text, str) and _HEX32.match(text) is not None


def checked_hex(text: object, what: str) -> str:
    """Return ``text`` if it is 32 lowercase hexadecimal characters.

    Raises:
        StoreError: otherwise. This keeps ``..`` and ``/`` out of every path.
    """
    if not is_hex32(text):
        raise StoreError(f"{what} is 32 lowercase hexadecimal characters, not {str(text)[:80]!r}")
    return str(text)


def pack_ids(ids: Sequence[str]) -> PackedIds:
    """Convert item ids to raw bytes.

    Args:
        ids: n strings of 32 lowercase hexadecimal characters.

    Returns:
        (n, 2) uint64, read-only.

    Raises:
        StoreError: an id has another form; the message names the first one and its position.
    """
    if isinstance(ids, str):
        raise StoreError("item ids are a sequence of strings, not one string")
    plain = set(map(type, ids)) <= {str} or all(isinstance(i, str) for i in ids)
    joined = "".join(ids) if plain and set(map(len, ids)) <= {ID_LENGTH} else ""
    try:
        raw = bytes.fromhex(joined)
    except ValueError:
        raw = b""
    # fromhex also accepts capitals and white space, hence the comparison.
    if len(raw) != ID_BYTES * len(ids) or raw.hex() != joined:
        place, bad = next((i, x) for i, x in enumerate(ids) if not is_hex32(x))
        raise StoreError(
            f"an item id is 32 lowercase hexadecimal characters, but id {place} is {bad!r:.80}",
            hint="use the content digest of the item",
        )
    return np.frombuffer(raw, dtype=np.uint64).reshape(-1, 2)


def unpack_ids(packed: PackedIds) -> list[str]:
    """Convert (n, 2) uint64 back to n hexadecimal strings."""
    text = np.ascontiguousarray(packed).tobytes().hex()
    return [text[i : i + ID_LENGTH] for i in range(0, len(text), ID_LENGTH)]


def checked_view(view: int) -> int:
    """Return ``view`` if it is an integer in [0, 2^31).

    Raises:
        StoreError: otherwise.
    """
    if isinstance(view, bool) or not isinstance(view, int | np.integer) or not 0 <= view < 2**31:
        raise StoreError(f"a view is an integer from 0 to 2147483647, not {view!r:.80}")
    return int(view)
