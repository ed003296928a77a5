"""Sounds in memory, with their sampling rate: as the bytes of a file that holds them exactly.

Taken are ``(samples, rate)``, ``{"array": samples, "sampling_rate": rate}`` as the hub's data sets
decode them, and what torchcodec decodes. An array alone says no rate, and is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.content import UndecodableError
from headstart.data.items import ObjectItems

_MOST_CHANNELS = 32
_FLOAT = 3  # WAVE_FORMAT_IEEE_FLOAT


class SoundArrayItems(ObjectItems):
    """Sounds in memory.

    Args:
        values: of which :func:`is_sound_array` holds.
        name: what to call them, for origins.
    """

    kind = "audio"

    def __init__(self, values: Sequence[Any], name: str) -> None:
        super().__init__(len(values), partial(_one, values), name)


def _one(values: Sequence[Any], i: int) -> bytes:
    return wav_of(values[i])


def is_sound_array(value: Any) -> bool:
    """Return whether this is one sound with its rate."""
    if isinstance(value, Mapping):
        return "array" in value and "sampling_rate" in value
    if isinstance(value, tuple | list):
        rate = value[1] if len(value) == 2 else None
        shape = getattr(value[0], "shape", None) if value else None
        whole = isinstance(rate, int | np.integer) and not isinstance(rate, bool)
        return whole and shape is not None and len(shape) in (1, 2)
    return hasattr(value, "get_all_samples") or (
        hasattr(value, "sample_rate") and hasattr(value, "data")
    )


def are_sound_arrays(values: Any) -> bool:
    """Return whether these are sounds with their rates, and at least one."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return False
    if not isinstance(values, list | tuple | np.ndarray) or not len(values):
        return False
    return all(is_sound_array(value) for value in values)


def wav_of(value: Any) -> bytes:
    """Return a sound as a WAV file of 32-bit floats; the same samples give the same bytes.

    Args:
        value: of which :func:`is_sound_array` holds. Samples are ``(n,)``, ``(n, channels)`` or
            ``(channels, n)``: the shorter axis are the channels. Whole numbers are scaled by the
            largest of their type, as in files; floats are taken as they are.

    Raises:
        UndecodableError: the rate is none, or the samples are no sound.
    """
    samples, rate = _parts(value)
    if rate <= 0:
        raise UndecodableError(f"{rate} samples per second, expected a positive number")
    floats = _scaled(samples)
    if floats.ndim == 2:
        n, channels = floats.shape
        if n == channels or min(n, channels) > _MOST_CHANNELS:
            raise UndecodableError(
                f"samples of shape {floats.shape}, where it is unclear which axis holds the"
                " channels; give (samples,), or average the channels first"
            )
        floats = floats if n > channels else floats.T
    elif floats.ndim != 1:
        raise UndecodableError(f"samples of shape {floats.shape}, expected (n,) or (n, channels)")
    if not floats.size:
        raise UndecodableError("it is empty: it has no samples")
    channels = 1 if floats.ndim == 1 else floats.shape[1]
    data = np.ascontiguousarray(floats, dtype="<f4").tobytes()
    # by hand: libsndfile would add the time of day, and other bytes are another item
    frame = 4 * channels
    form = struct.pack("<HHIIHHH", _FLOAT, channels, rate, rate * frame, frame, 32, 0)
    chunks = _chunk(b"fmt ", form) + _chunk(b"fact", struct.pack("<I", len(floats)))
    return _chunk(b"RIFF", b"WAVE" + chunks + _chunk(b"data", data))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content


def _parts(value: Any) -> tuple[NDArray[Any], int]:
    if isinstance(value, Mapping):
        samples, rate = value["array"], value["sampling_rate"]
    elif isinstance(value, tuple | list):
        samples, rate = value
    else:  # torchcodec: a decoder, or what it decodes
        found = value.get_all_samples() if hasattr(value, "get_all_samples") else value
        samples, rate = found.data, found.sample_rate
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu().numpy()
    if rate is None or int(rate) != rate:
        raise UndecodableError(f"{rate} samples per second, expected a whole number")
    return np.asarray(samples), int(rate)


def _scaled(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Return samples as floats; those of 8 bits are unsigned, as in files."""
    kind = samples.dtype
    if kind.kind == "f":
        return samples.astype(np.float32)
    if kind == np.uint8:
        return ((samples.astype(np.float32) - 128) / 128).astype(np.float32)
    if kind in (np.int16, np.int32):
        largest = float(-np.iinfo(kind).min)
        return (samples.astype(np.float64) / largest).astype(np.float32)
    raise UndecodableError(
        f"samples of type {kind}, expected floats, or whole numbers of 8 (unsigned), 16 or 32 bits"
    )


__all__ = ["SoundArrayItems", "are_sound_arrays", "is_sound_array", "wav_of"]
