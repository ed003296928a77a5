"""``precision='auto'``: half precision where it is faster and rows stay what they are in float32.

The precision is part of a row's key, so it is settled before any row is looked up, once for a job.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from headstart.backbones import Backbone, features_of
from headstart.core.arguments import Arguments
from headstart.core.devices import synchronize
from headstart.core.records import Precision
from headstart.data import Split, read_batches
from headstart.extraction.engines import AUTO
from headstart.extraction.engines.eager import arranged, faithful_copy
from headstart.extraction.machine import describe_machine, describe_network, half_types
from headstart.extraction.precision import AUTO_TOLERANCE, autocast, row_errors
from headstart.extraction.settings import Extraction
from headstart.modules.digests import digest
from headstart.modules.modes import evaluation_mode

if TYPE_CHECKING:
    from headstart.extraction.plan import Memory

_SMALL_SECONDS = 5.0
"""A job of less than this runs in float32: its rows are the same on every machine."""
_GAIN = 1.2
"""Half precision has to be this much faster."""
_ITEMS, _SAMPLE_SECONDS, _SAMPLE_SHARE, _ROUNDS = 16, 0.5, 0.01, 3
"""A pass of the trial takes at most these items and seconds, and this share of the job."""


@dataclass(frozen=True)
class Choice:
    """The precision of a job, and why.

    Attributes:
        precision: what was chosen.
        reason: a clause; empty where there was nothing to choose.
    """

    precision: Precision
    reason: str = ""


def choose_precision(
    cuts: Sequence[Backbone],
    split: Split,
    half: Precision,
    device: torch.device,
    count: int,
    memory: Memory | None = None,
) -> Choice:
    """Choose between float32 and a half precision by a trial on some items.

    Args:
        cuts: one network.
        split: where the items of the trial come from.
        half: the other precision, which the device has instructions for.
        device: where the network will run.
        count: items of the job.
        memory: of earlier trials.
    """
    inputs = _some(cuts, split, device)
    if inputs is None:
        return Choice("float32")
    if cuts[0].device != device:
        cuts[0].module.to(device)
    with evaluation_mode(cuts[0].module), torch.inference_mode():
        begun = time.perf_counter()
        features_of(cuts, arranged(inputs[:2]))
        item = (time.perf_counter() - begun) / len(inputs[:2])
        if count * item <= _SMALL_SECONDS:
            return Choice("float32")
        about = {
            "kind": "precision",
            "network": {**describe_network(cuts, inputs[:1]), "weights": digest(cuts[0].module)},
            "machine": describe_machine(device),
            "half": half,
        }
        found = None if memory is None else memory.get(about)
        if found is None:
            seconds = min(_SAMPLE_SECONDS, _SAMPLE_SHARE * count * item)
            found = _trial(cuts, inputs[: max(2, int(seconds / item))], half, device)
            if memory is not None:
                memory.put(about, found)
    gain, off = float(found["gain"]), float(found["off"])
    figures = f"{gain:.1f} × as fast as float32, rows within {off:.2%} of it"
    if off <= AUTO_TOLERANCE and gain >= _GAIN:
        return Choice(half, figures)
    return Choice("float32", f"{half} would be {figures}")


def _some(cuts: Sequence[Backbone], split: Split, device: torch.device) -> Arguments | None:
    """Return the first items that can be read."""
    reader = read_batches(
        split, np.arange(min(_ITEMS, len(split))), cuts[0].inputs, batch_size=_ITEMS, on_bad="skip"
    )
    try:
        for batch in reader:
            return batch.arguments(device)
    finally:
        reader.close()
    return None


def _trial(
    cuts: Sequence[Backbone], inputs: Arguments, half: Precision, device: torch.device
) -> dict[str, Any]:
    """Time both precisions in turn, and compare their rows."""
    precisions: tuple[Precision, ...] = ("float32", half)
    times: dict[str, list[float]] = {name: [] for name in precisions}
    rows: dict[str, list[Tensor]] = {}
    networks: dict[str, Sequence[Backbone]] = {}
    laid = arranged(inputs)
    for name in precisions:
        with autocast(name, device):
            networks[name] = faithful_copy(cuts, inputs, name)
            rows[name] = features_of(networks[name], laid)
    for _ in range(_ROUNDS):
        for name in precisions:
            with autocast(name, device):
                begun = time.perf_counter()
                features_of(networks[name], laid)
                synchronize(device)
                times[name].append(time.perf_counter() - begun)
    pairs = zip(rows[half], rows["float32"], strict=True)
    off = max(float(row_errors(one, two).max()) for one, two in pairs)
    # NaN would not be a number in the file.
    return {
        "gain": min(times["float32"]) / min(times[half]),
        "off": off if np.isfinite(off) else 1.0,
    }


def settled(
    settings: Extraction,
    cuts: Sequence[Backbone],
    split: Split,
    count: int,
    memory: Memory | None = None,
) -> tuple[Extraction, str]:
    """Return settings whose precision is not ``auto``, and why it is what it is.

    Args:
        settings: of the job.
        cuts: one network.
        split: items of the job.
        count: how many it has.
        memory: of earlier trials.

    Returns:
        The reason is empty where there was nothing to choose.
    """
    if settings.precision != AUTO:
        return settings, ""
    device = settings.resolve_device()
    choice = Choice("float32")
    for half in half_types(device):
        choice = choose_precision(cuts, split, half, device, count, memory)
    reason = f"precision {choice.precision}: {choice.reason}" if choice.reason else ""
    return dataclasses.replace(settings, precision=choice.precision), reason


__all__ = ["Choice", "choose_precision", "settled"]
