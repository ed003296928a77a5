"""Preprocessing for a backbone: taken from the weights' metadata, overridden by the user.

Never guessed: what neither the weights nor the user say is an error that names the options to give.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from headstart.core.errors import BackboneError
from headstart.data.preprocessing import Preprocessing

METADATA_KEY = "headstart.preprocessing"
"""Where a safetensors file may carry its preprocessing, as a JSON object."""

Numbers = float | Sequence[float]


@dataclass(frozen=True)
class Overrides:
    """What the user says about preprocessing; None leaves a value to the weights.

    Attributes are those of :class:`~headstart.data.preprocessing.Preprocessing`.
    """

    mean: Numbers | None = None
    std: Numbers | None = None
    size: int | tuple[int, int] | None = None
    scale: float | None = None
    crop_fraction: float | None = None
    resize: str | None = None
    interpolation: str | None = None
    channels: str | None = None

    def given(self) -> dict[str, Any]:
        """Return the values that were given."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def resolve(
    who: str, known: Mapping[str, Any], overrides: Overrides
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Combine what the weights say with what the user says.

    A crop fraction belongs to the size it was chosen for (0.875 is 224 of 256 pixels). At another
    size that the user names, the whole image is kept unless the user names a crop as well.

    Args:
        who: the backbone, for the message.
        known: values from the weights' own metadata; may be incomplete.
        overrides: the user's values, which win.

    Returns:
        The preprocessing, and what to say about it.

    Raises:
        BackboneError: mean, std or size is known from neither; the message lists the options.
    """
    given = overrides.given()
    values = {**known, **given}
    notes: tuple[str, ...] = ()
    cropped = known.get("crop_fraction", 1.0) < 1.0 and "crop_fraction" not in given
    if cropped and "size" in given and _pair(given["size"]) != _pair(known.get("size")):
        values["crop_fraction"] = 1.0
        notes = (
            "the whole image is kept at the size you gave; the weights' own crop fraction is "
            f"{known['crop_fraction']:g} (--crop)",
        )
    missing = [name for name in ("mean", "std", "size") if name not in values]
    if missing:
        options = " ".join(f"--{name} VALUE" for name in missing)
        raise BackboneError(
            f"the preprocessing of {who} is not known: its weights do not say their "
            f"{', '.join(missing)}",
            hint=f"give {options} as in pre-training (for inputs RGB/127.5 − 1: "
            "--mean 0.5 --std 0.5; for ImageNet's usual statistics: "
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225)",
        )
    return Preprocessing(**values), notes


def _pair(size: Any) -> tuple[Any, ...]:
    return (size, size) if isinstance(size, int) else tuple(size or ())


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
