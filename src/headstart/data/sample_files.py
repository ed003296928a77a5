"""Images that are arrays: NumPy and DICOM files, and arrays, → samples of any depth, unconverted.

Beside the samples stands what is black and what is white, where the file or the type says it:

- integers of 8 bits: 0 and 255; truth values: black and white; floats that lie in [0, 1]: 0 and 1;
- a DICOM with a window: what the window shows, after its rescale slope and intercept; one without
  either: the largest of its bits.

Nothing else says it: 16 bits may hold reflectances up to 10,000, counts of a 12-bit camera, or
Hounsfield units. Such samples are refused until ``value_range`` says it.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.core.wording import count
from headstart.data.content import TooLargeError, UndecodableError
from headstart.data.levels import ValueRange, is_unit, layout_of, likely_white
from headstart.data.remarks import FRAMES, remark

MOST_BYTES = 2**30
"""Bytes of the largest decoded array."""

NUMPY, ARCHIVE, DICOM = b"\x93NUMPY", b"PK\x03\x04", b"DICM"


@dataclass(frozen=True)
class Samples:
    """The samples of one image.

    Attributes:
        values: ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)`` of numbers or truth values.
        limits: the values of black and white; None where nothing says them.
        inverted: whether black is white, as in DICOM's MONOCHROME1.
        bands_last: whether the last axis is known to be that of the bands; False: the first;
            None: it is not known.
        missing: where there is no data, of the shape of ``values``; None: everywhere is some.
    """

    values: NDArray[Any]
    limits: ValueRange | None
    inverted: bool = False
    bands_last: bool | None = None
    missing: NDArray[np.bool_] | None = None

    @property
    def known(self) -> NDArray[Any]:
        """The values where there is data."""
        return self.values if self.missing is None else self.values[~self.missing]


def shares_of(found: Samples, value_range: ValueRange | None = None) -> NDArray[np.float32]:
    """Return samples from 0 (black) to 1 (white).

    Args:
        found: the samples.
        value_range: the values of black and white, which win over what the file says; what lies
            outside becomes black or white.

    Returns:
        An array of the same shape, ``float32``; bands last where the file says which axis they are;
        black where there is no data.

    Raises:
        UndecodableError: nothing says what is black and white, or values are not finite.
    """
    limits = value_range or found.limits
    if found.values.dtype.kind == "f" and not np.isfinite(found.known).all():
        raise UndecodableError("some values are NaN or infinite; replace them first")
    if limits is None:
        raise UndecodableError(_unknown(found.known))
    low, high = limits
    values = np.clip(found.values, low, high).astype(np.float64)
    scaled = ((values - low) / (high - low)).astype(np.float32)
    scaled = 1 - scaled if found.inverted else scaled
    if found.missing is not None:
        scaled = np.where(found.missing, np.float32(0), scaled)
    return np.moveaxis(scaled, 0, 2) if found.bands_last is False else scaled


def is_samples_file(data: bytes) -> bool:
    """Return whether this is a file that no library of pictures reads: NumPy or DICOM."""
    return data.startswith((NUMPY, ARCHIVE)) or data[128:132] == DICOM


def read_samples(data: bytes) -> Samples:
    """Read a file of which :func:`is_samples_file` holds.

    Raises:
        UndecodableError: with the reason.
    """
    return _of_dicom(data) if data[128:132] == DICOM else _of_numpy(data)


def levels_rgb(data: bytes, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Return such a file as an 8-bit picture ``(h, w, 3)``; one band is grey.

    Raises:
        UndecodableError: it has another number of bands than one or three, or as for
            :func:`shares_of`.
    """
    values = shares_of(read_samples(data), value_range)
    try:
        layout = layout_of(values.shape, "the file")
    except DataError as error:
        raise UndecodableError(f"{error.message}; {error.hint}") from error
    return layout(np.asarray(np.rint(values * 255.0), dtype=np.uint8))


def extent_of_dicom(data: bytes) -> tuple[tuple[int, int], bool] | None:
    """Return (width, height) of a DICOM image and whether it is grey; its pixels stay unread.

    None for other files, and where the header does not say it.
    """
    if data[128:132] != DICOM or importlib.util.find_spec("pydicom") is None:
        return None
    import pydicom

    try:
        file = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        return (int(file.Columns), int(file.Rows)), int(file.SamplesPerPixel) == 1
    except Exception:  # reading the pixels says what is wrong with it
        return None


def of_array(values: NDArray[Any]) -> Samples:
    """Return the samples of an array of one image.

    Raises:
        UndecodableError: it is not one.
    """
    if values.dtype.kind not in "biuf":
        raise UndecodableError(f"values of type {values.dtype}, expected numbers")
    if values.ndim not in (2, 3) or not values.size:
        raise UndecodableError(
            f"an array of shape {values.shape}, expected (h, w), (h, w, bands) or (bands, h, w)"
        )
    return Samples(values, limits_of(values))


def limits_of(values: NDArray[Any]) -> ValueRange | None:
    """Return the values of black and white that a type says; None: it says none."""
    if values.dtype == bool:
        return (0.0, 1.0)
    if values.dtype == np.uint8:
        return (0.0, 255.0)
    if values.dtype.kind == "f" and is_unit(values):
        return (0.0, 1.0)
    return None


def _unknown(values: NDArray[Any]) -> str:
    low, high = float(values.min()), float(values.max())
    white = likely_white(high)
    example = f"({min(low, 0.0):g}, {white:g})"
    return (
        f"values of type {values.dtype} from {low:g} to {high:g}, and it is not known which of"
        f" them are black and white; say so, such as with value_range={example}"
    )


def _of_numpy(data: bytes) -> Samples:
    """Read ``.npy``, or ``.npz`` with one array; never an object, which would run code."""
    try:
        _check_size(data)
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return of_array(loaded)
        with loaded as archive:
            names = list(archive.files)
            if len(names) != 1:
                raise UndecodableError(
                    f"a NumPy archive of {count(len(names), 'array')}, expected one image"
                )
            return of_array(archive[names[0]])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        if isinstance(error, UndecodableError):
            raise
        raise UndecodableError(f"damaged NumPy file: {str(error)[:200]}") from error


def _check_size(data: bytes) -> None:
    """Refuse archives that would fill the memory."""
    if not data.startswith(ARCHIVE):
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MOST_BYTES:
        raise TooLargeError(f"{size:,} bytes when unpacked, more than the limit")


# -- DICOM ---------------------------------------------------------------------------------------

WINDOWED = "DICOM values windowed as their own file says, after its rescale slope"
ALL_BITS = "DICOM values without a window, read from 0 to the largest value of their bit depth"
INVERTED = "DICOM with MONOCHROME1, in which 0 is white: inverted"


def _of_dicom(data: bytes) -> Samples:
    """Read the pixels of a DICOM file: rescaled, not yet windowed."""
    if importlib.util.find_spec("pydicom") is None:
        raise UndecodableError(
            "DICOM, which needs the package pydicom; run: pip install 'headstart[dicom]'"
        )
    import pydicom
    from pydicom.pixels.processing import apply_rescale
    from pydicom.pixels.utils import pixel_array

    try:
        file = pydicom.dcmread(io.BytesIO(data))
        _check_dicom(file)
        pixels = pixel_array(file, index=0)
        if int(getattr(file, "NumberOfFrames", None) or 1) > 1:
            remark(FRAMES)
        if int(file.SamplesPerPixel) > 1:
            white = float(2 ** int(file.BitsStored) - 1)
            return Samples(np.asarray(pixels), (0.0, white), bands_last=True)
        values = np.asarray(apply_rescale(pixels, file))
    except UndecodableError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise UndecodableError(f"DICOM whose pixels cannot be read: {text}") from error
    inverted = str(file.PhotometricInterpretation) == "MONOCHROME1"
    if inverted:
        remark(INVERTED)
    return Samples(values, _window(file, values), inverted)


def _check_dicom(file: Any) -> None:
    if "PixelData" not in file:
        raise UndecodableError("DICOM without pixels")
    size = int(file.Rows) * int(file.Columns) * int(getattr(file, "NumberOfFrames", None) or 1)
    if size * int(file.SamplesPerPixel) * int(file.BitsAllocated) // 8 > MOST_BYTES:
        raise UndecodableError("DICOM with more pixels than the memory limit")


def _window(file: Any, values: NDArray[Any]) -> ValueRange | None:
    """Return what the first window of a file shows (DICOM PS3.3 C.11.2.1.2); None: nothing says."""
    centre, width = (_first(getattr(file, name, None)) for name in ("WindowCenter", "WindowWidth"))
    if centre is not None and width is not None and width > 1:
        remark(WINDOWED)
        low = centre - 0.5 - (width - 1) / 2
        return (low, low + width - 1)
    rescaled = float(getattr(file, "RescaleSlope", 1) or 1) != 1.0
    rescaled = rescaled or float(getattr(file, "RescaleIntercept", 0) or 0) != 0.0
    if rescaled or int(file.PixelRepresentation) or (values.dtype.kind == "f" and values.min() < 0):
        return None
    remark(ALL_BITS)
    return (0.0, float(2 ** int(file.BitsStored) - 1))


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)


__all__ = [
    "MOST_BYTES",
    "Samples",
    "extent_of_dicom",
    "is_samples_file",
    "levels_rgb",
    "limits_of",
    "of_array",
    "read_samples",
    "shares_of",
]
