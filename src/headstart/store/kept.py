"""What a store holds beside its spaces: small results, and the memo of file digests.

Both are only ever found again or computed again, so a repair removes what fails its check.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from headstart.core.errors import StoreError
from headstart.core.files import last_used, reason_of, set_aside
from headstart.store.errors import NewerFormatError, UnreadableError, obstacle
from headstart.store.layout import MEMO, RESULTS, is_hex32
from headstart.store.memo import Memo
from headstart.store.results import SUFFIX, ResultInfo, Results
from headstart.store.verify import Fault

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.tmp\Z")
_ABANDONED_SECONDS = 3600.0  # no result takes that long to write


@dataclass(frozen=True)
class Leftover:
    """Something in a store that is no space.

    Attributes:
        kind: ``result``, ``memo``, ``temporary`` (left by a killed writer), or ``foreign``, which
            nothing here reads or removes.
        path: the file or folder.
        nbytes: its size; 0 for what is foreign.
        last_used: in seconds since the epoch.
    """

    kind: Literal["result", "memo", "temporary", "foreign"]
    path: Path
    nbytes: int
    last_used: float


def results_by_kind(root: Path) -> Iterator[tuple[str, ResultInfo]]:
    """Yield the small results of a store: their kind, and what is on disk."""
    for kind in _listed(root / RESULTS):
        if kind.is_dir() and not kind.is_symlink():
            for info in Results(kind):
                yield kind.name, info


def kept_files(root: Path) -> Iterator[Leftover]:
    """Yield what a store holds beside its spaces.

    Raises:
        OSError: a folder cannot be read.
    """
    memo = root / MEMO
    if memo.is_file():
        yield _leftover("memo", memo)
    for kind in _listed(root / RESULTS):
        if not kind.is_dir() or kind.is_symlink():
            yield Leftover("foreign", kind, 0, 0.0)
            continue
        for path in _listed(kind):
            if path.suffix == SUFFIX and is_hex32(path.stem):
                yield _leftover("result", path)
            elif path.suffix == ".run" and is_hex32(path.stem):
                continue  # an unfinished training of a study, which removes it itself
            elif _TEMPORARY.match(path.name) and path.is_file():
                yield _leftover("temporary", path)
            else:
                yield Leftover("foreign", path, 0, 0.0)


def is_abandoned(found: Leftover) -> bool:
    """Whether a temporary file is one that a killed writer left."""
    return found.kind == "temporary" and time.time() - found.last_used > _ABANDONED_SECONDS


def verify_kept(root: Path, *, repair: bool) -> tuple[int, list[Fault]]:
    """Check the results and the memo of a store; remove what is damaged, if wanted.

    Returns:
        How many results and remembered files were checked, and what is wrong.
    """
    checked, faults = 0, []
    try:
        for found in kept_files(root):
            if found.kind == "result":
                fault = _result_fault(found.path)
                checked += 1
            elif is_abandoned(found):
                fault = Fault("", "orphan", found.path, "was left by a writer that has died")
            elif found.kind == "foreign":
                fault = Fault("", "foreign", found.path, "does not belong to the store")
            else:
                continue
            if fault is not None:
                faults.append(_mended(fault) if repair else fault)
    except OSError as error:
        where = Path(error.filename or root)
        faults.append(Fault("", "unreadable", where, f"cannot be read: {reason_of(error)[0]}"))
    files, fault = _check_memo(root / MEMO)
    if fault is not None:
        faults.append(_mended(fault) if repair else fault)
    return checked + files, faults


def _result_fault(path: Path) -> Fault | None:
    try:
        found = obstacle(path, folder=False)
        if found is not None:
            return Fault("", "folder", path, f"{found} is in the place of {path.name}")
        Results(path.parent).check(path.stem)
    except OSError as error:
        return Fault("", "unreadable", path, f"cannot be read: {reason_of(error)[0]}")
    except NewerFormatError as error:
        return Fault("", "newer", path, error.message)
    except UnreadableError as error:
        return Fault("", "unreadable", path, error.message)
    except StoreError as error:
        if not path.exists():
            return None  # removed in the meantime
        return Fault("", "result", path, error.message)
    return None


def _check_memo(path: Path) -> tuple[int, Fault | None]:
    try:
        found = obstacle(path, folder=False)
        if found is not None:
            return 0, Fault("", "folder", path, f"{found} is in the place of {path.name}")
        if not path.exists():
            return 0, None
        with Memo(path) as memo:
            return memo.check(), None
    except OSError as error:
        return 0, Fault("", "unreadable", path, f"cannot be read: {reason_of(error)[0]}")
    except UnreadableError as error:
        return 0, Fault("", "unreadable", path, error.message)
    except StoreError as error:
        return 0, Fault("", "memo", path, error.message)


def _mended(fault: Fault) -> Fault:
    try:
        if fault.kind == "folder":
            aside = set_aside(fault.path)
            return replace(fault, what=f"{fault.what}; renamed to {aside.name}", repaired=True)
        if fault.kind in ("result", "orphan"):
            fault.path.unlink(missing_ok=True)
        elif fault.kind == "memo":
            with Memo(fault.path) as memo:
                memo.drop_damaged()
        else:
            return fault
    except OSError as error:
        return replace(fault, what=f"{fault.what}, and stays: {reason_of(error)[0]}")
    return replace(fault, repaired=True)


def _leftover(kind: Literal["result", "memo", "temporary"], path: Path) -> Leftover:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return Leftover("temporary", path, 0, time.time())  # gone: renamed or removed
    return Leftover(kind, path, found.st_size, last_used(found))


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
