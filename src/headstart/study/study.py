"""A study from beginning to end: look, plan, run, judge."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.core.errors import ConfigError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import to_plain
from headstart.data import Dataset
from headstart.extraction import Extraction
from headstart.modules.layers import call_order
from headstart.study import measure, network
from headstart.study.causes import Causes
from headstart.study.configuration import Configuration
from headstart.study.findings import find_causes
from headstart.study.functions import Cut, Facts, cut_of
from headstart.study.inputs import InputCheck, check_inputs, input_range
from headstart.study.judge import Series, judge, train_heads
from headstart.study.material import Images, Material, class_order, divide, drop_unreadable
from headstart.study.names import REFERENCE, resolve, with_reference
from headstart.study.plan import Key, Plan, Task, Tuning, make_plan
from headstart.study.recommendation import recommend, suggestion
from headstart.study.results import Comparison, Evidence
from headstart.study.rows import RowMaker
from headstart.study.settings import StudySettings
from headstart.study.tuning import (
    Tuner,
    check_tunable,
    fine_tune,
    plan_tunings,
    seconds_per_run,
    tuned_tasks,
)
from headstart.study.workspace import Workspace

STATISTICS_BYTES = 2 * 2**30
"""Re-estimation keeps the activations of one depth in memory, up to this many bytes of them."""

LOOK = 64
"""Training images that inputs and drift are looked at with."""

MENDED = "inputs mended"

_MEASURED = ("reestimated", "blend")


def run_study(
    dataset: Dataset,
    backbone: Backbone,
    configurations: Iterable[str | Configuration] | str | None = None,
    *,
    settings: StudySettings | None = None,
    cache: FeatureCache | None = None,
    reporter: Reporter | None = None,
    tuner: Tuner | None = None,
    finish: Callable[[Comparison], None] | None = None,
) -> Comparison:
    """Compare ways of running a frozen backbone on a data set, and of fine-tuning it.

    The module itself is never run in training mode and never changed: what might change it runs
    on a copy. The random state is given back. An interrupted study goes on where it stopped when
    it is started again with the same cache.

    Args:
        dataset: with a training and a test split.
        backbone: the network with its preprocessing and cut.
        configurations: names (``"no_grad,eval,reestimated+unscaled"`` or a list) and objects;
            None: :data:`~headstart.study.names.DEFAULT`.
        settings: repetitions, head, seed and so on.
        cache: where rows are kept that are functions of their items; its folder also holds the
            state of an unfinished study.
        reporter: shown the plan and progress.
        tuner: trains for configurations that fine-tune.
        finish: called with the comparison before the study's state is removed, to write it where
            an interruption cannot lose it. If it fails, the same call goes on from that state.

    Returns:
        The comparison: figures, causes and a recommendation.

    Raises:
        ConfigError: unknown or contradictory configurations or recipes, all faults together.
        DataError, BadFilesError, BackboneError, StoreError: see the rooms they come from.
    """
    settings = settings or StudySettings()
    reporter = reporter or SilentReporter()
    chosen = with_reference(resolve(configurations), settings.reference)
    backbone = _on_device(backbone, settings.extraction)
    cuts = [cut_of(configuration, backbone) for configuration in chosen]
    tunings = plan_tunings(chosen, cuts, backbone, len(dataset.classes), tuner, settings.epochs)
    study = _Study(
        drop_unreadable(dataset, settings.on_bad, reporter),
        backbone,
        chosen,
        settings,
        cache or FeatureCache(),
        reporter,
        tunings,
        tuner,
    )
    comparison = study.run()
    if finish is not None:
        finish(comparison)
    study.maker.workspace.clear()
    return comparison


@dataclass(eq=False)
class _Study:
    """The state of one study while it runs; every property is computed once."""

    dataset: Dataset
    backbone: Backbone
    configurations: list[Configuration]
    settings: StudySettings
    cache: FeatureCache
    reporter: Reporter
    tunings: Mapping[str, Tuning]
    tuner: Tuner | None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> Comparison:
        begun = time.perf_counter()
        with self._step("look"):
            inputs = self._check_inputs()
            suggested = self._suggest(inputs)
            causes = Causes(self.maker, self.sample, self.settings)
            frozen, proofs = causes.tasks(self.frozen, self.cuts)
            tuned = self._tuned_tasks()
            tasks = self._in_order([*frozen, *tuned])
        plan = make_plan(
            tasks,
            self.material,
            statistics_items=self.maker.statistics_items,
            recompute_passes=self.settings.recompute_passes,
        )
        self.reporter.note(f"plan: {plan}")
        with self._step("measure causes"):
            behaviours, rates = causes.behaviours(frozen, self.reporter)
            drift = causes.drift(frozen)
            moved = causes.moved(frozen)
        with self._step("forward passes"):
            self.maker.run(plan, self.reporter)
        with self._step("heads"):
            series = train_heads(frozen, self.maker, self.settings.head, self.reporter)
        if tuned:
            assert self.tuner is not None
            with self._step("fine-tuning"):
                series |= fine_tune(tuned, plan.tunings, self.maker, self.tuner, self.reporter)
        outcomes = judge(tasks, series, self.maker, self.settings.head, self.reference, behaviours)
        evidence = Evidence(
            data=self.material.name,
            classes=self.material.classes,
            n_train=self.material.n_train,
            n_test=self.material.n_test,
            n_validation=len(self.material.divisions[0].validation),
            redrawn=self.material.redrawn,
            class_order=class_order(self.dataset.test.labels),
            backbone=self.backbone.name,
            reference=self.reference,
            outcomes=outcomes,
            facts=self.facts,
            inputs=inputs,
            given=None if self.facts.norms else input_range(self._look(self.sample)),
            drift=drift,
            moved=moved,
            proofs=proofs,
            suggested=suggested,
        )
        self.seconds["total"] = time.perf_counter() - begun
        return self._comparison(evidence, plan, tasks, series, rates)

    @cached_property
    def material(self) -> Material:
        material = divide(
            self.dataset,
            repeats=self.settings.repeats,
            seed=self.settings.seed,
            redraw=self.settings.redraw,
            train_items=self.settings.train_items,
            test_items=self.settings.test_items,
        )
        if material.redrawn:
            self._note(
                "the data has no test split of its own, so every repetition draws another one"
            )
        return material

    @cached_property
    def images(self) -> Images:
        return Images(self.settings.extraction.workers)

    @cached_property
    def frozen(self) -> list[Configuration]:
        """The configurations that do not train the backbone; a suggested one joins them."""
        return [c for c in self.configurations if c.recipe is None]

    @cached_property
    def cuts(self) -> list[Cut]:
        """The cuts of the frozen configurations."""
        return [cut_of(configuration, self.backbone) for configuration in self.frozen]

    @cached_property
    def sample(self) -> np.ndarray:
        """Positions of the training items that inputs and drift are looked at with."""
        train = self.material.divisions[0].train
        generator = np.random.default_rng([self.settings.seed, 7])
        return np.sort(generator.permutation(train)[:LOOK])

    @cached_property
    def deepest(self) -> Backbone:
        return network.deepest(self.backbone, self.cuts)

    @cached_property
    def facts(self) -> Facts:
        self._check_cuts()
        return measure.find_facts(self.backbone, self.cuts, self._look(self.sample[:8]))

    @cached_property
    def maker(self) -> RowMaker:
        return RowMaker(
            backbone=self.backbone,
            deepest=self.deepest,
            material=self.material,
            facts=self.facts,
            cache=self.cache,
            workspace=Workspace(self.cache.store.results("study")),
            images=self.images,
            settings=self.settings.extraction,
            statistics_items=self._statistics_items(),
            recompute_passes=self.settings.recompute_passes,
        )

    @cached_property
    def reference(self) -> str:
        return self.settings.reference or REFERENCE

    def _check_cuts(self) -> None:
        """Refuse cuts that run several times or give no row an item; all of them together."""
        faults = []
        for configuration, cut in zip(self.frozen, self.cuts, strict=True):
            at = network.at_cuts(self.backbone, [cut])[0]
            at.check_layer()
            shape = at.feature_shape()
            if len(shape) != 1:
                faults.append(
                    f"'{configuration.name}' gives features of {len(shape)} dimensions an item,"
                    " and a head needs one row"
                )
        if faults:
            raise ConfigError(tuple(faults), hint="use pooling=avg")

    def _check_inputs(self) -> InputCheck | None:
        if not self.facts.norms:
            return None
        return check_inputs(
            self.backbone,
            self.facts.norms,
            self.material.train,
            self.sample,
            self.images,
            self.settings.extraction.batch_size,
        )

    def _suggest(self, inputs: InputCheck | None) -> str | None:
        """Add a configuration with mended inputs, so that the advice is measured too."""
        if inputs is None or inputs.correction is None or not self.settings.suggest:
            return None
        changed = inputs.correction.preprocessing
        given = self.backbone.preprocessing
        for configuration in self.frozen:
            own = configuration.preprocess(given)
            plain = configuration.normalises_by == "running" and not configuration.draws
            if own == changed and plain:
                return configuration.name
        self.frozen.append(suggestion(MENDED, changed, given))
        self.cuts.append((self.backbone.layer, self.backbone.pooling))
        self._note(f"the inputs look wrong, so '{MENDED}' was added: {inputs.correction.name}")
        return MENDED

    def _tuned_tasks(self) -> list[Task]:
        if not self.tunings:
            return []
        check_tunable(self.material)
        tuned = [c for c in self.configurations if c.recipe is not None]
        cuts = [cut_of(configuration, self.backbone) for configuration in tuned]
        return tuned_tasks(tuned, cuts, self.tunings, self.backbone, self.facts)

    def _in_order(self, tasks: Sequence[Task]) -> list[Task]:
        """Return tasks in the order asked for; what the study has added comes last."""
        places = {c.name: place for place, c in enumerate(self.configurations)}
        return sorted(tasks, key=lambda task: places.get(task.name, len(places)))

    def _look(self, positions: np.ndarray) -> Tensor:
        given = self.backbone.preprocessing
        pixels = self.images.some(self.material.train, positions, given)
        return given.normalise(pixels.to(self.backbone.device))

    def _statistics_items(self) -> int:
        """Choose how many training items statistics are measured on: by memory, not by chance."""
        most = self.material.n_train
        if self.settings.statistics_items is not None:
            return min(self.settings.statistics_items, most)
        if not self.facts.norms:
            return 0
        sizes = {
            name: math.prod(shape)
            for name, _, shape in call_order(self.backbone.module, self.backbone.probe())
        }
        # Input, output and the place where the next activation is made: three at a time.
        largest = 3 * 4 * max(sizes.get(name, 1) for name in self.facts.norms)
        chosen = min(most, max(128, STATISTICS_BYTES // largest))
        if chosen < most and any(c.statistics in _MEASURED for c in self.configurations):
            self._note(
                f"statistics are re-estimated on {chosen:,} of {most:,} training images, whose"
                " activations fit into memory together"
            )
        return chosen

    def _comparison(
        self,
        evidence: Evidence,
        plan: Plan,
        tasks: Sequence[Task],
        series: Mapping[Key, Series],
        rates: Mapping[str, float],
    ) -> Comparison:
        settings = self.settings
        return Comparison(
            evidence=evidence,
            findings=find_causes(evidence),
            recommendation=recommend(evidence),
            plan=plan,
            settings={
                "repeats": settings.repeats,
                "seed": settings.seed,
                "head": settings.head.describe(),
                "batch_size": settings.extraction.batch_size,
                "precision": settings.extraction.precision,
                "recompute_passes": settings.recompute_passes,
                "epochs": settings.epochs,
                "statistics_items": self.maker.statistics_items,
                "preprocessing": to_plain(self.backbone.preprocessing.describe()),
                "layer": self.backbone.layer,
                "pooling": self.backbone.pooling,
            },
            notes=tuple(self.notes),
            seconds_per_image=dict(rates),
            seconds_per_run=seconds_per_run(
                tasks, series, rates, self.maker, settings.head, self.sample
            ),
            seconds=dict(self.seconds),
            cache=self.maker.use,
            resumed=self.maker.resumed + sum(one.resumed for one in series.values()),
        )

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.reporter.note(text)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begun


def _on_device(backbone: Backbone, extraction: Extraction) -> Backbone:
    device = extraction.resolve_device()
    if backbone.device != device:
        backbone.module.to(device)
    return backbone


__all__ = ["StudySettings", "run_study"]
