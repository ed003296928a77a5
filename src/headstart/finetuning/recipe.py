"""Recipes as data: what is trained in which order, and how.

A :class:`Recipe` is a start and a list of :class:`Stage`; both are plain frozen values. They know
nothing of a model: :mod:`headstart.finetuning.targets` finds out whether a recipe fits one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from headstart.core.errors import ConfigError
from headstart.core.wording import quoted
from headstart.finetuning.optimizers import OPTIMIZERS, SCHEDULES

Norm = Literal["running", "batch", "reestimated"]
Frozen = Literal["frozen", "requires-grad-only"]
Precision = Literal["float32", "bfloat16"]
Start = Literal["probe", "fresh"]

TOKENS = ("head", "all", "last:N", "norms", "surgical", "gradual")
"""The words that ``train`` knows beside the names of groups and modules."""


@dataclass(frozen=True)
class Stage:
    """One step of a recipe: some groups train, the rest is frozen.

    Attributes:
        name: what to call it in curves and messages.
        train: what trains. ``head``; ``all``; ``last:N`` (the head and the last N block groups of
            the backbone); ``norms`` (scales and shifts of norm layers); ``surgical`` (the block
            group whose gradient is largest relative to its weights: Lee et al. 2023, arXiv
            2210.11466, Auto-RGN); ``gradual`` (becomes one stage a block group, from the output to
            the input); or names and globs of block groups or modules.
        epochs: passes over the training part, at most.
        patience: end the stage after so many epochs without a higher validation accuracy; None
            never does.
        lr: the learning rate of the head and, with ``decay`` 1, of everything that trains.
        decay: factor on the rate from one block group to the one before it, in (0, 1].
        rates: rates of single groups instead, by name or glob.
        optimizer: ``adamw``, ``adam`` or ``sgd``. Its state goes on from stage to stage.
        momentum: of ``sgd``.
        weight_decay: of weights; norms, biases and what the model names itself have none.
        schedule: ``constant``; ``cosine`` to zero; ``step`` (times ``gamma`` every ``step_size``
            epochs).
        step_size, gamma: of ``step``.
        warmup: epochs of linear warm-up from zero before the schedule; a fraction is fine.
        batch_size: items a step.
        norm: what normalises in norm layers that keep running statistics: ``running`` (those of
            the checkpoint: batch norm stays in inference mode, also after unfreezing),
            ``reestimated`` (population statistics of the training part, measured once) or
            ``batch`` (those of the mini-batch, in the parts that train only).
        dropout: whether dropout and the like are on in the parts that train.
        frozen: what frozen parts do: ``frozen`` (nothing moves, nothing varies) or
            ``requires-grad-only`` (the usual mistake, to measure it: batch statistics move and
            dropout is on; such a part cannot be cached).
        views: numbered augmentations of an item, drawn an epoch; 0 trains on the images as they
            are.
        mixup: the parameter of the Beta distribution for mixing items at the input of what is
            computed anew (Zhang et al. 2018; at the cut it is the manifold mixup of Verma et al.
            2019); 0 is off.
        noise: standard deviation of Gaussian noise added there, relative to that of the batch.
        label_smoothing: in [0, 1).
        precision: of forward and backward; ``bfloat16`` runs under autocast.
        clip: the largest norm of all gradients together; None does not clip.
        ema: decay of an exponential moving average of the weights, which is then what is validated
            and kept; None keeps the weights themselves.
    """

    name: str = "stage"
    train: tuple[str, ...] = ("head",)
    epochs: int = 10
    patience: int | None = None
    lr: float = 1e-3
    decay: float = 1.0
    rates: Mapping[str, float] = field(default_factory=dict)
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.01
    schedule: str = "cosine"
    step_size: int = 7
    gamma: float = 0.1
    warmup: float = 0.0
    batch_size: int = 32
    norm: Norm = "running"
    dropout: bool = True
    frozen: Frozen = "frozen"
    views: int = 0
    mixup: float = 0.0
    noise: float = 0.0
    label_smoothing: float = 0.0
    precision: Precision = "float32"
    clip: float | None = None
    ema: float | None = None

    def faults(self) -> list[str]:
        """Return what cannot be, one sentence each, without looking at a model."""
        return [f"stage '{self.name}': {fault}" for fault in (*self._ranges(), *self._choices())]

    def _ranges(self) -> Iterator[str]:
        if not self.name or self.name != self.name.strip():
            yield "a stage needs a name without spaces around it"
        if not self.train:
            yield "train is empty, so the stage trains nothing; name 'head' at least"
        if self.lr == 0:
            yield "lr is 0, so nothing that it lets train would move; freeze by leaving it out"
        for name, low, high in (
            ("epochs", 1, math.inf),
            ("batch_size", 1, math.inf),
            ("lr", 0.0, math.inf),
            ("weight_decay", 0.0, math.inf),
            ("step_size", 1, math.inf),
            ("gamma", 0.0, 1.0),
            ("views", 0, 1000),
            ("mixup", 0.0, math.inf),
            ("noise", 0.0, math.inf),
            ("warmup", 0.0, math.inf),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                wanted = f"from {low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
                yield f"{name} is {value}, expected {wanted}"
        if not 0 < self.decay <= 1:
            yield f"decay is {self.decay}, expected above 0 and at most 1"
        for name in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                yield f"{name} is {getattr(self, name)}, expected from 0 to below 1"
        if self.warmup >= self.epochs:
            yield f"warmup is {self.warmup:g} epochs of {self.epochs}: nothing would be left"
        if self.patience is not None and self.patience < 1:
            yield f"patience is {self.patience}, expected 1 or more"
        if self.clip is not None and not self.clip > 0:
            yield f"clip is {self.clip}, expected above 0"
        if self.ema is not None and not 0 < self.ema < 1:
            yield f"ema is {self.ema}, expected above 0 and below 1"
        for group, rate in self.rates.items():
            if rate == 0:
                yield (
                    f"the rate of group '{group}' is 0, so it would train without moving;"
                    " freeze it by leaving it out of train"
                )
            elif not (math.isfinite(rate) and rate > 0):
                yield f"the rate of group '{group}' is {rate}, expected above 0"

    def _choices(self) -> Iterator[str]:
        for name, options in (
            ("optimizer", tuple(OPTIMIZERS)),
            ("schedule", tuple(SCHEDULES)),
            ("norm", get_args(Norm)),
            ("frozen", get_args(Frozen)),
            ("precision", get_args(Precision)),
        ):
            if getattr(self, name) not in options:
                yield f"{name} is {getattr(self, name)!r}, expected one of {quoted(options)}"
        if "gradual" in self.train and len(self.train) > 1:
            yield "'gradual' stands alone in train, since it becomes stages of its own"
        if self.norm == "reestimated" and self.frozen == "requires-grad-only":
            yield "norm 'reestimated' and frozen 'requires-grad-only' contradict each other"
        if self.batch_statistics and self.batch_size == 1:
            yield "batch_size is 1, and one item has no batch statistics: take 2 or more"

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
        parts += [f"{self.views} augmented views an item"] if self.views else ["no augmentation"]
        parts += [f"mixup {self.mixup:g} at the input of what trains"] if self.mixup else []
        parts += [f"noise {self.noise:g} there"] if self.noise else []
        parts += [f"gradients clipped at {self.clip:g}"] if self.clip is not None else []
        parts += [f"averaged weights ({self.ema:g})"] if self.ema is not None else []
        parts += [f"ends after {self.patience} epochs without gain"] if self.patience else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Recipe:
    """A start and the stages that follow it.

    Attributes:
        name: what to call it.
        stages: in order. A stage goes on from where the last one ended.
        start: the head's first weights. ``probe``: logistic regression on the frozen features of
            the training part, its penalty chosen by cross-validation (the LP of LP-FT: Kumar et
            al. 2022, arXiv 2202.10054). ``fresh``: random, uniform in ±1/√d.
        head_dropout: probability of dropout before the head.
        validation: share of the training split that is held out to choose the best epoch; a
            validation split of the data's own is used instead where there is one.
        stop_without_gain: whether the recipe ends after a stage that did not raise the validation
            accuracy ("repeat until it generalises").
    """

    name: str
    stages: tuple[Stage, ...]
    start: Start = "fresh"
    head_dropout: float = 0.0
    validation: float = 0.2
    stop_without_gain: bool = False

    @property
    def needs_surgery(self) -> bool:
        """Whether a stage trains the block that gradients behind the first head choose."""
        return any("surgical" in stage.train for stage in self.stages)

    def faults(self) -> list[str]:
        """Return what cannot be in the recipe and in all of its stages."""
        found = [] if self.stages else ["the recipe has no stage"]
        if self.start not in get_args(Start):
            found.append(f"start is {self.start!r}, expected one of {quoted(get_args(Start))}")
        if not 0 <= self.head_dropout < 1:
            found.append(f"head_dropout is {self.head_dropout}, expected from 0 to below 1")
        if not 0 < self.validation < 1:
            found.append(f"validation is {self.validation}, expected between 0 and 1")
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
        """Return the recipe itself, or raise with all of its faults.

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


__all__ = ["TOKENS", "Recipe", "Stage"]
