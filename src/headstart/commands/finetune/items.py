"""The items of a fine-tuning: one part trains, one chooses the best epoch, one is tested.

Items that cannot be decoded are found before anything depends on them, since one of them would end
an epoch. No item is decoded for that alone where its features are extracted for the probe anyway,
or where the first stage is about to store its row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.cache import CachedFeatures
from headstart.commands.finetune.options import FinetuneConfig
from headstart.commands.session import Session
from headstart.core.division import stratified_split
from headstart.core.errors import DataError
from headstart.core.records import CacheUse
from headstart.core.row_keys import Keys, content_order
from headstart.core.wording import count, verb
from headstart.data import BadItem, Dataset, Split, unreadable
from headstart.data.reading import OnBad, settle_bad_items
from headstart.finetuning import Recipe
from headstart.finetuning.devices import Devices
from headstart.finetuning.feeds import Feeds
from headstart.finetuning.planner import Prepared
from headstart.heads import keep_together


class Items:
    """The three parts, and their features under the current backbone.

    Args:
        session: its cache, settings and reporter.
        backbone: the backbone.
        dataset: the data.
        recipe: says how many training items choose the best epoch, and what is needed first.
        config: whether the probe is tested.

    Attributes:
        train, validation, test: the parts.
        use: features found and computed so far.
        images_per_second: None; how fast they were extracted is not measured.

    Raises:
        DataError: fewer than two classes, or nothing to hold out.
    """

    images_per_second: float | None = None

    def __init__(
        self,
        session: Session,
        backbone: Backbone,
        dataset: Dataset,
        recipe: Recipe,
        config: FinetuneConfig,
    ) -> None:
        self.session, self.backbone = session, backbone
        self.train, self.validation, note = _divide(dataset, recipe.validation, session.run.seed)
        self.test = dataset.test
        self._near: _NearCopies | None = None
        self.use = CacheUse(0, 0)
        probed = {"train": True, "test": config.baselines} if recipe.start == "probe" else {}
        self._probed = {name for name, needed in probed.items() if needed}
        # Where the first stage is the first to decode anything, it is too late to leave items out.
        self.checked_late = (
            session.run.on_bad == "raise"
            and recipe.start != "probe"
            and recipe.stages[0].norm != "reestimated"
            and not recipe.needs_surgery
        )
        self._extracted: dict[str, NDArray[np.float32]] = {}
        if "train" in self._probed and "validation" not in dataset.splits:
            self._near = _NearCopies(_by_content(dataset.train), recipe.validation)
        else:
            session.say(note)

    def check(self, devices: Devices) -> None:
        """Leave out items that cannot be decoded, or refuse all of them together.

        Raises:
            BadFilesError: items cannot be read (``on_bad="raise"``).
        """
        if self.checked_late:
            return
        kept = devices.once(self._readable)
        parts = (self.train, self.validation, self.test)
        if self._near is not None:
            parts = (self._near.whole, self._near.whole, self.test)
        self.train, self.validation, self.test = (
            part.take(where) for part, where in zip(parts, kept, strict=True)
        )
        if self._near is not None:
            n = len(self.train) + len(self.validation)
            self.session.say(_held_out_note(len(self.validation), n))

    def check_late(self, prepared: Prepared, feeds: Feeds) -> None:
        """Decode all items before the first epoch; store the rows of the first stage meanwhile.

        Raises:
            BadFilesError: items cannot be read.
        """
        parts: tuple[Split, ...] = (self.train, self.validation, self.test)
        bad: list[BadItem] = []
        if prepared.cuts[0] is not None:
            bad += feeds.fill(prepared.targets[0].stage, prepared.cuts[0])
            parts = (self.test,)
        for part in parts:
            bad += self._undecodable(part)
        settle_bad_items(bad, "raise", self.session.reporter)

    def features(self, split: Split) -> NDArray[np.float32]:
        """Return the features of a split, ``(n, d)``."""
        return self._features(split, "raise").rows

    def probe_features(self, name: str) -> NDArray[np.float32]:
        """Return the features that were extracted while items were checked; only once.

        Args:
            name: ``train`` or ``test``.
        """
        return self._extracted.pop(name)

    def _readable(self) -> list[NDArray[np.int64]]:
        """Return for every part the positions of its readable items.

        Where training items choose the best epoch and their features are known, near copies are
        kept together, too: the positions of both are then those in all training items.
        """
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        if self._near is not None:
            parts = {"train": self._near.whole, "test": self.test}
        bad = {
            name: self._extract(name, part) if name in self._probed else self._undecodable(part)
            for name, part in parts.items()
        }
        every = [item for items in bad.values() for item in items]
        settle_bad_items(every, self.session.run.on_bad, self.session.reporter)
        kept = []
        for name, part in parts.items():
            lost = {part.ids[item.index] for item in bad[name]}  # equal items are decoded once
            where = [i for i, key in enumerate(part.ids) if key not in lost]
            kept.append(np.array(where, dtype=np.int64))
        if self._near is None:
            return kept
        rows = self._extracted["train"]
        first, second, notes = self._near.divide(kept[0], rows, self.session.run.seed)
        self.session.say(*notes)
        self._extracted["train"] = rows[first]
        return [kept[0][first], kept[0][second], kept[1]]

    def _extract(self, name: str, part: Split) -> Sequence[BadItem]:
        with self.session.clock("start"):
            found = self._features(part, "skip")
        self._extracted[name] = found.rows
        return found.bad

    def _undecodable(self, part: Split) -> Sequence[BadItem]:
        """Decode the items that no features are stored of; return those that cannot be."""
        run = self.session.run
        missing = set(self.session.cache.space(self.backbone, run.extraction()).missing(part.ids))
        where = [i for i, key in enumerate(part.ids) if key in missing]
        if not where:
            return ()
        bad = unreadable(
            part.take(where),
            self.backbone.inputs,
            workers=run.workers,
            reporter=self.session.reporter,
        )
        return tuple(dataclasses.replace(item, index=where[item.index]) for item in bad)

    def _features(self, split: Split, on_bad: OnBad) -> CachedFeatures:
        found = self.session.cache.features(
            self.backbone,
            split,
            settings=self.session.run.extraction(),
            on_bad=on_bad,
            reporter=self.session.reporter,
        )
        self.use += found.use
        return found


def _divide(dataset: Dataset, fraction: float, seed: int) -> tuple[Split, Split, str]:
    """Return the part that trains, the part that chooses the best epoch, and a note about it.

    Args:
        dataset: its validation split chooses, where it has one; else a part of the training split.
        fraction: share of the training split that is held out.
        seed: decides which items; equal items stay together.
    """
    whole = _by_content(dataset.train)
    if whole.targets is None and len(np.unique(whole.labels)) < 2:
        raise DataError(
            "the training split holds fewer than two classes",
            hint="a classifier needs items of two classes or more",
        )
    if "validation" in dataset.splits:
        validation = _labelled(dataset.splits["validation"])
        return (
            whole,
            validation,
            "the best epoch is chosen on the data's own validation split"
            f" ({count(len(validation), 'item')})",
        )
    first, second = _held_out(whole, fraction, seed, whole.ids)
    return whole.take(first), whole.take(second), _held_out_note(len(second), len(whole))


@dataclass(frozen=True, eq=False)
class _NearCopies:
    """All training items, which are divided once their features are known.

    Attributes:
        whole: in the order of their content.
        fraction: share of them that chooses the best epoch.
    """

    whole: Split
    fraction: float

    def divide(
        self, readable: NDArray[np.int64], rows: NDArray[np.float32], seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
        """Return which of the readable items train and which choose, and notes about copies."""
        split = self.whole.take(readable)
        own = split.labels if split.targets is None else None
        together = keep_together(own, rows, keys=split.ids, names=split.classes)
        return *_held_out(split, self.fraction, seed, together.keys), together.notes


def _held_out(
    split: Split, fraction: float, seed: int, keys: Keys
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first, second = stratified_split(
        split.labels, fraction, seed=seed, keys=keys, groups=split.groups
    )
    if not len(second):
        raise DataError(
            "no item can be held out to choose the best epoch",
            hint="a class needs at least two different items, of two groups where groups are given",
        )
    return first, second


def _held_out_note(held: int, n: int) -> str:
    return (
        f"{held:,} of {count(n, 'training item')} {verb(held)} held out to choose the best"
        " epoch; the test split chooses nothing"
    )


def _by_content(split: Split) -> Split:
    """Return the labelled items in the order of their content.

    How files are named or sorted orders no epoch then.
    """
    labelled = _labelled(split)
    return labelled.take(content_order(labelled.ids, labelled.labels))


def _labelled(split: Split) -> Split:
    return split if (split.labels >= 0).all() else split.take(split.labels >= 0)


__all__ = ["Items"]
