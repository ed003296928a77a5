"""What a network is called with, whatever kind of item it takes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Arguments:
    """The arguments of one forward pass; items lie along the first axis of every tensor.

    A network is called as ``module(*arguments.args, **arguments.kwargs)``, which is what
    :meth:`call` does.

    Attributes:
        args: positional arguments, each ``(n, ...)``.
        kwargs: named arguments, each ``(n, ...)``.
        mask: ``(n, positions) bool``, true where a position belongs to the item and false where
            it only pads it to the length of the batch; None: every position belongs to the item.
            Pooling leaves padding out. A network that needs the mask itself takes it in
            ``kwargs`` as well.

    Raises:
        ValueError: there is no tensor, or the tensors disagree on the number of items.
    """

    args: tuple[Tensor, ...] = ()
    kwargs: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        counts = [tensor.shape[0] for tensor in self.tensors()]
        if not counts or any(count != counts[0] for count in counts):
            found = f"tensors of {sorted(set(counts))} items" if counts else "no tensor"
            raise ValueError(
                f"the arguments of a network must have the same number of items, found {found}"
            )

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor: positional and named arguments, then the mask."""
        yield from self.args
        yield from self.kwargs.values()
        if self.mask is not None:
            yield self.mask

    def __len__(self) -> int:
        return len(next(self.tensors()))

    @property
    def count(self) -> int:
        """The number of items; a symbol, where a program for any number of them is recorded."""
        return next(self.tensors()).shape[0]

    def __getitem__(self, index: slice | Tensor) -> Arguments:
        """Return some of the items."""
        return self.map(operator.itemgetter(index))

    def split(self, size: int) -> list[Arguments]:
        """Divide the items into batches of ``size``, in order; the last may be smaller."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(self.tensors()).device

    @property
    def nbytes(self) -> int:
        """The memory that the tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def map(self, function: Callable[[Tensor], Tensor]) -> Arguments:
        """Apply a function to every tensor, the mask included."""
        return Arguments(
            tuple(function(tensor) for tensor in self.args),
            {name: function(tensor) for name, tensor in self.kwargs.items()},
            None if self.mask is None else function(self.mask),
        )

    def to(self, device: torch.device) -> Arguments:
        """Return the same arguments on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def trimmed(self) -> Arguments:
        """Return the same items without the positions that pad all of them."""
        if self.mask is None:
            return self
        size = self.mask.shape[1]
        given = (*self.args, *self.kwargs.values())
        if not any(t.ndim > 1 and t.shape[1] == size for t in given):
            return self  # the mask is about positions of the output: the network takes one length
        (kept,) = self.mask.any(dim=0).nonzero(as_tuple=True)
        if len(kept) == size:
            return self
        return self.map(lambda t: t[:, kept] if t.ndim > 1 and t.shape[1] == size else t)

    def filled(self, count: int) -> Arguments:
        """Repeat the first item at the end until there are ``count`` items.

        Batches of one shape run on the same kernels, so that no row depends on how full its batch
        was. Arguments of ``count`` items or more are returned unchanged.
        """
        missing = count - len(self)
        if missing <= 0:
            return self
        return self.map(lambda t: torch.cat([t, t[:1].expand(missing, *t.shape[1:])]))

    def call(self, module: Callable[..., Any]) -> Any:
        """Call a module with these arguments."""
        return module(*self.args, **self.kwargs)


__all__ = ["Arguments"]
