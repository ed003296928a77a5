"""What a run was made with: versions, machine, time. Written into ``run.json``."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from headstart._version import __version__

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "pillow", "pyarrow")


def describe_environment() -> dict[str, Any]:
    """Return versions of Python and the packages that decide results, and the hardware."""
    import psutil
    import torch

    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "headstart": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": versions,
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
