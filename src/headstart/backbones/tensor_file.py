"""A file of weights: its tensors, their names, and what it says of its inputs.

Reading never runs code from the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headstart.core.errors import BackboneError
from headstart.core.wording import quoted
from headstart.data.inputs import Inputs, required_fields

# The keys under which training scripts commonly keep the tensors in a torch checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "teacher", "ema")

METADATA_KEY = "headstart.preprocessing"
"""Where a safetensors file may carry its preprocessing, as a JSON object."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a file.

    In a torch file they may lie under one of the usual keys (``state_dict``, ``model``, ...).

    Raises:
        BackboneError: there is no such file, or it holds no tensors that can be read.
    """
    if not path.is_file():
        raise BackboneError(
            f"there is no file {str(path)!r} to load weights from", hint="check the path"
        )
    if _is_torch_file(path):
        return _read_torch(path)
    try:
        with safe_open(str(path), framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise BackboneError(
            f"{str(path)!r} is not a readable safetensors file ({error})",
            hint="check that the file is complete; torch files (.pt, .pth, .bin) are known by"
            " their first bytes",
        ) from error


def tensor_names(path: Path) -> set[str]:
    """Return the names of the tensors in a file, as :func:`read_tensors` gives them.

    Only the header of a safetensors file is read.

    Raises:
        BackboneError: as :func:`read_tensors`.
    """
    if path.is_file() and not _is_torch_file(path):
        try:
            with safe_open(str(path), framework="pt") as handle:
                return set(handle.keys())
        except (SafetensorError, OSError, ValueError):
            pass  # read_tensors says what is wrong with the file
    return set(read_tensors(path))


def inputs_in(weights: Path | None, kind: type[Inputs]) -> dict[str, Any]:
    """Read the values of the inputs that a safetensors file carries in its metadata, if it does.

    Raises:
        BackboneError: they are not values of this kind of inputs.
    """
    if weights is None or weights.suffix != ".safetensors":
        return {}
    try:
        with safe_open(weights, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (OSError, SafetensorError):
        return {}  # loading the weights reports what is wrong with the file
    if text is None:
        return {}
    try:
        values = json.loads(text)
        kind(**values)
    except (ValueError, TypeError) as error:
        needed = [f"{name}=…" for name in required_fields(kind)]
        raise BackboneError(
            f"the metadata '{METADATA_KEY}' of {weights} is not a preprocessing of {kind.unit}"
            f" ({error})",
            hint=f"pass {', '.join(needed) or 'inputs=…'} instead, or repair the file",
        ) from error
    return dict(values)


def _is_torch_file(path: Path) -> bool:
    """Tell torch files by content: a zip archive, or the pickle opcode of the older format."""
    with path.open("rb") as handle:
        head = handle.read(4)
    return head.startswith((b"PK\x03\x04", b"\x80\x02"))


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds; all mean the same here
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BackboneError(
            f"{str(path)!r} cannot be opened as tensors only ({reason[0][:200]})",
            hint="headstart never runs code from a file; convert it to safetensors where you"
            " trust it",
        ) from error
    for key in _WRAPPERS:
        inner = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values()):
            content = inner
            break
    tensors = (
        {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        kind = (
            f"the keys {quoted([str(key) for key in content], 6)}"
            if isinstance(content, Mapping)
            else f"a {type(content).__name__}"
        )
        raise BackboneError(
            f"{str(path)!r} holds {kind}, and no mapping from names to tensors",
            hint="save the tensors with safetensors.torch.save_file(model.state_dict(), ...)",
        )
    return tensors


__all__ = ["METADATA_KEY", "inputs_in", "read_tensors", "tensor_names"]
