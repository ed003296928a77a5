"""Batches on their way to the network: joined, and sent to its device, while it computes.

A thread joins the samples that were decoded ahead into batches and, for a CUDA device, sends them
through pinned memory on a stream of its own. For several devices they wait in pinned memory: which
device takes a batch shows when one is free. At most two batches wait, so that memory is bounded
whatever the number and the size of the items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.core.ahead import Ahead
from headstart.core.arguments import Arguments
from headstart.core.stages import Stages
from headstart.data.inputs import Inputs
from headstart.data.reading import BatchReader

_AHEAD = 2
"""Batches that wait for the network: one, and one that hides how much their times differ."""


@dataclass(frozen=True, eq=False)
class Delivery:
    """One batch, on the device where there is only one.

    Attributes:
        indices: ``(m,) int64``, positions in the split.
        collated: the joined samples.
        inputs: of the backbone.
        sent: when the copy is complete, on CUDA; None elsewhere.
    """

    indices: NDArray[np.int64]
    collated: Arguments
    inputs: Inputs
    sent: torch.cuda.Event | None = None

    def arguments(self, device: torch.device) -> Arguments:
        """Return what the network is called with; the network's stream waits for the copy."""
        if self.sent is not None:
            stream = torch.cuda.current_stream(self.collated.device)
            stream.wait_event(self.sent)
            for tensor in self.collated.tensors():
                tensor.record_stream(stream)  # its memory is not given away while it is read
        return self.inputs.finish(self.collated.to(device))


class Feed(Iterator[Delivery]):
    """Yields the batches of a reader, on the device; closing it closes the reader.

    Args:
        reader: of decoded items.
        devices: of the network.
        stages: takes the time of joining, and of waiting for a batch.
    """

    def __init__(
        self, reader: BatchReader, devices: Sequence[torch.device], stages: Stages
    ) -> None:
        self._reader, self._devices, self._stages = reader, devices, stages
        self._ahead = Ahead(self._deliveries, _AHEAD, "headstart-feed")

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Delivery:
        with self._stages("waiting"):
            return next(self._ahead)

    def close(self) -> None:
        """Stop the threads of the feed and of the reader."""
        self._ahead.close()
        self._reader.close()

    def _deliveries(self) -> Iterator[Delivery]:
        make: Any = torch.cuda.Stream  # torch leaves it without types
        device, one = self._devices[0], len(self._devices) == 1
        stream = make(device) if one and device.type == "cuda" else None
        pinned = any(each.type == "cuda" for each in self._devices)
        try:
            for batch in self._reader:
                with nullcontext() if stream is None else torch.cuda.stream(stream):
                    with self._stages("collate"):
                        collated = batch.collated
                        if pinned:
                            collated = collated.map(_pinned)
                    sent = collated.to(device) if one else collated
                    event = None if stream is None else stream.record_event()
                yield Delivery(batch.indices, sent, batch.inputs, event)
        finally:
            self._reader.close()


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in memory that a device copies from by itself; on a device as it is."""
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor


__all__ = ["Delivery", "Feed"]
