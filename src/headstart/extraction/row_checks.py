"""Whether the rows of a network are functions of their items: tried on the first ones.

Rows that depend on the batch they are computed in, on random numbers or on padding are refused, and
so are features that are not finite, or the same for every item: none of them may be cached.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headstart.backbones import Backbone, features_of
from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError
from headstart.core.records import Precision
from headstart.extraction.precision import TOLERANCE


def _in_company(some: Arguments) -> Arguments:
    """Return the items, one alone with its mirror image: alone, no network depends on the batch."""
    if len(some) > 1:
        return some
    return some.map(lambda tensor: torch.cat([tensor, tensor.flip(-1)]))


def check_rows(cuts: Sequence[Backbone], some: Arguments, precision: Precision) -> Sequence[Tensor]:
    """Refuse a network whose rows depend on the batch they are computed in, or on randomness.

    Returns:
        The rows of some items at every cut.
    """
    company, unit = _in_company(some), cuts[0].inputs.unit
    together = features_of(cuts, company)
    again = features_of(cuts, company)
    apart = features_of(cuts, some[:1])
    bare = _unpadded_rows(cuts)
    for cut, rows, repeated, alone, short in zip(cuts, together, again, apart, bare, strict=True):
        where = cut.name if cut.layer is None else f"{cut.name} at {cut.layer}"
        good = finite_rows(rows)
        if not good.any():
            half = precision in ("float16", "bfloat16")
            raise BackboneError(
                f"{where} gives features that are not finite",
                hint="use precision='float32', or check weights and preprocessing"
                if half
                else "check that weights and preprocessing are right",
            )
        scale = float(rows[good].float().abs().max()) or 1.0
        if float((rows - repeated)[good].float().abs().max()) / scale > TOLERANCE[precision]:
            raise BackboneError(
                f"{where} gives other features on a second pass over the same {unit}: it draws "
                "random numbers even in evaluation mode",
                hint="features that depend on randomness are not cached; remove it",
            )
        change = float((rows[:1] - alone).float().abs().max()) / scale
        if change > TOLERANCE[precision]:  # not where the first row is not finite
            raise BackboneError(
                f"{where} gives one of the {unit} other features in another batch "
                f"(they change by {change:.2g} of the largest feature): it mixes the items of a "
                "batch even in evaluation mode",
                hint="look for norms with track_running_stats=False, and for attention or "
                "recurrent layers with another batch_first; such features are not cached",
            )
        if short is not None:
            _check_padding(*short, precision, where, unit)
        _check_varies(cut, rows[: len(some)], some, where)
    return [rows[: len(some)] for rows in together]


def finite_rows(rows: Tensor) -> Tensor:
    """Return which rows are finite, ``(n,) bool``; of the others it is said whose they are."""
    return torch.isfinite(rows).reshape(len(rows), -1).all(dim=1)


def _unpadded_rows(cuts: Sequence[Backbone]) -> list[tuple[Tensor, Tensor] | None]:
    """Return, at every cut, rows of the probe with padding, and of its shortest item without."""
    probe = cuts[0].probe(4)
    if probe.mask is None:
        return [None] * len(cuts)
    shortest = int(probe.mask.sum(dim=1).argmin())
    order = [shortest, *(i for i in range(len(probe)) if i != shortest)]
    probe = probe[torch.tensor(order, device=probe.device)]
    pairs = zip(features_of(cuts, probe), features_of(cuts, probe[:1].trimmed()), strict=True)
    return list(pairs)


def _check_padding(
    padded: Tensor, bare: Tensor, precision: Precision, where: str, unit: str
) -> None:
    """Refuse a row that padding changes, or whose shape depends on it."""
    scale = float(padded.float().abs().max()) or 1.0
    if padded.shape[1:] != bare.shape[1:]:
        raise BackboneError(
            f"{where} gives features of shape {tuple(padded.shape[1:])} in a batch and"
            f" {tuple(bare.shape[1:])} alone: {unit} differ in length",
            hint="use pooling='avg'",
        )
    change = float((padded[:1] - bare).float().abs().max()) / scale
    if not change <= TOLERANCE[precision]:
        raise BackboneError(
            f"{where} gives one of the {unit} other features when it is padded to the length of"
            f" its batch (they change by {change:.2g} of the largest feature): the network takes"
            " padding for content",
            hint="use a network that takes a mask, or another layer",
        )


def _check_varies(cut: Backbone, rows: Tensor, some: Arguments, where: str) -> None:
    """Refuse features that are the same for items that differ, on the data and on the probe."""

    def alike(values: Tensor) -> bool:
        return bool((values == values[:1]).all())

    rows = rows[finite_rows(rows)]
    if not len(rows) or not alike(rows) or all(alike(tensor) for tensor in some.tensors()):
        return
    if alike(cut.features(cut.probe(3))):
        raise BackboneError(
            f"{where} gives the same features for every {cut.inputs.unit.removesuffix('s')}: what "
            "lies before it is multiplied by zero, or does not depend on the item",
            hint="load pre-trained weights, or choose another layer",
        )


__all__ = ["check_rows", "finite_rows"]
