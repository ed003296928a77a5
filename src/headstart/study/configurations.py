"""Configurations: ways of running a backbone, or of training it, and the names that compose them.

A configuration is a frozen value. Most are named rather than built: a name is words joined by
``+``, such as ``eval+no_grad``, ``reestimated+unscaled``, ``layer=stage2+eval``, ``finetune+adam``
or ``finetune:lp-ft``. :func:`resolve` turns names into configurations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from headstart.core.errors import ConfigError
from headstart.core.wording import nearest
from headstart.data import INPUT_KINDS, Inputs
from headstart.study.heads import HeadSpec, tutorial_head

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
                    (f"{who}: inputs='{self.inputs}' means nothing for {base.unit}",),
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
            f" {', '.join(both)} cannot be set beside it; write norm, dropout and batch_size into"
            " a recipe of your own (finetune:FILE.toml)"
        ]


# ---------------------------------------------------------------------------------------- names

REFERENCE = "eval+inference_mode"
DEFAULT: tuple[str, ...] = (
    "train",
    "no_grad",
    "inference_mode",
    "eval",
    "eval+no_grad",
    REFERENCE,
    "reestimated",
    "class-ordered",
)
"""The six ways that people ask about, re-estimated statistics, and a loader without shuffling."""

Fields = dict[str, Any]

TERMS: dict[str, tuple[Fields, str]] = {
    "train": ({"mode": "train"}, "training mode: batch statistics, dropout on"),
    "eval": ({"mode": "eval"}, "evaluation mode: running statistics, dropout off"),
    "grad": ({"autograd": "grad"}, "with autograd"),
    "no_grad": ({"autograd": "no_grad"}, "under torch.no_grad()"),
    "inference_mode": ({"autograd": "inference"}, "under torch.inference_mode()"),
    "batch": ({"statistics": "batch"}, "normalised by the batch"),
    "running": ({"statistics": "running"}, "normalised by the saved statistics"),
    "reestimated": ({"statistics": "reestimated"}, "statistics of the training split, fixed"),
    "class-ordered": ({"order": "class"}, "tested one class after the other"),
    "dropout": ({"dropout": "on"}, "dropout left on"),
    "no-dropout": ({"dropout": "off"}, "dropout off"),
    "recompute": ({"recompute": True}, "the backbone runs in every pass, train and eval in turn"),
    "unscaled": ({"inputs": "unscaled"}, "inputs 0..255"),
    "unnormalised": ({"inputs": "unnormalised"}, "inputs 0..1"),
    "misnormalised": ({"inputs": "misnormalised"}, "inputs with another mean and deviation"),
    "swapped-channels": ({"inputs": "swapped-channels"}, "red and blue swapped"),
    "unmasked": ({"inputs": "unmasked"}, "padding counts as text"),
    "unframed": ({"inputs": "unframed"}, "texts without special tokens"),
    "truncated": (
        {"inputs": "truncated"},
        "texts cut after 8 tokens, sounds after a tenth of the window",
    ),
    "slowed": ({"inputs": "slowed"}, "sounds fed at half their rate"),
    "unstandardised": ({"inputs": "unstandardised"}, "sounds without mean 0 and deviation 1"),
    "features": ({"mode": "eval", "autograd": "inference", "recipe": None}, "frozen backbone"),
    "finetune": ({"recipe": ""}, "backbone trained too; finetune:NAME by a recipe"),
    "sgd": ({"optimizer": "sgd"}, "linear layer (or with finetune, everything) by SGD, StepLR"),
    "adam": ({"optimizer": "adam"}, "the same by Adam"),
}
"""What each word of a name sets and what it means, in the order in which they are listed.

``optimizer`` is no field of a configuration: it chooses a head, or with ``finetune`` a recipe.
"""

_VALUES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "layer": ("layer", str),
    "pooling": ("pooling", str),
    "batch": ("batch_size", int),
    "inputs": ("inputs", str),
    "size": ("size", int),
    "scale": ("scale", float),
    "mean": ("mean", lambda text: _numbers(text)),
    "std": ("std", lambda text: _numbers(text)),
    "channels": ("channels", str),
    "crop": ("crop_fraction", float),
}
"""What ``word=value`` sets, and how the value is read; other fields of inputs by their name."""

_RECIPE = "finetune:"
_BLEND = re.compile(r"blend\(([^()]*)\)")

PRESETS: dict[str, Configuration] = {}
"""The user's own configurations by name; see :func:`register`."""


def register(configuration: Configuration) -> Configuration:
    """Make a configuration available by its name, and return it.

    Example::

        register(Configuration("mine", statistics="blend", alpha=0.2))
    """
    PRESETS[configuration.name] = configuration
    return configuration


def parse(name: str) -> Configuration:
    """Return the configuration that a name stands for.

    Raises:
        ConfigError: unknown words (with the nearest known), or words that contradict each other;
            all of them together.
    """
    name = name.strip()
    if name in PRESETS:
        return PRESETS[name]
    fields: Fields = {}
    set_by: dict[str, str] = {}
    about: list[str] = []
    faults: list[str] = []
    for term in name.split("+"):
        try:
            setting, words = _term(term.strip())
        except ConfigError as error:
            faults += error.faults
            continue
        about.append(words)
        for key, value in setting.items():
            first = set_by.setdefault(key, term)
            if first != term and fields[key] != value:
                faults.append(f"'{first}' and '{term}' contradict each other in '{name}'")
            fields.setdefault(key, value)
    faults += _training_faults(name, fields)
    if faults:
        raise ConfigError(tuple(faults), hint=_hint())
    own = set(Configuration.__dataclass_fields__) | {"optimizer"}
    preprocessing = {key: value for key, value in fields.items() if key not in own}
    settled = _settled({key: value for key, value in fields.items() if key in own})
    return Configuration(name, **settled, preprocessing=preprocessing, about="; ".join(about))


def resolve(configurations: Iterable[str | Configuration] | str | None) -> list[Configuration]:
    """Return configurations from names and objects; all faults are reported together.

    Args:
        configurations: names (see :func:`parse`), objects, or one string of names with commas;
            None: :data:`DEFAULT`.

    Raises:
        ConfigError: unknown or contradictory names, a name twice, or no configuration.
    """
    given: Sequence[str | Configuration]
    if configurations is None:
        given = DEFAULT
    elif isinstance(configurations, str):
        given = [part for part in configurations.split(",") if part.strip()]
    else:
        given = list(configurations)
    found: list[Configuration] = []
    faults: list[str] = []
    hint = None
    for one in given:
        try:
            found.append(one if isinstance(one, Configuration) else parse(one))
        except ConfigError as error:
            faults += error.faults
            hint = hint or error.hint
    names = [configuration.name for configuration in found]
    faults += [f"'{name}' is given twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if not given:
        faults.append("there is no configuration to compare")
    if faults:
        raise ConfigError(tuple(faults), hint=hint)
    return found


def with_reference(chosen: Sequence[Configuration], name: str | None) -> list[Configuration]:
    """Return configurations and the one they are compared with, which comes first if it is new.

    Args:
        chosen: the configurations.
        name: of the reference; None: :data:`REFERENCE`.

    Raises:
        ConfigError: the name means nothing, or a configuration that fine-tunes.
    """
    known = [configuration for configuration in chosen if configuration.name == (name or REFERENCE)]
    reference = known[0] if known else parse(name or REFERENCE)
    if reference.recipe is not None:
        raise ConfigError(
            (f"the reference '{reference.name}' fine-tunes",),
            hint=f"compare with a frozen backbone, such as {REFERENCE}",
        )
    return list(chosen) if known else [reference, *chosen]


def _term(term: str) -> tuple[Fields, str]:
    """Return the fields that one word sets, and what it means."""
    if term in TERMS:
        return TERMS[term]
    if term.startswith(_RECIPE) and len(term) > len(_RECIPE):
        recipe = term.removeprefix(_RECIPE)
        return {"recipe": recipe}, f"backbone trained by the recipe {recipe}"
    blend = _BLEND.fullmatch(term)
    if blend is not None:
        try:
            alpha = float(blend[1])
        except ValueError:
            raise ConfigError((f"'{term}': expected a number from 0 to 1",)) from None
        return {"statistics": "blend", "alpha": alpha}, f"{alpha:g} of the way to re-estimated"
    key, sign, text = term.partition("=")
    of_inputs = {name for kind in INPUT_KINDS.values() for name in kind.field_names()}
    if sign and (key in _VALUES or key in of_inputs):
        name, convert = _VALUES.get(key, (key, _numbers_or_text))
        try:
            return {name: convert(text)}, term
        except ValueError:
            raise ConfigError((f"'{term}': '{text}' is not a value of {key}",)) from None
    words = [*TERMS, "blend(0.5)", f"{_RECIPE}NAME", *(f"{name}=" for name in _VALUES), *PRESETS]
    near = nearest(term, words)
    offer = f" (nearest: {', '.join(near)})" if near else ""
    raise ConfigError((f"there is no configuration '{term}'{offer}",))


def _training_faults(name: str, fields: Fields) -> list[str]:
    if fields.get("recipe") == "" and "optimizer" not in fields:
        return [
            f"'{name}' does not say how it trains: write finetune+sgd, finetune+adam, or"
            " finetune:NAME with a recipe such as lp-ft"
        ]
    if fields.get("recipe") and "optimizer" in fields:
        return [f"'{name}' names a recipe, which has an optimizer of its own"]
    return []


def _settled(fields: Fields) -> Fields:
    """Fill in what a name leaves open, as the people who use these words mean it."""
    optimizer = fields.pop("optimizer", None)
    if fields.get("recipe") == "":
        fields["recipe"] = f"{optimizer}-step"
    elif optimizer is not None:
        fields["head"] = tutorial_head(optimizer)
    if "mode" in fields:
        # "eval" and "train" without a word about autograd leave it on.
        fields.setdefault("autograd", "grad")
    elif "statistics" in fields:
        fields["mode"] = "train" if fields["statistics"] == "batch" else "eval"
    elif "dropout" in fields:
        fields["mode"] = "eval" if fields["dropout"] == "on" else "train"
    elif fields.keys() & {"autograd", "order", "recompute"}:
        # "no_grad" alone is what tutorials show: the module stays in training mode, as built.
        fields["mode"] = "train"
    return fields


def _numbers(text: str) -> float | tuple[float, ...]:
    values = tuple(float(part) for part in text.split("/"))
    if len(values) not in (1, 3):
        raise ValueError("expected one number or three")
    return values[0] if len(values) == 1 else values


def _numbers_or_text(text: str) -> Any:
    for convert in (int, _numbers):
        with contextlib.suppress(ValueError):
            return convert(text)
    return text


def _hint() -> str:
    return (
        f"names are words joined by '+': {', '.join(TERMS)}, blend(0.5), finetune:NAME, and"
        f" KEY=VALUE with one of the keys {', '.join(_VALUES)}"
    )


__all__ = [
    "DEFAULT",
    "PRESETS",
    "REFERENCE",
    "TERMS",
    "Autograd",
    "Configuration",
    "Mode",
    "Order",
    "Statistics",
    "parse",
    "register",
    "resolve",
    "with_reference",
]
