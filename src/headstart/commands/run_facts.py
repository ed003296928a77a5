"""What describes a run: its main score, fingerprints of its backbone and splits, the machine."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np

from headstart._version import __version__
from headstart.backbones import Backbone
from headstart.cache import describe_space
from headstart.commands.scoring import AnyEvaluation
from headstart.core.errors import DataError
from headstart.core.fingerprints import canonical_json, fingerprint, sha256
from headstart.core.records import (
    Evaluation,
    NamedScore,
)
from headstart.data import Split
from headstart.extraction import Precision, Storage
from headstart.store import space_key

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "pillow", "pyarrow")


def main_score(evaluation: AnyEvaluation) -> NamedScore:
    """Return the figure that runs of a task are compared by."""
    if isinstance(evaluation, Evaluation):
        return NamedScore("accuracy", evaluation.accuracy)
    return evaluation.figures()[0]


def accuracy_of(evaluation: AnyEvaluation) -> float:
    """Return the accuracy of a classifier.

    Raises:
        DataError: it is none.
    """
    if isinstance(evaluation, Evaluation):
        return evaluation.accuracy.value
    names = ", ".join(each.name for each in evaluation.figures())
    raise DataError(
        "there is no accuracy, because items do not have exactly one class; the scores are"
        f" {names}",
        hint="use run.score or run.evaluation",
    )


def backbone_fingerprint(
    backbone: Backbone, precision: Precision, storage: Storage = "float32"
) -> str:
    """Return the key of the backbone's feature space: weights, code, preprocessing, cut."""
    return space_key(describe_space(backbone, precision, storage=storage))


def split_fingerprint(split: Split) -> str:
    """Return the digest of a split's items, labels and groups, in order."""
    # The canonical JSON of [classes, [[id, label], ...], groups], in the time of large splits.
    labels = split.labels.tolist()
    lines = ", ".join([f'["{key}", {label}]' for key, label in zip(split.ids, labels, strict=True)])
    classes = canonical_json(list(split.classes), compact=False)
    groups = (
        "" if split.groups is None else f", {canonical_json(split.groups.tolist(), compact=False)}"
    )
    targets = (
        ""
        if split.targets is None
        else f", {sha256(np.ascontiguousarray(split.targets).tobytes())}"
    )
    return fingerprint(f"[{classes}, [{lines}]{groups}{targets}]")


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


__all__ = [
    "accuracy_of",
    "backbone_fingerprint",
    "describe_environment",
    "main_score",
    "split_fingerprint",
]
