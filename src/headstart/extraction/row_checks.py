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
from headstart.core.devices import generators, is_of_device
from headstart.core.errors import BackboneError
from headstart.core.records import Precision
from headstart.core.wording import first_line
from headstart.extraction.precision import TOLERANCE
from headstart.modules.digests import digest
from headstart.modules.identity import describe_attributes


def _in_company(some: Arguments) -> Arguments:
    """Return the items, one alone with its mirror image: alone, no network depends on the batch."""
    if len(some) > 1:
        return some
    return some.map(lambda tensor: torch.cat([tensor, tensor.flip(-1)]))


class _Traces:
    """What passes of a network leave behind: in its state, in the generators, in its input.

    Args:
        network: whose passes they are.
        given: what the passes are called with.
    """

    def __init__(self, network: Backbone, given: Arguments) -> None:
        self._module = network.module
        self._attributes: dict[str, str] = {}
        self._buffers = {n: (b, digest(b)) for n, b in network.module.named_buffers()}
        drawn_from = generators((network.device,))
        self._generators = [(each, each.get_state()) for each in drawn_from]
        self._given = [(tensor, tensor.clone()) for tensor in given.tensors()]

    def first_pass_done(self) -> None:
        """Note the attributes.

        What one pass fills, and the next over the same items fills alike, is a cache or a record of
        activations, and no cause of other rows.
        """
        self._attributes = describe_attributes(self._module)

    def cause(self) -> tuple[str, str] | None:
        """Return what was left behind and may make a second pass another one, and what to do."""
        if any(not torch.equal(tensor, before) for tensor, before in self._given):
            return "it writes to its own input", "copy the input first: x = x.clone()"
        for name, (buffer, before) in self._buffers.items():
            if digest(buffer) != before:
                return (
                    f"it changes its buffer '{name}' even in evaluation mode",
                    "change it only if self.training; features that depend on what ran before are"
                    " not cached",
                )
        if any(not torch.equal(each.get_state(), before) for each, before in self._generators):
            return _RANDOM
        now = describe_attributes(self._module)
        names = [name for name in now if now[name] != self._attributes.get(name, now[name])]
        return _kept_in(names[0]) if names else None


def _kept_in(attribute: str) -> tuple[str, str]:
    return (
        f"it changes its attribute '{attribute}' even in evaluation mode",
        "change it only if self.training; features that depend on what ran before are not cached",
    )


_RANDOM = (
    "it draws random numbers even in evaluation mode",
    "features that depend on randomness are not cached; remove it",
)


_UNSEEN = (
    "it draws random numbers, or keeps a state, even in evaluation mode",
    "features that depend on randomness or on what ran before are not cached; remove it",
)

_MORE_PASSES = 8
"""Of a network that draws random numbers in evaluation mode, though a second pass was the same."""


def check_rows(cuts: Sequence[Backbone], some: Arguments, precision: Precision) -> Sequence[Tensor]:
    """Refuse a network whose rows depend on the batch they are computed in, or on randomness.

    Returns:
        The rows of some items at every cut.
    """
    company, unit = _in_company(some), cuts[0].inputs.unit
    alone, turned = company[:1].map(torch.clone), company[_ends(company)]
    traces = _Traces(cuts[0], company)
    together = features_of(cuts, company)
    traces.first_pass_done()
    again = features_of(cuts, company)
    cause = traces.cause()
    if cause is _RANDOM:  # which may show in few passes only
        passes = [again, *(features_of(cuts, company) for _ in range(_MORE_PASSES))]
        again = next((p for p in passes if not all(map(torch.equal, p, together))), again)
    others = _by_itself(cuts, alone), features_of(cuts, turned)
    bare = _unpadded_rows(cuts)
    for at, (cut, rows) in enumerate(zip(cuts, together, strict=True)):
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
        _check_repeats(rows[good], again[at][good], scale, cause, precision, f"{where} gives", unit)
        _check_company(rows[:1], others[0][at], scale, precision, where, unit)
        _check_company(rows[_ends(company)], others[1][at], scale, precision, where, unit)
        if (short := bare[at]) is not None:
            _check_padding(*short, precision, where, unit)
        _check_varies(cut, rows[: len(some)], some, where)
    return [rows[: len(some)] for rows in together]


def _ends(company: Arguments) -> Tensor:
    """Return the positions of the last item and of the first: another order, in another batch."""
    return torch.tensor([len(company) - 1, 0], device=company.device)


def _by_itself(cuts: Sequence[Backbone], alone: Arguments) -> list[Tensor]:
    """Return the rows of an item alone."""
    try:
        return features_of(cuts, alone)
    except (ValueError, RuntimeError) as error:  # as torch's norms raise them
        if isinstance(error, RuntimeError) and is_of_device(error):
            raise
        unit = cuts[0].inputs.unit
        raise BackboneError(
            f"{cuts[0].name} runs on several {unit} and not on one alone: {first_line(error)}",
            hint="look for norms with track_running_stats=False, and for squeeze() without an axis",
        ) from error


def _check_repeats(
    rows: Tensor,
    repeated: Tensor,
    scale: float,
    cause: tuple[str, str] | None,
    precision: Precision,
    who_gives: str,
    unit: str,
) -> None:
    """Refuse rows that are others on a second pass.

    Where the passes left something behind, any difference counts: rows that drift by a millionth a
    batch are others after a data set. Else, it may be rounding.
    """
    change = float((rows.float() - repeated.float()).abs().max()) / scale
    if not change or (cause is None and not change > TOLERANCE[precision]):
        return
    why, hint = cause or _UNSEEN
    raise BackboneError(
        f"{who_gives} other features on a second pass over the same {unit}: {why}", hint=hint
    )


def _check_company(
    rows: Tensor, others: Tensor, scale: float, precision: Precision, where: str, unit: str
) -> None:
    """Refuse rows of items that are others in another batch, or at another place in it."""
    both = finite_rows(rows) & finite_rows(others)
    change = float((rows.float() - others.float())[both].abs().max()) / scale if both.any() else 0.0
    if change > TOLERANCE[precision]:
        raise BackboneError(
            f"{where} gives one of the {unit} different features in another batch (they change"
            f" by {change:.2g} of the largest feature): it mixes the items of a batch even in"
            " evaluation mode",
            hint="look for norms with track_running_stats=False, and for attention or "
            "recurrent layers with another batch_first; such features are not cached",
        )


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
            f"{where} gives one of the {unit} different features when it is padded to the length"
            f" of its batch (they change by {change:.2g} of the largest feature): the network"
            " treats padding as content",
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
            f"{where} gives the same features for every {cut.inputs.unit.removesuffix('s')}:"
            " what comes before it is multiplied by zero, or does not depend on the item",
            hint="load pre-trained weights, or choose another layer",
        )


__all__ = ["check_rows", "finite_rows"]
