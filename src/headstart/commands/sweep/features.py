"""Bare features as the data of a sweep: arrays in an ``.npz`` or a folder of ``.npy``."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.core.wording import count as counted


def read_features(source: Any) -> Mapping[str, NDArray[Any]] | None:
    """Read bare features from an ``.npz`` or a folder of ``.npy``; None if it is no such source.

    Returns:
        ``x_train (n, d)``, ``y_train (n,)`` and perhaps ``x_test``, ``y_test``.

    Raises:
        DataError: a file cannot be read, or labels are missing.
    """
    if not isinstance(source, str | Path):
        return None
    path = Path(source).expanduser()
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        if path.suffix == ".npz" and path.is_file():
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in names if name in file}
        elif (path / "x_train.npy").is_file():
            present = [name for name in names if (path / f"{name}.npy").is_file()]
            found = {
                name: np.load(path / f"{name}.npy", allow_pickle=False, mmap_mode="r")
                for name in present
            }
        else:
            return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"the features in '{path}' cannot be read: {error}",
            hint="save them again with numpy.savez or numpy.save",
        ) from error
    if "x_train" not in found or found["x_train"].ndim != 2:
        return None  # pictures in an .npz
    if "y_train" not in found:
        raise DataError(f"'{path}' has x_train and no y_train")
    return found


def check_features(arrays: Mapping[str, NDArray[Any]], tested: bool) -> None:
    """Refuse, before anything is trained, labels that do not fit the rows or each other."""
    faults = []
    for part in ("train", "test") if tested else ("train",):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if y.ndim != 1 or len(y) != len(x):
            faults.append(
                f"x_{part} has {counted(len(x), 'row')} and y_{part} has the shape {y.shape}"
            )
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            faults.append(f"y_{part} has NaN or infinity among its labels")
    if tested:
        train, test = arrays["x_train"].shape, arrays["x_test"].shape
        if train[1:] != test[1:]:
            faults.append(f"rows of x_train have the shape {train[1:]}, of x_test {test[1:]}")
        unseen = np.setdiff1d(arrays["y_test"], arrays["y_train"])
        if len(unseen):
            count = int(np.isin(arrays["y_test"], unseen).sum())
            faults.append(
                f"y_test has the class {unseen[0].item()!r}, which y_train does not have"
                f" ({counted(count, 'row')} of {len(unseen):,} such classes)"
            )
    if faults:
        raise DataError("; ".join(faults), hint="fix or remove those rows")


__all__ = ["check_features", "read_features"]
