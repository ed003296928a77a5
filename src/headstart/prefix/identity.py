"""What a prefix computes, in plain values: the part of a cache key that is its own.

Weights enter by digest, code by the operations of the graph with the classes, attributes and
versions of the modules that were kept whole. Names of nodes do not enter, nor anything behind the
cut: another head, or another recipe, finds the same rows.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, fx, nn

from headstart.core.fingerprints import canonical_json, fingerprint
from headstart.modules.digests import digest, named_tensors

_LIBRARIES = ("timm", "torchvision", "transformers", "keras")
_OWN_NAMES = frozenset(vars(nn.Module())) | {"training", "train", "forward"}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def describe_graph(module: nn.Module, graph: fx.Graph) -> dict[str, Any]:
    """Describe a graph and all that it names in ``module``.

    Returns:
        ``code``: hexadecimal digest of the operations; ``operations``: how many there are;
        ``libraries``: versions of the libraries whose layers take part; ``tensors``: digest of
        every parameter and buffer, by name.
    """
    number = {node: position for position, node in enumerate(graph.nodes)}
    lines, libraries = [], set()
    for node in graph.nodes:
        arguments = _plain((node.args, node.kwargs), number)
        target, library = _target(module, node)
        lines.append(canonical_json([node.op, target, arguments], compact=False))
        libraries |= library
    return {
        "code": fingerprint("\n".join(lines)),
        "operations": len(lines),
        "libraries": sorted(libraries),
        "tensors": {name: digest(tensor) for name, tensor in sorted(named_tensors(module))},
    }


def describe_modules(modules: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Describe modules that are run whole: their code, and their tensors."""
    lines, libraries, tensors = [], set(), {}
    for name, module in modules.items():
        text, library = describe_module(module)
        lines.append(json.dumps([name, text]))
        libraries |= library
        prefix = f"{name}." if name else ""
        tensors.update({prefix + key: digest(value) for key, value in named_tensors(module)})
    return {
        "code": fingerprint("\n".join(lines)),
        "operations": len(lines),
        "libraries": sorted(libraries),
        "tensors": dict(sorted(tensors.items())),
    }


def describe_module(module: nn.Module) -> tuple[list[Any], set[str]]:
    """Describe one module with all that lies below: classes, code and plain attributes."""
    lines: list[Any] = []
    libraries: set[str] = set()
    for name, part in module.named_modules():
        kind, library = _code(type(part))
        libraries |= library
        attributes = {
            key: _plain(value, {})
            for key, value in sorted(vars(part).items())
            if key not in _OWN_NAMES and not key.startswith("_headstart")
        }
        lines.append([name, kind, _ADDRESS.sub("", part.extra_repr()), attributes])
    return lines, libraries


def describe_code(modules: Mapping[str, nn.Module]) -> str:
    """Return a digest of the code and plain attributes of modules, not of what lies below them."""
    lines = []
    for name, module in modules.items():
        attributes = {
            key: _plain(value, {})
            for key, value in sorted(vars(module).items())
            if key not in _OWN_NAMES and not key.startswith("_headstart")
        }
        lines.append(canonical_json([name, _code(type(module))[0], attributes], compact=False))
    return fingerprint("\n".join(lines))


def _target(module: nn.Module, node: fx.Node) -> tuple[Any, set[str]]:
    name = str(node.target)
    if node.op == "call_module":
        return describe_module(module.get_submodule(name))
    if node.op == "get_attr" and not name.startswith("_modes."):
        owner, _, key = name.rpartition(".")
        value = getattr(module.get_submodule(owner), key)
        return (digest(value) if isinstance(value, Tensor) else type(value).__qualname__), set()
    if node.op == "call_function":
        return _code(node.target)
    return ("" if node.op in {"placeholder", "output", "get_attr"} else name), set()


def _code(code: Any) -> tuple[Any, set[str]]:
    """Name a class or function; a user's own with a digest of its source."""
    module = getattr(code, "__module__", "") or ""
    label = f"{module}.{getattr(code, '__qualname__', repr(code))}"
    root = module.split(".")[0]
    if root in _LIBRARIES:
        return label, {f"{root} {_version(root)}"}
    if root in {"torch", "headstart", "builtins", "math", "_operator", "operator", ""}:
        return label, set()
    own = [code]
    if isinstance(code, type):
        own = [b for b in code.__mro__ if b.__module__.split(".")[0] not in {"torch", "builtins"}]
    return [label, fingerprint("".join(_source(part) for part in own))], set()


@functools.cache
def _version(library: str) -> str:
    return metadata.version(library)


def _source(code: Any) -> str:
    """Return the source, or the compiled code where no source is at hand."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        functions = vars(code).values() if isinstance(code, type) else [code]
        compiled = [f.__code__ for f in functions if inspect.isfunction(f)]
        return "".join(f"{c.co_name}{c.co_code.hex()}{c.co_names}" for c in compiled)


def _plain(value: Any, number: Mapping[fx.Node, int]) -> Any:
    """Turn an argument or attribute into JSON values."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, fx.Node):
        return {"node": number[value]}
    if isinstance(value, Tensor):
        return digest(value)
    if isinstance(value, torch.device):
        return "device"  # the same rows, but for rounding
    if isinstance(value, tuple | list):
        return [_plain(item, number) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item, number) for item in value), key=str)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, number) for key, item in value.items()}
    if isinstance(value, slice):
        return ["slice", *(_plain(v, number) for v in (value.start, value.stop, value.step))]
    if isinstance(value, functools.partial):
        return ["partial", *(_plain(v, number) for v in (value.func, value.args, value.keywords))]
    if isinstance(value, type) or inspect.isroutine(value):
        return _code(value)[0]
    text = repr(value)
    return type(value).__qualname__ if _ADDRESS.search(text) else text


__all__ = ["describe_code", "describe_graph", "describe_module", "describe_modules"]
