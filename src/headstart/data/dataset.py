"""Split and Dataset: items with labels, and the splits of one source."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.core.cards import Card, Grid, Shown
from headstart.core.errors import BadFilesError, DataError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.wording import count, listed, quoted
from headstart.data.content import Content, UndecodableError
from headstart.data.items import Items
from headstart.data.names import composed, look_alikes

UNLABELLED = -1
"""The label of an item whose class is not known."""


@dataclass(frozen=True, eq=False, repr=False)
class Split(Shown):
    """Items in an order, with labels.

    Attributes:
        items: the contents; several splits may share them.
        rows: ``(n,) int64``, which of ``items``, in order; duplicates are allowed.
        labels: ``(n,) int64``, indices into ``classes``; −1 for an unlabelled item. Of several
            labels an item, and of a regression, what divisions keep in proportion
            (:mod:`headstart.core.strata`).
        classes: class names, or names of the labels or targets; empty for unlabelled data.
        reporter: shown the progress of computing ids.
        groups: ``(n,)`` of text, what each item belongs to (a patient, a site, a film); None where
            nothing says so. Items of one group are never parted.
        task: what the targets mean: ``classification``, ``multi-label`` or ``regression``.
        targets: ``(n, k) float64``, memberships or numbers; None for a classification.
        metadata: what else the source says of its items, a ``pyarrow.Table`` with a row for each of
            ``items``; None where it says nothing.
    """

    items: Items
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...] = ()
    reporter: Reporter = field(default_factory=SilentReporter, repr=False)
    groups: NDArray[np.str_] | None = None
    metadata: Any = field(default=None, repr=False)
    task: str = "classification"
    targets: NDArray[np.float64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def card(self) -> Card:
        """Return what there is to see: how many items of which classes."""
        grids: tuple[Grid, ...] = ()
        if self.classes and self.targets is None:
            held = np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))
            rows = tuple(zip(self.classes[:_SHOWN], held[:_SHOWN].tolist(), strict=False))
            grids = (Grid(("class", "items"), rows, total=len(self.classes)),)
        facts = () if not self.classes else (_names(self),)
        return Card("Split", _counted(self), facts, grids)

    @property
    def y(self) -> NDArray[Any]:
        """What a head learns: class indices ``(n,)``, memberships or values ``(n, k)``."""
        return self.labels if self.targets is None else self.targets

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Content digests, 32 hexadecimal characters each; computed on first use.

        Equal ids mean equal content. An unreadable item has an id of its own and fails on
        decoding.
        """
        return self.items.digests(self.rows, self.reporter)

    @cached_property
    def origins(self) -> tuple[str, ...]:
        """Where each item is: a path relative to the source, or ``"train.parquet row 12"``.

        Rows count from 0, as in pandas and pyarrow.
        """
        return tuple(self.items.origin(int(row)) for row in self.rows)

    @cached_property
    def _first(self) -> dict[str, int]:
        return {key: i for i, key in reversed(list(enumerate(self.ids)))}

    def positions(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Return where items with these ids are, ``(n,)``; of equal ones the first."""
        return np.array([self._first[key] for key in ids], dtype=np.int64)

    def content(self, i: int) -> Content:
        """Return the content of item ``i`` of this split: bytes of a file, samples, or a text.

        Raises:
            BadFilesError: naming the item and the reason.
        """
        try:
            return self.items.checked(int(self.rows[i]))
        except UndecodableError as error:
            raise BadFilesError(((self.items.origin(int(self.rows[i])), str(error)),)) from error

    def stretches(self) -> Iterator[Split]:
        """Yield the split in parts, in order, each of which is best done before the next is read.

        Contents elsewhere are then read once, to identify and to decode them. Of other contents it
        is one part.
        """
        for indices in self.items.stretches(self.rows):
            yield self if len(indices) == len(self) else self.take(indices)

    def take(self, indices: ArrayLike) -> Split:
        """Return the split of the items at ``indices`` (integers or a boolean mask), in order."""
        index = np.asarray(indices)
        if index.dtype != bool:
            index = index.astype(np.int64)
        groups = None if self.groups is None else self.groups[index]
        targets = None if self.targets is None else self.targets[index]
        return dataclasses.replace(
            self,
            rows=self.rows[index],
            labels=self.labels[index],
            groups=groups,
            targets=targets,
        )

    def aligned_to(self, classes: Sequence[str]) -> Split:
        """Return this split with labels that index ``classes``, as a trained head has them.

        Raises:
            DataError: the split has a class that is not among ``classes``.
        """
        if self.targets is not None:
            return self._with_outputs(classes)
        present = set(np.unique(self.labels).tolist()) - {UNLABELLED}
        position = {composed(name): i for i, name in enumerate(classes)}
        mine = [composed(name) for name in self.classes]
        unknown = [self.classes[i] for i in sorted(present) if mine[i] not in position]
        if unknown:
            alike = look_alikes([*classes, *unknown])
            raise DataError(
                f"the head knows {count(len(classes), 'class', 'classes')}"
                f" ({quoted(classes, 5)}), but the data also holds {quoted(unknown, 5)}",
                hint=f"{quoted(alike[0])} differ only in their spelling: give them one name"
                if alike
                else "remove those items, or train a head that knows these classes",
            )
        mapping = np.array([position.get(name, UNLABELLED) for name in mine] + [-1])
        # the last entry serves UNLABELLED, which indexes from the end
        labels = mapping[self.labels].astype(np.int64)
        return dataclasses.replace(self, labels=labels, classes=tuple(classes))

    def _with_outputs(self, outputs: Sequence[str]) -> Split:
        """Return this split with the labels or targets of a head, in its order.

        A label that no item has may be missing; a single target may have another name.
        """
        assert self.targets is not None
        own = {composed(name): i for i, name in enumerate(self.classes)}
        if self.task == "regression" and len(own) == len(outputs) == 1:
            return dataclasses.replace(self, classes=tuple(outputs))
        held = {name for name, i in own.items() if self.targets[:, i].any()}
        wanted = [composed(name) for name in outputs]
        what = "target" if self.task == "regression" else "label"
        unknown = sorted(held - set(wanted))
        missing = [name for name in wanted if name not in own and self.task == "regression"]
        if unknown or missing:
            raise DataError(
                f"the head knows {count(len(wanted), what)} ({quoted(wanted, 5)}), but the data"
                + (f" holds {quoted(unknown, 5)} as well" if unknown else "")
                + (" and" if unknown and missing else "")
                + (f" lacks {quoted(missing, 5)}" if missing else ""),
                hint=f"name the columns of its {what}s with label_column=NAME,NAME",
            )
        targets = np.zeros((len(self), len(wanted)))
        for at, name in enumerate(wanted):
            if name in own:
                targets[:, at] = self.targets[:, own[name]]
        return dataclasses.replace(self, targets=targets, classes=tuple(outputs))


_SHOWN = 12
"""Classes of a split that are shown with their number of items."""


def _counted(split: Split) -> str:
    unit = {"image": "image", "text": "text"}.get(split.items.kind or "", "item")
    labelled = bool(split.classes) and split.targets is None and bool((split.labels >= 0).all())
    bare = "" if split.targets is not None or labelled else ", not all labelled"
    return count(len(split), unit) + (bare if split.classes else ", without labels")


def _names(split: Split) -> tuple[str, str]:
    """Return the classes, labels or targets, as a fact."""
    many = {"multi-label": "labels", "regression": "targets"}.get(split.task, "classes")
    return many, f"{len(split.classes):,}: {listed(split.classes, 5)}"


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Shown):
    """The splits of one source, sharing one list of classes.

    Attributes:
        name: a short name: the folder's, the file's, ``digits``, ...
        classes: class names; numbers in numerical order, others in the order of text.
        splits: ``train`` and ``test``, and ``validation`` where the source has one to spare.
        notes: what was decided on the user's behalf or looks odd; one sentence each, with the
            reason.
        test_drawn: whether the source had no test split, so that ``test`` was drawn from its
            training items; another draw would be as good.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    notes: tuple[str, ...] = ()
    test_drawn: bool = False

    def card(self) -> Card:
        """Return what there is to see: the splits and the classes."""
        some = next(iter(self.splits.values()), None)
        facts = (("task", self.task), _names(some)) if some is not None else ()
        rows = tuple(
            (f"{name} (drawn)" if name == "test" and self.test_drawn else name, len(split))
            for name, split in self.splits.items()
        )
        return Card("Dataset", self.name, facts, (Grid(("split", "items"), rows),), self.notes)

    @property
    def train(self) -> Split:
        """The split that everything is learnt and chosen from."""
        return self.splits["train"]

    @property
    def test(self) -> Split:
        """The split that is evaluated once and chooses nothing."""
        return self.splits["test"]

    @property
    def task(self) -> str:
        """What the targets mean: ``classification``, ``multi-label`` or ``regression``."""
        return next(iter(self.splits.values())).task

    def contradictions(self) -> tuple[tuple[str, str], ...]:
        """Return items of equal content with different labels, anywhere in the data.

        Needs the ids of all splits, as :meth:`leaks` does.

        Returns:
            Pairs (origin of the first such item, origin of the next), one for each content.
        """
        seen: dict[str, tuple[Any, str]] = {}
        found: dict[str, tuple[str, str]] = {}
        for split in self.splits.values():
            for key, label, origin in zip(split.ids, split.y.tolist(), split.origins, strict=True):
                first = seen.setdefault(key, (label, origin))
                if first[0] != label:
                    found.setdefault(key, (first[1], origin))
        return tuple(found.values())

    def leaks(self) -> tuple[tuple[str, str], ...]:
        """Return the test items whose very content is also a training item.

        Needs the ids of both splits, so it reads every item whose id is not known yet.

        Returns:
            Pairs (origin in test, origin in train), in the order of the test split.
        """
        if "train" not in self.splits or "test" not in self.splits:
            return ()
        first = dict(zip(reversed(self.train.ids), reversed(self.train.origins), strict=True))
        return tuple(
            (origin, first[key])
            for key, origin in zip(self.test.ids, self.test.origins, strict=True)
            if key in first
        )
