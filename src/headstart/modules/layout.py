"""Where the items, the channels and the positions of a layer's output are.

Nothing about it is taken from the class of a network: a layer inside a network can be laid out
otherwise than the network's output, and a network can stand inside a module of the user's own. What
belongs to an item, and which tokens precede the patches, is found by running the network on items
of which one changes (this file); the axis of the channels by changing single channels of the
operations before the layer (:mod:`headstart.modules.channels`). What cannot be found is refused,
with the reason.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError
from headstart.modules.channels import Experiment, find_channels
from headstart.modules.forward import aside
from headstart.modules.layers import item_axes
from headstart.modules.modes import evaluate, untouched
from headstart.modules.observing import Observed, observe, output_of

_ROUNDING = 1e-5
"""The largest difference of a row, relative to the largest value, that other items may cause."""


@dataclass(frozen=True)
class Layout:
    """The axes of a layer's output.

    Attributes:
        batch: the axis of the items.
        channels: the axis of the features; None where it is not known.
        positions: the axes that a pooling reduces, in order: none for a row ``(n, c)``, the tokens
            of ``(n, tokens, c)``, height and width of a map.
        special: which tokens are no positions of the item: class and register tokens. Only layers
            with one axis of positions can have any.
        class_token: which of them is the class token; None where the network has none.
        rows: how many rows of the batch axis belong to one item, as where windows are rows.
        strided: whether the rows of an item stand apart, one in each run of all items, rather than
            side by side.
        varies: whether the output depends on the item at all.
        reason: why the channels are not known, as the end of a sentence.
    """

    batch: int = 0
    channels: int | None = None
    positions: tuple[int, ...] = ()
    special: tuple[int, ...] = ()
    class_token: int | None = None
    rows: int = 1
    strided: bool = False
    varies: bool = True
    reason: str = ""

    @property
    def prefix(self) -> int:
        """How many special tokens stand at the beginning."""
        count = 0
        while count < len(self.special) and self.special[count] == count:
            count += 1
        return count

    def describe(self) -> dict[str, Any]:
        """Return what decides the rows of an output, as plain values, for cache keys."""
        values = {k: v for k, v in vars(self).items() if k not in {"varies", "reason"}}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


ROWS = Layout(channels=1)
"""``(n, c)``."""
CHANNELS_FIRST = Layout(channels=1, positions=(2, 3))
"""``(n, c, h, w)``."""
CHANNELS_LAST = Layout(channels=3, positions=(1, 2))
"""``(n, h, w, c)``."""


def tokens(prefix: int = 0) -> Layout:
    """Return the layout of ``(n, tokens, c)``, of which the first ``prefix`` are no patches.

    The first of them, if any, is the class token.
    """
    first = 0 if prefix else None
    return Layout(channels=2, positions=(1,), special=tuple(range(prefix)), class_token=first)


def find_layout(module: nn.Module, layer: str | None, example: Arguments) -> Layout:
    """Find the layout of a layer's output, by running the network about a dozen times on an item.

    Args:
        module: the network; it is left as it was.
        layer: a name, or None for the output of the network.
        example: at least three items, not all alike, as the network takes them.

    Returns:
        The layout. Where the channels are not known, it says why.

    Raises:
        BackboneError: no axis of the output belongs to the items, or the rows of an item are not
            known.
    """
    with untouched(module), aside():
        evaluate(module)
        seen = observe(module, layer, _two(example))
        found, count, base = _find_items(module, layer, example, seen.output)
        axes = tuple(axis for axis in range(base.ndim) if axis != found.batch)
        if not axes:
            return dataclasses.replace(found, reason="it is one number per item")
        if len(axes) == 1 and found.rows == 1:
            return dataclasses.replace(found, channels=axes[0])
        few = Experiment(module, layer, example[:count], base, found.batch, found.varies)
        channels, reason = find_channels(few, seen)
        if channels is None:
            return dataclasses.replace(found, reason=reason)
        positions = tuple(axis for axis in axes if axis != channels)
        found = dataclasses.replace(found, channels=channels, positions=positions)
        if len(positions) != 1 or found.rows != 1:
            return found
        special = _special_tokens(seen, example, base.shape[positions[0]])
        token = special[0] if special and has_class_token(module) else None
        return dataclasses.replace(found, special=special, class_token=token)


def _two(example: Arguments) -> Arguments:
    """Return two items that differ."""
    first, second = example[:1], example[1:2]
    pairs = zip(first.tensors(), second.tensors(), strict=True)
    if any(not torch.equal(a, b) for a, b in pairs):
        return example[:2]

    def other(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        if tensor.is_floating_point():
            slope = torch.linspace(0.0, 0.5, tensor[1].numel(), device=tensor.device)
            changed[1] = tensor[1] * 0.7 + slope.to(tensor.dtype).reshape(tensor[1].shape)
        return changed

    return dataclasses.replace(example[:2].map(other), mask=example[:2].mask)


def _find_items(
    module: nn.Module, layer: str | None, example: Arguments, two: Tensor
) -> tuple[Layout, int, Tensor]:
    """Find the axis of the items and the rows of each.

    Args:
        module, layer, example: as for :func:`find_layout`.
        two: the output for two items that differ.

    Returns:
        The layout as far as it is known, the smallest number of items that the network takes, and
        the output for so many.
    """
    who = _who(module, layer)
    few, fewer, many, more = _two_sizes(module, layer, example, two, who)
    changed = [axis for axis in range(two.ndim) if fewer.shape[axis] != more.shape[axis]]
    growing = item_axes(tuple(fewer.shape), tuple(more.shape), few, many)
    shapes = f"{tuple(fewer.shape)} for {few} and {tuple(more.shape)} for {many} items"
    if len(growing) != 1 or changed != growing or fewer.shape[growing[0]] % few:
        which = "several axes grow" if len(changed) > 1 else "no axis grows in proportion"
        raise BackboneError(
            f"{who} gives no rows of items: {which} with the number of items ({shapes})",
            hint="choose another layer",
        )
    axis = growing[0]
    rows = fewer.shape[axis] // few
    pair = _two(example)
    other = output_of(module, layer, pair[torch.tensor([1, 1], device=pair.device)])
    return _rows_of_first(_moved_rows(two, other, axis), axis, rows, who), few, fewer


def _two_sizes(
    module: nn.Module, layer: str | None, example: Arguments, two: Tensor, who: str
) -> tuple[int, Tensor, int, Tensor]:
    """Return outputs of two numbers of items; one item is cheapest, where the network takes it."""
    try:
        one = output_of(module, layer, example[:1])
        if one.ndim == two.ndim:
            return 1, one, 2, two
    except Exception:  # noqa: S110 a network may need more than one item
        pass
    try:
        three = output_of(module, layer, example[:3])
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BackboneError(
            f"{who} runs on two items, and neither on one nor on three: {lines[0]}",
            hint="use a network that takes any number of items",
        ) from error
    if three.ndim != two.ndim:
        raise BackboneError(
            f"{who} gives an output of {two.ndim} axes for two items, and of {three.ndim} for three"
        )
    return 2, two, 3, three


def _moved_rows(before: Tensor, after: Tensor, axis: int) -> set[int]:
    """Return the rows that differ by more than rounding; or else those that differ at all."""
    if before.shape != after.shape:
        return set(range(before.shape[axis]))
    a, b = (
        torch.nan_to_num(x.float()).movedim(axis, 0).reshape(before.shape[axis], -1)
        for x in (before, after)
    )
    if not a.shape[1]:
        return set()
    gap = (a - b).abs().amax(dim=1)
    clear = gap > _ROUNDING * a.abs().max()
    return set((clear if clear.any() else gap > 0).nonzero().flatten().tolist())


def _rows_of_first(moved: set[int], axis: int, rows: int, who: str) -> Layout:
    """Find where the rows of the first of two items are, from those that changed with it."""
    if rows == 1:
        if moved == {1}:
            raise BackboneError(f"{who} gives its rows in a different order from the items")
        # Where rows of others move, too, the pipeline says why (statistics of the batch, chance).
        return Layout(axis, varies=bool(moved))
    if moved and moved <= set(range(rows)):
        return Layout(axis, rows=rows)
    if moved and all(row % 2 == 0 for row in moved):
        return Layout(axis, rows=rows, strided=True)
    why = "one item changes the rows of others" if moved else "they are the same for every item"
    raise BackboneError(
        f"{who} gives {rows} rows per item, and which of them belong together is not known: {why}",
        hint="choose another layer",
    )


def _special_tokens(seen: Observed, example: Arguments, count: int) -> tuple[int, ...]:
    """Return the tokens of a layer that do not come from the item, by where they join the others.

    Of a text, every token comes from the item, also those that all texts have.
    """
    is_text = any(
        tensor.ndim == 2 and tensor.shape[1] == count and not tensor.is_floating_point()
        for tensor in example.tensors()
    )
    return () if is_text else seen.alike.get(count, ())


def has_class_token(module: nn.Module) -> bool:
    """Whether a parameter or buffer is named as a class token is."""
    names = [name for name, _ in module.named_parameters()]
    names += [name for name, _ in module.named_buffers()]
    return any(
        "cls" in (last := name.lower().rpartition(".")[2]) or "class" in last for name in names
    )


def _who(module: nn.Module, layer: str | None) -> str:
    kind = type(module).__name__
    return kind if layer is None else f"layer '{layer}' of {kind}"


__all__ = [
    "CHANNELS_FIRST",
    "CHANNELS_LAST",
    "ROWS",
    "Layout",
    "find_layout",
    "has_class_token",
    "tokens",
]
