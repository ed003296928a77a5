"""An artefact of safetensors: tensors by name, and the operators that are called with them."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

FORMAT = 1
ARITHMETIC = ("add", "sub", "mul", "floordiv", "mod", "neg", "getitem", "eq", "ge", "le", "truediv")
"""Of sizes, by the names of Python's module ``operator``."""
CHECKS = (
    "aten._assert_tensor_metadata.default",
    "aten._assert_scalar.default",
    "aten._assert_async.msg",
    "aten.sym_constrain_range_for_size.default",
)
"""Operators that compute nothing."""

REFUSED = ("from_file",)
"""Operators that touch files."""


class Network:
    """``model.safetensors`` and ``program.json``, run by PyTorch.

    A step names an operator of PyTorch's ATen library, and nothing else can be named.
    """

    def __init__(self, folder: Any, description: Mapping[str, Any]) -> None:
        from safetensors.torch import load_file

        self.names = description["inputs"]
        self.tensors = load_file(folder / "model.safetensors")
        program = json.loads((folder / "program.json").read_text(encoding="utf-8"))
        if program["format"] != FORMAT:
            raise ValueError(f"program.json has format {program['format']}, expected {FORMAT}")
        self.steps = program["steps"]
        self.last: dict[str, int] = {}  # the step that uses a value last
        for number, step in enumerate(self.steps):
            for name in steps_in([step.get("args", []), step.get("kwargs", {})]):
                self.last[name] = number
        self.calls = [call_of(step["call"]) if "call" in step else None for step in self.steps]

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the outputs ``(n, k)``."""
        import torch

        given = [torch.from_numpy(arrays[name]) for name in self.names]
        values: dict[str, Any] = {}
        with torch.no_grad():
            for number, (step, call) in enumerate(zip(self.steps, self.calls, strict=True)):
                if "output" in step:
                    return np.asarray(values[step["output"]].numpy())
                if "input" in step:
                    values[step["name"]] = given[step["input"]]
                elif "tensor" in step:
                    values[step["name"]] = self.tensors[step["tensor"]]
                else:
                    assert call is not None
                    args, kwargs = value_of(step["args"], values), value_of(step["kwargs"], values)
                    values[step["name"]] = call(*args, **kwargs)
                    for name in steps_in([step["args"], step["kwargs"]]):
                        if self.last[name] == number:
                            values.pop(name, None)
        raise ValueError("program.json has no output")


def call_of(name: str) -> Any:
    """Return what a step calls.

    Raises:
        ValueError: it is no operator of ATen, and no arithmetic.
    """
    import torch

    library, _, rest = name.partition(".")
    if library == "operator" and rest in ARITHMETIC:
        return getattr(operator, rest)
    packet, _, overload = rest.partition(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None) if overload else None
    if library != "aten" or packet in REFUSED or not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"program.json calls {name!r}, which is not an ATen operator")
    return found


def value_of(plain: Any, values: Mapping[str, Any]) -> Any:
    """Return an argument of a step."""
    import torch

    if isinstance(plain, list):
        return [value_of(each, values) for each in plain]
    if not isinstance(plain, dict):
        return plain
    if len(plain) == 1:
        ((kind, what),) = plain.items()
        if kind == "step":
            return values[what]
        if kind == "float":
            return float(what)
        if kind == "device":
            return torch.device("cpu")
        if kind in ("dtype", "layout", "memory_format") and isinstance(what, str):
            return getattr(torch, what)
    return {name: value_of(each, values) for name, each in plain.items()}


def steps_in(plain: Any) -> list[str]:
    """Return the names of the steps whose values an argument uses."""
    if isinstance(plain, list):
        return [name for each in plain for name in steps_in(each)]
    if not isinstance(plain, dict):
        return []
    if list(plain) == ["step"]:
        return [plain["step"]]
    return [name for each in plain.values() for name in steps_in(each)]


__all__ = ["ARITHMETIC", "CHECKS", "Network", "call_of"]
