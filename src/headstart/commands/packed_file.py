"""What a run keeps of its training items, so that ``predict`` can tell when not to answer.

``calibration.safetensors`` holds scores of held-out items, and of a regression the heads of the
folds. ``outliers.safetensors`` holds what items like those of the training split look like. Both
are arrays with JSON values in their metadata, and name no item.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from headstart.core.errors import DataError, HeadError
from headstart.core.files import own_file, write_bytes

T = TypeVar("T")

CALIBRATION_FILE, OUTLIERS_FILE = "calibration.safetensors", "outliers.safetensors"
_MOST_VALUES = 64 * 2**20
_WRONG = (
    OSError, KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError,
    SafetensorError, HeadError,
)  # fmt: skip


def save_packed(
    folder: Path, name: str, packed: tuple[Mapping[str, np.ndarray], Mapping[str, Any]]
) -> None:
    """Write arrays and plain values into one file of a run folder."""
    arrays, values = packed
    whole = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    about = {"values": json.dumps(values, allow_nan=False)}
    write_bytes(folder / name, safetensors.numpy.save(whole, about))


def read_packed(
    place: Path, name: str, unpack: Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], T]
) -> T:
    """Read such a file, whose digest has been checked.

    Args:
        place: where the files of the run lie.
        name: of the file.
        unpack: arrays and values → what they are; it trusts neither.

    Raises:
        DataError: the file is damaged.
    """
    path = own_file(place, name)
    try:
        with safe_open(path, "np") as file:
            text = (file.metadata() or {})["values"]
            if len(text) > _MOST_VALUES:
                raise ValueError("its values are too many")
            arrays = {key: np.asarray(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
        return unpack(arrays, json.loads(text))
    except _WRONG as error:
        raise DataError(f"'{path}' is damaged ({error!s:.200})", hint="fit again") from error


__all__ = ["CALIBRATION_FILE", "OUTLIERS_FILE", "read_packed", "save_packed"]
