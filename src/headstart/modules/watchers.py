"""Hooks that only watch: whether a hook can change what its module computes, read off its code."""

from __future__ import annotations

import collections
import dis
import functools
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

_WRITES = frozenset(
    {"STORE_SUBSCR", "STORE_SLICE", "DELETE_SUBSCR", "STORE_ATTR", "DELETE_ATTR", "YIELD_VALUE"}
)
_CALLS_THAT_WRITE = frozenset({"data", "setattr", "delattr", "exec", "eval", "out", "__dict__"})


def only_watches(hook: Any) -> bool:
    """Whether a hook returns nothing and writes to nothing, whatever it is called with.

    False where its code does not say so, as for code that is not Python.
    """
    function = _function(hook)
    return function is not None and _is_harmless(function, set())


def _function(hook: Any) -> FunctionType | None:
    if isinstance(hook, functools.partial):
        return _function(hook.func)
    if isinstance(hook, MethodType):
        return _function(hook.__func__)
    if isinstance(hook, FunctionType):
        return hook
    call = getattr(type(hook), "__call__", None)  # noqa: B004 its code is read
    return call if isinstance(call, FunctionType) else None


def _is_harmless(function: FunctionType, seen: set[int]) -> bool:
    if id(function) in seen:
        return True
    seen.add(id(function))
    codes = list(_codes(function.__code__))
    if not _returns_nothing(function.__code__) and not _collects(function):
        return False
    if any(_writes(code) for code in codes):
        return False
    names = {name for code in codes for name in code.co_names}
    called = (function.__globals__.get(name) for name in names)
    held = (cell.cell_contents for cell in function.__closure__ or () if _is_set(cell))
    others = [f for f in (*called, *held) if isinstance(f, FunctionType)]
    return not any(_writes(code) for f in others for code in _codes(f.__code__))


def _collects(function: FunctionType) -> bool:
    """Whether all that a function does is to add to a list or set: ``lambda *_: seen.append(1)``.

    What it returns is then what ``append`` or ``add`` returns: nothing.
    """
    setup = {"RESUME", "COPY_FREE_VARS", "PUSH_NULL", "CACHE", "PRECALL", "NOP", "MAKE_CELL"}
    steps = [s for s in dis.get_instructions(function.__code__) if s.opname not in setup]
    if len(steps) < 4 or [s.opname for s in steps[-2:]] != ["CALL", "RETURN_VALUE"]:
        return False
    if sum(step.opname.startswith("RETURN") or step.is_jump_target for step in steps) > 1:
        return False
    owner, method = steps[0], steps[1]
    if method.opname not in ("LOAD_METHOD", "LOAD_ATTR") or method.argval not in ("append", "add"):
        return False
    names = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    if owner.opname == "LOAD_GLOBAL":
        held = function.__globals__.get(owner.argval)
    elif owner.opname == "LOAD_DEREF" and owner.argval in names and _is_set(names[owner.argval]):
        held = names[owner.argval].cell_contents
    else:
        return False
    return type(held) in (list, set, collections.deque)


def _is_set(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 raises where nothing is assigned yet
    except ValueError:
        return False
    return True


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _returns_nothing(code: CodeType) -> bool:
    before: dis.Instruction | None = None
    for step in dis.get_instructions(code):
        if step.opname == "RETURN_CONST" and step.argval is not None:
            return False
        if step.opname == "RETURN_VALUE":
            nothing = before is not None and (before.opname, before.argval) == ("LOAD_CONST", None)
            if not nothing or step.is_jump_target:  # another value may arrive there
                return False
        before = step
    return True


def _writes(code: CodeType) -> bool:
    """Whether code may write to what it is given: by an assignment, or a method such as mul_."""
    names = code.co_names
    if any(name in _CALLS_THAT_WRITE or _is_in_place(name) for name in names):
        return True
    return any(
        step.opname in _WRITES or (step.opname == "BINARY_OP" and step.argrepr.endswith("="))
        for step in dis.get_instructions(code)
    )


def _is_in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


__all__ = ["only_watches"]
