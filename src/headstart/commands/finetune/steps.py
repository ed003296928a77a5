"""The steps of a fine-tuning: preparing up to the plan, training, evaluating once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.commands.backbone_spec import BackboneSpec, resolve_backbone
from headstart.commands.baselines import majority_baseline, plain_baseline
from headstart.commands.clock import Clock
from headstart.commands.environment import describe_environment
from headstart.commands.finetune.data import Decode, divide, readable
from headstart.commands.finetune.items import Items
from headstart.commands.finetune.loggers import Loggers, open_loggers
from headstart.commands.finetune.page import write_finetune
from headstart.commands.finetune.settings import FinetuneConfig
from headstart.commands.finetune.start import probe_baseline, probe_head, surgical_block
from headstart.commands.fingerprints import backbone_fingerprint, split_fingerprint
from headstart.commands.run_folder import Run
from headstart.commands.sources import DataOptions, open_dataset
from headstart.core.errors import ConfigError
from headstart.core.files import write_json
from headstart.core.fingerprints import canonical_json, sha256
from headstart.core.progress import Reporter, SilentReporter, console_reporter
from headstart.core.records import Baseline, Evaluation, to_plain
from headstart.data import BadItem, Split
from headstart.data.reading import settle_bad_items
from headstart.evaluation import evaluate as score
from headstart.finetuning import Classifier, Recipe, load_recipe, recipe_to_plain
from headstart.finetuning.checkpoint import Checkpoint
from headstart.finetuning.devices import ALONE, Devices, refusals
from headstart.finetuning.feeds import Feeds
from headstart.finetuning.loop import train
from headstart.finetuning.outcome import Trained
from headstart.finetuning.plan import Plan
from headstart.finetuning.planner import Prepared, make_plan
from headstart.finetuning.targets import Target, resolve
from headstart.heads import LinearHead
from headstart.modules.digests import compare_digests, digests, named_tensors

CHECKPOINT = "checkpoint"


class Work:
    """One fine-tuning, step by step."""

    prepared: Prepared

    def __init__(
        self,
        data: Any,
        backbone: str | Path | BackboneSpec | Backbone,
        recipe: str | Path | Recipe,
        config: FinetuneConfig,
        cache: Path | str | FeatureCache | None,
        data_options: DataOptions | None,
        reporter: Reporter | None,
        devices: Devices = ALONE,
    ) -> None:
        self.clock = Clock()
        self.config, self.devices = config, devices
        self.recipe = load_recipe(recipe)
        self.reporter = (reporter or console_reporter()) if devices.main else SilentReporter()
        self.cache = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
        self.notes: list[str] = []
        self.asked = backbone
        # The digests of the data that the main process takes are there for the others.
        with self.clock("load"), devices.main_first():
            self.backbone = resolve_backbone(backbone)
            self.dataset, said = open_dataset(
                data, data_options or DataOptions(), self.config.seed, self.cache, self.reporter
            )
        self.say(*said, *self.backbone.notes, f"preprocessing: {self.backbone.inputs}")
        self.baselines: list[Baseline] = []
        self.items = Items(self.backbone, config, self.cache, self.clock, self.reporter)

    def say(self, *notes: str) -> None:
        """Keep notes for the report, and tell them."""
        for note in notes:
            self.notes.append(note)
            self.reporter.note(note)

    # Preparing

    def prepare(self, folder: Path | None) -> None:
        """Do everything up to the plan; write it."""
        config, settings = self.config, self.config.extraction
        self.backbone.module.to(self.devices.device or settings.resolve_device())
        classes = len(self.dataset.classes)
        self.network = Classifier(
            self.backbone, classes, dropout=self.recipe.head_dropout, seed=config.seed
        )
        resolve(self.network, self.recipe)  # faults come before anything takes time
        count = max(config.devices, self.devices.size)
        faults = refusals(self.network, self.recipe, count)
        if faults:
            raise ConfigError(tuple(faults))
        self.devices.share(self.network)
        self.before = digests(self.backbone.module)
        self.train_part, self.validation, self.test = self._parts()
        with self.clock("start"):
            surgical = self.devices.once(self._start)
            self.devices.share(self.network)
        targets = resolve(self.network, self.recipe, surgical=surgical)
        self.identity = self._identity(surgical)
        self.checkpoint = None if folder is None else Checkpoint(folder / CHECKPOINT, self.identity)
        saved = None if self.checkpoint is None else self.checkpoint.load()
        self.resumed = saved is not None
        self.feeds = Feeds(
            self.network,
            self.train_part,
            self.validation,
            self.cache.store,
            self.reporter,
            dtype=config.stored_dtype,
            batch_size=settings.batch_size,
            workers=self._workers,
            seed=config.seed,
        )
        with self.clock("plan"):
            self.prepared = self._plan(targets, () if saved is None else saved.decisions)
        self.say(*self.prepared.plan.notes)
        if self.devices.size > 1:
            self.say(
                f"{self.devices.size} devices share every batch; the times of the plan are those"
                " of one"
            )
        if folder is not None and self.devices.main:
            write_json(folder / "plan.json", to_plain(self.prepared.plan))

    def _start(self) -> str | None:
        """Give the network its first head; return the block that is to be thawed, if one is."""
        if self.recipe.start == "probe":
            rows, classes = self.items.start_rows("train"), self.dataset.classes
            head, notes = probe_head(rows, self.train_part, classes, self.config, self.reporter)
            self.say(*notes)
            self.network.load_head(head)
            if self.config.baselines:
                rows = self.items.start_rows("test")
                self.baselines.append(probe_baseline(head, rows, self.test, self.config))
        if not any("surgical" in stage.train for stage in self.recipe.stages):
            return None
        name, note = surgical_block(self.network, self.train_part, self.config.seed, self._workers)
        self.say(note)
        return name

    def _plan(self, targets: Sequence[Target], decisions: Sequence[str]) -> Prepared:
        """Let the main process measure and decide; the others find the same cuts."""
        mine: list[Prepared] = []

        def make(decisions: Sequence[str]) -> Prepared:
            return make_plan(self.recipe, targets, self.feeds, self.config.stored, decisions)

        def decide() -> tuple[Plan, tuple[str, ...], int]:
            made = make(decisions)
            mine.append(made)
            # Every process holds its rows itself.
            return made.plan, made.decisions, made.memory // self.devices.size

        plan, decided, memory = self.devices.once(decide)
        prepared = mine[0] if mine else make(decided)
        return dataclasses.replace(prepared, plan=plan, memory=memory)

    def _parts(self) -> tuple[Split, Split, Split]:
        """Return the part that trains, the part that chooses, and the test split, all readable."""
        train_part, validation, note = divide(
            self.dataset, self.recipe.validation, self.config.seed
        )
        self.say(note)
        parts = (train_part, validation, self.dataset.test)
        kept = self.devices.once(
            lambda: readable(parts, self._decoders(), self.config.on_bad, self.reporter)
        )
        first, second, third = (part.take(where) for part, where in zip(parts, kept, strict=True))
        return first, second, third

    def _decoders(self) -> Sequence[Decode]:
        """Return what looks for broken files in the three parts, before anything depends on them.

        No item is decoded for that alone where the first stage is about to store its row.
        """
        if self._reads_later:
            return [lambda _: ()] * 3
        if self.recipe.start != "probe":
            return [self.items.decode] * 3
        return self.items.decoders()

    @property
    def _reads_later(self) -> bool:
        """Whether items are first decoded by the first stage: then nothing can be left out."""
        first = self.recipe.stages[0]
        surgical = any("surgical" in stage.train for stage in self.recipe.stages)
        return (
            self.config.on_bad == "raise"
            and self.recipe.start != "probe"
            and first.norm != "reestimated"
            and not surgical
        )

    def _read_all(self) -> None:
        """Find all items that cannot be decoded before the first epoch; store rows meanwhile."""
        parts: tuple[Split, ...] = (self.train_part, self.validation, self.test)
        bad: list[BadItem] = []
        first = self.prepared.cuts[0]
        if first is not None:
            bad += self.feeds.fill(self.prepared.targets[0].stage, first)
            parts = (self.test,)
        for part in parts:
            bad += self.items.decode(part)
        settle_bad_items(bad, "raise", self.reporter)

    @property
    def _workers(self) -> int | None:
        """Threads that decode while training: the processors are shared with other devices."""
        given = self.config.extraction.workers
        if given is not None or self.devices.size == 1:
            return given
        return max(1, (os.cpu_count() or 1) // self.devices.size)

    def _fingerprint(self) -> str:
        return backbone_fingerprint(self.backbone, "float32", self.config.extraction.storage)

    def _identity(self, surgical: str | None) -> str:
        """Digest all that decides the result, to know an unfinished run of the same again."""
        values = {
            "recipe": recipe_to_plain(self.recipe),
            "train": split_fingerprint(self.train_part),
            "validation": split_fingerprint(self.validation),
            "backbone": self._fingerprint(),
            "seed": self.config.seed,
            "probe": self.config.probe if self.recipe.start == "probe" else None,
            "stored": [self.config.stored, self.config.stored_dtype],
            "batch_size": self.config.extraction.batch_size,
            "device": str(self.backbone.device.type),
            "surgical": surgical,
        }
        return sha256(canonical_json(values, compact=False))

    # Training

    def train(self, folder: Path | None) -> Run:
        """Train, evaluate once, write."""
        if self._reads_later:
            with self.clock("train"):
                self.devices.once(self._read_all)
        with self._logging(folder) as loggers:
            with self.clock("train"):
                trained = train(
                    self.prepared,
                    self.feeds,
                    stop_without_gain=self.recipe.stop_without_gain,
                    checkpoint=self.checkpoint,
                    devices=self.devices,
                    log=loggers.epochs,
                )
            return self._finish(trained, folder, loggers)

    def _logging(self, folder: Path | None) -> AbstractContextManager[Loggers]:
        """Open the loggers that were asked for, on the main device."""
        if folder is None or not self.devices.main:
            return contextlib.nullcontext(Loggers({}, self.reporter))
        settings = {
            "data": self.dataset.name,
            "backbone": self.backbone.name,
            "recipe": recipe_to_plain(self.recipe),
            "seed": self.config.seed,
            "devices": self.devices.size,
        }
        return open_loggers(
            self.config.loggers,
            folder,
            settings,
            self.prepared.plan,
            resumed=self.resumed,
            reporter=self.reporter,
        )

    def _finish(self, trained: Trained, folder: Path | None, loggers: Loggers) -> Run:
        """Evaluate once; write."""
        self.notes += trained.notes
        self.say(_best_note(trained))
        present = np.bincount(self.train_part.labels, minlength=len(self.dataset.classes)) > 0
        head = self.network.linear_head(present)
        with self.clock("evaluate"):
            scored = self.devices.once(lambda: self._score(head))
            evaluation, self.baselines, probabilities = scored
        loggers.test(evaluation)
        run = Run(
            head=head,
            classes=self.dataset.classes,
            evaluation=evaluation,
            baselines=tuple(self.baselines),
            curves=trained.curves,
            configuration=self._configuration(),
            environment=describe_environment(),
            fingerprints={
                "backbone": self._fingerprint(),
                "train": split_fingerprint(self.train_part),
                "validation": split_fingerprint(self.validation),
                "test": split_fingerprint(self.test),
            },
            cache=self.items.use + self.feeds.use,
            seconds=self.clock.seconds(),
            images_per_second=None,
            n_train=len(self.train_part),
            n_test=len(self.test),
            notes=tuple(self.notes),
            spec=(
                self.asked
                if isinstance(self.asked, BackboneSpec)
                else BackboneSpec.of(self.backbone)
            ),
            backbone=self.backbone,
            folder=folder,
            training=self._training(trained),
            tuned=self._tuned(),
        )
        if folder is not None and self.devices.main:
            write_finetune(run, folder, self.prepared.plan, trained, self.test, probabilities)
            if self.checkpoint is not None:
                self.checkpoint.remove()
        return run

    def _score(self, head: LinearHead) -> tuple[Evaluation, list[Baseline], NDArray[Any]]:
        probabilities = head.predict_proba(self.items.rows(self.test))
        evaluation = score(self.test.labels, probabilities, self.dataset.classes)
        if self.config.baselines:
            self._simple_baselines()
        return evaluation, self.baselines, probabilities

    def _simple_baselines(self) -> None:
        self.baselines.append(majority_baseline(self.train_part.labels, self.test))
        pixels = plain_baseline(
            self.train_part,
            self.test,
            self.backbone.inputs,
            seed=self.config.seed,
            reporter=self.reporter,
        )
        if pixels is not None:
            self.baselines.append(pixels)

    def _configuration(self) -> dict[str, Any]:
        return {
            **to_plain(self.config),
            **to_plain(self.config.extraction),
            "head": "fine-tuned",
            "data": self.dataset.name,
            "recipe": recipe_to_plain(self.recipe),
        }

    def _training(self, trained: Trained) -> dict[str, Any]:
        return {
            "recipe": self.recipe.name,
            "n_validation": len(self.validation),
            "best": to_plain(trained.best),
            "stages": to_plain(trained.stages),
            "epochs": to_plain(trained.records),
        }

    def _tuned(self) -> dict[str, Tensor]:
        """Return the tensors of the backbone that differ from those it was loaded with."""
        after = digests(self.backbone.module)
        changed = compare_digests(self.before, after)
        named = dict(named_tensors(self.backbone.module))
        return {name: named[name].detach().cpu().clone() for name in changed}


def _best_note(trained: Trained) -> str:
    best = trained.best
    figure = f"validation accuracy {100 * best.validation_accuracy:.1f} %"
    if best.stage < 0:
        return f"no epoch was better than the start ({figure}): the start is kept"
    return f"the weights of stage '{best.name}', epoch {best.epoch}, are kept ({figure})"


__all__ = ["Work"]
