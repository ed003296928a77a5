"""The values of bands: what weights of RGB say of them, what is given, what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import BadFilesError, ConfigError
from headstart.core.kinds import MEASURED
from headstart.core.progress import Reporter
from headstart.core.wording import count
from headstart.data import samples
from headstart.data.content import UndecodableError
from headstart.data.inputs import Inputs
from headstart.data.levels import BANDS_HINT
from headstart.data.reading import read_batches

if TYPE_CHECKING:
    from headstart.data.dataset import Split


_LOOKED_AT = 16


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


def bands_of(
    bands_last: Callable[[NDArray[np.float32]], NDArray[np.float32]], train: Split
) -> int | None:
    """Return how many bands the images of a split have; None: not all the same, or not known.

    Args:
        bands_last: puts the axis of the bands last.
        train: some images, evenly spread, are looked at.
    """
    found: set[int] = set()
    for i in np.unique(np.linspace(0, len(train) - 1, num=min(_LOOKED_AT, len(train)))):
        try:
            found.add(bands_last(samples.shares(train.content(int(i)))).shape[2])
        except (BadFilesError, UndecodableError, OSError):
            continue  # whoever reads all of them says what is wrong with it
    return found.pop() if len(found) == 1 else None


def bands_last(image: NDArray[np.float32], channels: int | None) -> NDArray[np.float32]:
    """Return an image with the axis of its bands last, ``(h, w, c)``.

    Args:
        image: ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)``.
        channels: how many bands it must have; None: any.

    Raises:
        UndecodableError: nothing says which axis they are.
    """
    if image.ndim == 2:
        return image[:, :, None]
    first, middle, last = image.shape
    if channels is not None and (first == channels) != (last == channels):
        return image if last == channels else np.moveaxis(image, 0, 2)
    if last < min(first, middle):
        return image
    if first < min(middle, last):
        return np.moveaxis(image, 0, 2)
    raise UndecodableError(
        f"samples of shape {image.shape}, of which nothing says which axis are the bands; save"
        " them as (height, width, bands)"
    )


def refuse_others(bands: int, known: int | None, chosen: Sequence[int]) -> None:
    """Refuse an image of other bands than the training images have.

    Transparency is the last of two bands, or of four, and changes nothing about those before it.

    Raises:
        UndecodableError: so it is.
    """
    colours = {1: 1, 2: 1, 3: 3, 4: 3}
    own = colours.get(bands)
    beside = own is not None and known is not None and own == colours.get(known)
    if known in (None, bands) or (beside and 0 < max(chosen, default=0) <= (own or 0)):
        return
    raise UndecodableError(
        f"{count(bands, 'band')}, and the training images have {known}: which of them are the same,"
        " nothing says"
    )


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
        f"choose {channels} of them, such as bands={example}, or use a network with {bands}"
        " channels"
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
        faults.append(f"bands are numbered from 1, found {bands}")
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
    "bands_last",
    "bands_of",
    "measured_statistics",
    "per_channel",
    "refuse_others",
    "stated_by_rgb",
    "value_faults",
    "ways_to",
]
