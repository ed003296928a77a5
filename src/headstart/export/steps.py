"""A recorded program as plain values: its operators, one after the other, and its tensors by name.

The operators are those of PyTorch's ATen library and arithmetic with sizes; nothing else can be
named, so that reading such a list runs no code of anybody's. docs/export.md is its specification.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from headstart.export.scripts.run_safetensors import ARITHMETIC, CHECKS
from headstart.extraction.engines.table import EngineUnfitError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_ENUMS = {torch.dtype: "dtype", torch.device: "device", torch.layout: "layout"}
_NAMES: dict[Any, str] = {getattr(operator, name): name for name in ARITHMETIC}


def listed_steps(program: ExportedProgram) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Return the steps of a program and the tensors that they name.

    Raises:
        EngineUnfitError: it does something other than call operators of ATen.
    """
    module = program.module()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    steps: list[dict[str, Any]] = []
    used: dict[str, Tensor] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            steps.append({"name": node.name, "input": sum("input" in step for step in steps)})
        elif node.op == "get_attr":
            found = tensors.get(node.target)
            found = _attribute(module, node.target) if found is None else found
            used[node.target] = found.detach().clone().contiguous()
            steps.append({"name": node.name, "tensor": node.target})
        elif node.op == "output":
            (result,) = node.args[0]
            steps.append({"output": result.name})
        elif node.op == "call_function":
            name = _operator(node)
            if name not in CHECKS:
                arguments = {"args": _plain(node.args), "kwargs": _plain(node.kwargs)}
                steps.append({"name": node.name, "call": name, **arguments})
        elif not str(node.target).startswith("_guards"):
            raise EngineUnfitError(f"its program calls '{node.target}', which is not an operator")
    return steps, used


def _attribute(module: Any, name: str) -> Tensor:
    for part in name.split("."):
        module = getattr(module, part)
    if not isinstance(module, Tensor):
        raise EngineUnfitError(f"its program holds '{name}', which is not a tensor")
    return module


def _operator(node: fx.Node) -> str:
    target: Callable[..., Any] = node.target  # type: ignore[assignment]
    if target in _NAMES:
        return f"operator.{_NAMES[target]}"
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
        return str(target)
    raise EngineUnfitError(f"its program calls '{target}', which is not an ATen operator")


def _plain(value: Any) -> Any:
    """Return an argument as JSON has it; what JSON has not is an object of one name."""
    if isinstance(value, fx.Node):
        return {"step": value.name}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.memory_format):
        return {"memory_format": str(value).removeprefix("torch.")}
    for kind, name in _ENUMS.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    raise EngineUnfitError(
        f"its program holds a {type(value).__name__}, which is not a plain value"
    )


__all__ = ["listed_steps"]
