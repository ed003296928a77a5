"""From a source as it was read to a Dataset: classes numbered, splits settled, notes taken."""

from __future__ import annotations

import dataclasses

import numpy as np

from headstart.core.division import stratified_split
from headstart.core.errors import DataError
from headstart.core.progress import Reporter
from headstart.core.wording import count, listed, quoted
from headstart.data.assembled_targets import Numbered, numbered_targets, strata_of
from headstart.data.dataset import Dataset, Split
from headstart.data.labels import encode, require_labels
from headstart.data.names import composed, look_alikes
from headstart.data.source import WHOLE, Part, Source
from headstart.data.targets import Asked


def assemble(
    found: Source, test_fraction: float, seed: int, reporter: Reporter, task: Asked = "auto"
) -> Dataset:
    """Return the data set of a source, with a training and a test split.

    Args:
        found: the source.
        test_fraction: share of each class to set aside where there is no test split.
        seed: decides which items.
        reporter: shown the progress of computing ids.
        task: what labels mean.

    Raises:
        DataError: missing labels, no training split, or too few items to set any aside.
    """
    notes = list(found.notes)
    classes, splits = _splits(found, notes, reporter, task)
    drawn = "test" not in splits and "validation" not in splits
    splits = _settled(splits, test_fraction, seed, notes)
    if splits["train"].targets is None:
        _note_classes(classes, splits, notes)
        _note_names(found, classes, notes)
    else:
        _note_outputs(splits["train"], notes)
    _note_torn_groups(splits, notes)
    return Dataset(found.name, classes, splits, tuple(notes), drawn)


def assemble_test(found: Source, reporter: Reporter, task: Asked = "auto") -> Dataset:
    """Return the data set of the one part of a source to evaluate on, under the name ``test``."""
    role = next(r for r in ("test", "validation", WHOLE, "train") if r in found.parts)
    notes = list(found.notes)
    if len(found.parts) > 1:
        notes.append(f"The {role} split is evaluated, because the source has several splits.")
    elif role == "train":
        notes.append("The training split is evaluated, because the source has no other split.")
    only = Source(found.name, {role: found.parts[role]}, found.classes)
    classes, splits = _splits(only, notes, reporter, task)
    _note_names(only, classes, notes)
    return Dataset(found.name, classes, {"test": splits[role]}, tuple(notes))


def assemble_training(found: Source, reporter: Reporter, task: Asked = "auto") -> Dataset:
    """Return the data set of the part of a source that trains, under the name ``train``."""
    role = next(r for r in ("train", WHOLE, "validation", "test") if r in found.parts)
    notes = list(found.notes)
    if len(found.parts) > 1:
        notes.append(f"The source has several splits, of which only the {role} split is added.")
    only = Source(found.name, {role: found.parts[role]}, found.classes)
    classes, splits = _splits(only, notes, reporter, task)
    _note_names(only, classes, notes)
    return Dataset(found.name, classes, {"train": splits[role]}, tuple(notes))


def _splits(
    found: Source, notes: list[str], reporter: Reporter, task: Asked
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Number the classes; drop held-out parts that come without labels; refuse missing labels."""
    parts = dict(found.parts)
    for role in ("test", "validation"):
        if len(parts) > 1 and role in parts and set(parts[role].names) == {None}:
            notes.append(f"The {role} split has no labels, so it is ignored.")
            del parts[role]
    for part in parts.values():
        _require_labels(part)
    targets = numbered_targets(parts, task)
    if targets is not None:
        notes += targets.notes
        return targets.outputs, _with_targets(parts, targets, reporter)
    notes += dict.fromkeys(f"{_capital(p.doubt)}." for p in parts.values() if p.doubt)
    classes, labels = encode({role: part.names for role, part in parts.items()}, found.classes)
    splits = {
        role: Split(
            part.items,
            np.arange(len(part.items), dtype=np.int64),
            labels[role],
            classes,
            reporter,
            None if part.groups is None else np.array(part.groups, dtype=np.str_),
            part.metadata,
        )
        for role, part in parts.items()
    }
    return classes, splits


def _with_targets(parts: dict[str, Part], found: Numbered, reporter: Reporter) -> dict[str, Split]:
    """Return splits of several labels an item, or of numbers."""
    splits = {}
    for role, own in found.splits.items():
        part = parts[role]
        groups = None if part.groups is None else np.array(part.groups, dtype=np.str_)[own.rows]
        splits[role] = Split(
            part.items,
            own.rows,
            own.strata,
            found.outputs,
            reporter,
            groups,
            part.metadata,
            found.task,
            own.values,
        )
    return splits


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _require_labels(part: Part) -> None:
    if None in part.names:
        origins = [part.items.origin(i) for i in range(len(part.items))]
        require_labels(part.names, origins, part.where)


def _settled(
    splits: dict[str, Split], fraction: float, seed: int, notes: list[str]
) -> dict[str, Split]:
    """Return a training and a test split, made from what the source has."""
    splits = dict(splits)
    if WHOLE in splits:
        splits["train"] = splits.pop(WHOLE)
    if "train" not in splits:
        raise DataError(
            f"the source has {quoted(list(splits), 5)} but no training split",
            hint="expected a folder, table or split called train; name another with train=NAME",
        )
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
        notes.append("The validation split serves as the test split, because there is no other.")
    if "test" not in splits:
        splits["train"], splits["test"] = _set_aside(splits["train"], fraction, seed, notes)
    return {role: splits[role] for role in ("train", "validation", "test") if role in splits}


def _set_aside(whole: Split, fraction: float, seed: int, notes: list[str]) -> tuple[Split, Split]:
    """Divide a split in two by content, and say so."""
    groups = whole.groups
    if groups is not None and len(np.unique(groups)) < 2:
        raise DataError(
            f"all {count(len(whole), 'item')} belong to one group, '{groups[0]}', so none can be"
            " set aside for testing",
            hint="give a test split, or do without groups",
        )
    first, second = stratified_split(
        whole.labels, fraction, seed=seed, keys=whole.ids, groups=groups
    )
    if len(second) == 0:
        few, why = count(len(whole), "item"), ""
        if groups is not None:
            raise DataError(
                f"{count(len(np.unique(groups)), 'group')} of {count(len(whole), 'item')} are"
                f" too few to set {fraction:.0%} aside without splitting a group",
                hint="set more aside with test_fraction=SHARE, give a test split, or do without"
                " groups",
            )
        if whole.targets is None:
            few += f" in {count(len(whole.classes), 'class', 'classes')}"
            why = ": no class has two different items"
        raise DataError(
            f"{few} are too few to set a test split aside{why}",
            hint="add items, give a test split, or name the classes with label_column=NAME",
        )
    share = f"{fraction:.0%} of each class, seed {seed}"
    if whole.targets is not None:
        kind = "their values" if whole.task == "regression" else "their rarest labels"
        share = f"{fraction:.0%}, with {kind} in proportion, seed {seed}"
    if groups is not None:
        held, every = len(np.unique(groups[second])), len(np.unique(groups))
        share = f"{held:,} of {count(every, 'group')} whole, seed {seed}"
    notes.append(
        f"The source has no test split, so {count(len(second), 'item')} of {len(whole):,}"
        f" ({share}) {'was' if len(second) == 1 else 'were'} set aside as one."
    )
    repeated = len(whole) - len(set(whole.ids))
    if repeated:
        verb = "repeats" if repeated == 1 else "repeat"
        notes.append(
            f"{count(repeated, 'item')} {verb} the content of another; they are kept on the same"
            " side of the split."
        )
    _note_contradictions(whole, notes)
    train, test = whole.take(first), whole.take(second)
    if train.targets is not None:
        train = dataclasses.replace(train, labels=strata_of(train.task, train.targets))
    return train, test


def _note_contradictions(whole: Split, notes: list[str]) -> None:
    """Say that equal content appears under different classes."""
    label_of: dict[str, set[str]] = {}
    for key, label in zip(whole.ids, whole.y.tolist(), strict=True):
        label_of.setdefault(key, set()).add(str(label))
    contradictory = sum(len(labels) > 1 for labels in label_of.values())
    if contradictory:
        verb = "appears" if contradictory == 1 else "appear"
        notes.append(
            f"{count(contradictory, 'item')} {verb} under more than one class; one of the labels"
            " must be wrong."
            if whole.targets is None
            else f"{count(contradictory, 'item')} {verb} with different targets; some are wrong."
        )


def _note_torn_groups(splits: dict[str, Split], notes: list[str]) -> None:
    """Say how many test items have others of their group among the training items."""
    train, test = splits["train"], splits["test"]
    if train.groups is None or test.groups is None:
        return
    torn = np.isin(test.groups, train.groups)
    if torn.any():
        one = int(torn.sum()) == 1
        notes.append(
            f"{count(int(torn.sum()), 'test item')} of {len(test):,} {'has' if one else 'have'}"
            f" others of {'its' if one else 'their'} group in the training split (such as group"
            f" '{test.groups[torn][0]}'): the score says little about new groups."
        )


def _note_outputs(train: Split, notes: list[str]) -> None:
    """Say which labels no training item has."""
    assert train.targets is not None
    if train.task != "multi-label":
        return
    occurs = train.targets.max(axis=0) > 0
    never = [name for name, has in zip(train.classes, occurs, strict=True) if not has]
    if never:
        notes.append(
            f"{count(len(never), 'label')} without any training item: {quoted(never, 5)};"
            " nothing can be learnt about them."
        )


def _note_names(found: Source, classes: tuple[str, ...], notes: list[str]) -> None:
    """Say which names were taken as one, and which are kept apart though they look alike."""
    names = {name for part in found.parts.values() for name in part.names if name is not None}
    merged = sorted({composed(name) for name in names if composed(name) != name} & names)
    if merged:
        notes.append(
            f"{count(len(merged), 'class', 'classes')} written in two Unicode forms treated as"
            f" one class each: {quoted(merged, 3)}."
        )
    alike = look_alikes(classes)
    if alike:
        pairs = listed([quoted(group) for group in alike], 3)
        notes.append(
            "Classes that differ only in case, spaces, leading zeros or the like are kept"
            f" separate: {pairs}."
        )


def _note_classes(classes: tuple[str, ...], splits: dict[str, Split], notes: list[str]) -> None:
    """Say which classes a split lacks."""
    if len(classes) == 1:
        notes.append(f"There is only one class, '{classes[0]}': there is nothing to distinguish.")
        return
    missing = {
        role: [name for i, name in enumerate(classes) if i not in present]
        for role, split in splits.items()
        for present in [set(np.unique(split.labels).tolist())]
    }
    if names := missing["train"]:
        wrong = int(np.isin(splits["test"].labels, [classes.index(n) for n in names]).sum())
        notes.append(
            f"{count(len(names), 'class', 'classes')} without any training item:"
            f" {quoted(names, 5)}; {count(wrong, 'test item')} of such classes are always"
            " misclassified."
        )
    if names := missing["test"]:
        notes.append(
            f"{count(len(names), 'class', 'classes')} without any test item: {quoted(names, 5)};"
            " the test figures say nothing about them."
        )
