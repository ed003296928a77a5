"""A configuration: one way of running the backbone, or of training it, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from headstart.core.errors import ConfigError
from headstart.data import Preprocessing
from headstart.study.heads import HeadSpec

Mode = Literal["eval", "train"]
Autograd = Literal["grad", "no_grad", "inference"]
Statistics = Literal["running", "batch", "reestimated", "blend"]
Switch = Literal["off", "on"]
Order = Literal["shuffled", "class"]
Inputs = Literal["as given", "unscaled", "unnormalised", "misnormalised", "swapped-channels"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_CHOICES: dict[str, tuple[Any, ...]] = {
    "mode": get_args(Mode),
    "autograd": get_args(Autograd),
    "statistics": (None, *get_args(Statistics)),
    "dropout": (None, *get_args(Switch)),
    "order": get_args(Order),
    "inputs": get_args(Inputs),
}


_OF_RUNNING = (
    "mode",
    "autograd",
    "statistics",
    "alpha",
    "dropout",
    "order",
    "recompute",
    "batch_size",
    "head",
)
"""What a recipe decides instead."""


@dataclass(frozen=True)
class Configuration:
    """One way of running a frozen backbone, or a recipe that trains it.

    The defaults are those of the reference.

    Attributes:
        name: how it stands in tables; unique within a study.
        mode: what the module was put in: ``module.eval()`` or ``module.train()``.
        autograd: ``grad`` (none of the two), ``no_grad`` or ``inference`` (inference mode).
        statistics: which statistics batch norms use. None: what the mode uses, ``running`` in
            ``eval`` and ``batch`` in ``train``. ``reestimated``: those of the training split,
            measured once and then fixed. ``blend``: between the running and those, see ``alpha``.
        alpha: the weight of the re-estimated statistics in a blend, in [0, 1].
        dropout: whether dropout (and every other source of chance) is left on. None: what the
            mode does.
        order: of the loader that the head is tested with: ``shuffled``, or ``class``: an
            unshuffled loader over folders, one class after the other. Training loaders shuffle.
        recompute: the backbone runs anew for every pass of training, in training mode, which
            moves its running statistics; tested in evaluation mode with the moved statistics.
            Otherwise one function is applied to training and test items alike.
        batch_size: images a batch, where rows depend on it. None: that of the study.
        inputs: a deliberate fault of the inputs: ``unscaled`` (0..255 as they are),
            ``unnormalised`` (0..1, no mean, no standard deviation), ``misnormalised`` (ImageNet's
            mean and standard deviation, or 0.5 where ImageNet's are right), ``swapped-channels``
            (BGR for RGB or the reverse).
        preprocessing: fields of :class:`~headstart.data.Preprocessing` that are replaced.
        layer, pooling: another cut. None: that of the backbone.
        head: another head. None: that of the study.
        recipe: the backbone is trained as well, a fresh copy in every repetition: the name of a
            recipe of ``headstart finetune``, or a ``.toml`` file. It says all of training; inputs
            and cut are those of the configuration.
        about: one line for the report.

    Raises:
        ConfigError: a value is not one of the choices, or the combination contradicts itself.
    """

    name: str
    mode: Mode = "eval"
    autograd: Autograd = "inference"
    statistics: Statistics | None = None
    alpha: float | None = None
    dropout: Switch | None = None
    order: Order = "shuffled"
    recompute: bool = False
    batch_size: int | None = None
    inputs: Inputs = "as given"
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    layer: str | None = None
    pooling: str | None = None
    head: HeadSpec | None = None
    recipe: str | None = None
    about: str = ""

    def __post_init__(self) -> None:
        faults = [
            f"{key} is {getattr(self, key)!r}, expected one of {', '.join(map(repr, choices))}"
            for key, choices in _CHOICES.items()
            if getattr(self, key) not in choices
        ] or list(self._contradictions())
        if faults:
            who = f"the configuration '{self.name}'"
            raise ConfigError(tuple(f"{who}: {fault}" for fault in faults))

    @property
    def normalises_by(self) -> Statistics:
        """The statistics in effect."""
        return self.statistics or ("running" if self.mode == "eval" else "batch")

    @property
    def draws(self) -> bool:
        """Whether dropout is in effect."""
        return self.mode == "train" if self.dropout is None else self.dropout == "on"

    def _contradictions(self) -> list[str]:
        faults = []
        if not self.name.strip():
            faults.append("it needs a name")
        if self.mode == "eval" and self.statistics == "batch":
            faults.append("evaluation mode never normalises by the batch; use mode='train'")
        if self.mode == "train" and self.statistics not in (None, "batch"):
            faults.append(
                f"training mode normalises by the batch, so {self.statistics} statistics would"
                " never be used; use mode='eval', with dropout='on' if chance is meant"
            )
        if self.statistics == "blend" and (self.alpha is None or not 0 <= self.alpha <= 1):
            faults.append(f"a blend needs alpha in [0, 1], found {self.alpha}")
        if self.statistics != "blend" and self.alpha is not None:
            faults.append("alpha belongs to statistics='blend'")
        if self.recompute and self.normalises_by != "batch" and not self.draws:
            faults.append(
                "every pass would give the same rows, since nothing of it depends on the batch"
                " or on chance; leave recompute out"
            )
        if self.recompute and self.order == "class":
            faults.append("recompute tests in evaluation mode, where the order makes no difference")
        faults += self._against_recipe()
        if self.batch_size is not None and self.batch_size < 2:
            faults.append(f"batch_size must be at least 2, not {self.batch_size}")
        known = {f.name for f in dataclasses.fields(Preprocessing)}
        unknown = sorted(set(self.preprocessing) - known)
        if unknown:
            faults.append(
                f"a preprocessing has no {', '.join(unknown)}; it has {', '.join(sorted(known))}"
            )
        touched = set(self.preprocessing) & _touched(self.inputs)
        if touched:
            faults.append(f"inputs='{self.inputs}' and preprocessing both set {sorted(touched)}")
        return faults

    def _against_recipe(self) -> list[str]:
        """Say what a recipe decides and the configuration sets as well."""
        if self.recipe is None:
            return []
        given = {f.name: f.default for f in dataclasses.fields(self) if f.name in _OF_RUNNING}
        both = [name for name, default in given.items() if getattr(self, name) != default]
        if not self.recipe.strip():
            return ["a recipe is a name or a .toml file, not an empty text"]
        if not both:
            return []
        return [
            f"how the backbone is trained stands in the recipe '{self.recipe}', so"
            f" {', '.join(both)} cannot be set beside it; write norm, dropout and batch_size into"
            " a recipe of your own (finetune:FILE.toml)"
        ]

    def preprocess(self, base: Preprocessing) -> Preprocessing:
        """Return the preprocessing in effect, given the backbone's own."""
        values: dict[str, Any] = dict(self.preprocessing)
        if self.inputs == "unscaled":
            values.update(scale=1.0, mean=0.0, std=1.0)
        elif self.inputs == "unnormalised":
            values.update(scale=1 / 255, mean=0.0, std=1.0)
        elif self.inputs == "misnormalised":
            usual = base.mean == IMAGENET_MEAN and base.std == IMAGENET_STD
            values.update(mean=0.5, std=0.5) if usual else values.update(
                mean=IMAGENET_MEAN, std=IMAGENET_STD
            )
        elif self.inputs == "swapped-channels":
            values["channels"] = "BGR" if base.channels == "RGB" else "RGB"
        return dataclasses.replace(base, **values)

    def settings(self) -> dict[str, Any]:
        """Return what is in effect, in plain values, without name and description."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for key in ("name", "about"):
            del values[key]
        values["statistics"] = self.normalises_by
        values["dropout"] = "on" if self.draws else "off"
        values["preprocessing"] = dict(self.preprocessing)
        values["head"] = None if self.head is None else self.head.describe()
        return values


def _touched(inputs: str) -> set[str]:
    return {
        "unscaled": {"scale", "mean", "std"},
        "unnormalised": {"scale", "mean", "std"},
        "misnormalised": {"mean", "std"},
        "swapped-channels": {"channels"},
    }.get(inputs, set())


__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Autograd",
    "Configuration",
    "Inputs",
    "Mode",
    "Order",
    "Statistics",
]
