"""Heads are read from a folder: the two files that ``Head.save`` writes.

Reading trusts neither file: no code runs, and every name, type and shape is checked before a head
is built.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.numpy

from headstart.core.errors import HeadError
from headstart.core.fingerprints import sha256
from headstart.heads.base import ARRAYS_FILE, FORMAT, KINDS, OPTIONS_FILE, Arrays, Head

_OPTIONS_LIMIT = 16 * 1024 * 1024


def load_head(folder: Path | str) -> Head:
    """Read the head saved in ``folder``.

    Raises:
        HeadError: if a file is missing, unreadable, of an unknown kind, or the two disagree.
    """
    folder = Path(folder)
    document = _read_document(folder / OPTIONS_FILE)
    arrays = _read_arrays(folder / ARRAYS_FILE, document)
    return unpack_head(arrays, document, str(folder))


def unpack_head(arrays: Arrays, document: Mapping[str, Any], where: str) -> Head:
    """Build the head that :meth:`Head.pack` described.

    Args:
        arrays, document: what it returned.
        where: what they were read from, for messages.

    Raises:
        HeadError: the kind is unknown, or arrays and document disagree.
    """
    kind = document["kind"]
    for module in (
        "linear",
        "perceptron",
        "neighbours",
        "prepared",
        "started",
        "tabicl",
    ):  # importing a module enters its heads
        importlib.import_module(f"headstart.heads.{module}")
    if kind not in KINDS:
        raise HeadError(
            f"expected a head of kind {', '.join(sorted(KINDS))}, found {kind!r} in {where}",
            hint="it may have been written by a newer version of headstart",
        )
    try:
        head = KINDS[kind].from_state(arrays, document["options"])
    except (KeyError, TypeError, ValueError) as error:
        raise HeadError(f"the head in {where} is inconsistent: {error!r}") from error
    found = (head.task, head.n_features, head.n_classes)
    wanted = (document["task"], document["n_features"], document["n_classes"])
    if found != wanted:
        raise HeadError(f"the head in {where} says {wanted}, its arrays say {found}")
    head = head.with_temperature(document["temperature"])
    given = document.get("thresholds")
    if given is None:
        return head
    if not isinstance(given, list) or not all(isinstance(v, int | float) for v in given):
        raise HeadError(f"the thresholds of the head in {where} are not numbers")
    return head.with_thresholds(np.array(given, dtype=np.float64))


def _read_document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _OPTIONS_LIMIT:
            raise HeadError(f"{path} is too large to be a head's description")
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise HeadError(f"no head in {path.parent}: {path.name} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise HeadError(f"{path} cannot be read as JSON: {error}") from error
    types: dict[str, type | tuple[type, ...]] = {
        "format": int,
        "kind": str,
        "task": str,
        "n_features": int,
        "n_classes": int,
        "temperature": (int, float),
        "options": dict,
        "arrays": dict,
        "sha256": str,
    }
    wrong = (
        [name for name, kind in types.items() if not isinstance(document.get(name), kind)]
        if isinstance(document, dict)
        else list(types)
    )
    if wrong:
        raise HeadError(f"{path} lacks or misstates: {', '.join(wrong)}")
    if document["format"] != FORMAT:
        raise HeadError(
            f"expected a head of format {FORMAT}, found format {document['format']} in {path}",
            hint="it was written by another version of headstart",
        )
    return cast(dict[str, Any], document)


def _read_arrays(path: Path, document: Mapping[str, Any]) -> Arrays:
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise HeadError(f"the arrays of the head cannot be read: {error}") from error
    if sha256(payload) != document["sha256"]:
        raise HeadError(
            f"{path} is not the file that {OPTIONS_FILE} describes (its SHA-256 differs)",
            hint="the file is damaged or belongs to another head; train or copy the head again",
        )
    try:
        arrays = safetensors.numpy.load(payload)
    except safetensors.SafetensorError as error:
        raise HeadError(f"{path} is not a safetensors file: {error}") from error
    found = {
        name: {"dtype": str(array.dtype), "shape": list(array.shape)}
        for name, array in arrays.items()
    }
    if found != document["arrays"]:
        raise HeadError(f"{path} does not hold the arrays that {OPTIONS_FILE} lists")
    return arrays


__all__ = ["load_head", "unpack_head"]
