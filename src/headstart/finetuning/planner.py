"""Make the plan: what every stage trains, at which rates, on what, for how long.

The network, its modes and its statistics are left unchanged. What a stage costs, and what it trains
on, is decided in :mod:`headstart.finetuning.costs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from headstart.core.errors import ConfigError
from headstart.finetuning.costs import Choice, Chooser, StoredMode
from headstart.finetuning.feeds import Feeds
from headstart.finetuning.network import Classifier
from headstart.finetuning.plan import Plan, PlannedGroup, PlannedStage
from headstart.finetuning.recipe import Recipe
from headstart.finetuning.room import memory_of
from headstart.finetuning.targets import Target
from headstart.finetuning.timing import Disk
from headstart.prefix import Cut


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
    stored: StoredMode = "auto",
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
    choices: list[Choice] = []
    with (
        feeds.reporter.task("plan", len(targets), "stages") as task,
        Disk(feeds.store.root) as disk,
    ):
        chooser = Chooser(feeds, disk, stored)
        bytes_free = chooser.rows.disk
        for number, target in enumerate(targets):
            # Rows are known by content: they can be counted now only if nothing changes it before.
            moved = moved or target.stage.norm == "reestimated"
            stable = not moved and not touched.intersection(target.freeze.frozen)
            decided = decisions[number] if number < len(decisions) else None
            choices.append(chooser.choose(target, stable, decided))
            if stored == "on" and choices[-1].planned is None:
                name, reason = target.stage.name, choices[-1].no_cut
                faults.append(f"stage '{name}' cannot read stored rows: {reason}")
            touched |= set(target.trainable)
            moved = moved or target.stage.frozen == "requires-grad-only"
            task.advance()
    if faults:
        raise ConfigError(tuple(faults), hint="freeze more, or use stored='auto'")
    plan = Plan(
        recipe.name,
        recipe.start,
        len(feeds.train),
        len(feeds.validation),
        tuple(
            _planned(feeds.network, target, choice)
            for target, choice in zip(targets, choices, strict=True)
        ),
        bytes_free,
        tuple(_notes(targets)),
        feeds.network.source.inputs.unit,
    )
    return Prepared(plan, tuple(targets), tuple(each.cut for each in choices), chooser.memory)


def _planned(network: Classifier, target: Target, choice: Choice) -> PlannedStage:
    stage, at = target.stage, choice.rows_at
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    trainable = sum(sizes[name] for name in target.trainable)
    return PlannedStage(
        name=stage.name,
        groups=target.groups,
        trainable=trainable,
        parameters=sum(sizes.get(name, 0) for name in network.live_tensors()),
        rates=tuple(
            PlannedGroup(
                rate.name,
                sum(sizes[name] for name in rate.parameters),
                rate.lr,
                rate.weight_decay,
            )
            for rate in target.rates
        ),
        settings=stage.describe(),
        policy=str(target.freeze),
        cut=choice.planned,
        no_cut=choice.no_cut,
        epochs=stage.epochs,
        seconds_storing=0.0 if at is None else at.seconds_storing,
        seconds_per_epoch=choice.costs.images_epoch if at is None else at.seconds_per_epoch,
        memory=memory_of(network, stage, trainable, choice.activations, at),
    )


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
