"""Is unfreezing likely to pay? Indicators, each with its number and what it usually means."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.commands.advise.indicators import (
    Advice,
    Indicator,
    command,
    curve_indicator,
    drift_indicator,
    gradient_indicator,
    trial_indicator,
    verdict,
)
from headstart.commands.advise.options import ADVISE, AdviseConfig
from headstart.commands.embedding import load_backbone
from headstart.commands.session import Session
from headstart.commands.settings import BackboneLike, ReadOptions, RunOptions
from headstart.core.arguments import Arguments
from headstart.core.division import stratified_split
from headstart.core.errors import DataError, FreezeError
from headstart.data import Split, unreadable
from headstart.data.reading import settle_bad_items
from headstart.evaluation import accuracy_score, paired_accuracy_difference
from headstart.finetuning import Classifier, Recipe, Stage
from headstart.finetuning.feeds import Feeds, ItemFeed
from headstart.finetuning.gradients import RelativeGradient, relative_gradients
from headstart.finetuning.loop import train
from headstart.finetuning.planner import make_plan
from headstart.finetuning.targets import resolve
from headstart.freezing import LayerDrift, drift
from headstart.heads import LabelBudget, LinearHead, choose_linear, learning_curve
from headstart.modules.kinds import is_running_norm

_DRIFT_ITEMS = 256
_GRADIENT_ITEMS = 256


def advise(
    data: Any,
    backbone: BackboneLike = "headstart/glyphs",
    *,
    config: AdviseConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Advice:
    """Say whether unfreezing is likely to pay, from measurements inside the training split.

    Four indicators: a short trial of the last block from stored rows against the probe, on items
    that neither has seen; the probe's learning curve; the drift of batch-norm statistics; and
    gradients relative to weights, block by block. The test split is not looked at, and the
    backbone stays unchanged: the trial runs on a copy.

    Args:
        data, backbone, run, reading, **overrides: as for :func:`headstart.fit`.
        config: the trial and the learning curve.

    Raises:
        DataError: too few items to hold any out.
    """
    config, run, reading, spec = ADVISE.settle(overrides, config, run, reading, backbone)
    session = Session(run)
    network = load_backbone(spec)
    network.module.to(run.resolve_device())
    dataset = session.open_dataset(data, reading)
    session.say(*network.notes)
    work = _Inquiry(network, dataset.train, dataset.classes, config, session)
    curve = work.learning_curve()
    probe_head = work.probe()
    shifts = work.drift()
    gradients = work.gradients(probe_head)
    before, after = work.trial(probe_head)
    truth = work.measure.labels
    difference = paired_accuracy_difference(truth, after, before)
    indicators = (
        trial_indicator(difference, config.epochs),
        curve_indicator(curve),
        drift_indicator(shifts),
        gradient_indicator(gradients),
    )
    leaning = indicators[0].leaning
    return Advice(
        verdict=verdict(leaning, difference, indicators),
        leaning=leaning,
        indicators=indicators,
        probe=accuracy_score(truth, before),
        trial=accuracy_score(truth, after),
        difference=difference,
        gradients=gradients,
        drift=shifts,
        command=command(leaning),
        seconds=session.clock.seconds()["total"],
    )


class _Inquiry:
    """The measurements, on three parts of the training split.

    ``fit`` trains the probe and the trial, ``choose`` picks the trial's epoch, ``measure``
    compares the two.
    """

    def __init__(
        self,
        backbone: Backbone,
        whole: Split,
        classes: tuple[str, ...],
        config: AdviseConfig,
        session: Session,
    ) -> None:
        self.backbone, self.config, self.run = backbone, config, session.run
        self.cache, self.reporter = session.cache, session.reporter
        self.classes = classes
        bad = unreadable(whole, backbone.inputs, workers=self.run.workers, reporter=self.reporter)
        settle_bad_items(bad, "raise", self.reporter)
        self.whole = whole
        rest, measured = stratified_split(whole.labels, 0.25, seed=self.run.seed, keys=whole.ids)
        inner = whole.take(rest)
        fit, choose = stratified_split(inner.labels, 0.2, seed=self.run.seed, keys=inner.ids)
        self.fit, self.choose = inner.take(fit), inner.take(choose)
        self.measure = whole.take(measured)
        if not len(choose) or not len(measured) or len(np.unique(self.fit.labels)) < 2:
            raise DataError(
                f"{len(whole)} training items are too few to hold some out for the advice",
                hint="a dozen items of every class are needed at least",
            )

    def rows(self, split: Split, backbone: Backbone | None = None) -> NDArray[np.float32]:
        """Return features; those of the backbone itself come from the cache."""
        found = self.cache.features(
            backbone or self.backbone,
            split,
            settings=self.run.extraction(),
            reporter=self.reporter,
        )
        return found.rows

    def learning_curve(self) -> LabelBudget:
        """Measure how the probe's accuracy grows with labels."""
        return learning_curve(
            self.rows(self.whole),
            self.whole.labels,
            len(self.classes),
            repetitions=self.config.repetitions,
            seed=self.run.seed,
            reporter=self.reporter,
        )

    def probe(self) -> LinearHead:
        """Fit the probe."""
        chosen = choose_linear(
            self.rows(self.fit), self.fit.labels, len(self.classes), seed=self.run.seed
        )
        assert isinstance(chosen.head, LinearHead)
        return chosen.head

    def drift(self) -> tuple[LayerDrift, ...]:
        """Measure how far the statistics of the data lie from the running ones."""
        live = set(self.backbone.live.modules)
        norms = [
            name
            for name, part in self.backbone.module.named_modules()
            if name in live and is_running_norm(part)
        ]
        if not norms:
            return ()
        try:
            return drift(self.backbone.module, _Items(self), layers=tuple(norms))
        except FreezeError as error:
            self.reporter.note(f"the drift of statistics cannot be measured: {error}")
            return ()

    def gradients(self, head: LinearHead) -> tuple[RelativeGradient, ...]:
        """Measure relative gradients behind the probe, on items it has not seen."""
        network = Classifier(self.backbone, len(self.classes))
        network.load_head(head)
        order = _sample(len(self.measure), _GRADIENT_ITEMS, self.run.seed)
        labels = torch.from_numpy(self.measure.labels).to(self.backbone.device)
        return relative_gradients(network, self.feed(self.measure), labels, order)

    def feed(self, split: Split) -> ItemFeed:
        """Return the items of a split."""
        return ItemFeed(
            split,
            self.backbone.inputs,
            self.backbone.device,
            workers=self.run.workers,
        )

    def trial(self, head: LinearHead) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Train head and last block for a few epochs; return predictions before and after."""
        before = head.predict(self.rows(self.measure))
        copied = dataclasses.replace(self.backbone, module=copy.deepcopy(self.backbone.module))
        network = Classifier(copied, len(self.classes), seed=self.run.seed)
        network.load_head(head)
        stage = Stage("trial", ("last:1",), epochs=self.config.epochs, lr=self.config.lr)
        recipe = Recipe("trial", (stage,), "probe")
        feeds = Feeds(
            network,
            self.fit,
            self.choose,
            self.cache.store,
            self.reporter,
            batch_size=self.run.batch_size,
            workers=self.run.workers,
            seed=self.run.seed,
        )
        train(make_plan(recipe, resolve(network, recipe), feeds), feeds)
        return before, self._predict(network)

    def _predict(self, network: Classifier) -> NDArray[np.int64]:
        found = np.empty(len(self.measure), dtype=np.int64)
        network.eval()
        order = np.arange(len(self.measure))
        with torch.no_grad():
            for index, inputs in self.feed(self.measure).batches(order, 64, 0):
                found[index] = inputs.call(network).argmax(1).cpu().numpy()
        return found


class _Items:
    """Some training items in batches, which can be gone through repeatedly."""

    def __init__(self, inquiry: _Inquiry) -> None:
        self.inquiry = inquiry
        self.order = _sample(len(inquiry.fit), _DRIFT_ITEMS, inquiry.run.seed)

    def __iter__(self) -> Iterator[Arguments]:
        for _, inputs in self.inquiry.feed(self.inquiry.fit).batches(self.order, 32, 0):
            yield inputs


def _sample(n: int, most: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([abs(seed), 3]).permutation(n)[:most]


__all__ = ["Advice", "AdviseConfig", "Indicator", "advise"]
