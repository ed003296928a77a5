"""From a layer's output to one row an item: average, one token, generalised mean, or no pooling.

To add a pooling, write a function from output, layout and mask to rows, and register it. The
arithmetic decides by the layout alone, never by values, so that ``torch.fx`` and ``torch.compile``
can trace it. The table loads no torch: help texts read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.core.errors import BackboneError

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.modules.layout import Layout

Pooling = str
"""Name of a registered pooling."""

GEM_POWER = 3.0
"""The exponent of the generalised mean (Radenović, Tolias, Chum 2018, §3.2 use 3)."""


@dataclass(frozen=True)
class PoolingKind:
    """One way to turn a layer's output into rows.

    Attributes:
        name: what ``pooling`` takes.
        summary: one line for help texts.
        reduce: from the output, its layout and a mask ``(n, positions) bool`` of valid positions
            (None: all are) to rows ``(n, c)``. It may return a view of the output.
    """

    name: str
    summary: str
    reduce: Callable[[Tensor, Layout, Tensor | None], Tensor]


_POOLINGS: dict[str, PoolingKind] = {}


def register_pooling(kind: PoolingKind) -> None:
    """Add a pooling; a known name is replaced."""
    _POOLINGS[kind.name] = kind


def pooling_kinds() -> tuple[PoolingKind, ...]:
    """Return the registered poolings, in the order of registration."""
    return tuple(_POOLINGS.values())


def check_pooling(name: str) -> None:
    """Refuse a name that is not registered.

    Raises:
        BackboneError: with the names that are.
    """
    if name not in _POOLINGS:
        raise BackboneError(f"pooling must be one of {', '.join(_POOLINGS)}, not '{name}'")


def pool(output: Tensor, pooling: Pooling, layout: Layout, mask: Tensor | None = None) -> Tensor:
    """Pool one layer's output.

    Args:
        output: of any floating type, as ``layout`` describes it.
        pooling: name of a registered pooling.
        layout: which axis is which.
        mask: ``(n, positions) bool``, which positions count; None: all of them. Prefix tokens are
            among the positions.

    Returns:
        ``(n, c)``, or the whole output for ``none``, in the type of ``output``; possibly a view.

    Raises:
        BackboneError: the pooling does not fit the layout.
    """
    check_pooling(pooling)
    return _POOLINGS[pooling].reduce(output, layout, mask)


def towards_rows(shape: tuple[int, ...]) -> str:
    """Return what makes a row of features that have this shape an item, as a hint."""
    if shape:
        return "use pooling='avg'"
    return "one number an item is no row: return it as one, x[:, None], or choose another layer"


def positions_of(output: Tensor, layout: Layout) -> Tensor:
    """Return an output as ``(n, positions, c)``, special tokens included; a view where possible.

    Raises:
        BackboneError: the axis of the channels is not known.
    """
    if layout.channels is None:
        why = f": {layout.reason}" if layout.reason else ""
        raise BackboneError(
            f"the channels of this layer's output {tuple(output.shape)} cannot be found{why}",
            hint="use pooling='none' or another layer",
        )
    channels = layout.channels
    if layout.rows > 1:
        channels += channels > layout.batch
        output, layout = _folded(output, layout)
    axes = (layout.batch, *layout.positions, channels)
    if axes == (0, 1, 2):
        return output
    if axes[0] == 0 and axes[-1] == 1 and axes[1:-1] == tuple(range(2, len(axes))):
        return output.flatten(2).transpose(1, 2)
    if axes == tuple(range(len(axes))):
        return output.flatten(1, len(layout.positions))
    return output.permute(axes).flatten(1, -2)


def _folded(output: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
    """Turn several rows an item into one more axis of positions."""
    sizes = (layout.rows, -1) if layout.strided else (-1, layout.rows)
    output = output.unflatten(layout.batch, sizes)  # type: ignore[no-untyped-call]
    batch, rows = layout.batch + layout.strided, layout.batch + (not layout.strided)

    def moved(axis: int) -> int:
        return axis + 1 if axis > layout.batch else axis

    return output, dataclasses.replace(
        layout,
        batch=batch,
        channels=None if layout.channels is None else moved(layout.channels),
        positions=(rows, *(moved(axis) for axis in layout.positions)),
        rows=1,
        strided=False,
    )


def _patches(output: Tensor, layout: Layout) -> Tensor:
    """Return the positions without the special tokens; only tokens can have any."""
    positions = positions_of(output, layout)
    if not layout.special:
        return positions
    if len(layout.special) == layout.prefix:
        return positions[:, layout.prefix :]
    return positions[:, [i for i in range(positions.shape[1]) if i not in layout.special]]


def _valid(mask: Tensor | None, layout: Layout, like: Tensor) -> Tensor | None:
    """Return the mask as weights ``(n, patches, 1)`` of the type of ``like``."""
    if mask is None:
        return None
    kept = [i for i in range(mask.shape[1]) if i not in layout.special]
    return mask[:, kept, None].to(like.dtype)


def _mean(positions: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return positions.mean(dim=1)
    return (positions * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def _is_row(layout: Layout) -> bool:
    return layout.channels is not None and not layout.positions and layout.rows == 1


def _average(output: Tensor, layout: Layout, mask: Tensor | None) -> Tensor:
    if _is_row(layout):
        return _none(output, layout, mask)
    positions = _patches(output, layout)
    return _mean(positions, _valid(mask, layout, positions))


def _generalised_mean(output: Tensor, layout: Layout, mask: Tensor | None) -> Tensor:
    if _is_row(layout):
        return _none(output, layout, mask)
    positions = _patches(output, layout)
    powers = positions.clamp(min=1e-6).pow(GEM_POWER)
    return _mean(powers, _valid(mask, layout, positions)).pow(1.0 / GEM_POWER)


def _class_token(output: Tensor, layout: Layout, mask: Tensor | None) -> Tensor:
    if layout.class_token is None and mask is not None and not layout.special:
        positions = positions_of(output, layout)  # of a text: its first token
        return _at(positions, mask.int().argmax(dim=1))
    if layout.class_token is None:
        raise BackboneError(
            "pooling 'cls' expects tokens with a class token, "
            f"and none was found in this layer's output {tuple(output.shape)}",
            hint="use pooling='avg'",
        )
    return positions_of(output, layout)[:, layout.class_token]


def _last_token(output: Tensor, layout: Layout, mask: Tensor | None) -> Tensor:
    if len(layout.positions) != 1 or layout.rows != 1:
        raise BackboneError(
            "pooling 'last' expects ordered tokens, and this layer's output"
            f" {tuple(output.shape)} has none",
            hint="use pooling='avg'",
        )
    positions = positions_of(output, layout)
    if mask is None:
        return positions[:, -1]
    return _at(positions, positions.shape[1] - 1 - mask.int().flip(1).argmax(dim=1))


def _at(positions: Tensor, index: Tensor) -> Tensor:
    """Return one position an item: ``(n, positions, c)`` and ``(n,)`` → ``(n, c)``."""
    chosen = index[:, None, None].expand(-1, 1, positions.shape[2])
    return positions.gather(1, chosen).squeeze(1)


def _none(output: Tensor, layout: Layout, mask: Tensor | None) -> Tensor:  # noqa: ARG001
    if layout.rows > 1:
        output, layout = _folded(output, layout)
    return output.movedim(layout.batch, 0) if layout.batch else output


register_pooling(
    PoolingKind("avg", "the mean over positions (patch tokens only, as timm does)", _average)
)
register_pooling(PoolingKind("cls", "the class token, or the first token of a text", _class_token))
register_pooling(PoolingKind("last", "the last token of a text", _last_token))
register_pooling(PoolingKind("gem", "the generalised mean, exponent 3", _generalised_mean))
register_pooling(PoolingKind("none", "the whole output", _none))

__all__ = [
    "GEM_POWER",
    "Pooling",
    "PoolingKind",
    "check_pooling",
    "pool",
    "pooling_kinds",
    "positions_of",
    "register_pooling",
    "towards_rows",
]
