"""JPEG files decoded and resized on the GPU: nvJPEG, through torchcodec.

A GPU decodes thousands of JPEGs a second where a processor's thread decodes a few hundred, but not
to the same pixels: nvJPEG rounds otherwise than libjpeg, and torch's resizing otherwise than
Pillow's, by a few of 255 levels. So it is a decoder of its own, which has to be asked for
(``decoder="nvjpeg"``), is part of every key, and is refused where it is not there.

What is decoded here follows from the file and the inputs alone: whole JPEGs of grey or RGB in the
upright position, of up to :data:`~headstart.data.decoding.LARGE` pixels. All others are decoded as
with the ordinary decoder, and so is what nvJPEG cannot read; an item is bad where both fail.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headstart.core.devices import is_out_of_memory
from headstart.core.errors import ConfigError, MissingExtraError
from headstart.data.content import Content
from headstart.data.decoding import LARGE
from headstart.data.formats import open_header
from headstart.data.geometry import Place, Placing, place
from headstart.data.jpeg import is_whole
from headstart.data.orientation import turned_by
from headstart.data.resampling import MOST

NVJPEG = "nvjpeg"
"""The name of this decoder."""

RULES = 1
"""Version of the rules above; part of every key."""

FILTERS = ("bilinear", "bicubic")
"""Filters that torch resizes with as Pillow does, but for rounding."""

_DEVICE = "cuda"
_own = threading.local()


@dataclass(frozen=True, eq=False)
class Encoded:
    """A file that the device decodes.

    Attributes:
        data: the whole file.
        place: what it is resized to, and what is kept of it.
    """

    data: bytes
    place: Place


def describe() -> dict[str, str | int]:
    """Return the decoder as far as it can change pixels, for cache keys."""
    version = (torch.version.cuda or "none").partition(".")[0]
    return {"library": NVJPEG, "cuda": version, "resize": "torch", "rules": RULES}


def faults(inputs: Placing) -> list[str]:
    """Return what inputs ask for that is not done on the device, one sentence each."""
    if inputs.interpolation in FILTERS:
        return []
    return [
        f"decoder='{NVJPEG}' resizes by {' or '.join(FILTERS)}, not by '{inputs.interpolation}'"
    ]


def check_present() -> None:
    """Refuse the decoder where it is not there.

    Raises:
        ConfigError: there is no CUDA device.
        MissingExtraError: torchcodec is not installed.
    """
    if _DEVICE == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            (f"decoder='{NVJPEG}' needs a CUDA device, and torch finds none",),
            hint="use decoder='pillow', whose rows differ slightly; a run keeps the decoder it"
            " was made with",
        )
    if importlib.util.find_spec("torchcodec") is None:
        raise MissingExtraError("torchcodec", NVJPEG, f"decoder='{NVJPEG}'")


def encoded(content: Content, inputs: Placing) -> Encoded | None:
    """Return a file for the device, or None for what is decoded as with the ordinary decoder.

    Raises:
        UndecodableError: it is no image.
    """
    if not isinstance(content, bytes) or not content.startswith(b"\xff\xd8"):
        return None
    image = open_header(content)
    width, height = image.size
    found = place(image.size, inputs)
    if (
        image.format != "JPEG"
        or image.mode not in ("RGB", "L")
        or width * height > LARGE
        or found.target[0] * found.target[1] > MOST
        or turned_by(image) is not None
        or not is_whole(content)
    ):
        return None
    return Encoded(content, found)


def decoded(
    files: Sequence[Encoded], interpolation: str, otherwise: Callable[[bytes], NDArray[np.uint8]]
) -> list[Tensor | NDArray[np.uint8] | Exception]:
    """Decode and resize files on the device, all of them in one call.

    Args:
        files: as :func:`encoded` returns them.
        interpolation: one of :data:`FILTERS`.
        otherwise: decodes a file that the device cannot read.

    Returns:
        For each ``(3, h, w) uint8``, complete and on the device, or on the CPU where ``otherwise``
        made it; or why it cannot be decoded.

    Raises:
        RuntimeError: the device has no memory for one of them, or fails.
    """
    if not files:
        return []
    device = torch.device(_DEVICE)
    stream = _stream(device)
    with nullcontext() if stream is None else torch.cuda.stream(stream):
        images = _images(files, device)
        made = [
            None if image is None else _placed(image, file.place, interpolation)
            for image, file in zip(images, files, strict=True)
        ]
    if stream is not None:
        stream.synchronize()
    return [
        _attempted(otherwise, file.data) if sample is None else sample
        for sample, file in zip(made, files, strict=True)
    ]


def joined(samples: Sequence[Tensor | NDArray[np.uint8]]) -> Tensor:
    """Stack samples, on the device if one of them is there: ``(n, 3, h, w) uint8``."""
    given = [each if isinstance(each, Tensor) else torch.from_numpy(each) for each in samples]
    device = next((each.device for each in given if each.device.type != "cpu"), given[0].device)
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device)
        for each in given:
            if each.is_cuda:  # its memory is not given away while this stream reads it
                each.record_stream(stream)
    return torch.stack([each.to(device) for each in given])


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream of this thread: decoding runs beside the network."""
    if device.type != "cuda":
        return None
    if not hasattr(_own, "stream"):
        make: Any = torch.cuda.Stream  # torch leaves it without types
        _own.stream = make(device)
    return cast("torch.cuda.Stream", _own.stream)


def _images(files: Sequence[Encoded], device: torch.device) -> list[Tensor | None]:
    """Decode files together; one by one where that fails, None for those that fail alone."""
    try:
        return list(_decode([file.data for file in files], device))
    except RuntimeError as error:
        if len(files) == 1:
            if is_out_of_memory(error):
                raise
            return [None]
    return [image for file in files for image in _images([file], device)]


def _decode(files: list[bytes], device: torch.device) -> list[Tensor]:
    decode: Any = importlib.import_module("torchcodec.decoders").decode_jpeg
    found: list[Tensor] = decode(files, mode="RGB", device=device)
    return found


def _placed(image: Tensor, where: Place, interpolation: str) -> Tensor:
    """Resize and crop ``(3, h, w) uint8``."""
    width, height = where.target
    if tuple(image.shape[1:]) != (height, width):
        size = (height, width)
        resized = functional.interpolate(
            image[None].float(), size, mode=interpolation, antialias=True, align_corners=False
        )
        image = resized[0].round_().clamp_(0, 255).to(torch.uint8)
    left, top, right, bottom = where.part
    return image[:, top:bottom, left:right].contiguous()


def _attempted(
    otherwise: Callable[[bytes], NDArray[np.uint8]], data: bytes
) -> NDArray[np.uint8] | Exception:
    try:
        return otherwise(data)
    except Exception as error:  # one bad item
        return error


__all__ = [
    "FILTERS",
    "NVJPEG",
    "Encoded",
    "check_present",
    "decoded",
    "describe",
    "encoded",
    "faults",
    "joined",
]
