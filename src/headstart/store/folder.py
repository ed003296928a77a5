"""The folder of one space: created by the first write, protected from removal while in use."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from headstart.core.errors import StoreError
from headstart.core.files import (
    clear_errors,
    locked_temporary,
    remove_abandoned,
    sync_file,
    sync_folder,
)
from headstart.core.locks import FileLock, try_lock
from headstart.store import errors
from headstart.store.describe import space_key
from headstart.store.errors import UnreadableError
from headstart.store.index import Index
from headstart.store.layout import FORMAT, REPAIR_HINT, SHARD_SUFFIX, Layout
from headstart.store.merge import clear_retired


class SpaceFolder:
    """A space on disk, opened on first use.

    From then on it holds a shared lock until it is garbage collected, so that ``gc`` in any process
    leaves the space alone.

    Args:
        layout: the paths.
        description: the checked description.
        touch: whether opening counts as a use, on which ``gc`` decides.
    """

    def __init__(
        self, layout: Layout, description: Mapping[str, Any], *, touch: bool = True
    ) -> None:
        self._touch = touch
        self.layout = layout
        self._description = description
        self._lease: FileLock | None = None
        self._index: Index | None = None
        self._guard = threading.RLock()

    def existing(self) -> Index | None:
        """Return the index, or None if the space is not on disk yet.

        Raises:
            StoreError: the space exists but is damaged or unreadable.
        """
        layout = self.layout
        if self._index is None:
            with clear_errors(f"open the space in {layout.folder}", StoreError):
                # exists() would take a folder that we may not enter for a missing one.
                for path in (layout.description, layout.index):
                    try:
                        path.stat()
                    except FileNotFoundError:
                        continue
                    return self.created()
            return None
        return self._index

    def created(self) -> Index:
        """Return the index, creating folder, description and index if they are missing.

        Raises:
            StoreError: the folder cannot be created, or the space is damaged.
        """
        with self._guard:
            while self._index is None:
                lease = self._take_lease()
                if lease is None:
                    time.sleep(0.02)  # gc is deciding about this space
                    continue
                try:
                    self._index = self._open_index()
                except BaseException:
                    lease.release()  # now, or a repair would find the space in use
                    raise
                self._lease = lease
                with contextlib.suppress(OSError):
                    if self._touch:
                        os.utime(self.layout.lock)  # the time of the last use, for gc
        return self._index

    def close(self) -> None:
        """Close the index and release the lock; the next use opens them again."""
        with self._guard:
            if self._index is not None:
                self._index.close()
            if self._lease is not None:
                self._lease.release()
            self._index = self._lease = None

    def _take_lease(self) -> FileLock | None:
        layout = self.layout
        while True:
            with clear_errors(f"create the space in {layout.folder}", StoreError):
                if not layout.shards.exists():
                    layout.shards.mkdir(parents=True, exist_ok=True)
                    sync_folder(layout.root)
            try:
                with clear_errors(f"open the space in {layout.folder}", StoreError):
                    return try_lock(layout.lock, exclusive=False)
            except StoreError:
                if layout.folder.exists():
                    raise
                # gc has just removed the folder: create it again

    def _open_index(self) -> Index:
        layout = self.layout
        writable = os.access(layout.folder, os.W_OK)
        if writable:
            with clear_errors(f"create the space in {layout.folder}", StoreError):
                layout.tmp.mkdir(exist_ok=True)
                layout.claims.mkdir(exist_ok=True)
                if not layout.description.exists():
                    self._describe()
        check_description(layout, self._description)
        index = Index(layout.index, read_only=not writable)
        if writable and index.create(layout.key) and any(layout.shards.glob(f"*{SHARD_SUFFIX}")):
            index.close()
            layout.index.unlink(missing_ok=True)
            raise StoreError(f"the index of {layout.folder} is missing", hint=REPAIR_HINT)
        index.check(layout.key)
        if writable:
            with clear_errors(f"open the space in {layout.folder}", StoreError):
                sync_folder(layout.folder)
            remove_abandoned(layout.tmp)
            clear_retired(layout, index)
        return index

    def _describe(self) -> None:
        # All writers write the same content, so it does not matter if several do.
        with locked_temporary(self.layout.tmp, ".part") as temporary:
            temporary.write_bytes(description_text(self._description))
            sync_file(temporary)
            temporary.replace(self.layout.description)


def description_text(description: Mapping[str, Any]) -> bytes:
    """Return the content of ``space.json``."""
    content = {"format": FORMAT, "key": space_key(description), "description": description}
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def check_description(
    layout: Layout, description: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read ``space.json`` and check that it hashes to the name of its folder.

    Args:
        layout: the space.
        description: what it must equal, if known.

    Returns:
        The description.

    Raises:
        DamagedError: it is missing or altered.
        UnreadableError: it cannot be read now, or is of a newer format.
    """
    path = layout.description
    try:
        what = errors.obstacle(path, folder=False)
        if what is not None:
            raise errors.damaged(str(path), f"{what} is in its place")
        text = path.read_bytes()
    except FileNotFoundError:
        raise errors.damaged(str(path), "it is missing") from None
    except OSError as error:
        raise errors.unreadable(str(path), error) from error
    try:
        content = json.loads(text)
        if isinstance(content, dict) and errors.is_newer(content.get("format")):
            raise errors.newer(str(path), content["format"])
        found = content["description"]
        sound = content["format"] == FORMAT and space_key(found) == layout.key == content["key"]
    except UnreadableError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, StoreError):
        sound, found = False, None
    if not sound or (description is not None and found != description):
        raise errors.damaged(str(path), f"it does not hash to the key {layout.key}")
    return found  # type: ignore[no-any-return]
