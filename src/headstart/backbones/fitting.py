"""Find how a checkpoint fits a network: under which prefix, after which conversion.

A checkpoint is flat here: the keys of its mappings and the names of its tensors are one dotted
name, such as ``state_dict.module.encoder_q.conv1.weight``. It fits under a prefix if every tensor
that the network needs lies there, in its shape, and nothing else that could belong to the network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from headstart.backbones.conversions import changes, converted_by_timm, resampled_positions
from headstart.core.patterns import covers
from headstart.core.wording import count, listed

_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
"""What compilation, sharding and activation checkpointing put between the parts of a name."""

_HEADS = re.compile(
    r"heads?|head_\w+|fc|classifier|(aux|auxiliary)_head|proj(ector|ection)(_head)?|proj_head"
    r"|predict(or|ion)(_head)?|lm_head|prototypes|queue(_ptr)?|mask_token|decoder(_\w+)?"
    r"|criterion|loss(_\w+)?|logit_(scale|bias)"
)
"""First parts of the names of what training puts behind a backbone."""

_RECOMPUTED = {
    "relative_position_index", "attn_mask", "relative_coords_table", "position_ids",
    "num_batches_tracked", "total_ops", "total_params",
}  # fmt: skip
"""Last parts of the names of tables that networks make themselves, and of counters."""


@dataclass(frozen=True, eq=False)
class Fit:
    """One way to read a checkpoint for a network.

    Attributes:
        prefix: under which its names lie, with a trailing dot; empty for the names as they are.
        tensors: by the names of the network.
        missing: names of the network that it needs and that are not there.
        misshaped: names of the network whose tensor has another shape.
        unexpected: names below the prefix that may belong to another network.
        left_out: names below the prefix that belong to a head or are made anew.
        how: what was done besides taking the prefix away, for a note.
    """

    prefix: str
    tensors: Mapping[str, Tensor]
    missing: tuple[str, ...]
    misshaped: tuple[str, ...]
    unexpected: tuple[str, ...]
    left_out: tuple[str, ...]
    how: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the network can be loaded this way."""
        return not (self.missing or self.misshaped or self.unexpected)

    @property
    def score(self) -> tuple[int, int]:
        """How much of the network is found, for choosing what to report of a misfit."""
        return len(self.tensors) - len(self.misshaped), -len(self.unexpected)


@dataclass(frozen=True, eq=False)
class Network:
    """What a checkpoint is fitted to.

    Attributes:
        module: the network.
        tensors: its persistent tensors by name.
        needed: the names that a checkpoint must have.
        removed: names of the classifier that the family took off.
    """

    module: nn.Module
    tensors: Mapping[str, Tensor]
    needed: frozenset[str]
    removed: tuple[str, ...] = ()
    parts: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        parts = {name.split(".")[0] for name in self.tensors}
        object.__setattr__(self, "parts", frozenset(parts))

    @classmethod
    def of(cls, module: nn.Module, needed: Iterable[str], removed: Sequence[str] = ()) -> Network:
        """Describe a network; batch counters are never needed."""
        kept = module.state_dict(keep_vars=True)
        tensors = {name: tensor for name, tensor in kept.items() if isinstance(tensor, Tensor)}
        wanted = {n for n in needed if n in tensors and not n.endswith("num_batches_tracked")}
        return cls(module, tensors, frozenset(wanted), tuple(removed))

    @property
    def nothing(self) -> Fit:
        """A misfit in which none of the network's names is found."""
        return Fit("", {}, tuple(n for n in self.tensors if n in self.needed), (), (), ())

    def leaves_out(self, name: str) -> bool:
        """Whether a name in a file belongs to a head, or to what the network makes itself."""
        first, last = name.split(".")[0], name.rpartition(".")[2]
        if last in _RECOMPUTED or any(covers(each, name) for each in self.removed):
            return True
        return first not in self.parts and _HEADS.fullmatch(first) is not None


def fits_of(network: Network, flat: Mapping[str, Tensor]) -> tuple[list[Fit], Fit | None]:
    """Return every way in which a checkpoint fits, and the nearest way where none does.

    Args:
        network: what is to be loaded.
        flat: the tensors of the checkpoint by flat name.

    Returns:
        The ways that fit, each reading other values; and of those that do not, the one with most
        of the network's tensors (None where no name is the network's).
    """
    tried = [fit for each in _prefixes(network, flat) for fit in _readings(network, flat, each)]
    direct = [fit for fit in tried if fit.fits]
    if direct:  # what has the whole network and more could be meant as well
        direct += [fit for fit in tried if not fit.fits and _whole(network, fit, direct)]
    if not direct:
        for fit in sorted(tried, key=lambda each: each.score, reverse=True)[:4]:
            direct += [found for found in _converted(network, flat, fit) if found.fits]
        for prefix in _tables(flat) if not direct else ():
            raw = Fit(prefix, {}, (), (), (), ())
            direct += [found for found in _converted(network, flat, raw) if found.fits]
    nearest = max(tried, key=lambda each: each.score, default=None)
    return _distinct(_plainest(direct)), nearest


def rename_flat(
    flat: Mapping[str, Tensor], rename: Mapping[str, str | None]
) -> tuple[dict[str, Tensor], set[str], tuple[list[str], list[str]]]:
    """Rename whole names or leading parts, the longest match first.

    A name may be given with the keys under which the file keeps its tensors, or without.

    Returns:
        All tensors by their new name, the new names of those that were renamed, and what is wrong:
        old names that begin nothing in the file, new names that several tensors would have.
    """
    tables = sorted(_tables(flat), key=len, reverse=True)
    mapping = {old.rstrip("."): new for old, new in rename.items()}
    used: set[str] = set()
    every: dict[str, Tensor] = {}
    fresh: set[str] = set()
    clashes: list[str] = []
    for name, tensor in flat.items():
        for old in sorted(mapping, key=len, reverse=True):
            start = next((t for t in tables if covers(t + old, name) and name.startswith(t)), None)
            if start is None:
                continue
            used.add(old)
            new = mapping[old]
            if new is not None:
                tail = name[len(start) + len(old) :].lstrip(".")
                renamed = ".".join(part for part in (new.rstrip("."), tail) if part)
                if renamed in fresh:
                    clashes.append(renamed)
                every[renamed] = tensor
                fresh.add(renamed)
            break
        else:
            every.setdefault(name, tensor)
    return every, fresh, ([old for old in mapping if old not in used], clashes)


def renaming_for(network: Network, fit: Fit, flat: Mapping[str, Tensor]) -> dict[str, str]:
    """Propose new names for a misfit, if with them it would fit; otherwise nothing."""
    pairs: Counter[tuple[str, str]] = Counter()
    for name in fit.unexpected:
        shape = flat[fit.prefix + name].shape
        last = name.rpartition(".")[2]
        alike = [
            other
            for other in fit.missing
            if other.rpartition(".")[2] == last and network.tensors[other].shape == shape
        ]
        for other in alike:
            old, new = name.split("."), other.split(".")
            while len(old) > 1 and len(new) > 1 and old[-1] == new[-1]:
                old, new = old[:-1], new[:-1]
            pairs[".".join(old), ".".join(new)] += 1
    chosen: dict[str, str] = {}
    for (begin, target), _ in pairs.most_common():
        if begin not in chosen and target not in chosen.values():
            chosen[begin] = target
    if not 0 < len(chosen) <= 4:
        return {}
    whole = {fit.prefix + old: new for old, new in chosen.items()}
    if fit.prefix:
        whole[fit.prefix.rstrip(".")] = ""
    renamed, _, _ = rename_flat(flat, whole)
    return whole if fits_of(network, renamed)[0] else {}


def describe(fit: Fit, flat: Mapping[str, Tensor]) -> str:
    """Say in one line what a fit took of a file and what it left; empty for the plain case."""
    said = [f"under '{fit.prefix.rstrip('.')}'"] if fit.prefix else []
    said += fit.how
    parts = list(dict.fromkeys(name.split(".")[0] for name in fit.left_out))
    if parts:
        said.append(f"without {listed(parts, 4)}")
    others = sum(not name.startswith(fit.prefix) for name in flat)
    if others:
        said.append(f"{count(others, 'other tensor')} of the file ignored")
    return "; ".join(said)


def _prefixes(network: Network, flat: Mapping[str, Tensor]) -> list[str]:
    """Return the leading parts of names after which names of the network follow, best first."""
    found: Counter[str] = Counter()
    aliases = {alias for table, _ in _aliases(network) for alias in table}
    for name in flat:
        cuts = [0, *(place + 1 for place, mark in enumerate(name) if mark == ".")]
        for cut in cuts:
            if _WRAPPERS.sub("", name[cut:]) in aliases:
                found[name[:cut]] += 1
    return [prefix for prefix, _ in found.most_common(24)]


def _aliases(network: Network) -> Iterator[tuple[dict[str, str], tuple[str, ...]]]:
    """Yield how a file may call the network's tensors, and what to say of it.

    A table leads from names in the file to names in the network.
    """
    names = list(network.tensors)
    yield {name: name for name in names}, ()
    first = next(iter(network.parts)) if len(network.parts) == 1 else ""
    if first and all("." in name for name in names):  # the network is one part of the module
        yield {name.split(".", 1)[1]: name for name in names}, (f"into '{first}'",)
    places = {key: str(i) for i, (key, _) in enumerate(network.module.named_children())}
    if places and set(places) != set(places.values()):  # Sequential(*network.children())
        table = {}
        for name in names:
            key, _, rest = name.partition(".")
            if key in places and rest:
                table[f"{places[key]}.{rest}"] = name
        if network.needed <= set(table.values()):
            yield table, ("as the children of the network by position",)


def _readings(network: Network, flat: Mapping[str, Tensor], prefix: str) -> Iterator[Fit]:
    below = _below(flat, prefix)
    for table, how in _aliases(network):
        if any(name in table for name in below):
            named = {table.get(name, name): tensor for name, tensor in below.items()}
            yield _judge(network, prefix, named, how)


def _below(flat: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix, without what wraps parts of the network."""
    return {
        _WRAPPERS.sub("", name[len(prefix) :]): tensor
        for name, tensor in flat.items()
        if name.startswith(prefix)
    }


def _judge(
    network: Network, prefix: str, named: Mapping[str, Tensor], how: tuple[str, ...] = ()
) -> Fit:
    """Compare tensors with a network, name by name."""
    taken = {name: tensor for name, tensor in named.items() if name in network.tensors}
    extra = [name for name in named if name not in network.tensors]
    left_out = [name for name in extra if network.leaves_out(name)]
    present = {id(network.tensors[name]) for name in taken}
    return Fit(
        prefix=prefix,
        tensors=taken,
        missing=tuple(
            name
            for name in network.tensors
            if name in network.needed
            and name not in taken
            and id(network.tensors[name]) not in present
        ),
        misshaped=tuple(
            name for name, tensor in taken.items() if tensor.shape != network.tensors[name].shape
        ),
        unexpected=tuple(name for name in extra if name not in set(left_out)),
        left_out=tuple(left_out),
        how=how,
    )


def _converted(network: Network, flat: Mapping[str, Tensor], fit: Fit) -> Iterator[Fit]:
    """Yield what timm's own conversion, and the resampling of positions, make of a misfit."""
    below = _below(flat, fit.prefix)
    made = converted_by_timm(network.module, below)
    if made is not None:
        yield _judge(network, fit.prefix, made, changes(below, made))
    if fit.misshaped and not fit.missing:
        tensors = dict(fit.tensors)
        for name in fit.misshaped:
            fresh = resampled_positions(tensors[name], network.tensors[name], name)
            if fresh is not None:
                tensors[name] = fresh
        found = _judge(network, fit.prefix, tensors, changes(fit.tensors, tensors))
        yield replace(found, unexpected=fit.unexpected, left_out=fit.left_out)


def _tables(flat: Iterable[str]) -> list[str]:
    """Return the prefixes that all tensors of a file, or of one of its first keys, share."""
    names = list(flat)
    found = [""]
    for key in dict.fromkeys(name.split(".")[0] for name in names):
        prefix = f"{key}."
        below = [name for name in names if name.startswith(prefix)]
        while below:
            found.append(prefix)
            following = {name[len(prefix) :].split(".")[0] for name in below}
            if len(following) > 1 or any("." not in name[len(prefix) :] for name in below):
                break
            prefix += f"{following.pop()}."
    return found


def _whole(network: Network, fit: Fit, others: Iterable[Fit]) -> bool:
    """Whether all that keeps a fit from fitting is beside the network: parts it does not have."""
    if fit.missing or fit.misshaped:
        return False
    return all(
        name.split(".")[0] not in network.parts
        or any(
            other.prefix.startswith(fit.prefix) and (fit.prefix + name).startswith(other.prefix)
            for other in others
        )
        for name in fit.unexpected
    )


def _plainest(fits: list[Fit]) -> list[Fit]:
    """Prefer names as they are: what lies deeper in the same mapping is a part of the network."""
    outer = [
        fit
        for fit in fits
        if not any(
            other is not fit and other.prefix != fit.prefix and fit.prefix.startswith(other.prefix)
            and any(name.startswith(fit.prefix[len(other.prefix) :]) for name in other.tensors)
            for other in fits
        )
    ]  # fmt: skip
    return outer or fits


def _distinct(fits: list[Fit]) -> list[Fit]:
    """Drop fits that read the same values as another, the longer prefix staying."""
    kept: list[Fit] = []
    for fit in sorted(fits, key=lambda each: (-len(each.prefix), len(each.how))):
        if not any(_same(fit, other) for other in kept):
            kept.append(fit)
    return kept


def _same(one: Fit, other: Fit) -> bool:
    shared = one.tensors.keys() & other.tensors.keys()
    return bool(shared) and all(
        one.tensors[name] is other.tensors[name]
        or (
            one.tensors[name].dtype == other.tensors[name].dtype
            and torch.equal(one.tensors[name], other.tensors[name])
        )
        for name in shared
    )


__all__ = [
    "Fit",
    "Network",
    "describe",
    "fits_of",
    "rename_flat",
    "renaming_for",
]
