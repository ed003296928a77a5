"""What a cache remembers of trials of engines, and the programs that engines have made.

Programs are machine code. They are kept in a folder that is this user's alone, and nothing runs
that was not written there by this user on this machine, whole and unchanged.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.core.errors import StoreError
from headstart.core.files import write_bytes
from headstart.core.fingerprints import sha256_of_file
from headstart.core.private import is_private_file, private_folder
from headstart.store import Store, result_key

FOLDER = "programs"
_SUFFIX, _SEAL = ".pt2", ".json"
_MOST_BYTES = 2 * 2**30
"""All programs together; the ones that were not used for longest go first."""


class Plans:
    """Results of trials among the small results of a store; what cannot be kept is forgotten.

    Args:
        store: of the cache.
        places: folders that programs may be kept in; the first that is this user's alone is taken.

    Attributes:
        shelf: of programs; None where no folder is this user's alone.
    """

    def __init__(self, store: Store, places: Sequence[Path] = ()) -> None:
        self._results = store.results("plans")
        self._places = tuple(places)

    @property
    def shelf(self) -> Programs | None:
        """Where programs are kept; None: nowhere."""
        for place in self._places:
            folder = private_folder(place / FOLDER)
            if folder is not None:
                return Programs(folder)
        return None

    def get(self, about: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return what is remembered; None: nothing."""
        found = self._results.get(result_key(about))
        return None if found is None else found.values

    def put(self, about: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Remember values."""
        with contextlib.suppress(StoreError):
            self._results.put(result_key(about), values=values)


class Programs:
    """Programs in a private folder, each with a seal: its digest, and what it is for.

    Args:
        folder: from :func:`headstart.core.private.private_folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, about: Mapping[str, Any]) -> Path | None:
        """Return a kept program that is whole and this user's; None: there is none.

        Args:
            about: everything that it depends on, in plain values. The machine is added here.
        """
        path, seal = self._paths(about)
        try:
            if not (is_private_file(path) and is_private_file(seal)):
                return None
            if json.loads(seal.read_bytes()) != _seal(path):
                self._remove(path)
                return None
            os.utime(path)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return path

    def keep(self, about: Mapping[str, Any], make: Callable[[Path], None]) -> Path | None:
        """Keep a program.

        Args:
            about: as for :meth:`find`.
            make: writes it to a path whose name ends in ``.pt2``, in the same folder.

        Returns:
            Where it lies; None: it cannot be kept.
        """
        path, seal = self._paths(about)
        fresh = path.with_name(f"{path.stem}.{os.getpid()}{_SUFFIX}")
        try:
            make(fresh)
            fresh.chmod(0o600)
            seal.unlink(missing_ok=True)
            fresh.replace(path)
            write_bytes(seal, json.dumps(_seal(path)).encode())
            seal.chmod(0o600)
        except OSError:
            return None
        finally:
            fresh.unlink(missing_ok=True)
        self._clear(path)
        return self.find(about)

    def _paths(self, about: Mapping[str, Any]) -> tuple[Path, Path]:
        key = result_key({**about, "machine id": _machine(), "user": os.geteuid()})
        return self.folder / f"{key}{_SUFFIX}", self.folder / f"{key}{_SEAL}"

    def _clear(self, keep: Path) -> None:
        """Remove programs that were not used for long, until the others fit."""
        found = [(path.stat(), path) for path in self.folder.glob(f"*{_SUFFIX}") if path != keep]
        room = _MOST_BYTES - keep.stat().st_size
        for stat, path in sorted(found, key=lambda each: -each[0].st_mtime):
            room -= stat.st_size
            if room < 0:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.with_suffix(_SEAL).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def _seal(path: Path) -> dict[str, str]:
    """Return what the seal of a program says: what it is called, and what it holds."""
    return {"key": path.stem, "sha256": sha256_of_file(path)}


def _machine() -> str:
    """Return what tells this machine from another that sees the same disk."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        with contextlib.suppress(OSError):
            return f"{path.read_text().strip()} {platform.node()}"
    return platform.node()


__all__ = ["FOLDER", "Plans", "Programs"]
