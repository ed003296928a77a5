"""Other ways in which images may have been prepared: usual ones, wrong ones, and smaller ones.

They are made of the inputs of RGB images, :class:`~headstart.data.preprocessing.Preprocessing`, by
the names of its fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from headstart.data import decoding
from headstart.data.content import Content
from headstart.data.inputs import Enlargement, Inputs, Variant

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

TINY = 1.5
"""Images that are enlarged by more than this lack the detail that the network knows."""

Kind = TypeVar("Kind", bound=Inputs)


def usual_variants(given: Inputs) -> tuple[Variant, ...]:
    """Return usual preprocessings other than the one given, the smallest changes first."""
    own = given.values()
    swapped = _swapped(own["channels"])
    candidates = [
        (f"with channels in {swapped} order", given.changed(channels=swapped)),
        ("divided by 255", given.changed(scale=own["scale"] / 255))
        if own["scale"] > 0.1
        else ("multiplied by 255", given.changed(scale=own["scale"] * 255)),
    ]
    normalisations: dict[str, dict[str, Any]] = {
        "with mean 0.5 and standard deviation 0.5": {"scale": 1 / 255, "mean": 0.5, "std": 0.5},
        "with ImageNet's mean and standard deviation": {
            "scale": 1 / 255,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
        },
        "divided by 255 alone": {"scale": 1 / 255, "mean": 0.0, "std": 1.0},
        "0..255 as they are": {"scale": 1.0, "mean": 0.0, "std": 1.0},
        "0..255 less ImageNet's mean": {
            "scale": 1.0,
            "mean": tuple(round(255 * m, 3) for m in IMAGENET_MEAN),
            "std": 1.0,
        },
    }
    for channels in (own["channels"], swapped):
        order = "" if channels == own["channels"] else f", channels in {swapped} order"
        for name, values in normalisations.items():
            candidates.append((name + order, given.changed(channels=channels, **values)))
    distinct: dict[Inputs, str] = {}
    for name, changed in candidates:
        if changed != given:
            distinct.setdefault(changed, name)
    return tuple(
        Variant(name, changed, _mends(given, changed)) for changed, name in distinct.items()
    )


def usual_mistakes(given: Kind) -> Mapping[str, Kind]:
    """Return what goes wrong with images in practice, by name.

    ``unscaled``: 0..255, no mean, no standard deviation. ``unnormalised``: 0..1, likewise.
    ``misnormalised``: ImageNet's mean and standard deviation, or 0.5 where ImageNet's are right.
    ``swapped-channels``: BGR for RGB, or the reverse.
    """
    own = given.values()
    imagenet = (own["mean"], own["std"]) == (IMAGENET_MEAN, IMAGENET_STD)
    other: dict[str, Any] = (
        {"mean": 0.5, "std": 0.5} if imagenet else {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    )
    return {
        "unscaled": given.changed(scale=1.0, mean=0.0, std=1.0),
        "unnormalised": given.changed(scale=1 / 255, mean=0.0, std=1.0),
        "misnormalised": given.changed(**other),
        "swapped-channels": given.changed(channels=_swapped(own["channels"])),
    }


def enlargement_of(given: Inputs, contents: Sequence[Content]) -> Enlargement:
    """Return by how much some images are enlarged, and inputs near their own size."""
    side = int(np.median([min(decoding.image_of(content).size) for content in contents]))
    own = given.values()
    resized = round(min(own["size"]) / own["crop_fraction"])
    smaller = _near(given, side) if resized / side >= TINY else None
    if smaller is None:
        return Enlargement(side, resized, None)
    name = f"at {smaller.values()['size'][0]} px, near their own size"
    return Enlargement(side, resized, Variant(name, smaller, "enlarged"))


def _near(given: Inputs, side: int) -> Inputs | None:
    """Return the preprocessing at half again the images' size, if the network might take it."""
    target = max(32, 16 * round(1.5 * side / 16))
    height, width = given.values()["size"]
    if target >= min(height, width):
        return None
    scale = target / min(height, width)
    size = (max(16, 16 * round(height * scale / 16)), max(16, 16 * round(width * scale / 16)))
    return given.changed(size=size)


def _swapped(channels: str) -> str:
    return "BGR" if channels == "RGB" else "RGB"


def _mends(given: Inputs, right: Inputs) -> str:
    own, other = given.values(), right.values()
    if own["scale"] > 20 * other["scale"]:
        return "unscaled"
    if other["scale"] > 20 * own["scale"]:
        return "overscaled"
    if (own["mean"], own["std"]) == (other["mean"], other["std"]):
        return "channels"
    return "normalisation"


__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "TINY",
    "enlargement_of",
    "usual_mistakes",
    "usual_variants",
]
