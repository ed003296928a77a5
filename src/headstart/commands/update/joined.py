"""Old and new items together, with their features."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.kept_rows import KeptItems, KeptRows, KeptSplit
from headstart.commands.session import Session
from headstart.commands.update.old_run import OldRun, targets_of
from headstart.core.errors import DataError
from headstart.core.records import CacheUse
from headstart.core.wording import count, quoted, verb
from headstart.data import Split
from headstart.data.table_columns import encoded_columns
from headstart.evaluation.tasks import task_named
from headstart.heads import find_leaks


@dataclass(frozen=True, eq=False)
class Joined:
    """Old and new items together, as a run records them."""

    train: Split
    test: Split
    use: CacheUse
    images_per_second: float | None
    kept: KeptRows
    added: int
    classes: tuple[str, ...]

    @property
    def train_rows(self) -> NDArray[Any]:
        """What the head trains on, ``(n, d)``."""
        assert self.kept.train.rows is not None
        return self.kept.train.joined(self.kept.train.rows)

    @property
    def test_rows(self) -> NDArray[Any]:
        """What it is tested on."""
        assert self.kept.test.rows is not None
        return self.kept.test.joined(self.kept.test.rows)

    @classmethod
    def of(cls, old: OldRun, fresh: Split, session: Session) -> Joined:
        """Extract the new items, and put them behind the old ones.

        Raises:
            DataError: none of the new items can be read.
        """
        found = session.cache.features(
            old.backbone,
            fresh,
            settings=old.settings(session),
            on_bad=session.run.on_bad,
            reporter=session.reporter,
        )
        fresh = fresh.take(found.kept)
        if not len(fresh):
            raise DataError("none of the new items can be read", hint="give other items")
        before, tested = old.kept.train, old.kept.test
        first, test_rows = old.rows(before, session), old.rows(tested, session)
        rows = np.concatenate([first, np.asarray(found.rows).astype(first.dtype, copy=False)])
        whole = KeptSplit(
            (*before.ids, *fresh.ids),
            np.concatenate([before.labels, fresh.labels]),
            (*before.origins, *fresh.origins),
            rows,
        )
        tested = dataclasses.replace(tested, rows=test_rows)
        if fresh.targets is not None:
            both = np.concatenate([targets_of(before, fresh.classes), fresh.targets])
            whole = _with_targets(whole, both, fresh.task)
            tested = _with_targets(tested, targets_of(tested, fresh.classes), fresh.task)
        if before.table is not None:
            added = encoded_columns(fresh, old.saved.columns)
            whole = dataclasses.replace(whole, table=np.concatenate([before.table, added]))
        if before.groups is not None and fresh.groups is not None:
            groups = np.array([*before.groups.tolist(), *fresh.groups.tolist()], dtype=np.str_)
            whole = dataclasses.replace(whole, groups=groups)
        _say_what_joins(old, fresh, found.rows, test_rows, session)
        kept = KeptRows(whole, tested)
        return cls(
            KeptItems.split(whole, fresh.classes, fresh.task),
            KeptItems.split(tested, fresh.classes, fresh.task),
            found.use,
            None,
            kept,
            len(fresh),
            tuple(fresh.classes[len(old.saved.classes) :]),
        )

    def record(self) -> dict[str, Any]:
        """Return what ``run.json`` says of the update."""
        return {"added": self.added, "new_classes": list(self.classes)}


def _with_targets(kept: KeptSplit, targets: NDArray[np.float64], task: str) -> KeptSplit:
    """Return items with their targets, and with what divisions keep in proportion."""
    encoded = task_named(task).encode(targets, len(targets), targets.shape[1])
    return dataclasses.replace(kept, targets=targets, labels=encoded.levels)


def _say_what_joins(
    old: OldRun, fresh: Split, rows: Any, test_rows: NDArray[Any], session: Session
) -> None:
    new = fresh.classes[len(old.saved.classes) :]
    before = len(old.kept.train.ids)
    classes = f", of which {quoted(new, 5)} {verb(len(new))} new to it" if new else ""
    held = f" in {count(len(set(fresh.labels.tolist())), 'class', 'classes')}"
    session.say(
        f"{count(len(fresh), 'item')}{held if fresh.targets is None else ''}{classes} join"
        f" {count(before, 'training item')}; the test split of"
        f" {count(len(old.kept.test.ids), 'item')} stays as it was"
    )
    if new:
        session.say(
            f"no test item is of {quoted(new, 5)}: the figures say nothing about"
            f" {'that class' if len(new) == 1 else 'those classes'}"
            if fresh.targets is None
            else f"{quoted(new, 5)} {verb(len(new))} new labels, and every old item counts as"
            " not having them"
        )
    leaks = find_leaks(rows, test_rows) if min(len(fresh), len(test_rows)) else ()
    if leaks:
        session.say(
            f"{count(len(leaks), 'test item')} nearly {verb(len(leaks), 'equals', 'equal')} a"
            f" new item (such as {fresh.origins[leaks[0].train]}): the score may be too optimistic"
        )


__all__ = ["Joined"]
