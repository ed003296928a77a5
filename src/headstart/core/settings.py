"""Settings: frozen dataclasses whose fields are Python parameters, command-line flags, and checks.

A field is written once, with :func:`option`::

    @dataclass(frozen=True)
    class FitConfig:
        folds: int = option(5, "Folds of the cross-validation.", at_least=2)
        head: str = option("linear", "Kind of head.", choices=("linear", "mlp"))

        def __post_init__(self) -> None:
            check(self)

``FitConfig(folds=1, head="tree")`` raises one :class:`~headstart.core.errors.ConfigError` that
names both faults. :func:`settle` applies single overrides to several such dataclasses, and the
command line is generated from :func:`options_of`. Nothing here imports anything heavy, so that
modules of settings can be imported to print a help text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, overload

from headstart.core.errors import ConfigError
from headstart.core.options import (
    Bound,
    Fault,
    Option,
    like,
    option,
    option_faults,
    options_of,
)
from headstart.core.wording import did_you_mean

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


def faults(settings: Any) -> list[str]:
    """Return everything that is wrong with a settings object, one sentence each.

    Types, choices and bounds are looked at; then what the object's own method ``faults()``, where
    it has one, finds wrong between several options.
    """
    found: list[str] = [*option_faults(settings)]
    if not found and hasattr(settings, "faults"):
        found += settings.faults()
    return found


def check(settings: Any) -> None:
    """Refuse settings that :func:`faults` finds fault with; for ``__post_init__``.

    Raises:
        ConfigError: naming all faults.
    """
    found = faults(settings)
    if found:
        raise ConfigError(tuple(found))


@overload
def settle(who: str, overrides: Mapping[str, Any], one: A, /) -> tuple[A]: ...
@overload
def settle(who: str, overrides: Mapping[str, Any], one: A, two: B, /) -> tuple[A, B]: ...
@overload
def settle(
    who: str, overrides: Mapping[str, Any], one: A, two: B, three: C, /
) -> tuple[A, B, C]: ...
@overload
def settle(
    who: str, overrides: Mapping[str, Any], one: A, two: B, three: C, four: D, /
) -> tuple[A, B, C, D]: ...
def settle(who: str, overrides: Mapping[str, Any], /, *groups: Any) -> tuple[Any, ...]:
    """Return settings objects with single overrides applied, each to the object that has it.

    Every job begins with it::

        config, run, reading = settle(
            "fit", overrides, config or FitConfig(), run or RunOptions(), reading or ReadOptions()
        )

    Args:
        who: the function that was called, for the message.
        overrides: values by the name of a field.
        groups: instances of settings dataclasses; no name is in two of them.

    Raises:
        ConfigError: a group that is not a settings object, names that no group has (with the
            nearest names), and everything that is wrong with the resulting settings, together.
    """
    wrong = [
        f"{who} takes its settings as dataclasses, not as {type(group).__name__} ({group!r:.60})"
        for group in groups
        if not dataclasses.is_dataclass(group) or isinstance(group, type)
    ]
    if wrong:
        raise ConfigError(tuple(wrong), hint="give single settings as keywords")
    names = [[field.name for field in dataclasses.fields(group)] for group in groups]
    known = [name for group in names for name in group]
    if len(set(known)) < len(known):
        twice = sorted({name for name in known if known.count(name) > 1})
        raise TypeError(f"two groups of {who} have the option {', '.join(twice)}")
    found: list[str] = []
    hints: list[str] = []
    for name in overrides:
        if name not in known:
            near = did_you_mean(name, known)
            found.append(f"{who} has no setting '{name}'" + (f" ({near})" if near else ""))
    if found and not all(fault.endswith(")") for fault in found):
        hints.append("it has " + ", ".join(known))
    settled = []
    for group, own in zip(groups, names, strict=True):
        chosen = {name: overrides[name] for name in own if name in overrides}
        try:
            settled.append(dataclasses.replace(group, **chosen) if chosen else group)
        except ConfigError as error:
            found += error.faults
            hints += [error.hint] if error.hint else []
    if found:
        raise ConfigError(tuple(found), hint="; ".join(dict.fromkeys(hints)) or None)
    return tuple(settled)


def command_line(*groups: Any, against: Iterable[Any] = ()) -> list[str]:
    """Return the words that give these settings to a command: those that are not the defaults.

    Args:
        groups: settings objects.
        against: objects of the same classes that hold the command's defaults, where these are
            not the classes' own.
    """
    defaults = {type(default): default for default in against}
    words: list[str] = []
    for group in groups:
        for each in options_of(defaults.get(type(group), type(group))):
            value = getattr(group, each.name)
            if each.option.cli and value != each.default:
                words += each.write(value)
    return words


def recorded(settings: Any) -> dict[str, Any]:
    """Return the values that the record of a run keeps, by name."""
    return {
        each.name: getattr(settings, each.name)
        for each in options_of(type(settings))
        if each.option.record
    }


__all__ = [
    "Bound",
    "Fault",
    "Option",
    "check",
    "command_line",
    "faults",
    "like",
    "option",
    "option_faults",
    "options_of",
    "recorded",
    "settle",
]
