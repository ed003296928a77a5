"""Where the cache is: what the environment says, what the platform has, or a scratch folder."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
from pathlib import Path

from headstart.core.scratch import scratch_folder


def default_location() -> Path:
    """Return ``$HEADSTART_CACHE`` if it is set, else the platform's cache folder."""
    named = os.environ.get("HEADSTART_CACHE")
    return Path(named).expanduser() if named else platform_location()


@functools.cache
def scratch_until_exit() -> Path:
    """Return a folder that lasts as long as this process."""
    open_until_exit = contextlib.ExitStack()
    folder = open_until_exit.enter_context(scratch_folder())
    atexit.register(open_until_exit.close)
    return folder


def platform_location() -> Path:
    """Return the platform's folder for caches."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("headstart", appauthor=False))


__all__ = ["default_location", "platform_location", "scratch_until_exit"]
