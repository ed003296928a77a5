"""The values of bands: what weights of RGB say of them, what is given, what is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core.errors import ConfigError
from headstart.core.kinds import MEASURED
from headstart.core.progress import Reporter
from headstart.core.wording import count
from headstart.data.inputs import Inputs
from headstart.data.levels import BANDS_HINT
from headstart.data.reading import read_batches

if TYPE_CHECKING:
    from headstart.data.dataset import Split


def stated_by_rgb(
    names: Sequence[str], known: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what weights of RGB state, as fields of bands on values from 0 to 1."""
    stated = {name: value for name, value in known.items() if name in names}
    scale = float(known.get("scale", 1 / 255))
    if not math.isclose(scale, 1 / 255):
        for name in ("mean", "std"):
            if name in stated:
                stated[name] = tuple(float(v) / (255 * scale) for v in as_tuple(stated[name]))
    if known.get("channels", "RGB") == "BGR":
        return stated, ("the network's channels are blue, green, red: bands in this order",)
    return stated, ()


def as_tuple(value: Any) -> tuple[float, ...]:
    """Return one number or several as a tuple."""
    return (value,) if isinstance(value, int | float) else tuple(value)


def ways_to(bands: int, channels: int) -> str:
    """Return how images of some bands come to a network of other channels."""
    if bands == 1:
        return f"repeat the grey one with bands={(1,) * channels}"
    if channels == 3:
        return BANDS_HINT
    example = tuple(range(1, channels + 1))
    return (
        f"choose {channels} of them, such as bands={example}, or take a network of {bands} channels"
    )


def per_channel(values: Any, channels: int) -> Any:
    """Return one number for each channel; a text as it is."""
    if isinstance(values, str):
        return values
    numbers = tuple(float(value) for value in as_tuple(values))
    return numbers * channels if len(numbers) == 1 else numbers


def value_faults(channels: int, bands: Sequence[int], **normalisation: Any) -> list[str]:
    """Return what is wrong with the channels, the bands, and mean and standard deviation."""
    faults: list[str] = []
    if not isinstance(channels, int) or channels < 1:
        return [*faults, f"in_channels must be a positive whole number, not {channels!r}"]
    for name, values in normalisation.items():
        if values == MEASURED:
            continue
        if isinstance(values, str) or not all(math.isfinite(v) for v in values):
            faults.append(f"{name} must be finite numbers or '{MEASURED}', not {values!r}")
        elif len(values) != channels:
            faults.append(
                f"{name} has {len(values)} numbers, expected one, or one for each of the"
                f" {count(channels, 'channel')}"
            )
        elif name == "std" and any(v <= 0 for v in values):
            faults.append(f"std must be positive, not {values}")
    if any(not isinstance(band, int) or band < 1 for band in bands):
        faults.append(f"bands are counted from 1, not {bands}")
    elif bands and len(bands) != channels:
        faults.append(
            f"bands={bands} are {count(len(bands), 'band')}, and the network takes"
            f" {count(channels, 'channel')}"
        )
    return faults


def measured_statistics(
    inputs: Inputs, channels: int, train: Split, reporter: Reporter
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Return mean and standard deviation of every channel over the images of a split."""
    total = np.zeros(channels)
    squares = np.zeros(channels)
    pixels = n = 0
    with reporter.task("measure mean and std", len(train), inputs.unit) as task:
        for batch in read_batches(train, None, inputs, batch_size=32, on_bad="skip"):
            values = np.stack(batch.samples).astype(np.float64)
            total += values.sum((0, 2, 3))
            squares += (values**2).sum((0, 2, 3))
            pixels += values.size // channels
            n += len(batch)
            task.advance(len(batch))
    if not n:
        raise ConfigError(("mean='train' needs a training image that can be read",))
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0.0))
    rounded = [[float(f"{v:.6g}") for v in values] for values in (mean, std)]
    # A constant channel tells nothing, and would be divided by zero.
    return tuple(rounded[0]), tuple(v or 1.0 for v in rounded[1]), n


__all__ = [
    "as_tuple",
    "measured_statistics",
    "per_channel",
    "stated_by_rgb",
    "value_faults",
    "ways_to",
]
