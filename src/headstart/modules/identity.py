"""What a network computes, described in plain values: the part of a cache key that is code.

Weights alone do not identify a function: a stride, an epsilon or a line of ``forward`` changes it
as well. Modules are described by their classes (with the version of the library they come from, or
the digest of their source where they are the user's own) and by their plain attributes, graphs by
their operations. What cannot be described is refused, never guessed.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable, Sequence
from importlib import metadata
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn

from headstart.core.errors import BackboneError
from headstart.core.fingerprints import canonical_json, fingerprint
from headstart.modules.digests import digest, named_tensors

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
    code = _Code()
    lines = [code.part(name, parts[name]) for name in names]
    return {
        "class": type(module).__qualname__,
        "libraries": code.libraries(),
        "own_code": code.own(),
        "structure": _joined(lines),
    }


def describe_operations(module: nn.Module, graph: fx.Graph) -> dict[str, Any]:
    """Describe the operations of a graph, and the modules that it calls.

    Names of nodes and modules do not enter.

    Returns:
        ``code``: digest of the operations with the classes and attributes of the modules;
        ``operations``: how many there are; ``libraries`` and ``own_code``: as
        :func:`describe_structure` has them.

    Raises:
        BackboneError: as for :func:`describe_structure`.
    """
    number = {node: position for position, node in enumerate(graph.nodes)}
    code = _Code()
    lines = []
    for node in graph.nodes:
        arguments = _argument((node.args, node.kwargs), number)
        lines.append(canonical_json([node.op, code.target(module, node), arguments], compact=False))
    return {
        "code": _joined(lines),
        "operations": len(lines),
        "libraries": code.libraries(),
        "own_code": code.own(),
    }


def describe_graph(module: nn.Module, graph: fx.Graph) -> dict[str, Any]:
    """Describe a graph and all that it names in ``module``, weights included.

    Returns:
        What :func:`describe_operations` returns, and ``tensors``: digest of every parameter and
        buffer of ``module``, by name.
    """
    return {
        **describe_operations(module, graph),
        "tensors": {name: digest(tensor) for name, tensor in sorted(named_tensors(module))},
    }


class _Code:
    """Describes modules and functions, and remembers where their code comes from."""

    def __init__(self) -> None:
        self._identities: dict[str, str] = {}

    def part(self, name: str, module: nn.Module) -> str:
        """Describe one module, without what lies below it."""
        kind = type(module)
        strict = _library(kind.__module__) is None
        attributes = {
            key: _plain(value, where=f"{name or 'the model'}.{key}", strict=strict)
            for key, value in sorted(vars(module).items())
            if key not in _MACHINERY and not key.startswith("_headstart") and not _is_hold(value)
        }
        label = self._label(kind)
        return canonical_json([name, label, module.extra_repr(), attributes], compact=False)

    def target(self, module: nn.Module, node: fx.Node) -> Any:
        """Describe what a node calls or reads."""
        name = str(node.target)
        if node.op == "call_module":
            return [self.part(n, p) for n, p in module.get_submodule(name).named_modules()]
        if node.op == "get_attr" and not name.startswith("_modes."):
            owner, _, key = name.rpartition(".")
            value = getattr(module.get_submodule(owner), key)
            return digest(value) if isinstance(value, Tensor) else type(value).__qualname__
        if node.op == "call_function":
            self._label(node.target)
            return _plain(node.target, where="the model's forward", strict=True)
        return name if node.op == "call_method" else ""

    def libraries(self) -> list[str]:
        return sorted({identity for identity in self._identities.values() if " " in identity})

    def own(self) -> dict[str, str]:
        return {key: v for key, v in sorted(self._identities.items()) if v and " " not in v}

    def _label(self, code: Any) -> str:
        label = f"{code.__module__ or ''}.{getattr(code, '__qualname__', repr(code))}"
        if label not in self._identities:
            self._identities[label] = _code_identity(code)
        return label


def _joined(lines: Iterable[str]) -> str:
    # extra_repr can print a tensor; addresses in it would change from run to run.
    return fingerprint(_ADDRESS.sub("0x", "\n".join(lines)))


def _is_hold(value: Any) -> bool:
    """Whether an attribute is a freeze contract's: it changes modes, not what is computed."""
    return type(value).__module__.startswith("headstart.freezing.")


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


def _code_identity(code: Any) -> str:
    """Return library and version, the digest of own code, or nothing for Python's own."""
    library = _library(code.__module__ or "")
    if library is not None:
        return _version(library)
    if isinstance(code, type):
        bases = (base for base in code.__mro__ if base is not object)
        own = [base for base in bases if _library(base.__module__) is None]
        return fingerprint("".join(_code_text(base) for base in own))
    return fingerprint(_code_text(code)) if isinstance(code, FunctionType) else ""


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
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous().reshape(-1)
        raw = data.view(torch.uint8).numpy().tobytes() if data.numel() else b""
        return [str(value.dtype), list(value.shape), fingerprint(raw)]
    if isinstance(value, type):
        return [f"{value.__module__}.{value.__qualname__}", _code_identity(value)]
    if isinstance(value, functools.partial):
        return [
            _plain(value.func, where=where, strict=strict),
            _plain(value.args, where=where, strict=strict),
            _plain(value.keywords, where=where, strict=strict),
        ]
    if isinstance(value, FunctionType):
        own = _library(value.__module__ or "") is None
        return [f"{value.__module__}.{value.__qualname__}", _code_identity(value) if own else ""]
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


def _argument(value: Any, number: dict[fx.Node, int]) -> Any:
    """Turn an argument of an operation into JSON values; nodes are known by their position."""
    if isinstance(value, fx.Node):
        return {"node": number[value]}
    if isinstance(value, torch.device):
        return "device"  # the same rows, but for rounding
    if isinstance(value, slice):
        return ["slice", *(_argument(v, number) for v in (value.start, value.stop, value.step))]
    if isinstance(value, tuple | list):
        return [_argument(item, number) for item in value]
    if isinstance(value, dict):
        return {str(key): _argument(item, number) for key, item in value.items()}
    return _plain(value, where="an argument in the model's forward", strict=True)


__all__ = ["describe_graph", "describe_operations", "describe_structure"]
