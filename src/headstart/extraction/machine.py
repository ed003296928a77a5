"""What a measured rate depends on: the network's structure, the machine, the libraries."""

from __future__ import annotations

import functools
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from headstart.backbones import Backbone
from headstart.core.arguments import Arguments
from headstart.core.fingerprints import fingerprint
from headstart.core.records import Precision

_LIBRARIES = ("torch", "openvino", "onnxruntime", "headstart")


def describe_network(cuts: Sequence[Backbone], inputs: Arguments) -> dict[str, Any]:
    """Describe what the speed of a network depends on: layers and shapes, not weights."""
    lines = [
        f"{name} {type(part).__module__}.{type(part).__qualname__} {part.extra_repr()} "
        f"{[tuple(p.shape) for p in part.parameters(recurse=False)]}"
        for name, part in cuts[0].module.named_modules()
    ]
    return {
        "structure": fingerprint("\n".join(lines)),
        "cuts": [[cut.layer, cut.pooling] for cut in cuts],
        "shapes": [[list(t.shape), str(t.dtype)] for t in inputs.tensors()],
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe device, threads and library versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "type": device.type,
        "threads": torch.get_num_threads(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def describe_build(device: torch.device) -> dict[str, Any]:
    """Describe what compiled code depends on: the machine, what its processor can do, the build."""
    cuda = device.type == "cuda"
    return {
        **describe_machine(device),
        "instructions": _instructions(),
        "capability": list(torch.cuda.get_device_capability(device)) if cuda else None,
        "torch": [torch.__version__, torch.version.git_version, torch.version.cuda],
        "platform": platform.platform(),
    }


@functools.cache
def _instructions() -> str:
    """Return a digest of what the processor can do; where the system does not say, torch's word."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    words = {line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))}
    return fingerprint("\n".join(sorted(words)), torch.backends.cpu.get_cpu_capability())


@functools.cache
def _processor() -> str:
    """Return the name of the processor; on Linux ``platform`` often has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{platform.machine()} {names[0] if names else platform.processor()}".strip()


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def half_types(device: torch.device) -> tuple[Precision, ...]:
    """Return the half precisions that a device computes in faster than in float32.

    A CPU without instructions for bfloat16 emulates it, more slowly than float32.
    """
    if device.type == "cuda":
        capable = torch.cuda.get_device_capability(device) >= (8, 0)
        return ("bfloat16",) if capable else ()
    return ("bfloat16",) if device.type == "cpu" and _has_bfloat16() else ()


@functools.cache
def _has_bfloat16() -> bool:
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in tests)


__all__ = ["describe_build", "describe_machine", "describe_network", "half_types"]
