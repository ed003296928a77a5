"""Engines: ways of running a network up to its cuts; see :mod:`.table` for how to add one.

The built-in ones are entered here. Each is a module that is imported when it is opened.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from headstart.core.errors import MissingExtraError
from headstart.extraction.engines.table import (
    Engine,
    EngineUnfitError,
    Prospect,
    describe_engines,
    engine_names,
    find_engine,
    register_engine,
)

if TYPE_CHECKING:
    from headstart.extraction.engines.table import Open, OpenKept


def _in_module(name: str, function: str = "open_engine") -> Open:
    """Return a function that imports ``engines.NAME`` and calls its function."""

    def open_engine(
        cuts: Sequence[Any], precision: Any, device: Any
    ) -> AbstractContextManager[Any]:
        module = importlib.import_module(f"{__name__}.{name}")
        return getattr(module, function)(cuts, precision, device)  # type: ignore[no-any-return]

    return open_engine


def _kept_in_module(name: str) -> OpenKept:
    """Return a function that does what that of :func:`_in_module` does, with a slot."""

    def open_engine(
        cuts: Sequence[Any], precision: Any, device: Any, slot: Any
    ) -> AbstractContextManager[Any]:
        module = importlib.import_module(f"{__name__}.{name}")
        return module.open_engine(cuts, precision, device, slot)  # type: ignore[no-any-return]

    return open_engine


def _needs(engine: str, *packages: str) -> Any:
    """Return a function that says which package of an engine's extra is not installed."""

    def missing() -> Exception | None:
        for package in packages:
            if importlib.util.find_spec(package) is None:
                return MissingExtraError(package, engine, f"engine='{engine}'")
        return None

    return missing


# Prospects on CPUs are low values of what six networks took and gained (``benchmarks/extract.py``).
EAGER = register_engine(
    Engine("eager", "as written, with batch norm folded into convolutions", _in_module("eager"))
).name
register_engine(
    Engine(
        "aot",
        "torch.compile ahead of time (AOTInductor), kept for later runs",
        _in_module("ahead"),
        prospect={"cpu": Prospect(15.0, {"float32": 1.15, "bfloat16": 1.2})},
        kept=_kept_in_module("ahead"),
    )
)
register_engine(
    Engine(
        "compile",
        "torch.compile, which pays off for tens of thousands of items",
        _in_module("compiled"),
        prospect={
            "cpu": Prospect(12.0, {"float32": 1.1, "bfloat16": 1.2}),
            "cuda": Prospect(60.0, {"float32": 1.3, "tf32": 1.3, "bfloat16": 1.5, "float16": 1.5}),
        },
    )
)
register_engine(
    Engine(
        "cudagraphs",
        "torch.compile with CUDA graphs, on CUDA devices",
        _in_module("compiled", "open_with_graphs"),
        prospect={
            "cuda": Prospect(60.0, {"float32": 1.4, "tf32": 1.4, "bfloat16": 1.6, "float16": 1.6}),
        },
    )
)
register_engine(
    Engine(
        "openvino",
        "Intel's OpenVINO, on CPUs",
        _in_module("openvino"),
        missing=_needs("openvino", "openvino"),
        prospect={"cpu": Prospect(3.0, {"float32": 1.4, "bfloat16": 1.5})},
    )
)
register_engine(
    Engine(
        "onnx",
        "ONNX Runtime, on CPUs, in float32",
        _in_module("onnx"),
        missing=_needs("onnx", "onnxruntime", "onnx", "onnxscript"),
        prospect={"cpu": Prospect(5.0, {"float32": 1.4})},
    )
)

AUTO = "auto"
"""Not an engine: the plan chooses one; see :mod:`headstart.extraction.plan`."""

__all__ = [
    "AUTO",
    "EAGER",
    "Engine",
    "EngineUnfitError",
    "Prospect",
    "describe_engines",
    "engine_names",
    "find_engine",
    "register_engine",
]
