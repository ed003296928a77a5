"""Values and code, described in plain JSON values that are the same in every process."""

from __future__ import annotations

import dis
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import BackboneError
from headstart.core.fingerprints import canonical_json, fingerprint

LIBRARIES = ("torch", "torchvision", "timm", "transformers", "keras", "headstart")
ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


def library_of(code: Any) -> str | None:
    """Return the library that a class or function comes from; None for Python's and one's own."""
    root = (getattr(code, "__module__", None) or "").split(".")[0]
    return root if root in LIBRARIES else None


class Describer:
    """Describes values; of code, it remembers where it comes from.

    Args:
        module: the network; its modules, met in an attribute, are known by their place in it.
        outside: describes a module that the network does not register, with its weights.

    Attributes:
        identities: of classes and functions by their full name: library and version, or the digest
            of own code.
    """

    def __init__(
        self, module: nn.Module | None, outside: Callable[[nn.Module, str], Any] | None = None
    ) -> None:
        self.identities: dict[str, str] = {}
        self._inside = {} if module is None else {id(m): n for n, m in module.named_modules()}
        self._outside = outside
        self._open: list[int] = []

    def label(self, code: Any) -> str:
        """Return the full name of a class or function, and remember its identity."""
        label = f"{code.__module__ or ''}.{getattr(code, '__qualname__', repr(code))}"
        if label not in self.identities:
            self.identities[label] = self.identity(code)
        return label

    def identity(self, code: Any) -> str:
        """Return library and version, the digest of own code, or nothing for Python's own.

        Of a class of a library of which methods were replaced, the replacements are the own code.
        """
        library = library_of(code)
        if isinstance(code, type):
            bases: tuple[type, ...] = code.__mro__
            own = [base for base in bases if base is not object and not library_of(base)]
            patches = _patches(code)
            if library is not None and not patches:
                return _version(library)
            written: list[type | FunctionType] = [*own, *patches]
            text = "".join(_code_text(part) for part in written)
            return fingerprint(text + self._around(written))
        if library is not None:
            return _version(library)
        if isinstance(code, FunctionType):
            return fingerprint(_code_text(code) + self._around([code]))
        return ""

    def plain(self, value: Any, *, where: str, strict: bool, deep: bool = False) -> Any:
        """Describe a value.

        Args:
            value: of any kind.
            where: what it is, for the message.
            strict: refuse what has no stable description, rather than name its class.
            deep: describe objects by their class and attributes.

        Raises:
            BackboneError: ``strict``, and there is no description.
        """
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, torch.dtype | torch.Size | torch.device | bytes | complex | range):
            return str(value)
        if id(value) in self._open:
            return "above"
        self._open.append(id(value))
        try:
            return self._composed(value, where, strict, deep)
        finally:
            self._open.pop()

    def _composed(self, value: Any, where: str, strict: bool, deep: bool) -> Any:
        def plain(part: Any, place: str = where) -> Any:
            return self.plain(part, where=place, strict=strict, deep=deep)

        if isinstance(value, list | tuple | set | frozenset):
            items = [plain(item) for item in value]
            return sorted(items, key=str) if isinstance(value, set | frozenset) else items
        if isinstance(value, dict):
            pairs = sorted(value.items(), key=lambda pair: str(pair[0]))
            return {str(key): plain(item, f"{where}[{key!r}]") for key, item in pairs}
        if isinstance(value, Tensor):
            return _tensor(value)
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                return plain(value.tolist())
            return [str(value.dtype), list(value.shape), fingerprint(value.tobytes())]
        if isinstance(value, type):
            return [f"{value.__module__}.{value.__qualname__}", self.identity(value)]
        if isinstance(value, functools.partial):
            return [plain(value.func), plain(value.args), plain(value.keywords)]
        if isinstance(value, FunctionType):
            return self._function(value, where, strict, deep)
        if isinstance(value, MethodType):
            return self._method(value, where, strict, deep)
        if isinstance(value, nn.Module):
            return self._module(value, where)
        if callable(value) and hasattr(value, "__qualname__"):  # built-in functions
            return f"{getattr(value, '__module__', '')}.{value.__qualname__}"
        if deep and hasattr(value, "__dict__"):
            return [self.label(type(value)), plain(vars(value))]
        return _text(value, where, strict)

    def _module(self, module: nn.Module, where: str) -> Any:
        if id(module) in self._inside or self._outside is None:
            return f"module {type(module).__qualname__}"
        return self._outside(module, where)

    def _function(self, function: FunctionType, where: str, strict: bool, deep: bool) -> Any:
        name = f"{function.__module__}.{function.__qualname__}"
        own = library_of(function) is None
        described: list[Any] = [name, self.identity(function) if own else ""]
        if held := _held(function):
            place = f"what {where} refers to"
            described.append(self.plain(held, where=place, strict=strict and own, deep=deep))
        return described

    def _method(self, method: MethodType, where: str, strict: bool, deep: bool) -> Any:
        function, owner = method.__func__, method.__self__
        name = f"{getattr(method, '__module__', '')}.{method.__qualname__}"
        known = isinstance(owner, nn.Module) and id(owner) in self._inside
        if known and library_of(function) is not None:
            return name
        parts = (function, owner)
        return [name, *(self.plain(p, where=where, strict=strict, deep=deep) for p in parts)]

    def _around(self, codes: Sequence[type | FunctionType]) -> str:
        """Describe what own code reads that is not written in it; nothing where that is nothing."""
        read = {
            name: self.plain(value, where=name, strict=False)
            for code in codes
            for name, value in _reads(code)
            if id(value) not in self._open
        }
        return canonical_json(read, compact=False) if read else ""


def _patches(kind: type) -> list[FunctionType]:
    """Return functions that were put on a class from elsewhere, after it was defined."""
    return [
        value
        for base in kind.__mro__
        if base not in (nn.Module, object) and not _is_standard(base)
        for key, value in vars(base).items()
        if isinstance(value, FunctionType)
        and library_of(value) is None
        and (library_of(base) is not None or _is_foreign(value, base, key))
    ]


def library_is_patched() -> bool:
    """Whether any class of a network that a library defines has had a method replaced."""
    return bool(replaced_methods())


def replaced_methods() -> set[tuple[type, str]]:
    """Return the methods of networks' classes of libraries that come from elsewhere."""
    seen: set[type] = set()
    todo: list[type] = [nn.Module]
    while todo:
        kind = todo.pop()
        if kind not in seen:
            seen.add(kind)
            todo += kind.__subclasses__()
    return {
        (kind, name)
        for kind in seen
        if library_of(kind)
        for name, value in vars(kind).items()
        if isinstance(value, FunctionType) and not library_of(value)
    }


def _is_foreign(function: FunctionType, kind: type, key: str) -> bool:
    """Whether a method of own code was not written in its class."""
    written = f"{kind.__qualname__}.{key}"
    return function.__qualname__ != written and not _is_standard(function)


def _root(code: Any) -> str:
    return str(getattr(code, "__module__", None) or "").split(".")[0]


def _is_standard(code: Any) -> bool:
    return _root(code) in sys.stdlib_module_names and _root(code) != "__main__"


def _reads(code: type | FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the plain attributes of own classes, and the globals that own functions name."""
    if _is_standard(code):
        return
    functions = [code] if isinstance(code, FunctionType) else []
    for key, value in vars(code).items() if isinstance(code, type) else ():
        inner = getattr(value, "__func__", value)
        if isinstance(inner, FunctionType):
            functions.append(inner)
        elif not key.startswith(("__", "_abc_")) and _is_data(value, code):
            yield f"{code.__qualname__}.{key}", value
    for function in functions:
        for name in sorted(_names(function.__code__)):
            value = function.__globals__.get(name)
            if value is not None and _is_data(value, code):
                yield name, value


_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")


def _names(code: CodeType) -> set[str]:
    """Return the names that code looks up as globals; attributes of the same names are others."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    own = {step.argval for step in dis.get_instructions(code) if step.opname in _LOADS}
    return own.union(*(_names(one) for one in inner))


def _is_data(value: Any, reader: type | FunctionType) -> bool:
    """Whether a value decides what its reader does, beyond what the reader's source says.

    Registries and caches do not count: they hold other things in every process.
    """
    if isinstance(value, type | FunctionType):
        return _root(value) == _root(reader) and library_of(value) is None
    if isinstance(value, list | tuple):
        return all(_is_data(item, reader) for item in value)
    if isinstance(value, dict):
        return all(isinstance(v, bool | int | float | str | Tensor) for v in value.values())
    return isinstance(value, bool | int | float | str | Tensor | np.ndarray | nn.Module)


def _held(function: FunctionType) -> dict[str, Any]:
    """Return what a function holds: its defaults, and the values of its closure."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    held: dict[str, Any] = {}
    for name, cell in cells:
        try:
            held[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    if function.__defaults__:
        held["defaults"] = function.__defaults__
    return {**held, **(function.__kwdefaults__ or {})}


def _tensor(value: Tensor) -> list[Any]:
    data = value.detach().cpu().contiguous().reshape(-1)
    raw = data.view(torch.uint8).numpy().tobytes() if data.numel() else b""
    return [str(value.dtype), list(value.shape), fingerprint(raw)]


def _text(value: Any, where: str, strict: bool) -> str:
    text = repr(value)
    if ADDRESS.search(text) is None:
        return text
    if strict:
        raise BackboneError(
            f"{where} is a {type(value).__name__}, which cannot be described in a cache key",
            hint="store plain values in the module, or give the object a repr without an address",
        )
    return type(value).__qualname__


@functools.cache
def _version(library: str) -> str:
    if library == "torch":
        # Which build of torch runs changes the last digits of a row, not what it means.
        return "torch ."
    if library == "headstart":
        return "headstart ."
    return f"{library} {metadata.version(library)}"


def _code_text(code: type | FunctionType) -> str:
    """Source text, or the compiled code where no source is at hand (an interactive session)."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        functions = [code] if isinstance(code, FunctionType) else list(vars(code).values())
        return "".join(
            f"{f.__qualname__}{f.__code__.co_code.hex()}{f.__code__.co_names}"
            + str([c for c in f.__code__.co_consts if not hasattr(c, "co_code")])
            for f in functions
            if isinstance(f, FunctionType)
        )


def settled(one: Any, two: Any) -> Any:
    """Merge two descriptions of a thing: where they differ, it changes by itself."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        return {key: settled(one[key], two[key]) for key in one}
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        # A tensor is [dtype, shape, digest]: one that changes by itself has no shape of its own.
        return [settled(a, b) for a, b in zip(one, two, strict=True)]
    return one if one == two else "changes"


def compiled_away(name: str) -> str:
    """Return a name as it is without ``torch.compile``, which wraps modules in one of its own."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


__all__ = [
    "ADDRESS",
    "Describer",
    "compiled_away",
    "library_is_patched",
    "library_of",
    "settled",
]
