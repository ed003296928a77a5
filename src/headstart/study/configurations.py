"""Configurations: ways of running a backbone, or of training it, and the names that compose them.

A configuration is a frozen value. Most are named rather than built: a name is words joined by
``+``, such as ``eval+no_grad``, ``reestimated+unscaled``, ``layer=stage2+eval``, ``finetune+adam``
or ``finetune:lp-ft``. :func:`resolve` turns names into configurations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from headstart.core.errors import ConfigError
from headstart.data import Inputs
from headstart.study.heads import HeadSpec

Mode = Literal["eval", "train"]
Autograd = Literal["grad", "no_grad", "inference"]
Statistics = Literal["running", "batch", "reestimated", "blend"]
Switch = Literal["off", "on"]
Order = Literal["shuffled", "class"]
_CHOICES: dict[str, tuple[Any, ...]] = {
    "mode": get_args(Mode),
    "autograd": get_args(Autograd),
    "statistics": (None, *get_args(Statistics)),
    "dropout": (None, *get_args(Switch)),
    "order": get_args(Order),
}
_SET_BY_RECIPE = ("mode", "autograd", "statistics", "alpha", "dropout", "order", "recompute",
                  "batch_size", "head")  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """One way of running a frozen backbone, or a recipe that trains it.

    The defaults are those of the reference, ``eval+inference_mode``.

    Attributes:
        name: how tables show it; unique within a study.
        mode: the mode that the module is put in: ``module.eval()`` or ``module.train()``.
        autograd: ``grad`` (autograd on), ``no_grad`` or ``inference`` (inference mode).
        statistics: the statistics that batch norms use. None: those of the mode, ``running`` for
            ``eval`` and ``batch`` for ``train``. ``reestimated``: those of the training split,
            measured once and then fixed. ``blend``: between these two, see ``alpha``.
        alpha: the weight of the re-estimated statistics in a blend, in [0, 1].
        dropout: whether dropout (and every other source of randomness) is on. None: as in the
            mode.
        order: of the loader that the head is tested with: ``shuffled``, or ``class``: an
            unshuffled loader over class folders, one class after the other. Training loaders
            shuffle.
        recompute: run the backbone anew in every pass of training, in training mode, which moves
            its running statistics, and test in evaluation mode with the moved statistics.
            Otherwise one function computes training and test rows alike.
        batch_size: items in a batch, where rows depend on it. None: that of the study.
        inputs: a deliberate mistake that the backbone's inputs know by this name
            (:meth:`~headstart.data.Inputs.mistakes`), for images ``unscaled``, ``unnormalised``,
            ``misnormalised`` and ``swapped-channels``, for texts ``unmasked``, ``unframed`` and
            ``truncated``, for sounds ``truncated``, ``slowed`` and ``unstandardised``.
        preprocessing: fields of the backbone's inputs to replace.
        layer, pooling: another cut. None: that of the backbone.
        head: another head. None: that of the study.
        recipe: train the backbone as well, a fresh copy in every repetition: the name of a recipe
            of ``headstart finetune``, or a ``.toml`` file. It decides everything about training;
            inputs and cut are those of the configuration.
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
    inputs: str = "as given"
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
        ] or self._contradictions()
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

    def inputs_from(self, base: Inputs) -> Inputs:
        """Return the inputs in effect, given the backbone's own.

        Raises:
            ConfigError: this kind of inputs knows no such mistake, has no such fields, or both
                set the same field.
        """
        who, wrong = f"the configuration '{self.name}'", base
        if self.inputs != "as given":
            mistakes = base.mistakes()
            if self.inputs not in mistakes:
                raise ConfigError(
                    (f"{who}: inputs='{self.inputs}' does not apply to {base.unit}",),
                    hint=f"mistakes that can be made with them: {', '.join(mistakes) or 'none'}",
                )
            wrong = mistakes[self.inputs]
        twice = sorted(base.differences(wrong).keys() & self.preprocessing.keys())
        if twice:
            raise ConfigError(
                (f"{who}: inputs='{self.inputs}' and preprocessing both set {', '.join(twice)}",)
            )
        try:
            return wrong.changed(**self.preprocessing)
        except ConfigError as error:
            faults = tuple(f"{who}: {fault}" for fault in error.faults)
            raise ConfigError(faults, hint=error.hint) from error

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

    def _contradictions(self) -> list[str]:
        faults = []
        if not self.name.strip():
            faults.append("it needs a name")
        if self.mode == "eval" and self.statistics == "batch":
            faults.append("evaluation mode never normalises by the batch; use mode='train'")
        if self.mode == "train" and self.statistics not in (None, "batch"):
            faults.append(
                f"training mode normalises by the batch, so {self.statistics} statistics would"
                " never be used; use mode='eval', with dropout='on' to keep dropout"
            )
        if self.statistics == "blend" and (self.alpha is None or not 0 <= self.alpha <= 1):
            faults.append(f"a blend needs alpha in [0, 1], found {self.alpha}")
        if self.statistics != "blend" and self.alpha is not None:
            faults.append("alpha belongs to statistics='blend'")
        if self.recompute and self.normalises_by != "batch" and not self.draws:
            faults.append(
                "recompute would give the same rows in every pass, since they depend neither on"
                " the batch nor on dropout"
            )
        if self.recompute and self.order == "class":
            faults.append("recompute tests in evaluation mode, where the order makes no difference")
        if self.batch_size is not None and self.batch_size < 2:
            faults.append(f"batch_size must be at least 2, not {self.batch_size}")
        return [*faults, *self._fixed_by_recipe()]

    def _fixed_by_recipe(self) -> list[str]:
        if self.recipe is None:
            return []
        if not self.recipe.strip():
            return ["a recipe is a name or a .toml file, not an empty text"]
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        both = [name for name in _SET_BY_RECIPE if getattr(self, name) != defaults[name]]
        if not both:
            return []
        return [
            f"the recipe '{self.recipe}' decides how the backbone is trained, so"
            f" {', '.join(both)} cannot be set as well; write norm, dropout and batch_size into a"
            " recipe of your own (finetune:FILE.toml)"
        ]


__all__ = ["Autograd", "Configuration", "Mode", "Order", "Statistics"]
