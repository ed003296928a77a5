"""Options: what one setting says of itself, and what is wrong with a value of it.

Fields of settings dataclasses are made by :func:`option`; :mod:`headstart.core.settings` has what
is done with whole dataclasses.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import operator
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union

from headstart.core.kinds import JSON_OBJECT, Kind, listed
from headstart.core.wording import did_you_mean

_KEY = "headstart.option"


@dataclass(frozen=True)
class Option:
    """What a setting says of itself beyond its name, its type and its default.

    Attributes:
        help: one or two sentences, for ``--help`` and the documentation; or a function that returns
            them when they are needed, where they describe a registry.
        choices: the values that are allowed, or a function that lists them when they are needed
            (a registry that may grow); of every element where the value is a tuple.
        names: values worth naming in the help text where others are allowed too; likewise.
        at_least, at_most, above, below: bounds of a number, or of every number of a tuple.
        panel: title of the panel of the help text; None: the command's own options.
        flags: names on the command line. One that begins with two dashes replaces the flag made
            from the field's name; a short one, such as ``-o``, is added to it.
        metavar: placeholder of the value in the help text; None: by type.
        shown: the default as the help text shows it; None: the default itself.
        kind: how text becomes a value; None: by type.
        check: returns what else is wrong with a value, as the end of a sentence ("must be …, not
            …"), or None.
        cli: whether the command line offers it; values that cannot be written as text are not.
        record: whether the record of a run keeps it; where output goes is no property of a result.
    """

    help: str | Callable[[], str]
    choices: tuple[Any, ...] | Callable[[], Iterable[Any]] | None = None
    names: tuple[Any, ...] | Callable[[], Iterable[Any]] | None = None
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    panel: str | None = None
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    shown: str | None = None
    kind: Kind | None = None
    check: Callable[[Any], str | None] | None = None
    cli: bool = True
    record: bool = True


class Bound(NamedTuple):
    """An option as a field of a dataclass.

    Attributes:
        name: of the field, which is the Python parameter.
        type: its type; ``Any`` where the annotation names something that is not imported.
        default: its default.
        option: what it says of itself.
    """

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """The long flag: ``--batch-size``."""
        given = [flag for flag in self.option.flags if flag.startswith("--")]
        return given[0] if given else "--" + self.name.replace("_", "-")

    @property
    def flags(self) -> tuple[str, ...]:
        """All flags, the long one first."""
        return (self.flag, *(flag for flag in self.option.flags if flag != self.flag))

    @property
    def plain_type(self) -> Any:
        """The type without ``None``: ``int`` for ``int | None``."""
        rest = [part for part in _alternatives(self.type) if part is not types.NoneType]
        return rest[0] if len(rest) == 1 else self.type

    @property
    def help(self) -> str:
        """One or two sentences."""
        about = self.option.help
        return about() if callable(about) else about

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values that are allowed; empty where any value of the type is."""
        given = _several(self.option.choices)
        element = self.plain_type
        if typing.get_origin(element) is tuple:
            element = typing.get_args(element)[0]
        return given or (typing.get_args(element) if typing.get_origin(element) is Literal else ())

    @property
    def names(self) -> tuple[str, ...]:
        """The values that a help text lists."""
        return tuple(map(str, self.choices or _several(self.option.names)))

    @property
    def kind(self) -> Kind | None:
        """How text becomes a value; None for plain words, numbers, paths and switches."""
        if self.option.kind is not None:
            return self.option.kind
        origin = typing.get_origin(self.plain_type) or self.plain_type
        if origin is tuple:
            return listed(typing.get_args(self.plain_type)[0])
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return JSON_OBJECT
        return None

    def write(self, value: Any) -> list[str]:
        """Return the words that set this option on a command line; none for None and False."""
        if value is False and self.default is True:
            return ["--no-" + self.flag[2:]]
        if value is None or value is False:
            return []
        if value is True:
            return [self.flag]
        return [self.flag, str(value) if self.kind is None else self.kind.write(value)]


class Fault(str):
    """What is wrong with one option: ``folds must be at least 2, not 1``.

    A command line writes its own flag in the place of ``name``.
    """

    name: str
    text: str

    def __new__(cls, name: str, text: str) -> Fault:
        """Join the name and what is wrong with it to a sentence."""
        fault = super().__new__(cls, f"{name} {text}")
        fault.name, fault.text = name, text
        return fault

    def __reduce__(self) -> tuple[Any, ...]:
        return Fault, (self.name, self.text)


def option(
    default: Any,
    help: str | Callable[[], str],
    *,
    choices: Iterable[Any] | Callable[[], Iterable[Any]] | None = None,
    names: Iterable[Any] | Callable[[], Iterable[Any]] | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    panel: str | None = None,
    flags: Iterable[str] = (),
    metavar: str | None = None,
    shown: str | None = None,
    kind: Kind | None = None,
    check: Callable[[Any], str | None] | None = None,
    cli: bool = True,
    record: bool = True,
) -> Any:
    """Return a field of a settings dataclass; the arguments are those of :class:`Option`.

    Args:
        default: the default; a dict is copied for every instance. ``dataclasses.MISSING``: the
            setting has none and must be given.
    """
    about = Option(
        help,
        choices=_fixed(choices),
        names=_fixed(names),
        at_least=at_least,
        at_most=at_most,
        above=above,
        below=below,
        panel=panel,
        flags=tuple(flags),
        metavar=metavar,
        shown=shown,
        kind=kind,
        check=check,
        cli=cli,
        record=record,
    )
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata={_KEY: about})
    return dataclasses.field(default=default, metadata={_KEY: about})


def like(settings: type, name: str, default: Any = MISSING) -> Any:
    """Return a field that repeats an option of another settings dataclass.

    Args:
        settings: that class.
        name: of the option.
        default: the default; left out: that of the other.
    """
    (field,) = (field for field in dataclasses.fields(settings) if field.name == name)
    return dataclasses.field(
        default=_default(field) if default is MISSING else default, metadata=field.metadata
    )


def options_of(settings: Any) -> tuple[Bound, ...]:
    """Return the options of a settings dataclass, in the order of its fields.

    Args:
        settings: the class, or an instance, whose values then are the defaults.
    """
    bound = _declared(settings if isinstance(settings, type) else type(settings))
    if isinstance(settings, type):
        return bound
    return tuple(each._replace(default=getattr(settings, each.name)) for each in bound)


def option_faults(settings: Any) -> list[Fault]:
    """Return what is wrong with single options of a settings object: types, choices and bounds.

    Lists become tuples on the way, since settings do not change.
    """
    found: list[Fault] = []
    kind: Any = type(settings)
    for each in _declared(kind):
        value = getattr(settings, each.name)
        if isinstance(value, list) and typing.get_origin(each.plain_type) is tuple:
            value = tuple(value)
            object.__setattr__(settings, each.name, value)
        wrong = _wrong(value, each.type, each)
        if wrong is not None:
            found.append(Fault(each.name, wrong))
    return found


def _fixed(values: Any) -> Any:
    return values if values is None or callable(values) else tuple(values)


def _several(values: Any) -> tuple[Any, ...]:
    return tuple(values() if callable(values) else values or ())


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)


class _Names(dict[str, Any]):
    """Names of modules for resolving annotations; one imported for type checkers only is Any."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


@functools.cache
def _declared(kind: Any) -> tuple[Bound, ...]:
    names = _Names()
    for base in reversed(kind.__mro__):
        names.update(vars(sys.modules[base.__module__]))
    hints = typing.get_type_hints(kind, localns=names)
    return tuple(
        Bound(field.name, hints[field.name], _default(field), field.metadata[_KEY])
        for field in dataclasses.fields(kind)
        if _KEY in field.metadata
    )


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _wrong(value: Any, kind: Any, each: Bound) -> str | None:
    """Return what is wrong with a value, as the end of a sentence; None if nothing is.

    Args:
        value: the value, or one element of it.
        kind: its type.
        each: the option.
    """
    alternatives = _alternatives(kind)
    if value is None and types.NoneType in alternatives:
        return None
    rest = [part for part in alternatives if part is not types.NoneType]
    single = rest[0] if len(rest) == 1 else Any
    if typing.get_origin(single) is tuple and each.option.kind is None:
        if not isinstance(value, tuple):
            return f"must be a list, not {value!r}"
        parts = (_wrong(part, typing.get_args(single)[0], each) for part in value)
        return next((text for text in parts if text is not None), None)
    allowed = each.choices
    if allowed:
        return None if value in allowed else f"must be {_one_of(value, allowed)}, not {value!r}"
    if single in _PLAIN:
        fits, noun = _PLAIN[single]
        if not isinstance(value, fits) or (isinstance(value, bool) and single is not bool):
            return f"must be {noun}, not {value!r}"
    wrong = _out_of_bounds(value, each.option)
    return each.option.check(value) if wrong is None and each.option.check else wrong


_PLAIN: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "text"),
    Path: (str | Path, "a path"),
}


def _one_of(value: Any, allowed: tuple[Any, ...]) -> str:
    words = [str(each) for each in allowed]
    near = did_you_mean(value, words) if isinstance(value, str) and len(words) > 2 else None
    listed = " or ".join(words) if len(words) < 3 else "one of " + ", ".join(words)
    return listed + (f" ({near})" if near else "")


def _out_of_bounds(value: Any, about: Option) -> str | None:
    if not isinstance(value, Real):
        return None
    number = float(value)
    bounds: tuple[tuple[str, float | None, Callable[[float, float], bool]], ...] = (
        ("at least", about.at_least, operator.ge),
        ("at most", about.at_most, operator.le),
        ("above", about.above, operator.gt),
        ("below", about.below, operator.lt),
    )
    given = [(word, limit, holds) for word, limit, holds in bounds if limit is not None]
    if all(holds(number, limit) for _, limit, holds in given):
        return None
    words = " and ".join(f"{word} {limit:g}" for word, limit, _ in given)
    return f"must be {words}, not {number:g}"


__all__ = ["Bound", "Fault", "Option", "like", "option", "option_faults", "options_of"]
