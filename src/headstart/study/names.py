"""The names of configurations: words joined by ``+``, and what each of them sets."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from headstart.core.errors import ConfigError
from headstart.core.wording import nearest
from headstart.data import INPUT_KINDS
from headstart.study.configurations import Configuration
from headstart.study.heads import tutorial_head

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
    "recompute": (
        {"recompute": True},
        "the backbone runs in every pass, alternating train and eval",
    ),
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
        return [f"'{name}' names a recipe, which has its own optimizer"]
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
    "Fields",
    "parse",
    "register",
    "resolve",
    "with_reference",
]
