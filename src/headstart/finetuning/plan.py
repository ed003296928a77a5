"""The plan of a fine-tuning, as plain values: what trains, at which rates, from what, how long."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.finetuning.stages import Stage


@dataclass(frozen=True)
class PlannedGroup:
    """A group that trains: how many numbers, and what the optimizer does to them."""

    name: str
    parameters: int
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class PlannedPlace:
    """One of the possible cuts of a stage, with what the stage would cost there.

    Attributes:
        place: where it is, in words.
        boundary: name, shape and type of each stored tensor.
        bytes_per_item, bytes: of one row, and of all.
        missing: rows that are not in the cache yet; None if that is only known when the stage
            begins, because the frozen part changes before.
        in_memory: whether all rows are held in memory.
        on_disk: whether the disk has room for those that are missing.
        seconds_storing: once: decoding, computing and writing the missing rows.
        seconds_reading, seconds_recomputing: in every epoch: reading the rows, or decoding the
            items and computing the same.
        seconds_per_epoch: of reading, and of all that comes behind.
        seconds: of the whole stage.
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
    """Where a stage is cut, and where else it might be.

    Attributes:
        places: the possible cuts, from the input to the output.
        taken: the number of the one that is taken.
        rows: a row for every training item and view, and for every validation item.
        seconds_images: of the whole stage, if it begins with the images in every epoch.
        read: whether stored rows are used.
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
        name, groups: its name, and what trains in words.
        trainable, parameters: how many numbers train, of how many.
        rates: every group with its effective rate.
        settings: the stage's own words about optimizer, norm, dropout and so on.
        policy: what is frozen how, as the freeze contract's own table.
        cut: None where nothing can be cut.
        no_cut: why, then.
        epochs: at most.
        seconds_storing, seconds_per_epoch: expected, from the probe.
        memory: bytes for weights, gradients, optimizer, activations of one batch, and held rows.
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


@dataclass(frozen=True)
class Plan:
    """What a fine-tuning will do.

    Attributes:
        recipe, start: the recipe's name, and where the head comes from.
        n_train, n_validation: items that train, and items that choose the best epoch.
        stages: in order.
        bytes_free: on the disk of the cache.
        notes: what a reader should know.
    """

    recipe: str
    start: str
    n_train: int
    n_validation: int
    stages: tuple[PlannedStage, ...]
    bytes_free: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Expected time of all stages."""
        return sum(stage.seconds for stage in self.stages)


def describe_settings(stage: Stage) -> str:
    """Say in one line what a stage does beside its rates."""
    kind = {"adamw": "AdamW", "adam": "Adam", "sgd": f"SGD (momentum {stage.momentum:g})"}
    schedule = {
        "constant": "constant rates",
        "cosine": "rates fall to zero by a cosine",
        "step": f"rates times {stage.gamma:g} every {stage.step_size} epochs",
    }
    parts = [
        kind[stage.optimizer],
        schedule[stage.schedule],
        f"batches of {stage.batch_size}",
        f"{stage.norm} statistics",
        f"dropout {'on' if stage.dropout else 'off'} where it trains",
        stage.precision,
    ]
    parts += [f"warm-up over {stage.warmup:g} epochs"] if stage.warmup else []
    parts += [f"{stage.views} augmented views an item"] if stage.views else ["no augmentation"]
    parts += [f"mixup {stage.mixup:g} at the input of what trains"] if stage.mixup else []
    parts += [f"noise {stage.noise:g} there"] if stage.noise else []
    parts += [f"gradients clipped at {stage.clip:g}"] if stage.clip is not None else []
    parts += [f"averaged weights ({stage.ema:g})"] if stage.ema is not None else []
    parts += [f"ends after {stage.patience} epochs without gain"] if stage.patience else []
    return ", ".join(parts)


__all__ = [
    "Plan",
    "PlannedCut",
    "PlannedGroup",
    "PlannedPlace",
    "PlannedStage",
    "describe_settings",
]
