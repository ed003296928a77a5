"""What data loaders give out, looked at again when the script has ended."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.audit.events import Batch
from headstart.audit.measuring import saved_randomness
from headstart.modules.observing import tensors_in

LOADERS = 64
"""Loaders whose data are looked at."""


class Sources:
    """The data sets behind the first loaders, kept until the script has ended."""

    def __init__(self) -> None:
        self.datasets: dict[int, Any] = {}
        self.random: dict[int, bool] = {}

    def note(self, seen: Batch) -> None:
        """Remember the data set of a loader; loaders that read the same one share it."""
        number = seen.loader.number
        if number in self.datasets or len(self.datasets) >= LOADERS:
            return
        dataset = seen.dataset
        if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
            self.datasets[number] = dataset

    def same(self, number: int | None) -> int | None:
        """Return the first loader that reads the same data set as this one."""
        mine = None if number is None else self.datasets.get(number)
        if mine is None:
            return number
        return next(n for n, other in self.datasets.items() if other is mine)

    def is_random(self, number: int | None) -> bool:
        """Whether a loader's data set gives another image when it is asked again for the same."""
        if number is None or number not in self.datasets:
            return False
        if number not in self.random:
            self.random[number] = differs_when_asked_again(self.datasets[number])
        return self.random[number]


def differs_when_asked_again(dataset: Any) -> bool:
    """Whether items of a data set change from one reading to the next; two items are read twice."""
    try:
        with saved_randomness():
            apart = _isolated(dataset)
            for index in {0, len(apart) // 2}:
                one, other = _floats(apart[index]), _floats(apart[index])
                if any(_unlike(a, b) for a, b in zip(one, other, strict=False)):
                    return True
    except Exception:
        return False
    return False


def _isolated(dataset: Any) -> Any:
    """Copy a data set with its own generators, but without its tensors and arrays."""
    memo: dict[int, Any] = {}

    def keep(value: Any, depth: int) -> None:
        if isinstance(value, Tensor | np.ndarray | bytes | str):
            memo[id(value)] = value
        elif depth and isinstance(value, list | tuple | dict):
            for each in value.values() if isinstance(value, dict) else value:
                keep(each, depth - 1)
        elif depth and hasattr(value, "__dict__"):
            for each in vars(value).values():
                keep(each, depth - 1)

    keep(dataset, 4)
    return copy.deepcopy(dataset, memo)


def _floats(item: Any) -> list[Tensor]:
    return [t for t in tensors_in([item]) if t.is_floating_point() or t.dtype == torch.uint8]


def _unlike(one: Tensor, other: Tensor) -> bool:
    return one.shape != other.shape or not torch.equal(one, other)


__all__ = ["LOADERS", "Sources", "differs_when_asked_again"]
