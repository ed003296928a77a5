"""What a training needs: the network, its stages, the data and the devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.finetuning.devices import ALONE, Devices
from headstart.finetuning.network import Classifier
from headstart.finetuning.outcome import EpochRecord
from headstart.finetuning.roads import Road
from headstart.finetuning.targets import Target


def _unlogged(_: Sequence[EpochRecord]) -> None:
    pass


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything that a training needs.

    Attributes:
        network: what is trained, in place.
        targets: the stages, found in it.
        open_road: called when a stage begins, on the network as it then is.
        open_images: gives the items as images, whatever the plan says.
        prepare: called before that with the number of the stage, on the network without a
            contract, to re-estimate statistics.
        train_labels, validation_labels: ``(n,) int64`` on the device.
        seed: of order, dropout and mixing.
        stop_without_gain: see :class:`~headstart.finetuning.stages.Recipe`.
        decisions: for every stage the place of its cut, or nothing where it begins with the
            images; kept in the checkpoint.
        devices: those that share every batch; one of them is this process.
        log: called with all records so far when an epoch has been saved, and when a training goes
            on; on the main device only.
    """

    network: Classifier
    targets: tuple[Target, ...]
    open_road: Callable[[int], Road]
    open_images: Callable[[int], Road]
    prepare: Callable[[int], None]
    train_labels: Tensor
    validation_labels: Tensor
    seed: int = 0
    stop_without_gain: bool = False
    decisions: tuple[str, ...] = ()
    devices: Devices = ALONE
    log: Callable[[Sequence[EpochRecord]], None] = _unlogged

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.source.device


__all__ = ["Setup"]
