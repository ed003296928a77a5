"""What one backbone is worth on one training split: found out once, and kept."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from headstart._version import __version__
from headstart.backbones import Backbone
from headstart.commands.kept_rows import joined_rows
from headstart.commands.recall import recalled_backbone
from headstart.commands.run_facts import backbone_fingerprint, split_fingerprint
from headstart.commands.session import Session
from headstart.commands.settings import BackboneSpec
from headstart.commands.sweep.options import SweepConfig
from headstart.core.errors import ConfigError
from headstart.core.records import CacheUse, Score
from headstart.core.row_keys import numbered
from headstart.data import Split
from headstart.data.source import column_names
from headstart.data.table_columns import Encodings, encoded_columns, fitted_columns
from headstart.evaluation.item_scores import (
    item_scores,
    mean_item_score,
    paired_item_difference,
)
from headstart.evaluation.tasks import CLASSIFICATION
from headstart.extraction import Extractor
from headstart.heads.nested import nested_cross_validation, nested_predictions
from headstart.heads.registry import TrainingRows, automatic_heads
from headstart.heads.transferability import h_score, log_evidence, log_evidence_of_values
from headstart.modules.modes import evaluation_mode
from headstart.store import FeatureSet, Result, result_key

_TIMED_ITEMS = 8
_TIMED_SECONDS = 3.0
_TIMES = 3, 20
_COMPARED_ITEMS = 1000


@dataclass(frozen=True, eq=False)
class Probe:
    """What was found out of a backbone.

    Attributes:
        predicted: the class of each training item by a head that did not see it ``(n,) int64``, or
            its memberships or numbers ``(n, k)``.
        labels: the true ones.
        features: the width of a row.
        milliseconds: of the network for one item, in batches of 8, on this machine.
        megabytes: of the weights that run.
        licence: of the weights; empty: not stated.
        scores: transferability scores by name, higher is better.
        heads: the head of each fold.
        computed: rows that were embedded in this call.
        found: whether all of it was known from an earlier call.
        task: what is predicted.
        groups: ``(n,)``, what each item belongs to; None: nothing says so.
    """

    predicted: np.ndarray
    labels: np.ndarray
    features: int
    milliseconds: float
    megabytes: float
    licence: str
    scores: Mapping[str, float]
    heads: tuple[str, ...]
    computed: int = 0
    found: bool = False
    task: str = CLASSIFICATION.name
    groups: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        """``(n,)``, how far each item is told right; see :func:`item_scores`."""
        return item_scores(self.task, self.labels, self.predicted)

    @property
    def score(self) -> Score:
        """The figure on held-out training items, with an interval that counts groups."""
        return mean_item_score(self.right, self.task, groups=self.groups)

    def ahead_of(self, other: Probe) -> Score:
        """Return its figure less that of another on the same items, paired."""
        return paired_item_difference(self.right, other.right, groups=self.groups)


@dataclass(frozen=True)
class ProbeSettings:
    """How backbones are probed, all alike.

    Attributes:
        heads: to choose from in every fold.
        folds: that are held out in turn.
        seed: of the folds.
        columns: of the table that join the features; of all backbones alike.
        class_weight: ``balanced``, or None.
    """

    heads: tuple[str, ...]
    folds: int
    seed: int
    columns: tuple[str, ...] = ()
    class_weight: str | None = None


def settings_for(train: Split, config: SweepConfig, columns: str | None) -> ProbeSettings:
    """Return how to probe: with many items, heads are not compared once more in every fold."""
    default = automatic_heads(train.task)
    default = default if len(train) <= _COMPARED_ITEMS else default[:1]
    names = () if columns is None else column_names(columns)
    heads = default if config.heads is None else config.heads
    return ProbeSettings(heads, config.folds, config.seeds[0], names, config.class_weight)


def probe_backbone(
    spec: BackboneSpec, train: Split, settings: ProbeSettings, session: Session
) -> Probe:
    """Embed what is missing, train heads beside every fold, and measure what the network costs.

    The test split is neither embedded nor read.

    Args:
        spec: how to build it.
        train: the training items.
        settings: of the heads.
        session: with the cache and the settings of the run.

    Raises:
        HeadstartError, RuntimeError, MemoryError: it cannot be built or run.
    """
    network = recalled_backbone(spec, session.cache.store)
    shape = network.feature_shape()
    if len(shape) != 1:
        raise ConfigError(
            (f"its features have the shape {shape} per item, and a head needs one row",)
        )
    run = session.run
    # Each backbone has a precision of its own, where that is to be found out.
    extraction = session.cache.settled(run.extraction(), (network,), (train,), session.reporter)
    key = {
        "headstart": __version__,
        "backbone": backbone_fingerprint(network, extraction.precision, extraction.storage),
        "train": split_fingerprint(train),
        "on_bad": run.on_bad,
        "heads": list(settings.heads),
        "folds": settings.folds,
        "seed": settings.seed,
        "version": 1,
    }
    if settings.class_weight is not None:
        key["class_weight"] = settings.class_weight
    encodings: Encodings = ()
    if settings.columns:
        encodings, _ = fitted_columns(train, settings.columns)
        key["columns"] = encoded_columns(train, encodings)
    computed = CacheUse(0, 0)

    def compute() -> Probe:
        nonlocal computed
        with Extractor((network,), extraction, session.cache.plans()) as extractor:
            found = session.cache.features(
                extractor, train, on_bad=run.on_bad, reporter=session.reporter
            )
        computed = found.use
        known = train.take(found.kept)
        rows: Any = found.sets[0]
        if encodings:
            rows = joined_rows(rows, encoded_columns(known, encodings))
        return _probe(network, rows, known, settings, session)

    kept = session.cache.store.results("probes")
    probe, found = kept.once(result_key(key), compute, _pack, _unpack)
    gc.collect()  # of a hundred networks, one is in memory
    return replace(probe, computed=computed.misses, found=found, task=train.task)


def _probe(
    network: Backbone,
    rows: FeatureSet | np.ndarray,
    train: Split,
    settings: ProbeSettings,
    session: Session,
) -> Probe:
    x, k = np.asarray(rows[0 : len(rows)]), len(train.classes)
    options: dict[str, Any] = {"heads": settings.heads, "coarse": True}
    if settings.class_weight is not None:
        options["class_weight"] = settings.class_weight
    shared: dict[str, Any] = {
        "keys": train.ids,
        "groups": train.groups,
        "names": train.classes,
        "seed": settings.seed,
        "reporter": session.reporter,
    }
    if train.targets is None:
        nested = nested_cross_validation(
            x, train.labels, k, head="auto", head_options=options, folds=settings.folds, **shared
        )
        predicted, chosen = nested.probabilities.argmax(axis=1), nested.chosen
        scores = {"LogME": log_evidence(x, train.labels, k), "H-score": h_score(x, train.labels, k)}
    else:
        training = TrainingRows(x, train.y, k, task=train.task, **shared)
        said = nested_predictions(training, head_options=options, folds=settings.folds)
        predicted, chosen = said.predicted, said.chosen
        scores = {"LogME": log_evidence_of_values(x, train.targets)}
    tensors = dict(network.module.named_parameters()) | dict(network.module.named_buffers())
    running = [tensors[name] for name in network.live.tensors if name in tensors]
    return Probe(
        predicted=predicted,
        labels=np.asarray(train.y),
        features=x.shape[1],
        milliseconds=1000 * _seconds_per_item(network),
        megabytes=sum(t.numel() * t.element_size() for t in running) / 1e6,
        licence=network.about.licence,
        scores=scores,
        heads=tuple(str(each["head"]) for each in chosen),
        task=train.task,
        groups=None if train.groups is None else numbered(train.groups)[0],
    )


def _seconds_per_item(network: Backbone) -> float:
    """Return the time of the network alone: the best batch, since others only slow it down."""
    probe = network.probe(_TIMED_ITEMS).to(network.device)
    times: list[float] = []
    with torch.inference_mode(), evaluation_mode(network.module):
        while len(times) <= _TIMES[0] or (len(times) < _TIMES[1] and sum(times) < _TIMED_SECONDS):
            begun = time.perf_counter()
            network.features(probe).cpu()
            times.append(time.perf_counter() - begun)
    return min(times[1:]) / _TIMED_ITEMS


def _pack(made: Probe) -> Result:
    names = ("features", "milliseconds", "megabytes", "licence")
    values = {name: getattr(made, name) for name in names}
    arrays = {"predicted": made.predicted, "labels": made.labels}
    if made.groups is not None:
        arrays["groups"] = made.groups
    return Result(arrays, {**values, "scores": dict(made.scores), "heads": list(made.heads)})


def _unpack(found: Result) -> Probe:
    values = found.values
    return Probe(
        found.arrays["predicted"],
        found.arrays["labels"],
        int(values["features"]),
        float(values["milliseconds"]),
        float(values["megabytes"]),
        str(values["licence"]),
        dict(values["scores"]),
        tuple(values["heads"]),
        groups=found.arrays.get("groups"),
    )


__all__ = ["Probe", "ProbeSettings", "probe_backbone", "settings_for"]
