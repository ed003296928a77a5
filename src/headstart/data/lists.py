"""Lists to predict for: texts; images or sounds as paths or bytes; images as PIL or arrays."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.core.errors import DataError
from headstart.core.progress import SilentReporter
from headstart.data.arrays import image_content
from headstart.data.content import Content, UndecodableError
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.item_files import DigestMemo, read_file
from headstart.data.items import FileItems, Items, ObjectItems, SoundFileItems, TextItems
from headstart.data.sound_arrays import SoundArrayItems, are_sound_arrays, is_sound_array, wav_of
from headstart.data.sound_files import AUDIO_SUFFIXES
from headstart.data.source import WHOLE, Request, Source, unlabelled

_LONGEST_PATH = 4096
_ENCODED = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, Mapping)


def is_list(source: Any, request: Request) -> bool:
    """Return whether this is one image, or a list of images or texts, none of which needs a label.

    Two arrays in a tuple, or of several numbers of axes, are images and labels.
    """
    if request.labels_required:
        return False
    if isinstance(source, Image.Image) or is_sound_array(source):
        return True
    values = _values(source)
    if values is None:
        return False
    if request.kind == "audio" or any(is_sound_array(value) for value in values):
        return True
    if any(isinstance(value, _ENCODED) for value in values):
        return True
    axes = {np.ndim(value) for value in values if hasattr(value, "shape")}
    pair = len(values) == 2 and (isinstance(source, tuple) or len(axes) > 1)
    return len(axes) > 0 and axes <= {2, 3} and not pair if values else True


def read_list(source: Any, request: Request) -> Source:
    """Read a list of images or texts; an empty one is an empty source.

    Args:
        source: paths (from the working directory), bytes of image files, ``{"bytes", "path"}`` as
            the hub writes them, sounds as :mod:`~headstart.data.sound_arrays` has them, PIL images,
            arrays ``(h, w)``, ``(h, w, c)``, ``(c, h, w)``; or
            texts, which are strings of which none names a file.
        request: the values of black and white of arrays; the memo of digests.

    Raises:
        DataError: entries are missing or of another type, or strings that name no file.
    """
    one = isinstance(source, Image.Image) or is_sound_array(source)
    values = [source] if one else _values(source)
    assert values is not None
    wrong = [
        f"{i} ({type(value).__name__})"
        for i, value in enumerate(values)
        if not (isinstance(value, _ENCODED) or is_sound_array(value))
        and (isinstance(value, tuple | list) or np.ndim(value) not in (2, 3))
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise DataError(
            "the list: expected a path, image bytes, a PIL image or an array in every entry,"
            f" found something else in entry {', '.join(wrong[:5])}{more}",
            hint="a sound in memory comes with its sampling rate: (samples, rate)",
        )
    return Source("list", {WHOLE: unlabelled(_items(values, request), "the list")})


def _items(values: list[Any], request: Request) -> Items:
    texts = values and all(isinstance(value, str) for value in values)
    if texts and (request.kind == "text" or not names_files(values)):
        if request.wants_images:
            raise DataError(
                f"none of the {len(values):,} strings of the list names a file, such as"
                f" '{values[0][:60]}'",
                hint="give paths of images, or choose a backbone that takes texts",
            )
        return TextItems(values, "list item")
    if values and all(isinstance(value, str | os.PathLike) for value in values):
        paths = [Path(os.fspath(value)).expanduser() for value in values]
        return file_items(paths, request.kind, request.memo)
    if are_sound_arrays(values):
        return SoundArrayItems(values, "list")
    return ObjectItems(
        len(values),
        partial(_item, values, dataclasses.replace(request, memo=None, reporter=SilentReporter())),
        "list",
    )


def file_items(
    paths: Sequence[Path], kind: str | None, memo: DigestMemo | None = None
) -> FileItems:
    """Return files as items: sounds where they are asked for, or where all endings say so."""
    sounds = kind == "audio" or (
        kind is None and all(path.suffix.lower() in AUDIO_SUFFIXES for path in paths)
    )
    return (SoundFileItems if sounds else FileItems)(paths, [str(path) for path in paths], memo)


def names_files(values: list[str]) -> bool:
    """Return whether any of some strings is a path of an image, of a sound or of a file."""
    for value in values:
        if Path(value).suffix.lower() in IMAGE_SUFFIXES | AUDIO_SUFFIXES:
            return True
        with contextlib.suppress(OSError, ValueError):  # too long for a path
            if len(value) < _LONGEST_PATH and Path(value).expanduser().is_file():
                return True
    return False


def _item(values: Sequence[Any], request: Request, i: int) -> Content:
    return _content(values[i], request)


def _content(value: Any, request: Request) -> Content:
    if is_sound_array(value):
        return wav_of(value)
    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
        if value is None:
            raise UndecodableError("neither bytes nor a path")
    if isinstance(value, str | os.PathLike):
        value = read_file(Path(os.fspath(value)).expanduser())
    return image_content(value, request.value_range, native=request.native)


def _values(source: Any) -> list[Any] | None:
    """Return the entries of a list, tuple, series or array of objects; None for anything else."""
    if isinstance(source, list | tuple):
        return list(source)
    if isinstance(source, np.ndarray):
        if len(source.shape) > 0 and len(source) == 0:
            return []
        return source.tolist() if source.ndim == 1 and source.dtype.kind in "OUS" else None
    if len(getattr(source, "shape", ())) == 1 and hasattr(source, "to_list"):
        return list(source.to_list())
    return None
