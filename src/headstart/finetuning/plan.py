"""The plan of a fine-tuning as plain values: what trains, at which rates, from what, how long.

:mod:`headstart.finetuning.planner` makes it; ``plan.json`` and the report show it.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core.cards import Card, Grid, Shown
from headstart.core.wording import format_bytes, format_seconds, listed


@dataclass(frozen=True)
class PlannedGroup:
    """A group that trains: its number of parameters, and what the optimizer does to them."""

    name: str
    parameters: int
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class PlannedPlace:
    """A possible cut of a stage, with what the stage would cost if its rows were stored there.

    Attributes:
        place: where it is, in words: ``behind layer3``.
        boundary: name, shape and dtype of each stored tensor.
        bytes_per_item, bytes: size of one row, and of all rows.
        missing: rows that are not in the cache yet; None if that is only known when the stage
            begins, because an earlier stage changes the frozen part.
        in_memory: whether all rows are held in memory.
        on_disk: whether the disk has room for the missing rows.
        seconds_storing: once, to decode, compute and write the missing rows.
        seconds_reading, seconds_recomputing: per epoch, to read the rows, or to decode the items
            and compute the same values.
        seconds_per_epoch: to read the rows and train what is behind the cut.
        seconds: of the whole stage if no run had stored any of its rows before, which is what the
            choice rests on: the same command decides the same with an empty and a filled cache.
    """

    place: str
    boundary: tuple[tuple[str, tuple[int, ...], str], ...]
    bytes_per_item: int
    bytes: int
    missing: int | None
    in_memory: bool
    on_disk: bool
    seconds_storing: float
    seconds_reading: float
    seconds_recomputing: float
    seconds_per_epoch: float
    seconds: float


@dataclass(frozen=True)
class PlannedCut:
    """Where a stage is cut, where else it could be, and whether it trains from stored rows.

    Attributes:
        places: the possible cuts, from the input to the output.
        taken: the number of the one that is taken.
        rows: one for every view of a training item, and for every validation item.
        seconds_images: of the whole stage, if every epoch starts from the images.
        read: whether the stage trains from stored rows.
        reason: why, or why not.
    """

    places: tuple[PlannedPlace, ...]
    taken: int
    rows: int
    seconds_images: float
    read: bool
    reason: str

    @property
    def at(self) -> PlannedPlace:
        """The cut that is taken."""
        return self.places[self.taken]


@dataclass(frozen=True)
class PlannedStage:
    """One stage of the plan.

    Attributes:
        name, groups: its name, and the names of the groups that train.
        trainable, parameters: how many parameters train, and how many take part in the forward.
        rates: every group with its effective rate.
        settings: optimizer, schedule, norm, dropout and so on, in one line.
        policy: what is frozen and how, as the freeze contract prints it.
        cut: None where nothing can be cut.
        no_cut: the reason, then.
        epochs: at most.
        seconds_storing, seconds_per_epoch: expected.
        memory: bytes of weights, gradients, optimizer state, the activations of one batch, and
            rows held in memory.
    """

    name: str
    groups: tuple[str, ...]
    trainable: int
    parameters: int
    rates: tuple[PlannedGroup, ...]
    settings: str
    policy: str
    cut: PlannedCut | None
    no_cut: str
    epochs: int
    seconds_storing: float
    seconds_per_epoch: float
    memory: int

    @property
    def seconds(self) -> float:
        """Expected time of the stage, if it trains all its epochs."""
        return self.seconds_storing + self.epochs * self.seconds_per_epoch


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """What a fine-tuning will do.

    Attributes:
        recipe, start: the name of the recipe, and what the head starts from.
        n_train, n_validation: items that train, and items that choose the best epoch.
        stages: in order.
        bytes_free: on the disk of the cache.
        notes: what a reader should know.
        unit: what several items are called ("images").
    """

    recipe: str
    start: str
    n_train: int
    n_validation: int
    stages: tuple[PlannedStage, ...]
    bytes_free: int
    notes: tuple[str, ...] = ()
    unit: str = "items"

    def card(self) -> Card:
        """Return what there is to see: one line a stage."""
        facts = (
            ("training items", self.n_train),
            ("validation items", self.n_validation),
            ("expected time", format_seconds(self.seconds)),
        )
        header = ("stage", "trains", "parameters", "epochs", "from", "expected time", "memory")
        rows = tuple(
            (
                stage.name,
                listed(stage.groups, 4),
                stage.trainable,
                stage.epochs,
                "stored rows" if stage.cut is not None and stage.cut.read else self.unit,
                format_seconds(stage.seconds),
                format_bytes(stage.memory),
            )
            for stage in self.stages
        )
        title = f"recipe '{self.recipe}', from {self.start}"
        return Card("Plan of a fine-tuning", title, facts, (Grid(header, rows),), self.notes)

    @property
    def seconds(self) -> float:
        """Expected time of all stages."""
        return sum(stage.seconds for stage in self.stages)


__all__ = ["Plan", "PlannedCut", "PlannedGroup", "PlannedPlace", "PlannedStage"]
