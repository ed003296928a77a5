"""Targets of all splits of a source, numbered together: several labels an item, or numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.core.strata import strata_of_memberships, strata_of_values
from headstart.core.wording import count, format_number, quoted, verb
from headstart.data.items import FileItems
from headstart.data.labels import sorted_classes
from headstart.data.names import composed
from headstart.data.source import Part
from headstart.data.targets import Asked, RawTargets, Task, targets_of_names

REPEATED = 0.1
"""The share of different files in several class folders from which they mean several labels."""
LEAST = 20
"""Of fewer different files a tenth says nothing."""


@dataclass(frozen=True, eq=False)
class SplitTargets:
    """The targets of one split.

    Attributes:
        rows: which of its items they are of, ascending: of items with equal content the first,
            where folders say their labels.
        values: ``(m, k) float64``.
        strata: ``(m,) int64``, what divisions keep in proportion.
    """

    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    strata: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Numbered:
    """The targets of a source.

    Attributes:
        task: what they mean.
        outputs: names of the labels or targets.
        splits: by role.
        notes: how the task was found, and what else is to be said.
    """

    task: Task
    outputs: tuple[str, ...]
    splits: Mapping[str, SplitTargets]
    notes: tuple[str, ...]


def numbered_targets(parts: Mapping[str, Part], task: Asked) -> Numbered | None:
    """Return the targets of a source; None where its labels are classes.

    Args:
        parts: of the source, by role.
        task: what the user says; ``auto``: what the source has found, and several labels where a
            tenth of the files or more lies in several class folders.

    Raises:
        DataError: the labels do not fit the task, or splits disagree.
    """
    said = {part.targets.task for part in parts.values() if part.targets is not None}
    if task == "auto" and not said:
        return _repeated(parts)
    if task == "classification" or (not said and task == "auto"):
        return None
    if len(said) > 1:
        raise DataError(
            "labels are numbers in one split and several labels in another",
            hint="choose one with task=NAME",
        )
    wanted: Task = next(iter(said)) if said else task  # type: ignore[assignment]
    if wanted == "multi-label" and not said and _files(parts):
        return _from_folders(parts, "")
    raw = {role: _raw(part, wanted) for role, part in parts.items()}
    if wanted == "regression":
        return _regression(raw)
    return _multi_label(raw, {role: np.arange(len(part.items)) for role, part in parts.items()})


def _raw(part: Part, task: Task) -> RawTargets:
    if part.targets is not None:
        return part.targets
    found = targets_of_names(part.names, part.where, task).targets
    assert found is not None
    return found


def _regression(raw: Mapping[str, RawTargets]) -> Numbered:
    first = next(iter(raw.values()))
    outputs = first.outputs
    for role, one in raw.items():
        if len(one.outputs) != len(outputs):
            raise DataError(
                f"the {role} split has {count(len(one.outputs), 'target')}, others have"
                f" {len(outputs)}",
                hint="give all splits the same columns",
            )
    values = {role: np.asarray(one.values, dtype=np.float64) for role, one in raw.items()}
    spans = []
    everything = np.concatenate(list(values.values()))
    for name, column in zip(outputs, everything.T, strict=True):
        low, high = (format_number(v) for v in (np.nanmin(column), np.nanmax(column)))
        spans.append(f"'{name}' from {low} to {high}")
    notes = [f"Task: regression{_because(first.why)}; {', '.join(spans[:3])}"
             + (f" and {len(spans) - 3} more." if len(spans) > 3 else ".")]  # fmt: skip
    notes += _written(outputs, raw)
    flat = [n for n, column in zip(outputs, everything.T, strict=True) if np.ptp(column) == 0]
    if flat:
        notes.append(
            f"The target {quoted(flat, 3)} has only one value: there is nothing to predict."
        )
    return _with_strata("regression", outputs, values, {r: _all(v) for r, v in values.items()},
                        tuple(notes))  # fmt: skip


def _written(outputs: tuple[str, ...], raw: Mapping[str, RawTargets]) -> list[str]:
    """Say how the numbers of targets are written, where it is no plain form.

    Raises:
        DataError: in one form in one split, and in another in another.
    """
    notes = []
    for at, name in enumerate(outputs):
        own = [one.numerals[at] for one in raw.values() if one.numerals]
        marks = {one.decimal for one in own} - {""}
        if len(marks) > 1 or len({one.percent for one in own}) > 1:
            raise DataError(
                f"the numbers of '{name}' are written in one form in one split and in another in"
                " another",
                hint="write all of them in one form, such as 1000.5",
            )
        told = next((one.told for one in own if one.told), "")
        if told:
            notes.append(f"The numbers of '{name}' are written {told}.")
    return notes


def _multi_label(raw: Mapping[str, RawTargets], rows: Mapping[str, NDArray[np.int64]]) -> Numbered:
    declared = next(iter(raw.values())).outputs
    present = {name for one in raw.values() for own in one.values for name in own}
    known = [composed(name) for name in declared]
    outputs = tuple(known) if present <= set(known) else sorted_classes(present)
    if not present:
        raise DataError("no item has any label", hint="check the label column")
    place = {name: i for i, name in enumerate(outputs)}
    values = {}
    for role, one in raw.items():
        table = np.zeros((len(one.values), len(outputs)))
        for at, own in enumerate(one.values):
            table[at, [place[name] for name in own]] = 1.0
        values[role] = table
    everything = np.concatenate(list(values.values()))
    mean = float(everything.sum(axis=1).mean())
    first = next(iter(raw.values()))
    notes = [
        f"Task: multi-label{_because(first.why)}; {count(len(outputs), 'label')},"
        f" {format_number(mean)} per item on average."
    ]
    empty = sum(one.empty for one in raw.values())
    if empty:
        notes.append(
            f"{count(empty, 'item')} {verb(empty, 'has', 'have')} an empty label text, read as"
            " no labels."
        )
    return _with_strata("multi-label", outputs, values, rows, tuple(notes))


def _because(why: str) -> str:
    return f", because {why}" if why else ""


def _all(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.arange(len(values), dtype=np.int64)


def _with_strata(
    task: Task,
    outputs: tuple[str, ...],
    values: Mapping[str, NDArray[np.float64]],
    rows: Mapping[str, NDArray[np.int64]],
    notes: tuple[str, ...],
) -> Numbered:
    splits = {
        role: SplitTargets(np.asarray(rows[role], np.int64), part, strata_of(task, part))
        for role, part in values.items()
    }
    return Numbered(task, outputs, splits, notes)


def strata_of(task: str, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return what divisions of some items keep in proportion, ``(n,)``, from their targets alone.

    Each split has its own: what divides the training items may not know the targets of the others.
    """
    find = strata_of_values if task == "regression" else strata_of_memberships
    return find(np.nan_to_num(values))


def _files(parts: Mapping[str, Part]) -> bool:
    """Return whether all parts are files whose folders are their classes."""
    return all(isinstance(part.items, FileItems) for part in parts.values())


def _repeated(parts: Mapping[str, Part]) -> Numbered | None:
    """Return several labels an item where enough files lie in more than one class folder."""
    if not _files(parts):
        return None
    names: dict[str, set[str | None]] = {}
    for part in parts.values():
        for i, label in enumerate(part.names):
            names.setdefault(part.items.origin(i).rsplit("/", 1)[-1], set()).add(label)
    if sum(len(own) > 1 for own in names.values()) < REPEATED * len(names):
        return None  # most files have a name of their own, so that hardly any can be repeated
    labels: dict[str, set[str | None]] = {}
    for part in parts.values():
        every = np.arange(len(part.items), dtype=np.int64)
        for key, label in zip(part.items.digests(every), part.names, strict=True):
            labels.setdefault(key, set()).add(label)
    repeated = sum(len(own) > 1 for own in labels.values())
    if len(labels) < LEAST or repeated < REPEATED * len(labels):
        return None
    why = f"{repeated:,} of {count(len(labels), 'different file')} are in several class folders"
    return _from_folders(parts, why)


def _from_folders(parts: Mapping[str, Part], why: str) -> Numbered:
    """Return the names of the folders that hold an item as its labels, each content once."""
    raw, rows = {}, {}
    for role, part in parts.items():
        every = np.arange(len(part.items), dtype=np.int64)
        first: dict[str, int] = {}
        own: dict[str, list[str]] = {}
        for i, (key, name) in enumerate(zip(part.items.digests(every), part.names, strict=True)):
            first.setdefault(key, i)
            own.setdefault(key, []).append(composed(name or ""))
        rows[role] = np.array(list(first.values()), dtype=np.int64)
        sets = tuple(tuple(dict.fromkeys(own[key])) for key in first)
        raw[role] = RawTargets("multi-label", sets, (), why)
    found = _multi_label(raw, rows)
    merged = sum(len(part.items) - len(rows[role]) for role, part in parts.items())
    if not merged:
        return found
    note = f"{count(merged, 'repeated file')} merged with the first file of equal content."
    return dataclasses.replace(found, notes=(*found.notes, note))


__all__ = ["Numbered", "SplitTargets", "numbered_targets", "strata_of"]
