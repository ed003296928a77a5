"""Making the plan: find the cuts, measure a few items, decide what every stage trains on.

The network, its modes and its statistics stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import psutil
import torch

from headstart.core.errors import ConfigError
from headstart.core.progress import Reporter
from headstart.finetuning import measure
from headstart.finetuning.circumstances import Circumstances
from headstart.finetuning.ledger import Ledger
from headstart.finetuning.network import Classifier, network_groups
from headstart.finetuning.plan import (
    Plan,
    PlannedCut,
    PlannedGroup,
    PlannedPlace,
    PlannedStage,
    describe_settings,
)
from headstart.finetuning.stages import Recipe, Stage
from headstart.finetuning.targets import Target
from headstart.finetuning.weighing import StageCosts, choose, weigh
from headstart.prefix import Candidate, Cut, NoCut, Recording, candidates, record

_MEMORY_SHARE = 0.25
"""Stored rows are held in memory where they fit into this share of what is free."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A plan, and the cut of every stage that will read stored rows (None elsewhere)."""

    plan: Plan
    targets: tuple[Target, ...]
    cuts: tuple[Cut | None, ...]
    held: int = 0

    @property
    def decisions(self) -> tuple[str, ...]:
        """For every stage the place of its cut, or nothing; see :class:`Circumstances`."""
        return tuple(
            stage.cut.at.place if stage.cut is not None and cut is not None else ""
            for stage, cut in zip(self.plan.stages, self.cuts, strict=True)
        )


def memory_for_rows(device: torch.device) -> int:
    """Return how many bytes of stored rows may be held, which is done where the network is."""
    free = int(psutil.virtual_memory().available)
    if device.type == "cuda":
        free = min(free, int(torch.cuda.mem_get_info(device)[0]))
    return int(_MEMORY_SHARE * free)


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
    held = memory_for_rows(network.source.device)
    faults: list[str] = []
    touched: set[str] = set()
    moved = False  # whether statistics of frozen parts have changed
    stages: list[tuple[PlannedStage, Cut | None]] = []
    with (
        reporter.task("plan", len(targets), "stages") as task,
        measure.Disk(around.store.root) as disk,
    ):
        planner = _Planner(network, around, disk, held)
        disk_free = planner.ledger.free
        for number, target in enumerate(targets):
            # Rows are keyed by content: they are known now only if nothing before changes it.
            moved = moved or target.stage.norm == "reestimated"
            stable = not moved and not touched.intersection(target.freeze.frozen)
            found = planner.stage(number, target, stable)
            if around.cache == "on" and found[0].cut is None:
                name, reason = target.stage.name, found[0].no_cut
                faults.append(f"stage '{name}' cannot read stored rows: {reason}")
            stages.append(found)
            touched |= set(target.freeze.trainable)
            moved = moved or target.stage.frozen == "requires-grad-only"
            task.advance()
    if faults:
        raise ConfigError(tuple(faults), hint="freeze more, or use --cache auto")
    plan = Plan(
        recipe.name,
        recipe.start,
        len(around.train),
        len(around.validation),
        tuple(stage for stage, _ in stages),
        disk_free,
        tuple(_notes(targets)),
    )
    return Prepared(plan, tuple(targets), tuple(cut for _, cut in stages), held)


class _Planner:
    """Plans the stages of one network, in order; what they have in common is measured once."""

    def __init__(
        self, network: Classifier, around: Circumstances, disk: measure.Disk, held: int
    ) -> None:
        self.network, self.around, self.disk, self.held = network, around, disk, held
        self.ledger = Ledger(network, around)
        self.example = network.source.probe(measure.probe_items(network))
        self.decode = measure.decode_seconds(around.train, around.preprocessing, around.workers)
        self.blocks = {group.name: group.modules for group in network_groups(network)}
        self.recording: Recording | None = None

    def stage(self, number: int, target: Target, stable: bool) -> tuple[PlannedStage, Cut | None]:
        """Plan a stage; return its cut if it reads stored rows.

        Args:
            number: of the stage.
            target: the stage in the network.
            stable: whether its frozen part is now what it will be when the stage begins.
        """
        stage, around = target.stage, self.around
        batch = self.example[: min(len(self.example), stage.batch_size)]
        found = self._candidates(target)
        usual: Cut | NoCut = found if isinstance(found, NoCut) else _usual(found).cut()
        classes = self.network.head.out_features
        with measure.as_planned(self.network, target.freeze.trainable):
            if isinstance(usual, Cut):
                rows, before = measure.boundary_of(usual.prefix, batch, stage.precision)
                if stage.precision == "float32":  # both times are good ones: the better counts
                    before = min(before, usual.prefix_seconds)
                step = measure.step_cost(usual.suffix, rows, classes, stage.precision)
            else:
                before = 0.0
                step = measure.step_cost(self.network, (batch,), classes, stage.precision)
        costs = StageCosts(
            n_train=len(around.train),
            n_validation=len(around.validation),
            rows=len(around.train) * max(1, stage.views) + len(around.validation),
            epochs=stage.epochs,
            decode=self.decode,
            prefix=before,
            step=step.seconds,
            memory=self.held,
            free=self.ledger.free,
        )
        if isinstance(usual, NoCut) or isinstance(found, NoCut):
            reason = usual.reason if isinstance(usual, NoCut) else ""
            return self._planned(target, costs, step.activations, None, reason), None
        planned, cut = self._cut(number, target, found, costs, stable)
        return self._planned(target, costs, step.activations, planned, ""), cut

    def _candidates(self, target: Target) -> tuple[Candidate, ...] | NoCut:
        if self.around.cache == "off":
            return NoCut("the cache is off")
        if target.stage.frozen != "frozen":
            return NoCut(
                "the frozen part normalises by the batch and has dropout on: its rows would"
                " depend on their batch and on chance"
            )
        if self.recording is None:
            self.recording = record(self.network, self.example)
        return candidates(self.recording, target.freeze, self.blocks, dtype=self.around.dtype)

    def _cut(
        self,
        number: int,
        target: Target,
        found: tuple[Candidate, ...],
        costs: StageCosts,
        stable: bool,
    ) -> tuple[PlannedCut, Cut | None]:
        """Weigh the candidates and choose; return the cut if the stage reads its rows."""
        around, stage = self.around, target.stage
        usual = found.index(_usual(found))
        missing = [self.ledger.missing(candidate, stage, stable) for candidate in found]
        places = weigh(found, missing, costs, self.disk)
        kept = around.decisions[number] if number < len(around.decisions) else None
        taken, why = choose(places, usual, stage, kept or "")
        cut = found[taken].cut()
        if isinstance(cut, NoCut):
            taken, why, cut = usual, "", found[usual].cut()
        images = stage.epochs * costs.images_epoch
        reading, reason = self._decide(stage, places[taken], images, kept)
        if reading:
            self.ledger.promise(found[taken], places[taken], stage, stable)
        if why:
            reason = f"{reason}; cut {places[taken].place}, since {why}"
        planned = PlannedCut(places, taken, costs.rows, images, reading, reason)
        return planned, cut if reading and isinstance(cut, Cut) else None

    def _decide(
        self, stage: Stage, at: PlannedPlace, images: float, kept: str | None
    ) -> tuple[bool, str]:
        """Return whether a stage reads stored rows, and why."""
        if not at.on_disk and kept != "":
            free = self.ledger.free
            return False, f"the rows need {at.bytes:,} bytes, and the disk has {free:,} free"
        if kept is not None:
            return bool(kept), "as the unfinished run decided"
        if self.around.cache == "on":
            return True, "asked for"
        if stage.mixup > 0 or stage.noise > 0:
            return True, "mixup and noise act on the stored rows"  # and not on the clock
        words = f"{_spelled(at.seconds)} with stored rows against {_spelled(images)} without"
        if at.seconds <= images:
            return True, f"reading is cheaper: {words}"
        return False, f"recomputing is cheaper: {words}"

    def _planned(
        self,
        target: Target,
        costs: StageCosts,
        activations: int,
        cut: PlannedCut | None,
        no_cut: str,
    ) -> PlannedStage:
        network, stage = self.network, target.stage
        parameters = dict(network.named_parameters())
        live = [parameters[name] for name in network.live_tensors() if name in parameters]
        trainable = sum(parameters[name].numel() for name in target.freeze.trainable)
        states = {"sgd": 1 if stage.momentum else 0, "adam": 2, "adamw": 2}[stage.optimizer]
        memory = sum(p.numel() * p.element_size() for p in network.parameters())
        memory += 4 * trainable * (1 + states + (1 if stage.ema else 0))
        memory += activations * stage.batch_size
        at = cut.at if cut is not None and cut.read else None
        if at is not None and at.in_memory:
            memory += at.bytes
        return PlannedStage(
            name=stage.name,
            groups=target.groups,
            trainable=trainable,
            parameters=sum(p.numel() for p in live),
            rates=_groups(network, target),
            settings=describe_settings(stage),
            policy=str(target.freeze),
            cut=cut,
            no_cut=no_cut,
            epochs=stage.epochs,
            seconds_storing=0.0 if at is None else at.seconds_storing,
            seconds_per_epoch=costs.images_epoch if at is None else at.seconds_per_epoch,
            memory=memory,
        )


def _spelled(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def _usual(found: Sequence[Candidate]) -> Candidate:
    """Return the candidate that is chosen in every run and on every machine.

    It is placed by estimated times, so that a second run finds the rows of the first.
    """
    return next(candidate for candidate in found if candidate.chosen)


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


__all__ = ["Prepared", "make_plan", "memory_for_rows"]
