"""Work in a child process: under other limits, as another user."""

from __future__ import annotations

import os
import resource
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def limit_descriptors(free: int) -> None:
    """Let this process open ``free`` more files, beside those that are open already.

    A fork has the open files of its parent, which other tests may have left there.
    """
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + free, highest + 1 + free))


def in_child(work: Callable[[], object], user: int | None = None, group: int | None = None) -> str:
    """Run work in a forked child; return ``str`` of its result, or ``"TypeName: message"``.

    Args:
        work: what to do.
        user: as which user, where this process is root's; otherwise as this one.
        group: as which group; None: the number of the user.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if user is not None and IS_ROOT:
                os.setgroups([])
                os.setgid(user if group is None else group)
                os.setuid(user)
            text = str(work())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            if not hasattr(error, "hint"):
                text += "\n" + traceback.format_exc()
        finally:
            os.write(writing, text.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """Make a temporary folder that other users can reach."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            for place, _, _ in os.walk(folder):
                if os.access(Path(place).parent, os.W_OK):
                    Path(place).chmod(0o700)


def give_to(root: Path, user: int, group: int | None = None) -> None:
    """Make another user the owner of everything in a folder, where this process may."""
    if IS_ROOT:
        for place, folders, files in os.walk(root):
            for name in (".", *folders, *files):
                os.lchown(Path(place) / name, user, user if group is None else group)
