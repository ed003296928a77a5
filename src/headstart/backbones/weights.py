"""Loading all or a part of a model from a checkpoint file, with one report of what fitted.

Everything is checked before the first value is copied: a load that is refused leaves the model
as it was. Values are copied into the existing tensors, so that parameters keep their identity and
an optimizer made earlier stays valid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from headstart.backbones.tensor_file import choose_table, read_tables
from headstart.core.errors import BackboneError
from headstart.core.patterns import covers
from headstart.core.wording import count, did_you_mean, nearest, quoted

Rename = Mapping[str, str] | Callable[[str], str | None]

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Misshaped:
    """A tensor that is in both, with different shapes or kinds of number.

    Attributes:
        name: the name in the model.
        expected: what the model has, such as ``(10, 64) float32``.
        found: what the file has.
    """

    name: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.name!r}: the model has {self.expected}, the file {self.found}"


@dataclass(frozen=True)
class LoadReport:
    """What a load did. All names are names in the model, except ``unexpected`` and ``dropped``.

    Attributes:
        file: the file, as it was given.
        into: the part that was loaded; empty for the whole model.
        matched: tensors that now hold the file's values.
        missing: tensors of the part that the file does not have.
        unexpected: tensors of the file (renamed) that the part does not have.
        misshaped: tensors that are in both and do not fit; they were not loaded.
        allowed: tensors that may be left out: named by ``allow_missing`` or ``allow_unexpected``,
            dropped by ``rename``, or batch counters that older checkpoints do not have.
        cast: matched tensors whose precision changed on the way, such as float16 to float32.
    """

    file: str
    into: str
    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshaped: tuple[Misshaped, ...] = ()
    allowed: tuple[str, ...] = ()
    cast: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing was missing, unexpected or misshaped."""
        return not (self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        where = f" into {self.into!r}" if self.into else ""
        lines = [f"{count(len(self.matched), 'tensor')} loaded{where} from {self.file}"]
        for label, names in (
            ("missing in the file", self.missing),
            ("unexpected in the file", self.unexpected),
            ("ignored as allowed", self.allowed),
            ("changed in precision", self.cast),
        ):
            if names:
                lines.append(f"{len(names)} {label}: {quoted(names)}")
        if self.misshaped:
            lines.append(f"{len(self.misshaped)} misshaped: {_join(self.misshaped)}")
        return "\n".join(lines)


def load_weights(
    model: nn.Module,
    file: str | Path,
    into: str | None = None,
    rename: Rename | None = None,
    strict: bool = True,
    *,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
) -> LoadReport:
    """Load the tensors of a checkpoint file into a model, or into one part of it, in place.

    Load before freezing: to a freeze contract, values that change by a load are values that moved.

    Args:
        model: the model. Its parameters and buffers keep their identity, device and dtype.
        file: a ``.safetensors`` file, or a torch file, which is opened with
            ``weights_only=True`` so that opening it runs no code. In a torch file the tensors may
            lie under a key (``state_dict``, ``model``, ...).
        into: the part to load, as a dotted name ("encoder"). Names in the file are then names
            below that part, and nothing outside it is touched.
        rename: from a name in the file to a name in the model (below ``into``). A mapping
            replaces whole names or leading parts, the longest match winning:
            ``{"backbone": "encoder", "module": ""}``; a key under which a torch file keeps its
            tensors may be named in the same way (``{"state_dict_ema": ""}``). A function returns
            the new name, or None to leave the tensor out.
        strict: refuse the load if any tensor is missing, unexpected or misshaped. With False
            those are reported and the others are loaded; a file of which nothing fits is refused
            all the same.
        allow_missing: names, globs or parts of the model that the file need not have, such as
            ``["blocks.5", "classifier"]``. Each must name something in the model.
        allow_unexpected: names, globs or parts of the file (renamed) to leave out, such as
            ``["fc"]``. Each must name something in the file.

    Returns:
        The report of matched, missing, unexpected and misshaped names.

    Raises:
        BackboneError: the file cannot be read; a name, pattern or part matches nothing; or the
            file does not fit. All faults are named together and the model is left unchanged.
    """
    below = f"{into}." if into else ""
    names = [name.removeprefix(below) for name in _targets(model, into)]
    tables = read_tables(Path(file))
    key, rename = _key_in(tables, rename)
    tensors = tables[key] if key else choose_table(tables, names, Path(file))
    renamed, dropped = _apply_rename(tensors, rename, str(file))
    return load_tensors(
        model, renamed, str(file), into, strict=strict, allow_missing=allow_missing,
        allow_unexpected=allow_unexpected, dropped=dropped,
    )  # fmt: skip


def load_tensors(
    model: nn.Module,
    renamed: Mapping[str, Tensor],
    file: str,
    into: str | None = None,
    *,
    strict: bool = True,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    dropped: Sequence[str] = (),
) -> LoadReport:
    """Load tensors by the names of a model; see :func:`load_weights`.

    Args:
        model, into, strict, allow_missing, allow_unexpected: as there.
        renamed: the tensors, by their names below ``into``.
        file: where they are from, for messages.
        dropped: names of the file that were left out before, for the report.
    """
    targets, known = _targets(model, into), _tensor_names(model)
    prefix = f"{into}." if into else ""
    _check_patterns(allow_missing, known, "allow_missing", "the model")
    _check_patterns(allow_unexpected, list(renamed), "allow_unexpected", f"the file {file}")

    found = {prefix + name: tensor for name, tensor in renamed.items()}
    fitting, misshaped = _compare(targets, found)
    _check_ties(targets, fitting, str(file))
    present = {id(targets[name]) for name in found if name in targets}
    absent = [n for n in targets if n not in found and id(targets[n]) not in present]
    missing = [n for n in absent if not _excused(n, allow_missing)]
    excess = [name for name in renamed if prefix + name not in targets]
    unexpected = [n for n in excess if not any(covers(p, n) for p in allow_unexpected)]
    allowed = [n for n in absent if n not in missing] + [n for n in excess if n not in unexpected]
    report = LoadReport(
        file=str(file),
        into=into or "",
        matched=tuple(fitting),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        misshaped=tuple(misshaped),
        allowed=(*allowed, *dropped),
        cast=tuple(n for n, t in fitting.items() if t.dtype != targets[n].dtype),
    )
    if not report.matched or (strict and not report.complete):
        raise _refusal(report)
    with torch.no_grad():
        for name, tensor in fitting.items():
            targets[name].copy_(tensor)
    return report


def _tensor_names(model: nn.Module) -> list[str]:
    pairs = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    return [name for name, _ in pairs]


def _targets(model: nn.Module, into: str | None) -> dict[str, Tensor]:
    """Return the persistent tensors to fill, by their full name; aliases of a tied one too."""
    part = model
    if into:
        parts = dict(model.named_modules(remove_duplicate=False))
        if into not in parts:
            raise BackboneError(
                f"the model has no part {into!r} to load into",
                hint=did_you_mean(into, [name for name in parts if name]),
            )
        part = parts[into]
    prefix = f"{into}." if into else ""
    kept = part.state_dict(keep_vars=True)
    targets = {prefix + n: t for n, t in kept.items() if isinstance(t, Tensor)}
    lazy = [name for name, tensor in targets.items() if is_lazy(tensor)]
    meta = [name for name, tensor in targets.items() if not is_lazy(tensor) and tensor.is_meta]
    if lazy or meta:
        raise BackboneError(
            f"{quoted(lazy or meta)} of the model hold no memory yet",
            hint="run one batch through lazy modules, and move a model off the meta device with"
            " to_empty, before loading",
        )
    return targets


def _key_in(tables: Iterable[str], rename: Rename | None) -> tuple[str, Rename | None]:
    """Take the key of a mapping of tensors, which ``rename`` may name, out of it."""
    if not isinstance(rename, Mapping):
        return "", rename
    for table in tables:
        if table and rename.get(table.rstrip(".")) == "":
            rest = {old: new for old, new in rename.items() if old != table.rstrip(".")}
            return table, rest or None
    return "", rename


def _apply_rename(
    tensors: Mapping[str, Tensor], rename: Rename | None, file: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the renamed tensors and the names that the renaming dropped."""
    if rename is None:
        return dict(tensors), []
    if isinstance(rename, Mapping):
        for old in rename:
            if not any(covers(old.rstrip("."), name) for name in tensors):
                raise BackboneError(
                    f"rename has {old!r}, which begins no name in {file}",
                    hint=did_you_mean(old.rstrip("."), _with_parents(tensors)),
                )
        mapping = {old.rstrip("."): new.rstrip(".") for old, new in rename.items()}
        pairs: list[tuple[str, str | None]] = [(n, _rename_prefix(n, mapping)) for n in tensors]
    else:
        pairs = [(name, rename(name)) for name in tensors]
    clashes = [n for n, c in Counter(new for _, new in pairs if new is not None).items() if c > 1]
    if clashes:
        raise BackboneError(f"rename gives several tensors of {file} the names {quoted(clashes)}")
    renamed = {new: tensors[old] for old, new in pairs if new is not None}
    return renamed, [old for old, new in pairs if new is None]


def _rename_prefix(name: str, mapping: Mapping[str, str]) -> str:
    for old in sorted(mapping, key=len, reverse=True):
        if name == old:
            return mapping[old]
        if name.startswith(old + "."):
            tail = name[len(old) + 1 :]
            return f"{mapping[old]}.{tail}" if mapping[old] else tail
    return name


def _with_parents(names: Iterable[str]) -> list[str]:
    """Return the names and every leading part of them, each once."""
    pieces = (name.split(".") for name in names)
    return list(dict.fromkeys(".".join(p[: i + 1]) for p in pieces for i in range(len(p))))


def _check_patterns(
    patterns: Sequence[str], names: Sequence[str], argument: str, where: str
) -> None:
    if isinstance(patterns, str):
        raise BackboneError(
            f"{argument} is the string {patterns!r}", hint=f"pass a list: [{patterns!r}]"
        )
    for pattern in patterns:
        if not any(covers(pattern, name) for name in names):
            raise BackboneError(
                f"{argument} has {pattern!r}, which matches no name in {where}",
                hint=did_you_mean(pattern, _with_parents(names)),
            )


def _compare(
    targets: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[Misshaped]]:
    """Divide the tensors that are in both into those that fit and those that do not."""
    fitting: dict[str, Tensor] = {}
    misshaped: list[Misshaped] = []
    for name, tensor in found.items():
        target = targets.get(name)
        if target is None:
            continue
        # Casting within floats, or within integers, keeps the meaning; between them it does not.
        same_kind = _kind(target.dtype) == _kind(tensor.dtype)
        if same_kind and target.shape == tensor.shape:
            fitting[name] = tensor
        else:
            misshaped.append(Misshaped(name, _describe(target), _describe(tensor)))
    return fitting, misshaped


def _check_ties(targets: Mapping[str, Tensor], fitting: Mapping[str, Tensor], file: str) -> None:
    """Refuse a file that gives two values to one tensor which the model has under two names."""
    first: dict[int, str] = {}
    for name, tensor in fitting.items():
        other = first.setdefault(id(targets[name]), name)
        if other != name and not torch.equal(tensor, fitting[other]):
            raise BackboneError(
                f"{name!r} and {other!r} are the same tensor in the model, but {file} has"
                " different values for them",
                hint="untie them in the model, or drop one name with rename",
            )


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    return "float" if dtype.is_floating_point else "integer"


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _excused(name: str, allow_missing: Sequence[str]) -> bool:
    # Checkpoints older than torch 0.4.1, and those converted from other libraries, have no batch
    # counters; torch itself accepts that, and nothing that a batch norm computes depends on them
    # unless its momentum is None.
    is_counter = name.rsplit(".", 1)[-1] == _COUNTER
    return is_counter or any(covers(pattern, name) for pattern in allow_missing)


def _refusal(report: LoadReport) -> BackboneError:
    faults = []
    if not report.matched:
        faults.append("no tensor of it fits")
    if report.missing:
        faults.append(f"{len(report.missing)} missing: {quoted(report.missing)}")
    if report.unexpected:
        close = {name: nearest(name, report.missing, 1) for name in report.unexpected[:12]}
        named = [f"{n!r} (nearest {close[n][0]!r})" if close[n] else repr(n) for n in close]
        more = len(report.unexpected) - len(named)
        tail = f" and {more} more" if more else ""
        faults.append(f"{len(report.unexpected)} unexpected: {', '.join(named)}{tail}")
    if report.misshaped:
        faults.append(f"{len(report.misshaped)} misshaped: {_join(report.misshaped)}")
    where = f"the part {report.into!r}" if report.into else "the model"
    return BackboneError(
        f"{report.file} does not fit {where}, which is unchanged: {'; '.join(faults)}",
        hint=_repair(report),
    )


def _repair(report: LoadReport) -> str:
    """Propose the one argument that would mend most of the names."""
    fixes: Counter[str] = Counter()
    missing = set(report.missing)
    strip = f"{report.into}." if report.into else ""
    below = {name.removeprefix(strip) for name in missing}
    for name in report.unexpected:
        pieces = name.split(".")
        for cut in range(1, len(pieces)):
            if ".".join(pieces[cut:]) in below:
                fixes[f"rename={{{'.'.join(pieces[:cut])!r}: ''}} may be what is needed"] += 1
                break
    if not report.into:
        for name in missing:
            pieces = name.split(".")
            for cut in range(1, len(pieces)):
                if ".".join(pieces[cut:]) in report.unexpected:
                    fixes[f"into={'.'.join(pieces[:cut])!r} may be what is needed"] += 1
                    break
    if fixes:
        return fixes.most_common(1)[0][0]
    return "name what may be absent in allow_missing or allow_unexpected, or pass strict=False"


def _join(misshaped: Sequence[Misshaped], limit: int = 8) -> str:
    more = f" and {len(misshaped) - limit} more" if len(misshaped) > limit else ""
    return "; ".join(str(item) for item in misshaped[:limit]) + more


__all__ = ["LoadReport", "Misshaped", "load_tensors", "load_weights"]
