"""Which of the given items are new to a run, with labels that index the classes of both."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions
from headstart.commands.update.old_run import OldRun, targets_of
from headstart.core.errors import DataError
from headstart.core.wording import count, quoted, verb
from headstart.data import Split
from headstart.data.names import composed, look_alikes
from headstart.evaluation.tasks import REGRESSION


def joining(old: OldRun, data: Any, reading: ReadOptions, session: Session) -> Split:
    """Return the items that are new, with labels that index the classes of both."""
    reading = old.reading(reading)
    found = session.open_training_data(data, reading, kind=old.backbone.inputs.kind)
    session.say(*found.notes)
    split, classes = _named_alike(found.train, old.saved.classes)
    before, given = targets_of(old.kept.train, classes), split.y.tolist()
    trained = dict(zip(old.kept.train.ids, before.tolist(), strict=True))
    tested, apart = set(old.kept.test.ids), _tested_groups(old, split)
    first: dict[str, int] = {}
    keep, again, leaking, other, torn = [], 0, [], [], []
    for i, (key, label) in enumerate(zip(split.ids, given, strict=True)):
        if key in tested:
            leaking.append(i)
        elif split.groups is not None and split.groups[i] in apart:
            torn.append(i)
        elif key in trained:
            again += 1
            other += [i] if trained[key] != label else []
        elif key in first:
            again += 1
            if given[first[key]] != label:
                raise DataError(
                    f"{split.origins[first[key]]} and {split.origins[i]} have the same content and"
                    " different labels",
                    hint="correct one of them",
                )
        else:
            first[key] = i
            keep.append(i)
    if other:
        was = trained[split.ids[other[0]]]
        there = f", there '{classes[was]}'" if isinstance(was, int) else ""
        raise DataError(
            f"{count(len(other), 'item')} trained this run with a different label (such as"
            f" {split.origins[other[0]]}{there})",
            hint="leave them out, or correct the labels and fit again",
        )
    if again:
        session.say(
            f"{count(again, 'item')} {verb(again)} among the training items already, or given"
            " twice: skipped"
        )
    if leaking:
        session.say(
            f"{count(len(leaking), 'item')} {verb(len(leaking))} in the test split of the run"
            f" (such as {split.origins[leaking[0]]}): skipped, so that the scores stay honest"
        )
    if torn:
        assert split.groups is not None
        named = quoted(sorted({str(split.groups[i]) for i in torn}), 3)
        session.say(
            f"{count(len(torn), 'item')} {verb(len(torn), 'belongs', 'belong')} to groups in the"
            f" test split of the run ({named}): skipped, so that no group is split"
        )
    if not keep:
        raise DataError(
            f"none of {count(len(split), 'item')} is new to the run", hint="give other items"
        )
    return split.take(np.array(keep))


def _tested_groups(old: OldRun, split: Split) -> set[str]:
    """Return the groups that the test split of the run has."""
    kept = old.kept.test.groups
    return set() if kept is None or split.groups is None else set(kept.tolist())


def _named_alike(split: Split, old: tuple[str, ...]) -> tuple[Split, tuple[str, ...]]:
    """Return a split whose labels index the old classes and, behind them, its new ones."""
    if split.task == REGRESSION.name:
        return split.aligned_to(old), old
    known = {composed(name) for name in old}
    present = sorted(set(split.labels.tolist()))
    if split.targets is not None:
        present = np.flatnonzero(split.targets.any(axis=0)).tolist()
    new = tuple(split.classes[i] for i in present if composed(split.classes[i]) not in known)
    alike = [group for group in look_alikes([*old, *new]) if set(group) & set(new)]
    if alike:
        raise DataError(
            f"the classes {quoted(alike[0])} differ only in their spelling",
            hint="give them one name",
        )
    classes = (*old, *new)
    return split.aligned_to(classes), classes


__all__ = ["joining"]
