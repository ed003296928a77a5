"""Why a checkpoint does not fit a network, with the hint that is true for that fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from headstart.backbones.conversions import POSITIONS
from headstart.backbones.fitting import Fit, Network, renaming_for
from headstart.core.errors import BackboneError
from headstart.core.wording import count, did_you_mean, listed, nearest, quoted


def several(fits: Sequence[Fit], file: str) -> BackboneError:
    """Return the error for a file that fits in several ways, with other values in each."""
    prefixes = [fit.prefix.rstrip(".") for fit in fits]
    names = [f"'{prefix}'" if prefix else "no prefix" for prefix in prefixes]
    example = next((prefix for prefix in prefixes if prefix), "")
    return BackboneError(
        f"{file} holds the whole network several times, with other values: under {listed(names)}",
        hint=f"choose one, for example rename={{{example!r}: ''}}",
    )


def rename_refused(
    flat: Mapping[str, Tensor], file: str, unused: Sequence[str], clashes: Sequence[str]
) -> BackboneError:
    """Return the error for a renaming that names nothing, or the same twice."""
    if clashes:
        return BackboneError(
            f"rename gives several tensors of {file} the names {quoted(clashes, 4)}",
            hint="begin the old names with the keys under which the file keeps them",
        )
    parts = [name.split(".") for name in flat]
    begins = list(dict.fromkeys(".".join(p[: i + 1]) for p in parts for i in range(len(p))))
    shown = list(dict.fromkeys(p[0] for p in parts))
    return BackboneError(
        f"rename has {quoted(unused)}, which begins no name in {file}",
        hint=did_you_mean(unused[0], begins) or f"its names begin with {quoted(shown, 6)}",
    )


def misfit(
    network: Network, fit: Fit, flat: Mapping[str, Tensor], file: str, cut: str | None
) -> BackboneError:
    """Return the error for a file that does not fit.

    Args:
        network: what was to be loaded.
        fit: the nearest way.
        flat: the tensors of the file.
        file: its path.
        cut: a layer up to which the file is complete, if there is one.
    """
    if not fit.tensors:
        theirs, ours = quoted(_spread(list(flat))), quoted(_spread(list(network.tensors)))
        return BackboneError(
            f"no tensor of {file} matches the network: the file has {theirs}, the network {ours}",
            hint="choose the network that the file was made with; if only names differ, map them"
            " with rename={'OLD': 'NEW'}",
        )
    where = f" under '{fit.prefix.rstrip('.')}'" if fit.prefix else ""
    return BackboneError(
        f"{file} does not fit the network{where}, which is unchanged: "
        + "; ".join(_faults(network, fit)),
        hint=_hint(network, fit, flat, cut),
    )


def _faults(network: Network, fit: Fit) -> list[str]:
    faults = []
    if fit.missing:
        faults.append(f"{len(fit.missing)} missing: {quoted(fit.missing)}")
    if fit.unexpected:
        close = {name: nearest(name, fit.missing, 1) for name in fit.unexpected[:8]}
        named = [f"{n!r} (nearest {close[n][0]!r})" if close[n] else repr(n) for n in close]
        faults.append(f"{len(fit.unexpected)} unexpected: {listed(named, 8)}")
        if len(fit.unexpected) > len(named):
            faults[-1] += f" and {len(fit.unexpected) - len(named):,} more"
    if fit.misshaped:
        shown = [
            f"{name!r} has {tuple(fit.tensors[name].shape)} in the file,"
            f" {tuple(network.tensors[name].shape)} in the network"
            for name in fit.misshaped[:4]
        ]
        more = len(fit.misshaped) - len(shown)
        tail = f" and {more:,} more" if more else ""
        faults.append(f"{len(fit.misshaped)} of another shape: {'; '.join(shown)}{tail}")
    return faults


def _hint(network: Network, fit: Fit, flat: Mapping[str, Tensor], cut: str | None) -> str:
    if fit.misshaped and all(POSITIONS.search(name) for name in fit.misshaped):
        return (
            "tables of positions belong to an input size, and these cannot be resampled: pass the"
            " size that the file was made for in model_args={…} (timm calls it img_size)"
        )
    if fit.misshaped:
        return (
            "the file is of another variant of this network: choose the name, or pass the"
            " model_args={…}, that it was made with"
        )
    renaming = renaming_for(network, fit, flat) if fit.missing and fit.unexpected else {}
    if renaming:
        return f"it fits with rename={renaming}"
    if fit.missing and cut is not None:
        return f"choose a layer before what is missing, such as layer={cut!r}"
    if fit.missing and fit.unexpected:
        return (
            "the file is of another network: choose the name, or pass the model_args={…}, that"
            " it was made with; if only names differ, map them with rename={'OLD': 'NEW'}"
        )
    if fit.missing:
        total = count(len(network.needed), "tensor")
        return (
            f"the file has {len(network.needed) - len(fit.missing)} of {total} and is incomplete,"
            " or of a smaller network: choose a layer before what is missing, layer='NAME', or the"
            " name it was made with"
        )
    parts = list(dict.fromkeys(name.split(".")[0] for name in fit.unexpected))
    whole = [part for part in parts if part not in network.parts]
    if whole == parts:
        left = ", ".join(f"{fit.prefix + part!r}: None" for part in parts[:4])
        return (
            f"if {listed(parts, 4)} do not belong to the backbone, ignore them: rename={{{left}}}"
        )
    return (
        "the file is of a larger network: choose the name, or pass the model_args={…}, that it was"
        " made with"
    )


def _spread(names: list[str]) -> list[str]:
    return list(dict.fromkeys([names[0], names[len(names) // 2], names[-1]])) if names else []


__all__ = ["misfit", "rename_refused", "several"]
