"""The main job: embed once, train a head, evaluate once, and leave a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.commands.backbone_spec import BackboneSpec, resolve_backbone
from headstart.commands.baselines import majority_baseline, pixel_baseline
from headstart.commands.clock import Clock
from headstart.commands.embedding import Embedded, embed
from headstart.commands.environment import describe_environment
from headstart.commands.fingerprints import backbone_fingerprint, split_fingerprint
from headstart.commands.results import baselines_once, trained_once
from headstart.commands.run_folder import Run, prepare_folder
from headstart.commands.run_report import write_run
from headstart.commands.sources import DataOptions, open_dataset
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Reporter, console_reporter
from headstart.core.records import Baseline, CacheUse, to_plain
from headstart.core.seeds import seed_faults
from headstart.data.reading import OnBad
from headstart.evaluation import evaluate as score
from headstart.extraction import Extraction
from headstart.heads.registry import Trained, TrainingRows, head_fault, head_kind
from headstart.store import Store


@dataclass(frozen=True)
class FitConfig:
    """The settings of :func:`fit`.

    Attributes:
        head: a kind of head in the registry (:func:`headstart.heads.head_kinds`). ``linear``
            (multinomial logistic regression, its penalty chosen by cross-validation inside the
            training split) is the default, since it is hard to beat on good features.
        head_options: options of that kind, by name.
        folds: folds of the cross-validation, where the head uses one.
        seed: of every random choice.
        extraction: batch size, precision and device of the backbone.
        on_bad: ``raise`` at the end of reading if items cannot be read, or ``skip`` them.
        baselines: whether to compute figures to beat.
    """

    head: str = "linear"
    head_options: Mapping[str, Any] = field(default_factory=dict)
    folds: int = 5
    seed: int = 0
    extraction: Extraction = field(default_factory=Extraction)
    on_bad: OnBad = "raise"
    baselines: bool = True

    def __post_init__(self) -> None:
        faults = []
        fault = head_fault(self.head)
        faults += [fault] if fault else head_kind(self.head).option_faults(self.head_options)
        if self.on_bad not in ("raise", "skip"):
            faults.append(f"bad files are raised or skipped, not {self.on_bad!r}")
        if self.folds < 2:
            faults.append(f"folds must be at least 2, not {self.folds}")
        faults += seed_faults(self.seed)
        if faults:
            raise ConfigError(tuple(faults))


def fit(
    data: Any,
    backbone: str | Path | BackboneSpec | Backbone = "headstart/glyphs",
    *,
    config: FitConfig | None = None,
    out: Path | str | None = None,
    write: bool = True,
    cache: Path | str | FeatureCache | None = None,
    data_options: DataOptions | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> Run:
    """Train a head on frozen features and evaluate it once on the test split.

    The backbone runs once an item, in evaluation mode; its features are kept in the cache, so
    that another head, another split or added images cost only what is new.

    Args:
        data: a :class:`~headstart.data.Dataset`, or anything :func:`headstart.load_data` takes.
        backbone: a name, a :class:`~headstart.backbones.Backbone`, or how to build one.
        config: all settings at once.
        out: the run folder; None makes ``runs/TIME-NAME``.
        write: whether to write a run folder at all.
        cache: folder of the feature cache; None: ``$HEADSTART_CACHE`` or the platform's.
        data_options: how to read the data, where its columns or its test split are not obvious.
        reporter: where notes and progress go; None: standard error.
        **settings: single fields of :class:`FitConfig`, such as ``head="mlp"`` or ``seed=1``.

    Returns:
        The run: head, scores with 95 % intervals, baselines, and where it was written.

    Raises:
        DataError: the data cannot be read or has one class only.
        BadFilesError: items cannot be read; everything readable has been embedded and kept.
        BackboneError, StoreError, HeadError, ConfigError: see the rooms they come from.
    """
    config = _settle(config, settings)
    reporter = reporter or console_reporter()
    clock = Clock()
    store = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
    with clock("load"):
        network = resolve_backbone(backbone)
        dataset, said = open_dataset(
            data, data_options or DataOptions(), config.seed, store, reporter
        )
    folder = prepare_folder(out, f"{dataset.name}-{config.head}") if write else None
    notes = [*said, *network.notes, f"preprocessing: {network.preprocessing}"]
    for note in notes:
        reporter.note(note)
    with clock("extract"):
        embedded = embed((network,), dataset, store, config.extraction, config.on_bad, reporter)
    notes += tell((*_cache_note(embedded.use), *embedded.unseen_note()), reporter)
    fingerprints = {
        "backbone": backbone_fingerprint(
            network, config.extraction.precision, config.extraction.storage
        ),
        "train": split_fingerprint(embedded.train),
        "test": split_fingerprint(embedded.test),
    }
    with clock("fit"):
        trained, found = _trained(store.store, fingerprints, embedded, config, reporter)
    notes += tell(trained.notes, reporter)
    if found:
        notes += tell(("this head was trained before on the same rows: taken as it is",), reporter)
    with clock("evaluate"):
        probabilities = trained.head.predict_proba(embedded.test_rows())
        evaluation = score(embedded.test.labels, probabilities, dataset.classes)
        baselines = (
            _baselines(store.store, fingerprints, embedded, config, reporter)
            if config.baselines
            else ()
        )
    run = Run(
        head=trained.head,
        classes=dataset.classes,
        evaluation=evaluation,
        baselines=baselines,
        curves=trained.curves,
        configuration={**to_plain(config), "data": dataset.name, "chosen": dict(trained.chosen)},
        environment=describe_environment(),
        fingerprints=fingerprints,
        cache=embedded.use,
        seconds=clock.seconds(),
        images_per_second=embedded.images_per_second,
        n_train=len(embedded.train),
        n_test=len(embedded.test),
        notes=tuple(notes),
        spec=backbone if isinstance(backbone, BackboneSpec) else BackboneSpec.of(network),
        backbone=network,
        folder=folder,
    )
    if folder is not None:
        write_run(run, folder, embedded.test, probabilities)
    return run


def _settle(config: FitConfig | None, settings: Mapping[str, Any]) -> FitConfig:
    if config is not None and settings:
        raise ConfigError(("give either config or single settings, not both",))
    if config is not None:
        return config
    unknown = sorted(set(settings) - set(FitConfig.__dataclass_fields__))
    if unknown:
        raise ConfigError(
            tuple(f"fit has no setting '{name}'" for name in unknown),
            hint="it has " + ", ".join(FitConfig.__dataclass_fields__),
        )
    return FitConfig(**settings)


def _trained(
    store: Store,
    fingerprints: Mapping[str, str],
    embedded: Embedded,
    config: FitConfig,
    reporter: Reporter,
) -> tuple[Trained, bool]:
    """Train the head, or find it: it is a function of rows, labels and these settings."""
    present = np.unique(embedded.train.labels)
    if len(present) < 2:
        raise DataError(
            f"the training split holds one class only ('{embedded.train.classes[present[0]]}')",
            hint="a classifier needs items of two classes or more",
        )
    key = {
        "backbone": fingerprints["backbone"],
        "train": fingerprints["train"],
        "head": head_kind(config.head).name,
        "options": config.head_options,
        "folds": config.folds,
        "seed": config.seed,
    }
    return trained_once(store, key, lambda: _train(embedded, config, reporter))


def _train(embedded: Embedded, config: FitConfig, reporter: Reporter) -> Trained:
    kind = head_kind(config.head)
    rows = TrainingRows(
        embedded.train_rows(),
        embedded.train.labels,
        len(embedded.train.classes),
        names=embedded.train.classes,
        seed=config.seed,
        reporter=reporter,
    )
    return kind.fit(rows, kind.settings(config.head_options, folds=config.folds))


def _baselines(
    store: Store,
    fingerprints: Mapping[str, str],
    embedded: Embedded,
    config: FitConfig,
    reporter: Reporter,
) -> tuple[Baseline, ...]:
    def compute() -> tuple[Baseline, ...]:
        majority = majority_baseline(embedded.train.labels, embedded.test)
        pixels = pixel_baseline(embedded.train, embedded.test, seed=config.seed, reporter=reporter)
        return (majority,) if pixels is None else (majority, pixels)

    key = {"train": fingerprints["train"], "test": fingerprints["test"], "seed": config.seed}
    return baselines_once(store, key, compute)


def _cache_note(use: CacheUse) -> tuple[str, ...]:
    if use.misses == 0:
        return (f"all {use.hits:,} feature rows came from the cache: no forward pass was made",)
    if use.hits:
        return (f"{use.hits:,} feature rows came from the cache, {use.misses:,} were computed",)
    return ()


def tell(notes: tuple[str, ...], reporter: Reporter) -> tuple[str, ...]:
    """Give notes to the reporter, and return them for the record."""
    for note in notes:
        reporter.note(note)
    return notes
