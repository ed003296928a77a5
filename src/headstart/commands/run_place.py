"""The place of a run: a folder of its own, locked while a job writes, and replaced as a whole.

A job computes first and writes last. What it leaves is written into a hidden folder inside the run
folder, flushed, and renamed to ``.committed``: from that moment on the new run is the run, and
before it the old one is. Then its files are put in their places, files of the old run that the new
one does not have are removed, and ``.committed`` goes. A kill at any moment leaves the old run or
the new one; the next job that uses the folder finishes what was begun.

Only files that headstart wrote are replaced or removed, and a folder that holds other files and no
run is refused.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from headstart.core.ambient import plainly
from headstart.core.errors import ConfigError
from headstart.core.files import naming, publishing_folder, put_in_place, sync_folder
from headstart.core.fingerprints import sha256_of_file
from headstart.core.locks import FileLock, try_lock
from headstart.core.wording import count, quoted

P = ParamSpec("P")
T = TypeVar("T")

COMMITTED, LOCK = ".committed", ".lock"
CHECKPOINT = "checkpoint"
RUN = "run.json"

_DOCUMENTS = (RUN, "comparison.json", "evaluation.json", "examination.json", "sweep.json")
"""Each of them says that headstart wrote what is in the folder."""

_BEFORE = frozenset({
    *_DOCUMENTS, "metrics.json", "head.json", "head.safetensors", "backbone.safetensors",
    "plan.json", "confusion.png", "reliability.png", "curves.png", "comparison.png", "cost.png",
    "drift.png", "report.html",
})  # fmt: skip
"""What a folder may hold that an older version wrote, which did not list its files."""

KNOWN = _BEFORE | {
    "calibration.safetensors",
    "outliers.safetensors",
    "predictions.csv",
    "predictions.parquet",
    "rows.safetensors",
    "training_items.json",
    "curves-2.png", "curves-3.png", "labels.png",
    *(f"{what}{of}.png" for what in ("values", "residuals") for of in ("", "-1", "-2", "-3", "-4")),
}  # fmt: skip
"""Every name that a job writes: a file of the user's that has one is never overwritten."""

_UNFINISHED = frozenset(
    {"plan.json", "tensorboard", "mlruns", "mlflow.json", "wandb", "wandb.json"}
)
"""What a fine-tuning writes before its end beside its checkpoint, and what loggers write."""

_LEFT_OVER = re.compile(r"\.(?:.+)\.[0-9a-f]{16}\.tmp|\.replaced\.[0-9a-f]{16}")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_ELSEWHERE = "choose another folder with out=DIR"

_held: ContextVar[ExitStack | None] = ContextVar("locks of the running job", default=None)


def holds_folder(function: Callable[P, T]) -> Callable[P, T]:
    """Let a job hold the lock of its run folder until it ends, and compute :func:`plainly`."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with ExitStack() as stack, plainly():
            token = _held.set(stack)
            try:
                return function(*args, **kwargs)
            finally:
                _held.reset(token)

    return run


# -- before any work is done ----------------------------------------------------------------------


def prepare_folder(out: Path | str | None, name: str, data: Any = None) -> Path:
    """Create and lock the run folder before any work is done, so that a bad place costs nothing.

    Args:
        out: the folder; None makes ``runs/TIME-NAME`` in the working directory.
        name: a name for the default folder; made safe as a path.
        data: what the job reads; where that is a folder of images, the run may not lie in it.

    Raises:
        ConfigError: it cannot be created or written; it holds files that are not a run's; it lies
            in the data; or another job is writing into it.
    """
    folder = _default(name) if out is None else Path(out).expanduser()
    _refuse_data(folder, data)
    _refuse_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        fault = f"'{folder}' is a file, expected a folder"
        raise ConfigError((fault,), hint=_ELSEWHERE) from error
    except OSError as error:
        fault = f"the folder '{folder}' cannot be created: {error.strerror}"
        raise ConfigError((fault,), hint=_ELSEWHERE) from error
    if not os.access(folder, os.W_OK):
        raise ConfigError((f"the folder '{folder}' cannot be written to",), hint=_ELSEWHERE)
    _hold(folder)
    _finish(folder)
    _refuse_foreign(folder)
    return folder


def _default(name: str) -> Path:
    """Return a folder that does not exist: jobs of one second do not share one."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-") or "run"
    base = Path("runs") / f"{stamp}-{safe}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


def _hold(folder: Path) -> None:
    stack = _held.get()
    if stack is None:
        return
    try:
        lock = try_lock(folder / LOCK, exclusive=True)
    except OSError as error:
        if error.errno in _NO_LOCKS:  # a network disk: nobody can be kept out
            return
        fault = f"'{folder}' cannot be locked: {error.strerror}"
        raise ConfigError((fault,), hint=_ELSEWHERE) from error
    if lock is None:
        raise ConfigError(
            (f"another job is writing into '{folder}'",),
            hint="wait until it ends, or choose another folder with out=DIR",
        )
    stack.callback(_let_go, lock)


def _let_go(lock: FileLock) -> None:
    with contextlib.suppress(OSError):
        lock.path.unlink(missing_ok=True)
    lock.release()


def _refuse_data(folder: Path, data: Any) -> None:
    """Refuse to write into a folder whose subfolders are read as classes."""
    if not isinstance(data, str | Path) or not str(data):
        return
    source = Path(data).expanduser()
    try:
        inside = source.is_dir() and folder.resolve().is_relative_to(source.resolve())
        tables = inside and any(
            path.suffix.lower() in {".csv", ".tsv", ".parquet", ".npy"} for path in source.iterdir()
        )
    except (OSError, ValueError):
        return
    if inside and not tables:
        raise ConfigError(
            (f"the run folder '{folder}' would be inside the data '{source}' and be read as data",),
            hint="choose a folder outside it with out=DIR",
        )


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds files which are not a run's."""
    if not folder.is_dir():
        return
    try:
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    except OSError:
        return  # which creating it, or locking it, says better
    ours = our_files(folder) | _committed_files(folder)
    foreign = sorted(
        names - ours - _UNFINISHED - ({CHECKPOINT} if _is_checkpoint(folder) else set())
    )
    taken = [name for name in foreign if name in KNOWN]
    if ours and taken:
        raise ConfigError(
            (
                f"'{folder}' holds {quoted(taken, 3)}, which does not belong to its run and"
                " would be replaced",
            ),
            hint="move it away, or choose another folder with out=DIR",
        )
    if foreign and not ours:
        found = count(len(foreign), "file or folder", "files or folders")
        raise ConfigError(
            (f"'{folder}' holds {found} that no run writes, such as {quoted(foreign, 2)}",),
            hint=f"give the run its own folder, such as out='{folder / 'run'}'",
        )


def _is_checkpoint(folder: Path) -> bool:
    place = folder / CHECKPOINT
    if not place.is_dir() or place.is_symlink():
        return False
    names = {path.name for path in place.iterdir()}
    return not names or bool(names & {"progress.json", "plan.json"})


def _committed_files(folder: Path) -> frozenset[str]:
    """Return the names of the files that are about to be put in their places."""
    place = folder / COMMITTED
    if not place.is_dir() or place.is_symlink():
        return frozenset()
    return frozenset(path.name for path in place.iterdir())


def our_files(folder: Path) -> frozenset[str]:
    """Return the names of the files in a folder that a finished job has written."""
    if not any((folder / name).is_file() for name in _DOCUMENTS):
        return frozenset()
    try:
        listed = json.loads((folder / RUN).read_bytes())["files"]
        return frozenset(name for name in listed if name in KNOWN) | {RUN}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    # A job without a list of files, of which only those of an older version are no news.
    newer = not (folder / RUN).is_file() or (folder / "comparison.json").is_file()
    return KNOWN if newer else _BEFORE


# -- writing --------------------------------------------------------------------------------------


@contextlib.contextmanager
def publishing_run(folder: Path) -> Iterator[Path]:
    """Replace what a run folder holds by what is written into the folder yielded, or leave it.

    Args:
        folder: as :func:`prepare_folder` returned it.

    Yields:
        An empty folder to write into.

    Raises:
        OSError: it cannot be written; the run folder is as it was.
    """
    with naming(folder):
        with publishing_folder(folder / COMMITTED) as place:
            yield place
        _finish(folder)


def file_digests(place: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder, by name: what ties a run together."""
    return {path.name: sha256_of_file(path) for path in sorted(place.iterdir()) if path.is_file()}


def whole_run(folder: Path) -> Path:
    """Return where the files of the last finished job are: in the folder, or about to be moved."""
    committed = folder / COMMITTED
    inside = committed.is_dir() and not committed.is_symlink() and (committed / RUN).is_file()
    return committed if inside else folder


def _finish(folder: Path) -> None:
    """Put what was committed in its place; remove what it replaces, and what a kill has left."""
    committed = folder / COMMITTED
    if committed.is_dir() and not committed.is_symlink():
        new = _committed_files(folder)
        for name in our_files(folder) - new:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                (folder / name).unlink()
        for name in sorted(new, key=lambda name: (name == RUN, name)):
            put_in_place(committed / name, folder / name)
        sync_folder(folder)
        # In one step: half of it must not be taken for a run.
        committed.rename(folder / f".replaced.{secrets.token_hex(8)}")
    for path in folder.glob(".*"):
        if _LEFT_OVER.fullmatch(path.name) and not path.is_symlink():
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


__all__ = [
    "CHECKPOINT",
    "COMMITTED",
    "KNOWN",
    "LOCK",
    "RUN",
    "file_digests",
    "holds_folder",
    "our_files",
    "prepare_folder",
    "publishing_run",
    "whole_run",
]
