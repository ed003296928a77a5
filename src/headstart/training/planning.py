"""Making the plan: find the cuts, measure a few items, decide what every stage trains on.

The network, its modes and its statistics stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import psutil
import torch
from torch import Tensor

from headstart.cut import Cut, NoCut, find_cut
from headstart.data import Preprocessing, Split, View, numbered_views
from headstart.errors import ConfigError
from headstart.progress import Reporter
from headstart.store import Store
from headstart.training import measure
from headstart.training.network import Classifier
from headstart.training.plan import Plan, PlannedCut, PlannedGroup, PlannedStage, describe_settings
from headstart.training.rows import BoundaryRows
from headstart.training.stages import Recipe, Stage
from headstart.training.targets import Target

CacheMode = Literal["auto", "on", "off"]
Dtype = Literal["float32", "float16", "bfloat16"]
_PROBE_ITEMS, _CUT_ITEMS = 8, 4
_MEMORY_SHARE = 0.25
"""Stored rows are held in memory where they fit into this share of what is free."""


@dataclass(frozen=True, eq=False)
class Circumstances:
    """What a plan depends on beside network and recipe.

    Attributes:
        train, validation: the parts.
        preprocessing: of the backbone.
        store: where rows lie.
        cache: ``auto`` stores rows where that is faster, ``on`` wherever something can be cut
            (and refuses a recipe where nothing can), ``off`` never.
        dtype: type of stored rows.
        batch_size: items a forward pass of the prefix.
        workers: threads that decode.
        seed: of the views.
        decisions: what an unfinished run decided for every stage; the same is decided again.
    """

    train: Split
    validation: Split
    preprocessing: Preprocessing
    store: Store
    cache: CacheMode = "auto"
    dtype: Dtype = "float32"
    batch_size: int = 64
    workers: int | None = None
    seed: int = 0
    decisions: tuple[bool, ...] = ()

    def views(self, stage: Stage) -> tuple[View, ...]:
        """Return the numbered views of a stage."""
        return numbered_views(stage.views, seed=self.seed) if stage.views else ()

    def rows_of(self, network: Classifier, cut: Cut, stage: Stage) -> BoundaryRows:
        """Return the rows of a cut, on the network as it is now."""
        return BoundaryRows(
            cut,
            self.preprocessing,
            self.store,
            precision=stage.precision,
            device=network.source.device,
            batch_size=self.batch_size,
            workers=self.workers,
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A plan, and the cut of every stage that will read stored rows (None elsewhere)."""

    plan: Plan
    targets: tuple[Target, ...]
    cuts: tuple[Cut | None, ...]
    held: int = 0


def memory_for_rows() -> int:
    """Return how many bytes of stored rows may be held in memory."""
    return int(_MEMORY_SHARE * psutil.virtual_memory().available)


def make_plan(
    network: Classifier,
    recipe: Recipe,
    targets: Sequence[Target],
    around: Circumstances,
    reporter: Reporter,
) -> Prepared:
    """Measure a few items and decide what every stage trains on.

    Raises:
        ConfigError: ``cache`` is ``on`` and a stage cannot be cut; all such stages together.
    """
    example = network.source.probe(_PROBE_ITEMS)
    decode = measure.decode_seconds(around.train, around.preprocessing, around.workers)
    held = memory_for_rows()
    planned: list[PlannedStage] = []
    cuts: list[Cut | None] = []
    faults: list[str] = []
    touched: set[str] = set()
    with reporter.task("plan", len(targets), "stages") as task:
        for number, target in enumerate(targets):
            cut = _find(network, target, example, around)
            if isinstance(cut, NoCut) and around.cache == "on":
                faults.append(f"stage '{target.stage.name}' cannot read stored rows: {cut.reason}")
            # Rows are keyed by content: they are known now only if nothing before changes it.
            stable = not touched.intersection(target.freeze.frozen)
            stable = stable and target.stage.norm != "reestimated"
            stage, used = _plan_stage(
                network, target, cut, around, example, decode, held, number, stable
            )
            planned.append(stage)
            cuts.append(used)
            touched |= set(target.freeze.trainable)
            task.advance()
    if faults:
        raise ConfigError(tuple(faults), hint="freeze more, or use --cache auto")
    plan = Plan(
        recipe.name,
        recipe.start,
        len(around.train),
        len(around.validation),
        tuple(planned),
        _free(around.store.root),
        tuple(_notes(targets)),
    )
    return Prepared(plan, tuple(targets), tuple(cuts), held)


def _find(
    network: Classifier, target: Target, example: Tensor, around: Circumstances
) -> Cut | NoCut:
    if around.cache == "off":
        return NoCut("the cache is off")
    if target.stage.frozen != "frozen":
        return NoCut(
            "the frozen part normalises by the batch and has dropout on: its rows would depend on"
            " their batch and on chance"
        )
    # Estimated times place the boundary at the same spot in every run and on every machine, so
    # that a second run finds the rows of the first. Whether to read them at all is measured.
    return find_cut(network, example[:_CUT_ITEMS], target.freeze, dtype=around.dtype, measure=False)


def _plan_stage(
    network: Classifier,
    target: Target,
    cut: Cut | NoCut,
    around: Circumstances,
    example: Tensor,
    decode: float,
    held: int,
    number: int,
    stable: bool,
) -> tuple[PlannedStage, Cut | None]:
    stage = target.stage
    classes = network.head.out_features
    batch = example[: min(len(example), stage.batch_size)]
    with measure.as_planned(network, target.freeze.trainable):
        if isinstance(cut, Cut):
            with torch.no_grad():
                boundary = tuple(t.clone() for t in cut.prefix(batch))
            behind = measure.step_cost(cut.suffix, boundary, classes, stage.precision)
            before = measure.forward_seconds(cut.prefix, (batch,), stage.precision)
            # The frozen part records nothing for the backward pass: the two add up to the whole.
            whole = dataclasses.replace(behind, seconds=before + behind.seconds)
        else:
            whole = measure.step_cost(network, (batch,), classes, stage.precision)
    n, n_validation = len(around.train), len(around.validation)
    planned: PlannedCut | None = None
    reading = False
    storing, epoch = 0.0, n * (whole.seconds + decode) + n_validation * (whole.seconds / 2 + decode)
    cost = whole
    if isinstance(cut, Cut):
        planned = _plan_cut(network, target, cut, around, decode + before, held, stable)
        read_epoch = (n + n_validation) * planned.read_seconds
        read_epoch += (n + n_validation / 3) * behind.seconds
        missing = planned.rows if planned.missing is None else planned.missing
        read_storing = missing * planned.prefix_seconds
        reading, reason = _decide(
            around, number, stage, planned, (read_storing, read_epoch), epoch, missing
        )
        planned = dataclasses.replace(planned, read=reading, reason=reason)
        if reading:
            storing, epoch, cost = read_storing, read_epoch, behind
    parameters = dict(network.named_parameters())
    live = [parameters[name] for name in network.live_tensors() if name in parameters]
    trainable = sum(parameters[name].numel() for name in target.freeze.trainable)
    states = {"sgd": 1 if stage.momentum else 0, "adam": 2, "adamw": 2}[stage.optimizer]
    memory = sum(p.numel() * p.element_size() for p in network.parameters())
    memory += 4 * trainable * (1 + states + (1 if stage.ema else 0))
    memory += cost.activations * stage.batch_size
    if planned is not None and planned.read and planned.in_memory:
        memory += planned.bytes
    return (
        PlannedStage(
            name=stage.name,
            groups=target.groups,
            trainable=trainable,
            parameters=sum(p.numel() for p in live),
            rates=_groups(network, target),
            settings=describe_settings(stage),
            policy=str(target.freeze),
            cut=planned,
            no_cut="" if isinstance(cut, Cut) else cut.reason,
            epochs=stage.epochs,
            seconds_storing=storing,
            seconds_per_epoch=epoch,
            memory=memory,
        ),
        cut if isinstance(cut, Cut) and reading else None,
    )


def _plan_cut(
    network: Classifier,
    target: Target,
    cut: Cut,
    around: Circumstances,
    prefix_seconds: float,
    held: int,
    stable: bool,
) -> PlannedCut:
    views = around.views(target.stage)
    rows = len(around.train) * max(1, len(views)) + len(around.validation)
    nbytes = rows * cut.bytes_per_item
    missing: int | None = None
    if stable:
        stored = around.rows_of(network, cut, target.stage)
        wanted: Sequence[View | None] = views or (None,)
        missing = sum(stored.missing(around.train, view) for view in wanted)
        missing += stored.missing(around.validation)
    fits = nbytes <= held
    return PlannedCut(
        boundary=tuple((spec.name, spec.shape, spec.dtype) for spec in cut.boundary),
        bytes_per_item=cut.bytes_per_item,
        rows=rows,
        bytes=nbytes,
        missing=missing,
        prefix_seconds=prefix_seconds,
        read_seconds=measure.read_seconds(around.store.root, cut.bytes_per_item, fits),
        in_memory=fits,
        read=True,
        reason="",
    )


def _decide(
    around: Circumstances,
    number: int,
    stage: Stage,
    planned: PlannedCut,
    reading: tuple[float, float],
    recomputing: float,
    missing: int,
) -> tuple[bool, str]:
    """Return whether the stage reads stored rows, and why."""
    if number < len(around.decisions):
        kept = around.decisions[number]
        return kept, "as the unfinished run decided"
    needed = missing * (planned.bytes_per_item + 80)
    free = _free(around.store.root)
    if needed > 0.9 * free:
        return False, f"the rows need {needed:,} bytes, and the disk has {free:,} free"
    if around.cache == "on":
        return True, "asked for"
    storing, epoch = reading
    read_total = storing + stage.epochs * epoch
    whole_total = stage.epochs * recomputing
    words = f"{read_total:.3g} s with stored rows against {whole_total:.3g} s without"
    if read_total <= whole_total:
        return True, f"reading is cheaper: {words}"
    return False, f"recomputing is cheaper: {words}"


def _groups(network: Classifier, target: Target) -> tuple[PlannedGroup, ...]:
    parameters = dict(network.named_parameters())
    return tuple(
        PlannedGroup(
            rate.name,
            sum(parameters[name].numel() for name in rate.parameters),
            rate.lr,
            rate.weight_decay,
        )
        for rate in target.rates
    )


def _notes(targets: Sequence[Target]) -> list[str]:
    notes = []
    kinds = [target.stage.optimizer for target in targets]
    if any(one != two for one, two in pairwise(kinds)):
        notes.append("the optimizer changes between stages, so its state begins anew there")
    if any(target.stage.norm == "batch" for target in targets):
        notes.append(
            "batch norm normalises by the mini-batch where it trains, and its running statistics"
            " move; norm = 'running' (the default) keeps it in inference mode"
        )
    return notes


def _free(root: Path) -> int:
    place = root.absolute()
    while not place.exists():
        place = place.parent
    return int(psutil.disk_usage(str(place)).free)


__all__ = [
    "CacheMode",
    "Circumstances",
    "Dtype",
    "Prepared",
    "make_plan",
    "memory_for_rows",
]
