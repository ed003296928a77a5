"""What a module computes, described in plain values: the part of a cache key that is code.

Weights alone do not identify a function: a stride, an epsilon or a line of ``forward`` changes it
as well. A module is described by its classes (with the version of the library they come from, or
the digest of their source where they are the user's own) and by its plain attributes. What cannot
be described is refused, never guessed.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Sequence
from importlib import metadata
from types import FunctionType
from typing import Any

import torch
from torch import nn

from headstart.core.errors import BackboneError
from headstart.core.fingerprints import canonical_json, fingerprint

_MACHINERY = frozenset(vars(nn.Module())) | {"training", "train"}
"""Attributes of ``nn.Module`` itself: parameters, buffers, hooks, mode. A freeze contract holds a
module in evaluation mode by a ``train`` of its own, which changes nothing in that mode."""

_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "keras", "headstart")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


def describe_structure(module: nn.Module, names: Sequence[str]) -> dict[str, Any]:
    """Describe the named submodules of ``module``.

    Args:
        module: the model.
        names: the submodules that take part, "" for the module itself.

    Returns:
        ``class``: of the model, for the reader; ``libraries``: with their versions; ``own_code``:
        the user's own classes → digest of their source; ``structure``: digest of every submodule's
        name, class and plain attributes.

    Raises:
        BackboneError: an attribute of one of the user's own classes has no plain description.
    """
    parts = dict(module.named_modules())
    classes: dict[str, str] = {}
    lines: list[str] = []
    for name in names:
        part = parts[name]
        kind = type(part)
        label = f"{kind.__module__}.{kind.__qualname__}"
        if label not in classes:
            classes[label] = _code_identity(kind)
        strict = _library(kind.__module__) is None
        attributes = {
            key: _plain(value, where=f"{name or 'the model'}.{key}", strict=strict)
            for key, value in sorted(vars(part).items())
            if key not in _MACHINERY and not key.startswith("_headstart")
        }
        lines.append(canonical_json([name, label, part.extra_repr(), attributes], compact=False))
    # extra_repr can print a tensor; addresses in it would change from run to run.
    text = _ADDRESS.sub("0x", "\n".join(lines))
    digest = fingerprint(text)
    versions = sorted({value for value in classes.values() if " " in value})
    own = {key: value for key, value in sorted(classes.items()) if " " not in value}
    return {
        "class": type(module).__qualname__,
        "libraries": versions,
        "own_code": own,
        "structure": digest,
    }


def _library(module_name: str) -> str | None:
    root = module_name.split(".")[0]
    return root if root in _LIBRARIES else None


@functools.cache
def _version(library: str) -> str:
    if library == "torch":
        # Which build of torch runs changes the last digits of a row, not what it means.
        return "torch ."
    if library == "headstart":
        return "headstart ."
    return f"{library} {metadata.version(library)}"


def _code_identity(kind: type) -> str:
    library = _library(kind.__module__)
    if library is not None:
        return _version(library)
    own = [
        base for base in kind.__mro__ if _library(base.__module__) is None and base is not object
    ]
    return fingerprint("".join(_code_text(base) for base in own))


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


def _plain(value: Any, *, where: str, strict: bool) -> Any:
    """Turn an attribute into JSON values; ``strict`` refuses what has no stable description."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype | torch.Size | torch.device | bytes | complex | range):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(item, where=where, strict=strict) for item in value]
        return sorted(items, key=str) if isinstance(value, set | frozenset) else items
    if isinstance(value, dict):
        return {
            str(key): _plain(item, where=f"{where}[{key!r}]", strict=strict)
            for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))
        }
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous()
        raw = data.view(torch.uint8).numpy().tobytes() if data.numel() else b""
        return [str(data.dtype), list(data.shape), fingerprint(raw)]
    if isinstance(value, type):
        return [f"{value.__module__}.{value.__qualname__}", _code_identity(value)]
    if isinstance(value, functools.partial):
        return [
            _plain(value.func, where=where, strict=strict),
            _plain(value.args, where=where, strict=strict),
            _plain(value.keywords, where=where, strict=strict),
        ]
    if isinstance(value, FunctionType):
        name = f"{value.__module__}.{value.__qualname__}"
        own = _library(value.__module__ or "") is None
        return [name, fingerprint(_code_text(value)) if own else ""]
    if callable(value) and hasattr(value, "__qualname__"):  # built-in functions and methods
        return f"{getattr(value, '__module__', '')}.{value.__qualname__}"
    if isinstance(value, nn.Module):
        return f"module {type(value).__qualname__}"
    text = repr(value)
    if _ADDRESS.search(text) is None:
        return text
    if strict:
        raise BackboneError(
            f"{where} is a {type(value).__name__}, which cannot be described in a cache key",
            hint="store plain values in the module, or give the object a repr without an address",
        )
    return type(value).__qualname__
