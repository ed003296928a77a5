"""Recipes as data: what is trained in which order, and how.

A :class:`Recipe` is a start and a list of :class:`Stage`; both are plain frozen values. They know
nothing of a model: :mod:`headstart.finetuning.targets` finds out whether a recipe fits one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from numbers import Real
from typing import Any, Literal

from headstart.core.errors import ConfigError
from headstart.core.settings import option, option_faults
from headstart.core.wording import count, quoted
from headstart.finetuning.optimizers import OPTIMIZERS, SCHEDULES

Precision = Literal["float32", "bfloat16"]


def _name_wrong(name: str) -> str | None:
    return None if name and name == name.strip() else "must be text without spaces around it"


def _rate_wrong(rate: float) -> str | None:
    if rate > 0:
        return None
    return "must not be 0: nothing would move; to freeze a part, leave it out of train"


def _rates_wrong(rates: Any) -> str | None:
    numbers = isinstance(rates, Mapping) and all(
        isinstance(rate, Real) and not isinstance(rate, bool) for rate in rates.values()
    )
    return None if numbers else f"must be a table from group names to rates, not {rates!r}"


@dataclass(frozen=True)
class Stage:
    """One step of a recipe: some groups train, the rest is frozen.

    ``train`` holds ``head``; ``all``; ``last:N`` (the head and the last N block groups of the
    backbone); ``norms`` (scales and shifts of norm layers); ``surgical`` (the block group whose
    gradient is largest relative to its weights: Lee et al. 2023, arXiv 2210.11466, Auto-RGN);
    ``gradual`` (becomes one stage per block group, from the output to the input); or names and
    globs of block groups or modules.
    """

    name: str = option("stage", "Name used in curves and messages.", check=_name_wrong)
    train: tuple[str, ...] = option(
        ("head",), "What trains: head, all, last:N, norms, surgical, gradual, names, globs."
    )
    epochs: int = option(10, "Passes over the training items, at most.", at_least=1)
    patience: int | None = option(
        None,
        "End the stage after this many epochs without a higher validation accuracy.",
        at_least=1,
        shown="never",
    )
    lr: float = option(
        1e-3,
        "Learning rate of the head and, with decay 1, of everything that trains.",
        at_least=0,
        below=inf,
        check=_rate_wrong,
    )
    decay: float = option(
        1.0, "Factor on the rate from one block group to the one before it.", above=0, at_most=1
    )
    rates: Mapping[str, float] = option(
        {}, "Rates of individual groups instead, by name or glob.", check=_rates_wrong
    )
    optimizer: str = option(
        "adamw",
        "Optimizer; its state carries over from stage to stage.",
        choices=lambda: OPTIMIZERS,
    )
    momentum: float = option(0.9, "Momentum of sgd.", at_least=0, below=1)
    weight_decay: float = option(
        0.01,
        "Weight decay; norms, biases and parameters that the model itself exempts have none.",
        at_least=0,
        below=inf,
    )
    schedule: str = option(
        "cosine",
        "How rates change: cosine falls to zero, step multiplies by gamma every step_size epochs.",
        choices=lambda: SCHEDULES,
    )
    step_size: int = option(7, "Epochs between steps of the schedule 'step'.", at_least=1)
    gamma: float = option(0.1, "Factor of the schedule 'step'.", at_least=0, at_most=1)
    warmup: float = option(
        0.0,
        "Epochs of linear warm-up from zero before the schedule; fractions are allowed.",
        at_least=0,
        below=inf,
    )
    batch_size: int = option(32, "Items per step.", at_least=1)
    norm: Literal["running", "batch", "reestimated"] = option(
        "running",
        "What normalises in norm layers that keep running statistics. running: those of the"
        " checkpoint, also after unfreezing. reestimated: population statistics of the training"
        " items, measured once. batch: those of the mini-batch, in the parts that train only.",
    )
    dropout: bool = option(True, "Whether dropout and the like are on in the parts that train.")
    frozen: Literal["frozen", "requires-grad-only"] = option(
        "frozen",
        "What frozen parts do. frozen: nothing moves, nothing varies. requires-grad-only: the usual"
        " mistake, to measure it: batch statistics move and dropout is on, so no rows are stored.",
    )
    views: int = option(
        0,
        "Numbered augmentations per item, one per epoch; 0: train on the items unchanged.",
        at_least=0,
        at_most=1000,
    )
    mixup: float = option(
        0.0,
        "Parameter of the Beta distribution for mixing items at the input of what is computed in"
        " every epoch (Zhang et al. 2018; at a cut, manifold mixup, Verma et al. 2019); 0: off.",
        at_least=0,
        below=inf,
    )
    noise: float = option(
        0.0,
        "Standard deviation of Gaussian noise added there, relative to that of the batch.",
        at_least=0,
        below=inf,
    )
    label_smoothing: float = option(0.0, "Label smoothing.", at_least=0, below=1)
    precision: Precision = option(
        "float32",
        "Precision of forward and backward pass; bfloat16 runs under autocast.",
        choices=("float32", "bfloat16", "float16"),
    )
    clip: float | None = option(
        None,
        "Gradients are clipped to this norm, taken over all of them.",
        above=0,
        shown="no clipping",
    )
    ema: float | None = option(
        None,
        "Decay of a moving average of the weights, which is then validated and kept instead of"
        " them.",
        above=0,
        below=1,
        shown="the weights themselves",
    )

    def faults(self) -> list[str]:
        """Return everything that is wrong, one sentence each, without looking at a model."""
        single = option_faults(self)
        wrong = {fault.name for fault in single}
        return [f"stage '{self.name}': {fault}" for fault in (*single, *self._together(wrong))]

    def _together(self, wrong: set[str]) -> Iterator[str]:
        """Yield what is wrong between options; those in ``wrong`` are not looked at."""
        sound = wrong.isdisjoint
        if sound(("train",)) and not self.train:
            yield "train is empty, so the stage trains nothing; name at least 'head'"
        if sound(("train",)) and "gradual" in self.train and len(self.train) > 1:
            yield "'gradual' must be the only entry in train, since it becomes several stages"
        if sound(("warmup", "epochs")) and self.warmup >= self.epochs:
            yield f"warmup is {self.warmup:g} epochs of {self.epochs}: nothing would be left"
        for group, rate in self.rates.items() if sound(("rates",)) else ():
            if rate == 0:
                yield (
                    f"the rate of group '{group}' is 0, so it would train without moving; to"
                    " freeze it, leave it out of train"
                )
            elif not (isfinite(rate) and rate > 0):
                yield f"the rate of group '{group}' is {rate}, expected above 0"
        if self.norm == "reestimated" and self.frozen == "requires-grad-only":
            yield "norm 'reestimated' and frozen 'requires-grad-only' contradict each other"
        if self.batch_statistics and self.batch_size == 1:
            yield "batch_size is 1, and one item has no batch statistics: use 2 or more"

    @property
    def batch_statistics(self) -> bool:
        """Whether something normalises by the statistics of the mini-batch."""
        return self.norm == "batch" or self.frozen == "requires-grad-only"

    def rate_factor(self, progress: float) -> float:
        """Return the factor on all learning rates ``progress`` epochs into the stage."""
        if progress < self.warmup:
            return progress / self.warmup
        return SCHEDULES[self.schedule].factor(self, progress)

    def describe(self) -> str:
        """Describe in one line what the stage does apart from its rates."""
        parts = [
            OPTIMIZERS[self.optimizer].describe(self),
            SCHEDULES[self.schedule].describe(self),
            f"batches of {self.batch_size}",
            f"{self.norm} statistics",
            f"dropout {'on' if self.dropout else 'off'} where it trains",
            self.precision,
        ]
        parts += [f"warm-up over {self.warmup:g} epochs"] if self.warmup else []
        parts += [f"{self.views} augmented views per item"] if self.views else ["no augmentation"]
        parts += [f"mixup {self.mixup:g} at the input of what trains"] if self.mixup else []
        parts += [f"noise {self.noise:g} there"] if self.noise else []
        parts += [f"gradients clipped at {self.clip:g}"] if self.clip is not None else []
        parts += [f"averaged weights ({self.ema:g})"] if self.ema is not None else []
        parts += (
            [f"ends after {count(self.patience, 'epoch')} without gain"] if self.patience else []
        )
        return ", ".join(parts)


@dataclass(frozen=True)
class Recipe:
    """A start and the stages that follow it, each of which continues from where the last ended.

    With ``start = "probe"`` the head starts from a probe on the frozen features of the training
    items, its penalty chosen by cross-validation (the LP of LP-FT: Kumar et al. 2022, arXiv
    2202.10054); with ``"fresh"`` from random weights, uniform in ±1/√d.
    """

    name: str = option("recipe", "Name of the recipe.")
    stages: tuple[Stage, ...] = ()
    start: Literal["probe", "fresh"] = option("fresh", "What the head starts from.")
    head_dropout: float = option(
        0.0, "Probability of dropout before the head.", at_least=0, below=1
    )
    validation: float = option(
        0.2,
        "Share of the training split that is held out to choose the best epoch; if the data has"
        " a validation split, that is used instead.",
        above=0,
        below=1,
    )
    stop_without_gain: bool = option(
        False, "Whether the recipe ends after a stage that did not raise the validation accuracy."
    )

    @property
    def needs_surgery(self) -> bool:
        """Whether a stage trains the block that gradients behind the first head choose."""
        return any("surgical" in stage.train for stage in self.stages)

    def faults(self) -> list[str]:
        """Return everything that is wrong with the recipe and with all of its stages."""
        found: list[str] = [*option_faults(self)]
        if not self.stages:
            found.append("the recipe has no stage")
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            found.append(f"several stages are named {quoted(twice)}")
        for stage in self.stages:
            found += stage.faults()
            if "surgical" in stage.train and self.start != "probe":
                found.append(
                    f"stage '{stage.name}': 'surgical' compares gradients behind a trained head;"
                    " set start = 'probe'"
                )
        return found

    def check(self) -> Recipe:
        """Return the recipe itself.

        Raises:
            ConfigError: listing every fault.
        """
        faults = self.faults()
        if faults:
            raise ConfigError(tuple(faults))
        return self

    def with_changes(self, **changes: Any) -> Recipe:
        """Return the recipe with the same changes to every stage; values of None change nothing."""
        given = {name: value for name, value in changes.items() if value is not None}
        stages = tuple(dataclasses.replace(stage, **given) for stage in self.stages)
        return dataclasses.replace(self, stages=stages)


__all__ = ["Precision", "Recipe", "Stage"]
