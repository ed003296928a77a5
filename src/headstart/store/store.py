"""A folder of feature spaces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.store.space import Space


class Store:
    """A folder of spaces, one a description.

    Args:
        root: the folder. Nothing is created before the first append.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def space(self, description: Mapping[str, Any]) -> Space:
        """Return the space of a description.

        Args:
            description: everything the rows depend on, as plain JSON values.

        Raises:
            StoreError: a value is not a plain JSON value; its path is named.
        """
        return Space(self.root, description)
