"""Networks in int8, kept: a second run over the same training items has the same network."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch

from headstart.backbones import Backbone
from headstart.core.fingerprints import fingerprint
from headstart.data import Split
from headstart.extraction.int8 import (
    Calibrated,
    calibrate,
    calibration_items,
    int8_backbone,
    missing,
)
from headstart.store import Store, result_key
from headstart.store.results import Result

_LIBRARIES = ("headstart", "openvino", "nncf", "torch")


def calibrated_once(store: Store, cut: Backbone, train: Split) -> Calibrated:
    """Return a network in int8, calibrated now or by an earlier run.

    Args:
        store: where it is kept, under the network, its inputs, the items and the libraries.
        cut, train: as for :func:`headstart.extraction.int8.calibrate`.

    Raises:
        MissingExtraError, BackboneError: as that function.
    """
    absent = missing()
    if absent is not None:
        raise absent
    items = [train.ids[i] for i in calibration_items(train)]
    about = {
        "kind": "int8",
        "backbone": cut.identity(),
        "inputs": cut.inputs.describe(),
        "items": fingerprint("\n".join(items)),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }
    found, _ = store.results("int8").once(
        result_key(about),
        lambda: calibrate(cut, train),
        _packed,
        lambda result: _unpacked(result, cut),
    )
    return found


def _packed(made: Calibrated) -> Result:
    arrays = {name: tensor.numpy() for name, tensor in made.tensors().items()}
    values: dict[str, Any] = {
        "off": list(made.off),
        "gain": made.gain,
        "items": made.items,
        "seconds": made.seconds,
    }
    return Result(arrays, values)


def _unpacked(result: Result, cut: Backbone) -> Calibrated:
    tensors = {name: torch.from_numpy(array.copy()) for name, array in result.arrays.items()}
    values = result.values
    return Calibrated(
        int8_backbone(cut, tensors),
        (float(values["off"][0]), float(values["off"][1])),
        float(values["gain"]),
        int(values["items"]),
        float(values["seconds"]),
    )


__all__ = ["calibrated_once"]
