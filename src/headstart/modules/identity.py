"""What a network computes, described in plain values: the part of a cache key that is code.

Weights alone do not identify a function: a stride, an epsilon or a line of ``forward`` changes it
as well. Modules are described by their classes (with the version of the library they come from, or
the digest of their source where they are the user's own) and by their plain attributes, graphs by
their operations. What cannot be described is refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

from headstart.core.fingerprints import canonical_json, fingerprint
from headstart.modules.digests import digest, named_tensors
from headstart.modules.modes import untouched
from headstart.modules.values import ADDRESS, Describer, compiled_away, library_of, settled
from headstart.modules.watchers import only_watches

_COMPILER = {"_compiled_call_impl", "_is_torch_compile", "_compile_kwargs"}  # the last: Lightning's
_MACHINERY = frozenset(vars(nn.Module())) | {"training", "train"} | _COMPILER
"""Attributes of ``nn.Module`` itself: parameters, buffers, hooks, mode, and a compiled form of what
is described. A freeze contract holds a module in evaluation mode by a ``train`` of its own, which
changes nothing in that mode."""


def describe_structure(
    module: nn.Module, names: Sequence[str], runs: Sequence[Callable[[], object]] = ()
) -> dict[str, Any]:
    """Describe the named submodules of ``module``, with the hooks that are registered on them.

    Args:
        module: the model.
        names: the submodules that take part, "" for the module itself.
        runs: two runs of the model on different items. What differs between them is state that the
            model or a hook keeps (the last activations, a counter), and does not enter; whether
            features depend on it, the extraction finds out by repeating a pass.

    Returns:
        ``class``: of the model, for the reader; ``libraries``: with their versions; ``own_code``:
        the user's own classes → digest of their source; ``structure``: digest of every submodule's
        name, class, plain attributes and hooks.

    Raises:
        BackboneError: an attribute of one of the user's own classes, or something that a hook
            refers to, has no plain description.
    """
    parts = dict(module.named_modules())
    code = _Code(module)

    def described() -> list[Any]:
        trees = [code.part(name, parts[name]) for name in names if not _is_compiler(parts[name])]
        around = list(code.global_hooks())
        return [*trees, around] if around else trees

    trees = described()
    if runs and (code.own() or code.hooks):
        with untouched(module):
            found = []
            for run in runs:
                run()
                found.append(described())
        trees = settled(found[0], found[1])
    lines = [canonical_json(tree, compact=False) for tree in trees]
    return {
        "class": type(getattr(module, "_orig_mod", module)).__qualname__,
        "libraries": code.libraries(),
        "own_code": code.own(),
        "structure": _joined(lines),
    }


def describe_attributes(module: nn.Module) -> dict[str, str]:
    """Describe the attributes of a network and its parts that are no parameters, buffers or hooks.

    Two descriptions of a network tell which attributes a pass in between has changed.

    Returns:
        By the name of the attribute in the network ("blocks.0.count"). Objects are described by
        their ``repr``; where that does not show their state, a change of it goes unseen.
    """
    describer = Describer(module)
    found = {}
    for name, part in module.named_modules():
        held = {} if isinstance(part, torch.jit.ScriptModule) else vars(part)
        for key, value in held.items():
            if key in _MACHINERY or isinstance(value, nn.Module):
                continue
            where = f"{name}.{key}" if name else key
            try:
                found[where] = repr(describer.plain(value, where=where, strict=False))
            except Exception:  # noqa: S112 a repr of the user's own may fail
                continue
    return found


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
    code = _Code(module)
    lines = []
    for node in graph.nodes:
        arguments = code.argument((node.args, node.kwargs), number)
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

    def __init__(self, module: nn.Module) -> None:
        self._describer = Describer(module, self._outside)
        self.hooks = False

    def part(self, name: str, module: nn.Module) -> list[Any]:
        """Describe one module, without what lies below it."""
        if isinstance(module, torch.jit.ScriptModule):
            return self._script(name, module)
        own = getattr(module, "__headstart_identity__", None)
        if own is not None:  # the module stands for something that describes itself
            described = self._describer.plain(own(), where=name or "the model", strict=True)
            return [name, described, list(self._hooks(name or "the model", vars(module)))]
        kind = type(module)
        if parametrize.is_parametrized(module):  # a class made for the instance
            kind = parametrize.type_before_parametrizations(module)
        strict = library_of(kind) is None
        where = name or "the model"
        attributes = {
            key: self._describer.plain(value, where=f"{where}.{key}", strict=strict)
            for key, value in sorted(vars(module).items())
            if key not in _MACHINERY and not key.startswith("_headstart") and not _is_hold(value)
        }
        label = self._describer.label(kind)
        tree = [compiled_away(name), label, module.extra_repr(), attributes]
        hooks = list(self._hooks(where, vars(module)))
        return [*tree, hooks] if hooks else tree

    def _script(self, name: str, module: torch.jit.ScriptModule) -> list[Any]:
        """Describe TorchScript by its code, and the constants in it."""
        if not hasattr(module, "forward"):
            return [name, "TorchScript"]
        text, constants = module.code_with_constants
        # The graph has the constants of modules; where it was written does not matter.
        graph = re.sub(r" # .*", "", str(module.graph))
        code = re.sub(r"___torch_mangle_\d+", "", f"{text}\n{graph}")
        held = self._describer.plain(constants.const_mapping, where=name, strict=False)
        return [name, "TorchScript", code, held]

    def global_hooks(self) -> Iterator[Any]:
        """Describe the hooks that are registered for all modules."""
        tables = {
            "_forward_pre_hooks": torch_module._global_forward_pre_hooks,
            "_forward_hooks": torch_module._global_forward_hooks,
        }
        yield from self._hooks("every module", tables)

    def _hooks(self, where: str, tables: Mapping[str, Any]) -> Iterator[Any]:
        for table, which in (("_forward_pre_hooks", "pre-hook"), ("_forward_hooks", "hook")):
            named = tables.get(f"{table}_with_kwargs", {})
            for key, hook in tables[table].items():
                ours = (getattr(hook, "__module__", None) or "").startswith("headstart.")
                if ours or only_watches(hook):
                    continue
                self.hooks = True
                place = f"the forward {which} of {where}"
                described = self._describer.plain(hook, where=place, strict=True, deep=True)
                yield [which, described, key in named]

    def _outside(self, module: nn.Module, where: str) -> Any:
        """Describe a module that the network uses without having registered it."""
        parts = [self.part(f"{where}: {name}", part) for name, part in module.named_modules()]
        return [parts, digest(module)]

    def target(self, module: nn.Module, node: fx.Node) -> Any:
        """Describe what a node calls or reads."""
        name = str(node.target)
        if node.op == "call_module":
            called = module.get_submodule(name).named_modules()
            parts = [canonical_json(self.part(n, p), compact=False) for n, p in called]
            return parts
        if node.op == "get_attr" and not name.startswith("_modes."):
            owner, _, key = name.rpartition(".")
            value = getattr(module.get_submodule(owner), key)
            return digest(value) if isinstance(value, Tensor) else type(value).__qualname__
        if node.op == "call_function":
            self._describer.label(node.target)
            return self._describer.plain(node.target, where="the model's forward", strict=True)
        return name if node.op == "call_method" else ""

    def argument(self, value: Any, number: dict[fx.Node, int]) -> Any:
        """Turn an argument of an operation into JSON values; nodes are known by their position."""
        if isinstance(value, fx.Node):
            return {"node": number[value]}
        if isinstance(value, torch.device):
            return "device"  # the same rows, but for rounding
        if isinstance(value, slice):
            parts = (value.start, value.stop, value.step)
            return ["slice", *(self.argument(part, number) for part in parts)]
        if isinstance(value, tuple | list):
            return [self.argument(item, number) for item in value]
        if isinstance(value, dict):
            return {str(key): self.argument(item, number) for key, item in value.items()}
        where = "an argument in the model's forward"
        return self._describer.plain(value, where=where, strict=True)

    def libraries(self) -> list[str]:
        found = self._describer.identities.values()
        return sorted({identity for identity in found if " " in identity})

    def own(self) -> dict[str, str]:
        found = sorted(self._describer.identities.items())
        return {key: identity for key, identity in found if identity and " " not in identity}


def _joined(lines: Iterable[str]) -> str:
    # extra_repr can print a tensor; addresses in it would change from run to run.
    return fingerprint(ADDRESS.sub("0x", "\n".join(lines)))


def _is_hold(value: Any) -> bool:
    """Whether an attribute is a freeze contract's: it changes modes, not what is computed."""
    return type(value).__module__.startswith("headstart.freezing.")


def _is_compiler(module: nn.Module) -> bool:
    """Whether a module is what ``torch.compile`` puts around another one."""
    around = type(module).__module__.startswith("torch._dynamo")
    return around and isinstance(getattr(module, "_orig_mod", None), nn.Module)


__all__ = ["describe_attributes", "describe_graph", "describe_operations", "describe_structure"]
