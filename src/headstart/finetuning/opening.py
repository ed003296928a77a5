"""From a prepared plan to the roads that the loop asks for, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from headstart.core.errors import BadFilesError
from headstart.core.progress import Reporter
from headstart.core.records import CacheUse
from headstart.data import BadItem, Preprocessing, Split, View, read_batches
from headstart.finetuning.circumstances import Circumstances
from headstart.finetuning.network import Classifier
from headstart.finetuning.planning import Prepared
from headstart.finetuning.roads import ImageFeed, Road, RowFeed
from headstart.finetuning.stages import Stage
from headstart.freezing import reestimate
from headstart.modules.kinds import is_reestimable


@dataclass(eq=False)
class Opener:
    """Opens the road of a stage when it begins, since rows depend on the network as it then is.

    Attributes:
        network: what is trained.
        prepared: the plan with its cuts.
        around: the parts, the store.
        reporter: told of what is stored.
        use: rows found and computed so far, over all stages.
    """

    network: Classifier
    prepared: Prepared
    around: Circumstances
    reporter: Reporter
    use: CacheUse = field(default=CacheUse(0, 0))
    _filled: set[int] = field(default_factory=set)

    def open(self, number: int) -> Road:
        """Return what stage ``number`` trains on; missing rows are computed first."""
        cut, stage = self.prepared.cuts[number], self.prepared.targets[number].stage
        around = self.around
        views = around.views(stage)
        if cut is None:
            return self.images(number)
        bad = () if number in self._filled else self.fill(number)
        if bad:
            raise BadFilesError(tuple({b.origin: b.reason for b in bad}.items()))
        rows = around.rows_of(self.network, cut, stage)
        wanted: dict[int, View | None] = {view.number: view for view in views} or {0: None}
        train = {n: rows.read(around.train, view) for n, view in wanted.items()}
        validation = {0: rows.read(around.validation)}
        held = self.prepared.held
        used = sum(part.nbytes for part in (*train.values(), *validation.values()))
        held = held if used <= held else 0
        return Road(
            RowFeed(rows, train, held), RowFeed(rows, validation, held), cut.suffix, cached=True
        )

    def images(self, number: int) -> Road:
        """Return the items of stage ``number`` as images, computed anew in every epoch."""
        around, device = self.around, self.network.source.device
        feeds = [
            ImageFeed(split, around.preprocessing, device, chosen, around.workers)
            for split, chosen in (
                (around.train, around.views(self._stage(number))),
                (around.validation, ()),
            )
        ]
        return Road(feeds[0], feeds[1], self.network, cached=False)

    def fill(self, number: int) -> tuple[BadItem, ...]:
        """Compute the missing rows of a stage that is cut; return items that cannot be read.

        The frozen part has to be what it will be when the stage begins.
        """
        cut, stage, around = self.prepared.cuts[number], self._stage(number), self.around
        assert cut is not None
        rows = around.rows_of(self.network, cut, stage)
        views: tuple[View | None, ...] = around.views(stage) or (None,)
        bad: list[BadItem] = []
        for split, view in (*((around.train, view) for view in views), (around.validation, None)):
            filled = rows.fill(split, view, self.reporter)
            bad += filled.bad
            self.use += filled.use
        self._filled.add(number)
        return tuple({item.origin: item for item in bad}.values())

    def _stage(self, number: int) -> Stage:
        return self.prepared.targets[number].stage

    def prepare(self, number: int) -> None:
        """Re-estimate the statistics of the backbone where the stage asks for it, once."""
        stage = self.prepared.targets[number].stage
        before = self.prepared.targets[number - 1].stage.norm if number else "running"
        norms = self._norms()
        if stage.norm != "reestimated" or before == "reestimated" or not norms:
            return
        report = reestimate(
            self.network,
            _Inputs(self.network, self.around),
            layers=norms,
            reporter=self.reporter,
        )
        self.reporter.note(str(report))

    def _norms(self) -> tuple[str, ...]:
        """Return the batch norms with running statistics that take part in the forward."""
        live = self.network.live_modules()
        named = self.network.named_modules()
        return tuple(name for name, part in named if name in live and is_reestimable(part))


class _Inputs:
    """The training part as normalised batches, which can be gone through repeatedly."""

    def __init__(self, network: Classifier, around: Circumstances) -> None:
        self.network, self.around = network, around

    def __len__(self) -> int:
        return -(-len(self.around.train) // self.around.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        feed = ImageFeed(
            self.around.train,
            self.around.preprocessing,
            self.network.source.device,
            workers=self.around.workers,
        )
        order = np.arange(len(self.around.train))
        for _, (inputs,) in feed.batches(order, self.around.batch_size, 0):
            yield inputs


def unreadable(
    split: Split, preprocessing: Preprocessing, workers: int | None, reporter: Reporter
) -> tuple[BadItem, ...]:
    """Decode every item of a split once, and return those that cannot be decoded.

    Without it a broken file would end the first epoch instead of the first minute.
    """
    reader = read_batches(split, None, preprocessing, batch_size=64, workers=workers, on_bad="skip")
    with reporter.task("check the images", len(split), "images") as task:
        for batch in reader:
            task.advance(len(batch))
    return tuple(reader.bad)


__all__ = ["Opener", "unreadable"]
