"""The steps of a fine-tuning: settings, preparing up to the plan, training, evaluating once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.data import Preprocessing, Split
from headstart.data.reading import OnBad
from headstart.errors import ConfigError
from headstart.extraction import Extraction
from headstart.freezing.digests import compare_digests, digests, named_tensors
from headstart.heads import LinearHead
from headstart.jobs.baselines import majority_baseline, pixel_baseline
from headstart.jobs.clock import Clock
from headstart.jobs.environment import describe_environment
from headstart.jobs.finetune_data import divide, readable
from headstart.jobs.finetune_report import write_finetune
from headstart.jobs.fingerprints import backbone_fingerprint, split_fingerprint
from headstart.jobs.runs import Run, write_json
from headstart.jobs.sources import DataOptions, open_dataset
from headstart.jobs.spec import BackboneSpec, resolve_backbone
from headstart.metrics import accuracy_score
from headstart.metrics import evaluate as score
from headstart.progress import Reporter, console_reporter
from headstart.records import Baseline, CacheUse, to_plain
from headstart.selection import choose_linear
from headstart.training import Classifier, Recipe, load_recipe, recipe_to_plain
from headstart.training.checkpoint import Checkpoint
from headstart.training.gradients import relative_gradients
from headstart.training.loop import Setup, train
from headstart.training.opening import Opener
from headstart.training.outcome import Trained
from headstart.training.planning import CacheMode, Circumstances, Dtype, Prepared, make_plan
from headstart.training.roads import ImageFeed
from headstart.training.targets import resolve

CHECKPOINT = "checkpoint"
_GRADIENT_ITEMS = 256


@dataclass(frozen=True)
class FinetuneConfig:
    """The settings of :func:`finetune` beside the recipe.

    Attributes:
        stored: ``auto`` trains on stored rows of the frozen part where that is faster; ``on``
            refuses recipes where nothing can be stored; ``off`` computes everything in every
            epoch.
        stored_dtype: type of stored rows. ``float32`` gives the very curves of ordinary training;
            ``float16`` and ``bfloat16`` halve the disk space at a measured error.
        folds: folds of the cross-validation that chooses the penalty of a probe.
        seed: of every random choice.
        extraction: batch size, device and threads of forward passes outside training; its
            precision must be ``float32``, since stages have precisions of their own.
        on_bad: ``raise`` before training if items cannot be read, or ``skip`` them.
        baselines: whether to compute figures to beat.
    """

    stored: CacheMode = "auto"
    stored_dtype: Dtype = "float32"
    folds: int = 5
    seed: int = 0
    extraction: Extraction = field(default_factory=Extraction)
    on_bad: OnBad = "raise"
    baselines: bool = True

    def __post_init__(self) -> None:
        faults = []
        if self.stored not in ("auto", "on", "off"):
            faults.append(f"the cache is auto, on or off, not {self.stored!r}")
        if self.stored_dtype not in ("float32", "float16", "bfloat16"):
            faults.append(
                f"rows are stored as float32, float16 or bfloat16, not {self.stored_dtype!r}"
            )
        if self.on_bad not in ("raise", "skip"):
            faults.append(f"bad files are raised or skipped, not {self.on_bad!r}")
        if self.folds < 2:
            faults.append(f"folds must be at least 2, not {self.folds}")
        if self.extraction.precision != "float32":
            faults.append(
                "fine-tuning takes its precision from the recipe: write precision ="
                f" '{self.extraction.precision}' into its stages"
            )
        if faults:
            raise ConfigError(tuple(faults))


class Work:
    """One fine-tuning, step by step."""

    prepared: Prepared

    def __init__(
        self,
        data: Any,
        backbone: str | Path | BackboneSpec | Backbone,
        recipe: str | Path | Recipe,
        config: FinetuneConfig | None,
        cache: Path | str | FeatureCache | None,
        data_options: DataOptions | None,
        reporter: Reporter | None,
        settings: Mapping[str, Any],
    ) -> None:
        self.clock = Clock()
        self.config = _settle(config, settings)
        self.recipe = load_recipe(recipe)
        self.reporter = reporter or console_reporter()
        self.cache = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
        self.notes: list[str] = []
        self.asked = backbone
        with self.clock("load"):
            self.backbone = resolve_backbone(backbone)
            self.dataset, said = open_dataset(
                data, data_options or DataOptions(), self.config.seed, self.cache, self.reporter
            )
        self.say(*said, *self.backbone.notes, f"preprocessing: {self.backbone.preprocessing}")
        self.baselines: list[Baseline] = []
        self.use = CacheUse(0, 0)

    def say(self, *notes: str) -> None:
        """Keep notes for the report, and tell them."""
        for note in notes:
            self.notes.append(note)
            self.reporter.note(note)

    # Preparing

    def prepare(self, folder: Path | None) -> None:
        """Do everything up to the plan; write it."""
        config, settings = self.config, self.config.extraction
        self.backbone.module.to(settings.resolve_device())
        classes = len(self.dataset.classes)
        self.network = Classifier(
            self.backbone, classes, dropout=self.recipe.head_dropout, seed=config.seed
        )
        resolve(self.network, self.recipe)  # faults come before anything takes time
        self.before = digests(self.backbone.module)
        self.train_part, self.validation, self.test = self._parts()
        surgical: str | None = None
        with self.clock("start"):
            if self.recipe.start == "probe":
                self._probe()
            if any("surgical" in stage.train for stage in self.recipe.stages):
                surgical = self._surgical()
        targets = resolve(self.network, self.recipe, surgical=surgical)
        self.identity = self._identity(surgical)
        self.checkpoint = None if folder is None else Checkpoint(folder / CHECKPOINT, self.identity)
        saved = None if self.checkpoint is None else self.checkpoint.load()
        self.around = Circumstances(
            train=self.train_part,
            validation=self.validation,
            preprocessing=self.backbone.preprocessing,
            store=self.cache.store,
            cache=config.stored,
            dtype=config.stored_dtype,
            batch_size=settings.batch_size,
            workers=settings.workers,
            seed=config.seed,
            decisions=() if saved is None else saved.decisions,
        )
        with self.clock("plan"):
            self.prepared = make_plan(
                self.network, self.recipe, targets, self.around, self.reporter
            )
        self.say(*self.prepared.plan.notes)
        if folder is not None:
            write_json(folder / "plan.json", to_plain(self.prepared.plan))

    def _parts(self) -> tuple[Split, Split, Split]:
        """Return the part that trains, the part that chooses, and the test split, all readable."""
        train_part, validation, note = divide(
            self.dataset, self.recipe.validation, self.config.seed
        )
        self.say(note)
        space = self.cache.space(self.backbone, self.config.extraction)
        kept = readable(
            (train_part, validation, self.dataset.test),
            self._preprocessing,
            lambda part: set(part.ids) - set(space.missing(part.ids)),
            self._workers,
            self.config.on_bad,
            self.reporter,
        )
        return kept[0], kept[1], kept[2]

    @property
    def _preprocessing(self) -> Preprocessing:
        return self.backbone.preprocessing

    @property
    def _workers(self) -> int | None:
        return self.config.extraction.workers

    def _rows(self, split: Split) -> NDArray[np.float32]:
        found = self.cache.features(
            self.backbone, split, settings=self.config.extraction, reporter=self.reporter
        )
        self.use = CacheUse(self.use.hits + found.use.hits, self.use.misses + found.use.misses)
        return found.rows

    def _probe(self) -> None:
        """Start the head from logistic regression on the features of the training part."""
        chosen = choose_linear(
            self._rows(self.train_part),
            self.train_part.labels,
            len(self.dataset.classes),
            seed=self.config.seed,
            folds=self.config.folds,
            names=self.dataset.classes,
            reporter=self.reporter,
        )
        self.say(*chosen.notes)
        assert isinstance(chosen.head, LinearHead)
        self.network.load_head(chosen.head)
        if self.config.baselines:
            predicted = chosen.head.predict(self._rows(self.test))
            self.baselines.append(
                Baseline(
                    "linear probe",
                    "logistic regression on the frozen backbone, where the recipe starts",
                    accuracy_score(self.test.labels, predicted),
                )
            )

    def _surgical(self) -> str:
        """Return the block group with the largest relative gradient, and say why."""
        part, seed = self.train_part, self.config.seed
        device = self.backbone.device
        feed = ImageFeed(part, self._preprocessing, device, workers=self._workers)
        order = np.random.default_rng([abs(seed), 2]).permutation(len(part))[:_GRADIENT_ITEMS]
        labels = torch.from_numpy(part.labels).to(device)
        found = relative_gradients(self.network, feed, labels, order)
        best = max(found, key=lambda item: item.ratio)
        others = sorted((item.ratio for item in found if item is not best), reverse=True)
        self.say(
            f"surgical: '{best.name}' has the largest gradient beside its weights"
            f" ({best.ratio:.3g}; the next {others[0]:.3g}), measured on {len(order)} items"
            if others
            else f"surgical: '{best.name}' is the only block"
        )
        return best.name

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
            "stored": [self.config.stored, self.config.stored_dtype],
            "batch_size": self.config.extraction.batch_size,
            "device": str(self.backbone.device.type),
            "surgical": surgical,
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    # Training

    def train(self, folder: Path | None) -> Run:
        """Train, evaluate once, write."""
        opener = Opener(self.network, self.prepared, self.around, self.reporter)
        device = self.backbone.device
        setup = Setup(
            network=self.network,
            targets=self.prepared.targets,
            open_road=opener.open,
            prepare=opener.prepare,
            train_labels=torch.from_numpy(self.train_part.labels).to(device),
            validation_labels=torch.from_numpy(self.validation.labels).to(device),
            seed=self.config.seed,
            stop_without_gain=self.recipe.stop_without_gain,
            decisions=tuple(cut is not None for cut in self.prepared.cuts),
        )
        with self.clock("train"):
            trained = train(setup, self.checkpoint, self.reporter)
        self.notes += trained.notes
        self.say(_best_note(trained))
        self.use = CacheUse(self.use.hits + opener.use.hits, self.use.misses + opener.use.misses)
        present = np.bincount(self.train_part.labels, minlength=len(self.dataset.classes)) > 0
        head = self.network.linear_head(present)
        with self.clock("evaluate"):
            probabilities = head.predict_proba(self._rows(self.test))
            evaluation = score(self.test.labels, probabilities, self.dataset.classes)
            if self.config.baselines:
                self._simple_baselines()
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
            cache=self.use,
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
        if folder is not None:
            write_finetune(run, folder, self.prepared.plan, trained, self.test, probabilities)
            if self.checkpoint is not None:
                self.checkpoint.remove()
        return run

    def _simple_baselines(self) -> None:
        self.baselines.append(majority_baseline(self.train_part.labels, self.test))
        pixels = pixel_baseline(
            self.train_part, self.test, seed=self.config.seed, reporter=self.reporter
        )
        if pixels is not None:
            self.baselines.append(pixels)

    def _configuration(self) -> dict[str, Any]:
        return {
            **to_plain(self.config),
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


def _settle(config: FinetuneConfig | None, settings: Mapping[str, Any]) -> FinetuneConfig:
    if config is not None and settings:
        raise ConfigError(("give either config or single settings, not both",))
    known = [f.name for f in dataclasses.fields(FinetuneConfig)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ConfigError(
            tuple(f"finetune has no setting '{name}'" for name in unknown),
            hint="it has " + ", ".join(known),
        )
    return config if config is not None else FinetuneConfig(**settings)


def _best_note(trained: Trained) -> str:
    best = trained.best
    figure = f"validation accuracy {100 * best.validation_accuracy:.1f} %"
    if best.stage < 0:
        return f"no epoch was better than the start ({figure}): the start is kept"
    return f"the weights of stage '{best.name}', epoch {best.epoch}, are kept ({figure})"


__all__ = ["FinetuneConfig", "Work"]
