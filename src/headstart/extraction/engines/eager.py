"""The network as it is written, on a private copy with batch norm folded where that is sure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstart.backbones import Backbone, features_of
from headstart.core.arguments import Arguments
from headstart.core.records import Precision
from headstart.extraction.engines.folding import close, folded
from headstart.extraction.engines.table import EngineUnfitError
from headstart.extraction.precision import TOLERANCE

if TYPE_CHECKING:
    from headstart.extraction.engines.table import Run

_FEW = 4
_ROUNDING = 1e-4  # of float32 and of twins in half precision, as a part of the largest feature


def arranged(inputs: Arguments) -> Arguments:
    """Lay images out with their channels last: convolutions run faster, and values are equal."""

    def arrange(tensor: Tensor) -> Tensor:
        images = tensor.ndim == 4 and tensor.device.type in {"cpu", "cuda"}
        return tensor.contiguous(memory_format=torch.channels_last) if images else tensor

    return inputs.map(arrange)


def faithful_copy(
    cuts: Sequence[Backbone], inputs: Arguments, precision: Precision
) -> Sequence[Backbone]:
    """Return the cuts around a copy with folded norms, or as they are where that has other rows.

    Raises:
        nothing: a network without such a copy runs as it is written.
    """
    some = inputs[:_FEW]
    try:
        copies = folded(cuts, some, precision)
        expected, found = features_of(cuts, arranged(some)), features_of(copies, arranged(some))
    except EngineUnfitError:
        return cuts
    except Exception:  # what a network's code makes of a layer that it does not find as it was
        return cuts
    tolerance = _ROUNDING if precision == "float32" else TOLERANCE[precision] / 2
    return copies if close(expected, found, tolerance) else cuts


@contextlib.contextmanager
def open_engine(
    cuts: Sequence[Backbone],
    precision: Precision,
    device: torch.device,  # noqa: ARG001
) -> Iterator[Run]:
    """Open the engine; see :class:`headstart.extraction.Engine`."""
    chosen: list[Sequence[Backbone]] = []

    def run(inputs: Arguments) -> Sequence[Tensor]:
        if not chosen:
            chosen.append(faithful_copy(cuts, inputs, precision))
        return features_of(chosen[0], arranged(inputs))

    yield run


__all__ = ["arranged", "faithful_copy", "open_engine"]
