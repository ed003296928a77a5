"""Make the plan: find the cuts, measure a few items, and decide what every stage trains on.

The network, its modes and its statistics are left unchanged. What is measured, and how the decision
follows from it, is all in :mod:`headstart.finetuning.costs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from headstart.core.errors import ConfigError
from headstart.data import decode_seconds
from headstart.finetuning import costs
from headstart.finetuning.feeds import Feeds
from headstart.finetuning.gradients import gradients_for
from headstart.finetuning.network import network_groups
from headstart.finetuning.plan import Plan, PlannedCut, PlannedGroup, PlannedStage
from headstart.finetuning.recipe import Recipe
from headstart.finetuning.targets import Target
from headstart.prefix import Candidate, Cut, NoCut, Recording, candidates, record


@dataclass(frozen=True, eq=False)
class Prepared:
    """A plan with the objects that carry it out.

    Attributes:
        plan: in plain values.
        targets: the stages, resolved in the network.
        cuts: for every stage the cut whose rows it trains on; None: it trains from images.
        memory: bytes of rows that may be held in memory.
    """

    plan: Plan
    targets: tuple[Target, ...]
    cuts: tuple[Cut | None, ...]
    memory: int = 0

    @property
    def decisions(self) -> tuple[str, ...]:
        """For every stage where it is cut; empty where it trains from images."""
        return tuple(
            stage.cut.at.place if stage.cut is not None and cut is not None else ""
            for stage, cut in zip(self.plan.stages, self.cuts, strict=True)
        )


def make_plan(
    recipe: Recipe,
    targets: Sequence[Target],
    feeds: Feeds,
    stored: costs.StoredMode = "auto",
    decisions: Sequence[str] = (),
) -> Prepared:
    """Measure a few items and decide what every stage trains on.

    Args:
        recipe: the recipe.
        targets: its stages, resolved in the network.
        feeds: the items and the network.
        stored: ``auto`` stores rows where that is faster, ``on`` wherever something can be cut
            (and refuses a recipe where nothing can), ``off`` never.
        decisions: what an unfinished run decided (:attr:`Prepared.decisions`), to decide the same.

    Raises:
        ConfigError: ``stored`` is ``on`` and stages cannot be cut; all of them are named.
    """
    faults: list[str] = []
    touched: set[str] = set()
    moved = False  # whether statistics of frozen parts have changed
    stages: list[tuple[PlannedStage, Cut | None]] = []
    with (
        feeds.reporter.task("plan", len(targets), "stages") as task,
        costs.Disk(feeds.store.root) as disk,
    ):
        planner = _Planner(feeds, disk, stored)
        bytes_free = planner.rows.disk
        for number, target in enumerate(targets):
            # Rows are known by content: they can be counted now only if nothing changes it before.
            moved = moved or target.stage.norm == "reestimated"
            stable = not moved and not touched.intersection(target.freeze.frozen)
            decided = decisions[number] if number < len(decisions) else None
            found = planner.stage(target, stable, decided)
            if stored == "on" and found[0].cut is None:
                name, reason = target.stage.name, found[0].no_cut
                faults.append(f"stage '{name}' cannot read stored rows: {reason}")
            stages.append(found)
            touched |= set(target.freeze.trainable)
            moved = moved or target.stage.frozen == "requires-grad-only"
            task.advance()
    if faults:
        raise ConfigError(tuple(faults), hint="freeze more, or use stored='auto'")
    plan = Plan(
        recipe.name,
        recipe.start,
        len(feeds.train),
        len(feeds.validation),
        tuple(stage for stage, _ in stages),
        bytes_free,
        tuple(_notes(targets)),
    )
    return Prepared(plan, tuple(targets), tuple(cut for _, cut in stages), planner.memory)


class _Planner:
    """Plans the stages of a recipe in order; what they have in common is measured once."""

    def __init__(self, feeds: Feeds, disk: costs.Disk, stored: costs.StoredMode) -> None:
        self.feeds, self.network, self.disk, self.stored = feeds, feeds.network, disk, stored
        self.memory = costs.memory_for_rows(feeds.device)
        self.rows = costs.PlannedRows(feeds)
        self.example = self.network.source.probe(costs.probe_items(self.network))
        self.decode = decode_seconds(feeds.train, self.network.source.inputs, workers=feeds.workers)
        self.blocks = {group.name: group.modules for group in network_groups(self.network)}
        self.recording: Recording | None = None

    def stage(
        self, target: Target, stable: bool, decided: str | None
    ) -> tuple[PlannedStage, Cut | None]:
        """Plan a stage; return it, and its cut if it trains from stored rows.

        Args:
            target: the stage.
            stable: whether its frozen part is now what it will be when the stage begins.
            decided: what an unfinished run decided; see :func:`costs.choose_rows`.
        """
        found = self._candidates(target)
        usual: Cut | NoCut = found if isinstance(found, NoCut) else _usual(found).cut()
        measured, activations = self._measure(target, usual)
        if isinstance(usual, NoCut) or isinstance(found, NoCut):
            reason = usual.reason if isinstance(usual, NoCut) else ""
            return self._planned(target, measured, activations, None, reason), None
        planned, cut = self._cut(target, found, measured, stable, decided)
        return self._planned(target, measured, activations, planned, ""), cut

    def _candidates(self, target: Target) -> tuple[Candidate, ...] | NoCut:
        if self.stored == "off":
            return NoCut("storing rows is switched off")
        if target.stage.frozen != "frozen":
            return NoCut(
                "the frozen part normalises by the batch and has dropout on: its rows would"
                " depend on their batch and on chance"
            )
        if self.example.mask is not None:
            unit = self.network.source.inputs.unit
            return NoCut(f"{unit} differ in length, and stored rows have one shape")
        if self.recording is None:
            self.recording = record(self.network, self.example)
        return candidates(self.recording, target.freeze, self.blocks, dtype=self.feeds.dtype)

    def _measure(self, target: Target, usual: Cut | NoCut) -> tuple[costs.StageCosts, int]:
        """Return the costs of a stage, and the bytes of activations per item."""
        stage, feeds = target.stage, self.feeds
        batch = self.example[: min(len(self.example), stage.batch_size)]
        classes = self.network.head.out_features
        with gradients_for(self.network, target.freeze.trainable):
            if isinstance(usual, Cut):
                rows, prefix = costs.measure_prefix(usual.prefix, batch, stage.precision)
                if stage.precision == "float32":  # then both figures are valid: the lower counts
                    prefix = min(prefix, usual.prefix_seconds)
                step = costs.measure_step(usual.suffix, rows, classes, stage.precision)
            else:
                prefix = 0.0
                step = costs.measure_step(self.network, batch, classes, stage.precision)
        measured = costs.StageCosts(
            n_train=len(feeds.train),
            n_validation=len(feeds.validation),
            rows=len(feeds.train) * max(1, stage.views) + len(feeds.validation),
            epochs=stage.epochs,
            decode=self.decode,
            prefix=prefix,
            step=step.seconds,
            memory=self.memory,
            disk=self.rows.disk,
        )
        return measured, step.activations

    def _cut(
        self,
        target: Target,
        found: tuple[Candidate, ...],
        measured: costs.StageCosts,
        stable: bool,
        decided: str | None,
    ) -> tuple[PlannedCut, Cut | None]:
        """Choose among the candidates; return the cut if the stage trains from its rows."""
        stage, usual = target.stage, _usual(found)
        places = tuple(
            measured.at(one, usual, self.rows.missing(one, stage, stable), self.disk)
            for one in found
        )
        taken, why = costs.choose_cut(places, found.index(usual), stage, decided or "")
        cut = found[taken].cut()
        if isinstance(cut, NoCut):
            taken, why, cut = found.index(usual), "", usual.cut()
        images = stage.epochs * measured.images_epoch
        read, reason = costs.choose_rows(
            places[taken], images, stage, self.stored, decided, self.rows.disk
        )
        if read:
            self.rows.add(found[taken], places[taken], stage, stable)
        if why:
            reason = f"{reason}; cut {places[taken].place}, since {why}"
        planned = PlannedCut(places, taken, measured.rows, images, read, reason)
        return planned, cut if read and isinstance(cut, Cut) else None

    def _planned(
        self,
        target: Target,
        measured: costs.StageCosts,
        activations: int,
        cut: PlannedCut | None,
        no_cut: str,
    ) -> PlannedStage:
        network, stage = self.network, target.stage
        parameters = dict(network.named_parameters())
        live = [parameters[name] for name in network.live_tensors() if name in parameters]
        trainable = sum(parameters[name].numel() for name in target.freeze.trainable)
        at = cut.at if cut is not None and cut.read else None
        return PlannedStage(
            name=stage.name,
            groups=target.groups,
            trainable=trainable,
            parameters=sum(p.numel() for p in live),
            rates=tuple(
                PlannedGroup(
                    rate.name,
                    sum(parameters[name].numel() for name in rate.parameters),
                    rate.lr,
                    rate.weight_decay,
                )
                for rate in target.rates
            ),
            settings=stage.describe(),
            policy=str(target.freeze),
            cut=cut,
            no_cut=no_cut,
            epochs=stage.epochs,
            seconds_storing=0.0 if at is None else at.seconds_storing,
            seconds_per_epoch=measured.images_epoch if at is None else at.seconds_per_epoch,
            memory=costs.memory_of(network, stage, trainable, activations, at),
        )


def _usual(found: Sequence[Candidate]) -> Candidate:
    """Return the candidate that is chosen in every run and on every machine.

    It is placed by estimated times, so that a second run finds the rows of the first.
    """
    return next(candidate for candidate in found if candidate.chosen)


def _notes(targets: Sequence[Target]) -> list[str]:
    notes = []
    kinds = [target.stage.optimizer for target in targets]
    if any(one != two for one, two in pairwise(kinds)):
        notes.append("the optimizer changes between stages, so its state starts over there")
    if any(target.stage.norm == "batch" for target in targets):
        notes.append(
            "batch norm normalises by the mini-batch where it trains, and its running statistics"
            " move; norm = 'running' (the default) keeps it in inference mode"
        )
    return notes


__all__ = ["Prepared", "make_plan"]
