"""Where the store of a cache lies, by default and by its address."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
from pathlib import Path

from headstart.core.files import existing_parent, is_writable
from headstart.core.fingerprints import sha256
from headstart.core.scratch import scratch_folder
from headstart.store.store import Store


def default_location() -> Path:
    """Return ``$HEADSTART_CACHE`` if it is set, else the platform's cache folder."""
    named = os.environ.get("HEADSTART_CACHE")
    return Path(named).expanduser() if named else platform_location()


def open_store(location: Path | str | None = None) -> Store:
    """Return the store at a place. Nothing is created before something is kept there.

    Args:
        location: the folder; None: :func:`default_location`. An address that fsspec knows is
            mirrored in the platform's cache folder.
    """
    chosen = location if location is not None else os.environ.get("HEADSTART_CACHE")
    if isinstance(chosen, str) and "://" in chosen:
        mirror = platform_location() / "mirrors" / sha256(chosen)[:16]
        return Store(mirror, remote=chosen)
    place = default_location() if chosen is None else Path(chosen).expanduser()
    return Store(place, spare=functools.partial(_spare, place))


def _spare(place: Path) -> Path:
    """Return where that is kept which the place does not take: it may be read-only."""
    own = platform_location()
    if own != place and is_writable(existing_parent(own)):
        return own
    return _scratch()


@functools.cache
def _scratch() -> Path:
    """Return a folder that lasts as long as this process."""
    open_until_exit = contextlib.ExitStack()
    folder = open_until_exit.enter_context(scratch_folder())
    atexit.register(open_until_exit.close)
    return folder


def platform_location() -> Path:
    """Return the platform's folder for the caches of this user."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("headstart", appauthor=False))


__all__ = ["default_location", "open_store", "platform_location"]
