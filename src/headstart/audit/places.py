"""Which line of the user's code is running: the nearest frame outside libraries."""

from __future__ import annotations

import dis
import functools
import site
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FrameType

from headstart.audit.records import NOWHERE, Place

Trail = tuple[tuple[CodeType, tuple[int | None, ...], int], ...]
"""Code, position in it, and line of every function of the user's that is running."""


@functools.cache
def _libraries() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(name) for name in names} | {*site.getsitepackages()}
    folders.add(site.getusersitepackages())
    own = Path(__file__).parent.parent
    return (*(f"{Path(folder)}/" for folder in folders if folder), f"{own}/")


@functools.cache
def is_library(file: str) -> bool:
    """Whether code in this file is a library's: installed, of Python itself, or of headstart."""
    if file.startswith("<") and not file.startswith("<ipython"):
        return True
    path = file.replace("\\", "/")
    inside = "/site-packages/" in path or "/dist-packages/" in path
    return inside or path.startswith(_libraries())


def user_frame() -> FrameType | None:
    """Return the nearest frame of the user's code that is running in this thread."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def user_place() -> Place:
    """Return the line of the user's code that is running in this thread."""
    return place_of(user_frame())


def user_trail() -> Trail:
    """Return where all functions of the user's code are that are running in this thread.

    The innermost comes first: its code, where in the text the call is, and its line.
    """
    found = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            # The position in the bytes changes where Python makes a call faster; that in the text
            # does not.
            at = _positions(frame.f_code)[max(frame.f_lasti, 0) // 2]
            found.append((frame.f_code, at, frame.f_lineno))
        frame = frame.f_back
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def _positions(code: CodeType) -> tuple[tuple[int | None, ...], ...]:
    return tuple(code.co_positions())


def place_of(frame: FrameType | None) -> Place:
    """Return the line that a frame is at."""
    return NOWHERE if frame is None else Place(frame.f_code.co_filename, frame.f_lineno)


def is_discarded(frame: FrameType | None) -> bool:
    """Whether nobody uses the result of the call that a frame is in.

    It is a statement of its own, or assigned to a variable that is never read.
    """
    return frame is not None and _discards(frame.f_code, frame.f_lasti)


@functools.lru_cache(maxsize=4096)
def _discards(code: CodeType, at: int) -> bool:
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    # The position may be inside of the cache that follows a call.
    after = next((i for i, step in enumerate(steps) if step.offset > at), len(steps))
    if after >= len(steps):
        return False
    step = steps[after]
    if step.opname == "POP_TOP":
        return True
    return step.opname in ("STORE_FAST", "STORE_NAME") and step.argval not in _read(code)


@functools.lru_cache(maxsize=256)
def _read(code: CodeType) -> frozenset[str]:
    """Return the variables that code reads, functions inside of it included."""
    found = {
        str(name)
        for step in dis.get_instructions(code)
        if step.opname.startswith("LOAD_")
        for name in (step.argval if isinstance(step.argval, tuple) else (step.argval,))
    }
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _read(constant)
    return frozenset(found)


__all__ = [
    "Trail",
    "is_discarded",
    "is_library",
    "place_of",
    "user_frame",
    "user_place",
    "user_trail",
]
