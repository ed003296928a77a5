"""What weights say of the images they were trained on, as fields of ``Preprocessing``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.core.errors import BackboneError
from headstart.data.preprocessing import Preprocessing

METADATA_KEY = "headstart.preprocessing"
"""Where a safetensors file may carry its preprocessing, as a JSON object."""


def from_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate timm's ``pretrained_cfg`` into the fields of ``Preprocessing``."""
    size = config["input_size"]
    return {
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "size": (int(size[1]), int(size[2])),
        "crop_fraction": float(config.get("crop_pct") or 1.0),
        "interpolation": str(config.get("interpolation") or "bicubic"),
        "resize": "squash" if config.get("crop_mode") == "squash" else "shortest",
    }


def from_torchvision(transforms: Any) -> dict[str, Any]:
    """Translate torchvision's ``weights.transforms()`` (its ImageClassification preset)."""
    crop, box = int(transforms.crop_size[0]), int(transforms.resize_size[0])
    return {
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
        "size": (crop, crop),
        "crop_fraction": crop / box,
        "interpolation": str(transforms.interpolation.value),
    }


def from_file(weights: Path | None) -> dict[str, Any]:
    """Read the preprocessing that a safetensors file carries in its metadata, if it does."""
    if weights is None or weights.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (OSError, SafetensorError):
        return {}  # loading the weights reports what is wrong with the file
    if text is None:
        return {}
    try:
        values = json.loads(text)
        Preprocessing(**values)
    except (ValueError, TypeError) as error:
        raise BackboneError(
            f"the metadata '{METADATA_KEY}' of {weights} is not a preprocessing ({error})",
            hint="give --mean, --std and --size instead, or repair the file",
        ) from error
    return dict(values)
