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
    is_writable,
    make_folder,
    share,
    sync_file,
    sync_folder,
)
from headstart.core.locks import FileLock, NoLock, try_lock
from headstart.core.scratch import locked_temporary, remove_abandoned
from headstart.store import errors
from headstart.store.describe import space_key
from headstart.store.errors import UnreadableError
from headstart.store.index import Index
from headstart.store.layout import FORMAT, REPAIR_HINT, SHARD_SUFFIX, Layout
from headstart.store.merge import clear_retired

_SETTLE_SECONDS, _SETTLE_STEPS = 2.0, 25


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
            deadline = time.monotonic() + _SETTLE_SECONDS
            while self._index is None:
                try:
                    self._index = self._opened()
                except StoreError as error:
                    denied = isinstance(error, UnreadableError) or isinstance(
                        error.__cause__, PermissionError
                    )
                    if not denied or not self._is_being_made() or time.monotonic() > deadline:
                        raise
                if self._index is None:
                    time.sleep(0.02)  # gc is deciding about this space, or a colleague makes it
                    continue
                with contextlib.suppress(OSError):
                    if self._touch and is_writable(self.layout.lock):
                        os.utime(self.layout.lock)  # the time of the last use, for gc
        return self._index

    def _opened(self) -> Index | None:
        """Take the lease and open the index; None while gc is deciding about this space."""
        lease = self._take_lease()
        if lease is None:
            return None
        try:
            index = self._open_index()
        except BaseException:
            lease.release()  # now, or a repair would find the space in use
            raise
        self._lease = lease
        return index

    def is_writable(self) -> bool:
        """Whether this user may add rows, as far as the permissions say."""
        for _ in range(_SETTLE_STEPS):
            if self._permits():
                return True
            if not self._is_being_made():
                return False
            time.sleep(0.02)
        return False

    def _is_being_made(self) -> bool:
        """Whether a colleague may be about to share what he has just made."""
        with contextlib.suppress(OSError):
            age = time.time() - self.layout.folder.stat().st_ctime
            return abs(age) < _SETTLE_SECONDS and is_writable(self.layout.root)
        return False

    def _permits(self) -> bool:
        layout = self.layout
        if not layout.folder.exists():
            return is_writable(layout.root) if layout.root.exists() else True
        needed = (layout.folder, layout.index, layout.shards, layout.tmp, layout.claims)
        return all(is_writable(path) for path in needed if path.exists())

    def _take_over_side_files(self) -> None:
        """Remove side files of the index that a reader left, and that we may not write to.

        Raises:
            UnreadableError: a process of that user uses the space.
        """
        layout = self.layout
        files = Index(layout.index).database.side_files
        if not self.is_writable() or all(is_writable(path) for path in files if path.exists()):
            return
        lock = try_lock(layout.lock, exclusive=True)
        if lock is None:
            raise UnreadableError(
                f"a process of another user reads the index {layout.index}, and this user has no"
                " access to its files there",
                hint="wait for that process, or end it",
            )
        with contextlib.suppress(OSError):
            if not files[0].exists() or not files[0].stat().st_size:
                for path in files:
                    path.unlink(missing_ok=True)
        lock.release()

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
                    layout.root.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(FileNotFoundError):  # gc is faster: once more
                        make_folder(layout.folder)
                        make_folder(layout.shards)
                    sync_folder(layout.root)
            try:
                with clear_errors(f"open the space in {layout.folder}", StoreError):
                    if not is_writable(layout.folder) and not layout.lock.exists():
                        return NoLock(layout.lock)  # copied without it, to a disk for reading
                    self._take_over_side_files()
                    lock = try_lock(layout.lock, exclusive=False)
                    share(layout.lock)
                    return lock
            except StoreError:
                if layout.folder.exists():
                    raise
                # gc has just removed the folder: create it again

    def _open_index(self) -> Index:
        layout = self.layout
        writable = self.is_writable()
        if writable:
            with clear_errors(f"create the space in {layout.folder}", StoreError):
                make_folder(layout.tmp)
                make_folder(layout.claims)
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
            share(temporary)
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
