"""The study's own state on disk: what was computed before an interruption is not computed again.

Rows that depend on their batch or on chance never enter the feature cache. They are kept here,
each under a digest of everything that decides it, until the study that needs them is finished.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import xxhash

from headstart.core.errors import StoreError

_DIGEST = "xxh3"


class Workspace:
    """Arrays under keys, in one folder of safetensors files.

    Args:
        folder: made when something is first kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._used: set[str] = set()

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Return what was kept under a key; None if nothing was, or if the file is damaged."""
        self._used.add(key)
        path = self._path(key)
        try:
            content = path.read_bytes()
            arrays = safetensors.numpy.load(content)
            with safetensors.safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
        except (OSError, safetensors.SafetensorError):
            return None
        return arrays if metadata.get(_DIGEST) == _digest(arrays) else None

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays under a key; a reader never sees half of them.

        Raises:
            StoreError: the disk forbids it.
        """
        self._used.add(key)
        plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        path = self._path(key)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(safetensors.numpy.save(plain, {_DIGEST: _digest(plain)}))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(
                f"the state of the comparison cannot be kept in {self.folder} ({error.strerror})",
                hint="free some space, or give another --cache",
            ) from error

    def subfolder(self, key: str) -> Path:
        """Return the path of a folder under a key, for work that keeps a state of its own."""
        self._used.add(key)
        return self.folder / f"{key}.run"

    def remove_subfolder(self, key: str) -> None:
        """Remove the folder under a key, if it is there."""
        shutil.rmtree(self.folder / f"{key}.run", ignore_errors=True)

    def clear(self) -> None:
        """Remove what this study used; other studies' state stays."""
        for key in self._used:
            self._path(key).unlink(missing_ok=True)
            self.remove_subfolder(key)
        self._used.clear()
        try:
            self.folder.rmdir()
        except OSError:
            pass  # not empty, or never made

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    state = xxhash.xxh3_128()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name} {array.dtype} {array.shape}".encode())
        state.update(array.tobytes())
    return state.hexdigest()


__all__ = ["Workspace"]
