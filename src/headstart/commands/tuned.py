"""Fine-tuned weights in a run folder: the tensors of the backbone that training has changed.

Only what differs from the backbone as it was loaded is kept, as safetensors under the backbone's
own names, with a SHA-256 in ``run.json``. A run of a frozen backbone has no such file.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from headstart.backbones import Backbone
from headstart.core.errors import DataError
from headstart.core.files import own_file, write_bytes
from headstart.core.fingerprints import sha256
from headstart.extraction.precision import INT8_TENSORS
from headstart.modules.digests import named_tensors

TUNED_FILE = "backbone.safetensors"


@dataclass(frozen=True)
class Tuned:
    """Where tuned tensors lie.

    Attributes:
        folder: the run folder.
        sha256: of the file, as ``run.json`` has it.
    """

    folder: Path
    sha256: str

    def apply(self, backbone: Backbone) -> Backbone:
        """Return the backbone with the tuned tensors; the one passed is not changed.

        Raises:
            DataError: the file is missing or damaged, or does not fit the backbone.
        """
        tensors = self._read()
        if set(tensors) == set(INT8_TENSORS):  # a calibrated network takes the place of the other
            from headstart.extraction.int8 import int8_backbone

            return int8_backbone(backbone, tensors)
        module = copy.deepcopy(backbone.module)
        own = dict(named_tensors(module))
        wrong = [
            name
            for name, tensor in tensors.items()
            if name not in own or own[name].shape != tensor.shape or own[name].dtype != tensor.dtype
        ]
        if wrong:
            raise DataError(
                f"{len(wrong)} tuned tensors of {self.folder / TUNED_FILE} do not fit"
                f" {backbone.name}, such as '{wrong[0]}'",
                hint="give the backbone that was fine-tuned",
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name].copy_(tensor)
        return dataclasses.replace(backbone, module=module)

    def _read(self) -> dict[str, Tensor]:
        path = own_file(self.folder, TUNED_FILE)
        try:
            payload = path.read_bytes()
            if sha256(payload) != self.sha256:
                raise ValueError("its SHA-256 is not the one in run.json")
            return safetensors.torch.load(payload)
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(
                f"the tuned weights {path} cannot be used: {error}",
                hint="restore the file, or fine-tune again",
            ) from error


def save_tuned(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tuned tensors into a run folder, atomically."""
    write_bytes(folder / TUNED_FILE, _payload(tensors))


def describe_tuned(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what ``run.json`` says of tuned tensors; empty where there are none."""
    if not tensors:
        return {}
    return {
        "file": TUNED_FILE,
        "tensors": len(tensors),
        "sha256": sha256(_payload(tensors)),
    }


def find_tuned(folder: Path, description: Mapping[str, Any]) -> Tuned | None:
    """Return where the tuned tensors of a run lie; None for a run of a frozen backbone."""
    entry = description.get("tuned")
    return Tuned(folder, str(entry["sha256"])) if entry else None


def _payload(tensors: Mapping[str, Tensor]) -> bytes:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain)


__all__ = ["TUNED_FILE", "Tuned", "describe_tuned", "find_tuned", "save_tuned"]
