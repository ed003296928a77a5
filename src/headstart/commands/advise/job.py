"""Is unfreezing likely to pay? Indicators, each with its number and what it usually means."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.commands.advise.indicators import (
    Advice,
    Indicator,
    curve_indicator,
    drift_indicator,
    gradient_indicator,
    recipes,
    trial_indicator,
    verdict,
)
from headstart.commands.advise.options import ADVISE, AdviseConfig
from headstart.commands.embedding import open_call
from headstart.commands.invocation import Call
from headstart.commands.session import Session
from headstart.commands.settings import BackboneLike, ReadOptions, RunOptions
from headstart.core.ambient import plainly
from headstart.core.division import stratified_split
from headstart.core.errors import DataError, FreezeError
from headstart.core.row_keys import Keys, content_order
from headstart.core.wording import count, verb
from headstart.data import Split, unreadable
from headstart.data.reading import settle_bad_items
from headstart.evaluation.item_scores import (
    ITEM_FIGURES,
    item_scores,
    mean_item_score,
    paired_item_difference,
)
from headstart.finetuning import Classifier, Recipe, Stage
from headstart.finetuning.feeds import Feeds, InputBatches, ItemFeed
from headstart.finetuning.gradients import RelativeGradient, relative_gradients
from headstart.finetuning.loop import train
from headstart.finetuning.objective import Objective
from headstart.finetuning.planner import make_plan
from headstart.finetuning.targets import resolve
from headstart.freezing import LayerDrift, drift
from headstart.heads import (
    LabelBudget,
    LinearHead,
    TrainingRows,
    choose_linear,
    keep_together,
    learning_curve,
)
from headstart.heads.registry import automatic_heads, head_kind
from headstart.heads.task_checks import ItemBudget, item_curve
from headstart.heads.thresholds import with_thresholds
from headstart.modules.kinds import is_running_norm

_DRIFT_ITEMS = 256
_GRADIENT_ITEMS = 256


@plainly()
def advise(
    data: Any,
    backbone: BackboneLike = "auto",
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
    call = Call(ADVISE, data, *ADVISE.settle(overrides, config, run, reading, backbone))
    config, run = call.config, call.run
    session = Session(run)
    call, network, dataset = open_call(session, call)
    network.module.to(run.resolve_device())
    session.say(*network.notes)
    measured = _Measurements(network, dataset.train, config, session)
    curve = measured.learning_curve()
    probe = measured.probe()
    shifts = measured.drift()
    gradients = measured.gradients(probe)
    before, after = measured.trial(probe)
    held, task = measured.held_out, dataset.task
    first, second = (item_scores(task, held.y, said) for said in (before, after))
    difference = paired_item_difference(second, first, groups=held.groups)
    indicators = (
        trial_indicator(difference, config.epochs, ITEM_FIGURES[task]),
        curve_indicator(curve),
        drift_indicator(shifts),
        gradient_indicator(gradients),
    )
    leaning = indicators[0].leaning
    commands = _commands(call, recipes(leaning, indicators))
    return Advice(
        verdict=verdict(leaning, difference, indicators),
        figure=ITEM_FIGURES[task],
        leaning=leaning,
        indicators=indicators,
        probe=mean_item_score(first, task, groups=held.groups),
        trial=mean_item_score(second, task, groups=held.groups),
        difference=difference,
        gradients=gradients,
        drift=shifts,
        command=commands[0],
        commands=commands,
        seconds=session.clock.seconds()["total"],
    )


def _commands(call: Call, named: tuple[str, ...]) -> tuple[str, ...]:
    """Return the calls that follow: of ``finetune`` by each recipe, or of ``fit`` for none."""
    if not named:
        return (call.then("fit"),)
    return tuple(call.then("finetune", recipe=recipe) for recipe in named)


class _Measurements:
    """What is measured, on three parts of the training split.

    Args:
        backbone: left unchanged.
        whole: the training split.
        config: the trial and the learning curve.
        session: its cache, settings and reporter.

    Attributes:
        train: trains the probe and the trial.
        validation: chooses the epoch of the trial.
        held_out: compares the two.

    Raises:
        DataError: too few items to hold any out.
    """

    def __init__(
        self, backbone: Backbone, whole: Split, config: AdviseConfig, session: Session
    ) -> None:
        # In the order of the content, on which samples and epochs do not depend then.
        whole = whole.take(content_order(whole.ids, whole.labels))
        self.backbone, self.whole, self.config, self.run = backbone, whole, config, session.run
        self.cache, self.reporter = session.cache, session.reporter
        self.n_classes, self.plain = len(whole.classes), whole.targets is None
        bad = unreadable(whole, backbone.inputs, workers=self.run.workers, reporter=self.reporter)
        settle_bad_items(bad, "raise", self.reporter)
        own = whole.labels if self.plain else None
        together = keep_together(own, self.features(whole), keys=whole.ids, names=whole.classes)
        for note in together.notes:
            self.reporter.note(note)
        self.keys, seed = together.keys, self.run.seed
        rest, measured = stratified_split(
            whole.labels, 0.25, seed=seed, keys=self.keys, groups=whole.groups
        )
        inner, keys = whole.take(rest), self.keys.take(rest)
        fit, choose = stratified_split(inner.labels, 0.2, seed=seed, keys=keys, groups=inner.groups)
        self.train_keys = keys.take(fit)
        self.train, self.validation = inner.take(fit), inner.take(choose)
        self.held_out = whole.take(measured)
        one = self.plain and len(np.unique(self.train.labels)) < 2
        if not len(choose) or not len(measured) or one:
            raise DataError(
                f"{count(len(whole), 'training item')} {verb(len(whole))} too few to hold some"
                " out for advice",
                hint="at least a dozen items of every class are needed"
                if self.plain
                else "at least two dozen are needed",
            )
        self.objective = Objective.of(self.train)

    def features(self, split: Split) -> NDArray[np.float32]:
        """Return the features of a split, from the cache."""
        found = self.cache.features(
            self.backbone, split, settings=self.run.extraction(), reporter=self.reporter
        )
        return found.rows

    def rows(self, split: Split, keys: Keys) -> TrainingRows:
        """Return a split as training rows."""
        return TrainingRows(
            self.features(split),
            split.y,
            self.n_classes,
            task=split.task,
            keys=keys,
            groups=split.groups,
            names=split.classes,
            seed=self.run.seed,
        )

    def learning_curve(self) -> LabelBudget | ItemBudget:
        """Measure how the probe's figure grows with labels."""
        if not self.plain:
            rows, often = self.rows(self.whole, self.keys), self.config.repetitions
            return item_curve(rows, repetitions=often, reporter=self.reporter)
        return learning_curve(
            self.features(self.whole),
            self.whole.labels,
            self.n_classes,
            repetitions=self.config.repetitions,
            seed=self.run.seed,
            keys=self.keys,
            groups=self.whole.groups,
            reporter=self.reporter,
        )

    def probe(self) -> LinearHead:
        """Fit the probe."""
        if not self.plain:
            kind, rows = (
                head_kind(automatic_heads(self.train.task)[0]),
                self.rows(self.train, self.train_keys),
            )
            made = with_thresholds(kind.fit(rows, kind.settings({}, **kind.coarse)), rows).head
            assert isinstance(made, LinearHead)
            return made
        chosen = choose_linear(
            self.features(self.train),
            self.train.labels,
            self.n_classes,
            seed=self.run.seed,
            keys=self.train_keys,
            groups=self.train.groups,
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
        order = _sample(len(self.train), _DRIFT_ITEMS, self.run.seed)
        try:
            items = InputBatches(self.feed(self.train), order, 32)
            return drift(self.backbone.module, items, layers=tuple(norms))
        except FreezeError as error:
            self.reporter.note(f"the drift of statistics cannot be measured: {error}")
            return ()

    def gradients(self, head: LinearHead) -> tuple[RelativeGradient, ...]:
        """Measure relative gradients behind the probe, on items it has not seen."""
        network = Classifier(self.backbone, self.n_classes, objective=self.objective)
        network.load_head(head)
        order = _sample(len(self.held_out), _GRADIENT_ITEMS, self.run.seed)
        targets = self.objective.targets(self.held_out, self.backbone.device)
        return relative_gradients(network, self.feed(self.held_out), targets, order)

    def feed(self, split: Split) -> ItemFeed:
        """Return the items of a split."""
        device = self.backbone.device
        return ItemFeed(split, self.backbone.inputs, device, workers=self.run.workers)

    def trial(self, head: LinearHead) -> tuple[NDArray[Any], NDArray[Any]]:
        """Train head and last block for a few epochs; return predictions before and after."""
        before = head.predict(self.features(self.held_out))
        copied = dataclasses.replace(self.backbone, module=copy.deepcopy(self.backbone.module))
        network = Classifier(copied, self.n_classes, seed=self.run.seed, objective=self.objective)
        network.load_head(head)
        stage = Stage("trial", ("last:1",), epochs=self.config.epochs, lr=self.config.lr)
        recipe = Recipe("trial", (stage,), "probe")
        feeds = Feeds(
            network,
            self.train,
            self.validation,
            self.cache.store,
            self.reporter,
            batch_size=self.run.batch_size,
            workers=self.run.workers,
            seed=self.run.seed,
        )
        train(make_plan(recipe, resolve(network, recipe), feeds), feeds)
        return before, self._predict(network, head)

    def _predict(self, network: Classifier, probe: LinearHead) -> NDArray[Any]:
        """Predict the held-out items; labels at the thresholds that the probe has, too."""
        network.eval()
        found = np.empty((len(self.held_out), self.n_classes))
        order = np.arange(len(self.held_out))
        with torch.no_grad():
            for index, inputs in self.feed(self.held_out).batches(order, 64, 0):
                found[index] = inputs.call(network).double().cpu().numpy()
        return self.objective.predicted(found, probe.thresholds)


def _sample(n: int, most: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([abs(seed), 3]).permutation(n)[:most]


__all__ = ["Advice", "AdviseConfig", "Indicator", "advise"]
