"""The plan of a fine-tuning, as plain values: what trains, at which rates, from what, how long."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.training.stages import Stage


@dataclass(frozen=True)
class PlannedGroup:
    """A group that trains: how many numbers, and what the optimizer does to them."""

    name: str
    parameters: int
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class PlannedCut:
    """Where a stage is cut, what is stored there, and what that saves.

    Attributes:
        boundary: name, shape and type of each stored tensor.
        bytes_per_item, rows, bytes: of what is stored: a row for every item and view.
        missing: rows that are not in the cache yet; None if that is only known when the stage
            begins, because the frozen part changes before.
        prefix_seconds, read_seconds: measured, an item: computing the boundary (with decoding),
            and reading it.
        in_memory: whether all rows are held in memory.
        read: whether stored rows are used.
        reason: why, or why not.
    """

    boundary: tuple[tuple[str, tuple[int, ...], str], ...]
    bytes_per_item: int
    rows: int
    bytes: int
    missing: int | None
    prefix_seconds: float
    read_seconds: float
    in_memory: bool
    read: bool
    reason: str


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


__all__ = ["Plan", "PlannedCut", "PlannedGroup", "PlannedStage", "describe_settings"]
