"""The study's own state on disk: what was computed before an interruption is not computed again.

Rows that depend on their batch or on chance never enter the feature cache. They are kept here,
each under a digest of everything that decides it, until the study that needs them is finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from headstart.store import Results


class Workspace:
    """Arrays under keys, and folders for trainings that keep a state of their own.

    Args:
        results: where they are kept.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self._used: set[str] = set()

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Return what was kept under a key; None if nothing was, or if the file is damaged."""
        self._used.add(key)
        found = self.results.get(key)
        return None if found is None else dict(found.arrays)

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays under a key; a reader never sees half of them.

        Raises:
            StoreError: the disk forbids it.
        """
        self._used.add(key)
        self.results.put(key, arrays)

    def subfolder(self, key: str) -> Path:
        """Return the path of a folder under a key, for work that keeps a state of its own."""
        self._used.add(key)
        return self.results.folder / f"{key}.run"

    def remove_subfolder(self, key: str) -> None:
        """Remove the folder under a key, if it is there."""
        shutil.rmtree(self.results.folder / f"{key}.run", ignore_errors=True)

    def clear(self) -> None:
        """Remove what this study used; other studies' state stays."""
        for key in self._used:
            self.results.remove(key)
            self.remove_subfolder(key)
        self._used.clear()
        try:
            self.results.folder.rmdir()
        except OSError:
            pass  # not empty, or never made


__all__ = ["Workspace"]
