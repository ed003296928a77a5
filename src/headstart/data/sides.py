"""Width and height of an image by what its header says, before any pixel takes memory.

There is no limit here: whoever asks has one, and says it.
"""

from __future__ import annotations

import importlib.util
import io
import math
import zipfile

import numpy as np

from headstart.data.formats import open_header
from headstart.data.sample_files import ARCHIVE, DICOM, NUMPY, is_samples_file

_TIFF = (b"II", b"MM")


def sides_told(data: bytes, *, native: bool = False) -> tuple[int, int] | None:
    """Return width and height; None where the header does not say them, and the decoder will.

    Args:
        data: the bytes of a file: a picture, NumPy's or DICOM.
        native: whether its samples are taken as they are, of any number of bands.

    Raises:
        UndecodableError: it is no image in a known format.
    """
    if is_samples_file(data):
        return _of_dicom(data) if data[128:132] == DICOM else _of_numpy(data)
    if native and data[:2] in _TIFF and importlib.util.find_spec("tifffile") is not None:
        return _of_tiff(data)
    width, height = open_header(data, most=math.inf).size
    return width, height


def _of_tiff(data: bytes) -> tuple[int, int] | None:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            return int(page.imagewidth), int(page.imagelength)  # type: ignore[union-attr]
    except Exception:  # decoders raise nearly anything, and say it better when they decode
        return None


def _of_numpy(data: bytes) -> tuple[int, int] | None:
    try:
        if data.startswith(ARCHIVE):
            archive = zipfile.ZipFile(io.BytesIO(data))
            with archive, archive.open(archive.namelist()[0]) as member:
                head = member.read(4096)
        else:
            head = data[:4096]
        if not head.startswith(NUMPY):
            return None
        file = io.BytesIO(head)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        shape = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)[0]
    except (OSError, ValueError, IndexError, EOFError, zipfile.BadZipFile):
        return None
    sides = sorted(shape, reverse=True)[:2]  # the bands are the third
    return (int(sides[0]), int(sides[1])) if len(sides) == 2 else None


def _of_dicom(data: bytes) -> tuple[int, int] | None:
    if importlib.util.find_spec("pydicom") is None:
        return None
    import pydicom

    try:
        file = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        return int(file.Columns), int(file.Rows)
    except Exception:  # as above
        return None


__all__ = ["sides_told"]
