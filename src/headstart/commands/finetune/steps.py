"""One fine-tuning, step by step: prepare up to the plan, train, test once, write."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from headstart.commands.around import Around
from headstart.commands.baselines import majority_baseline, plain_baseline
from headstart.commands.embedding import open_call
from headstart.commands.finetune.items import Items
from headstart.commands.finetune.loggers import EpochLoggers, open_epoch_loggers
from headstart.commands.finetune.options import FinetuneConfig
from headstart.commands.finetune.page import finetune_page
from headstart.commands.finetune.start import fit_probe, score_probe, surgical_block
from headstart.commands.invocation import Call
from headstart.commands.prediction_table import Probabilities
from headstart.commands.references import references
from headstart.commands.run import Run
from headstart.commands.run_facts import backbone_fingerprint, split_fingerprint
from headstart.commands.run_place import CHECKPOINT, publishing_run
from headstart.commands.run_record import new_run
from headstart.commands.run_report import write_run
from headstart.commands.scoring import AnyEvaluation, evaluated, outputs_of
from headstart.commands.session import Session
from headstart.core.errors import ConfigError
from headstart.core.files import write_json
from headstart.core.fingerprints import canonical_json, sha256
from headstart.core.progress import SilentReporter
from headstart.core.records import Baseline, Reference, to_plain
from headstart.core.wording import count as counted
from headstart.evaluation.tasks import CLASSIFICATION
from headstart.finetuning import Classifier, recipe_to_plain
from headstart.finetuning.checkpoint import Checkpoint
from headstart.finetuning.devices import Devices, refusals
from headstart.finetuning.feeds import Feeds
from headstart.finetuning.loop import train
from headstart.finetuning.objective import Objective
from headstart.finetuning.outcome import Trained
from headstart.finetuning.plan import Plan
from headstart.finetuning.planner import Prepared, make_plan
from headstart.finetuning.targets import Target, resolve
from headstart.heads import LinearHead
from headstart.heads.contract import Trained as TrainedHead
from headstart.heads.contract import TrainingRows
from headstart.heads.thresholds import with_thresholds
from headstart.modules.digests import compare_digests, digests, named_tensors

_COMPARED = 2_000
"""Training items whose features the report of a fine-tuning looks at."""


class Job:
    """One fine-tuning, step by step: prepare up to the plan, train, test once, write."""

    prepared: Prepared

    def __init__(self, devices: Devices, call: Call) -> None:
        run = call.run
        if not devices.main:
            run = dataclasses.replace(run, reporter=SilentReporter())
        self.devices, self.call, self.run = devices, call, run
        self.config: FinetuneConfig = call.config.with_recipe()
        self.recipe = self.config.load_recipe()
        self.session = Session(run)
        # The main process is first, so that the others find the digests of the data.
        with self.session.clock("load"), devices.main_first():
            self.call, self.backbone, self.dataset = open_call(self.session, call)
        faults = self.config.faults_for(self.dataset.task)
        if faults:
            raise ConfigError(tuple(faults))
        self.session.say(*self.backbone.notes, f"preprocessing: {self.backbone.inputs}")
        self.baselines: list[Baseline | Reference] = []

    # Preparing

    def prepare(self, folder: Path | None) -> None:
        """Do everything up to the plan."""
        self._build_network()
        self.before = digests(self.backbone.module)
        self.items = Items(self.session, self.backbone, self.dataset, self.recipe, self.config)
        self.items.check(self.devices)
        self.network.objective = Objective.of(self.items.train, self.config.class_weight)
        with self.session.clock("start"):
            surgical = self.devices.once(self._start)
            self.devices.share(self.network)
        targets = resolve(self.network, self.recipe, surgical=surgical)
        identity = self._identity(surgical)
        self.checkpoint = None if folder is None else Checkpoint(folder / CHECKPOINT, identity)
        saved = None if self.checkpoint is None else self.checkpoint.load()
        self.resumed = saved is not None
        self.feeds = Feeds(
            self.network,
            self.items.train,
            self.items.validation,
            self.session.cache.store,
            self.session.reporter,
            dtype=self.config.stored_dtype,
            batch_size=self.run.batch_size,
            workers=self._workers,
            seed=self.run.seed,
        )
        with self.session.clock("plan"):
            self.prepared = self._plan(targets, () if saved is None else saved.decisions)
        plan = self.prepared.plan
        self.session.say(*plan.notes)
        if self.devices.size > 1:
            self.session.say(
                f"{counted(self.devices.size, 'device')} share every batch; the plan's times are"
                " for one"
            )

    def _build_network(self) -> None:
        """Build the network, and refuse what does not fit before anything takes time."""
        self.backbone.module.to(self.devices.device or self.run.resolve_device())
        self.network = Classifier(
            self.backbone,
            len(self.dataset.classes),
            dropout=self.recipe.head_dropout,
            seed=self.run.seed,
        )
        resolve(self.network, self.recipe)
        count = max(self.config.devices, self.devices.size)
        faults = refusals(self.network, self.recipe, count)
        if faults:
            raise ConfigError(tuple(faults))
        self.devices.share(self.network)

    def _start(self) -> str | None:
        """Give the network its first head; return the block that is to be thawed, if one is."""
        items, session = self.items, self.session
        if self.recipe.start == "probe":
            head, notes = fit_probe(items, self.config, session)
            session.say(*notes)
            self.network.load_head(head)
            if self.config.baselines:
                self.baselines.append(score_probe(head, items, self.config))
        if not self.recipe.needs_surgery:
            return None
        name, note = surgical_block(self.network, items.train, self.run.seed, self._workers)
        session.say(note)
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

    @property
    def _workers(self) -> int | None:
        """Threads that decode while training: the processors are shared with other devices."""
        if self.run.workers is not None or self.devices.size == 1:
            return self.run.workers
        return max(1, (os.cpu_count() or 1) // self.devices.size)

    def _fingerprint(self) -> str:
        return backbone_fingerprint(self.backbone, "float32", self.run.storage)

    def _identity(self, surgical: str | None) -> str:
        """Digest all that decides the result, to recognise an unfinished run of the same."""
        values = {
            "recipe": recipe_to_plain(self.recipe),
            "train": split_fingerprint(self.items.train),
            "validation": split_fingerprint(self.items.validation),
            "backbone": self._fingerprint(),
            "seed": self.run.seed,
            "probe": self.config.probe_for(self.dataset.task)
            if self.recipe.start == "probe"
            else None,
            "stored": [self.config.stored, self.config.stored_dtype],
            "batch_size": self.run.batch_size,
            "device": str(self.backbone.device.type),
            "surgical": surgical,
        }
        objective = self.network.objective
        if objective.weights is not None or objective.task != CLASSIFICATION.name:
            values["objective"] = objective.plain()
        return sha256(canonical_json(values, compact=False))

    # Training

    def train(self, folder: Path | None) -> Run:
        """Train, test once, and write the run."""
        if self.items.checked_late:
            with self.session.clock("train"):
                self.devices.once(lambda: self.items.check_late(self.prepared, self.feeds))
        with self._loggers(folder) as loggers:
            with self.session.clock("train"):
                trained = train(
                    self.prepared,
                    self.feeds,
                    stop_without_gain=self.recipe.stop_without_gain,
                    checkpoint=self.checkpoint,
                    devices=self.devices,
                    log=loggers.epochs,
                )
            self.session.notes += trained.notes
            self.session.say(_best_note(trained, self.network.objective))
            head = self.devices.once(self._head)
            with self.session.clock("evaluate"):
                evaluation, baselines, probabilities = self.devices.once(lambda: self._test(head))
            loggers.test(evaluation)
            run = self._record(trained, head, evaluation, baselines, folder)
            if folder is not None and self.devices.main:
                around = self._around(head, probabilities)
                run = dataclasses.replace(run, notes=tuple(self.session.notes))
                looked_at = dataclasses.replace(run, around=around)
                page = finetune_page(
                    looked_at, self.prepared.plan, trained, self.items.test, probabilities
                )
                with publishing_run(folder) as place:
                    write_json(place / "plan.json", to_plain(self.prepared.plan))
                    write_run(run, place, self.items.test, probabilities, page)
                if self.checkpoint is not None:
                    self.checkpoint.remove()
        return run

    def _loggers(self, folder: Path | None) -> AbstractContextManager[EpochLoggers]:
        """Open the loggers, on the main device."""
        if folder is None or not self.devices.main:
            return contextlib.nullcontext(EpochLoggers({}, self.session.reporter))
        settings = {
            "data": self.dataset.name,
            "backbone": self.backbone.name,
            "recipe": recipe_to_plain(self.recipe),
            "seed": self.run.seed,
            "devices": self.devices.size,
            "figure": self.network.objective.figure,
        }
        return open_epoch_loggers(
            self.config.loggers,
            folder,
            settings,
            self.prepared.plan,
            resumed=self.resumed,
            reporter=self.session.reporter,
        )

    def _head(self) -> LinearHead:
        """Return what was trained as a head, its thresholds found on the validation items."""
        train, validation, k = self.items.train, self.items.validation, len(self.dataset.classes)
        present = np.ones(k, dtype=bool)
        if train.targets is None:
            present = np.bincount(train.labels, minlength=k) > 0
        head, rule = self.network.linear_head(present), self.config.threshold
        if (
            train.task == "regression"
            or rule == "half"
            or (train.targets is None and rule == "auto")
        ):
            return head
        judged = train if rule == "balanced" else validation
        known = None if rule == "balanced" else head.predict_proba(self.items.features(validation))
        rows = TrainingRows(np.empty((len(judged), 0)), judged.y, k, task=judged.task)
        made = with_thresholds(TrainedHead(head, held_out_probabilities=known), rows, rule)
        self.session.say(*made.notes)
        assert isinstance(made.head, LinearHead)
        return made.head

    def _test(
        self, head: LinearHead
    ) -> tuple[AnyEvaluation, tuple[Baseline | Reference, ...], Probabilities]:
        """Evaluate the head on the test split, and the figures to beat."""
        train, test, inputs = self.items.train, self.items.test, self.backbone.inputs
        outputs = outputs_of(head, self.items.features(test))
        evaluation, found = evaluated(head, test, outputs), list(self.baselines)
        more: dict[str, Any] = {"seed": self.run.seed, "reporter": self.session.reporter}
        if self.config.baselines and train.targets is not None:
            found += references(train, test, inputs, **more)
        elif self.config.baselines:
            found.append(majority_baseline(train.labels, test))
            plain = plain_baseline(train, test, inputs, **more)
            found += [plain] if plain is not None else []
        return evaluation, tuple(found), outputs

    def _around(self, head: LinearHead, outputs: Probabilities) -> Around:
        """Return the tested items with their features, and training items that explain them.

        The features of training items under the trained weights are computed for that alone, so
        that of many a part is looked at, at even distances.
        """
        train, test = self.items.train, self.items.test
        if len(train) > _COMPARED:
            train = train.take(np.linspace(0, len(train) - 1, _COMPARED).astype(np.int64))
            self.session.say(
                f"the report's map and mistakes are based on {_COMPARED:,} of"
                f" {len(self.items.train):,} training items"
            )
        rows = self.items.features(train)
        return Around(
            head, test, outputs, self.backbone.inputs, self.items.features(test), train, rows
        )

    def _record(
        self,
        trained: Trained,
        head: LinearHead,
        evaluation: AnyEvaluation,
        baselines: tuple[Baseline | Reference, ...],
        folder: Path | None,
    ) -> Run:
        made = new_run(
            self.session,
            self.items,
            self.call,
            settings=self.config,
            head=head,
            evaluation=evaluation,
            baselines=baselines,
            curves=trained.curves,
            configuration={
                "head": "fine-tuned",
                "data": self.dataset.name,
                "task": self.dataset.task,
                "recipe": recipe_to_plain(self.recipe),
            },
            fingerprints={
                "backbone": self._fingerprint(),
                "train": split_fingerprint(self.items.train),
                "validation": split_fingerprint(self.items.validation),
                "test": split_fingerprint(self.items.test),
            },
            backbone=self.backbone,
            folder=folder,
            commands=(self.call.then("compare"),),
        )
        training = {
            "recipe": self.recipe.name,
            "n_validation": len(self.items.validation),
            "best": trained.best.plain(),
            "stages": to_plain(trained.stages),
            "epochs": [record.plain() for record in trained.records],
        }
        cache = self.items.use + self.feeds.use
        return dataclasses.replace(
            made,
            cache=cache,
            training=training,
            tuned=self._tuned(),
            trained_on={**made.trained_on, "validation": self.items.validation.ids},
        )

    def _tuned(self) -> dict[str, Tensor]:
        """Return the tensors of the backbone that differ from those it was loaded with."""
        after = digests(self.backbone.module)
        changed = compare_digests(self.before, after)
        named = dict(named_tensors(self.backbone.module))
        return {name: named[name].detach().cpu().clone() for name in changed}


def _best_note(trained: Trained, objective: Objective) -> str:
    best = trained.best
    figure = f"validation {objective.figure} {objective.worded(best.validation_score)}"
    if best.stage < 0:
        return f"no epoch was better than the start ({figure}): the start is kept"
    return f"the weights of stage '{best.name}', epoch {best.epoch}, are kept ({figure})"


__all__ = ["Job"]
