"""From what a user names to backbones: names, patterns, and a file of options for single ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from headstart.backbones.families import families
from headstart.commands.backbone_spec import BackboneSpec
from headstart.core.errors import ConfigError, HeadstartError
from headstart.core.toml import read_toml
from headstart.core.wording import count, did_you_mean, nearest

_PATTERN = "*?["


@dataclass(frozen=True)
class Named:
    """A backbone to try.

    Attributes:
        name: as it is shown.
        spec: how to build it; None where that cannot be said.
        why: why not; empty otherwise.
    """

    name: str
    spec: BackboneSpec | None
    why: str = ""


def named_backbones(
    names: Sequence[str],
    base: BackboneSpec,
    options: Mapping[str, Mapping[str, Any]],
    most: int,
) -> tuple[tuple[Named, ...], tuple[str, ...]]:
    """Return the backbones that are meant, in the order of their names, and what was decided.

    Args:
        names: names and patterns, of which ``*`` stands for anything.
        base: settings that all of them share.
        options: settings of single ones by name, which go before those of ``base``.
        most: backbones that a pattern may stand for.

    Raises:
        ConfigError: options are for a backbone that is not named, or are unknown.
    """
    meant: dict[str, None] = {}
    notes: list[str] = []
    for name in names:
        if any(sign in name for sign in _PATTERN) and name not in options:
            found, said = _matching(name, most)
            meant.update(dict.fromkeys(found or [name]))
            notes += said
        else:
            meant[name] = None
    unused = [name for name in options if name not in meant]
    if unused:
        faults = [
            f"the options name '{name}', which is not among the backbones"
            f" ({did_you_mean(name, meant) or ', '.join(meant)})"
            for name in unused
        ]
        raise ConfigError(tuple(faults))
    return tuple(_named(name, base, options.get(name, {})) for name in meant), tuple(notes)


def _named(name: str, base: BackboneSpec, own: Mapping[str, Any]) -> Named:
    if any(sign in name for sign in _PATTERN) and "backbone" not in own:
        return Named(name, None, "matches no backbone that has weights")
    values = {"source": name, **{_FIELDS.get(key, key): value for key, value in own.items()}}
    try:
        return Named(name, dataclasses.replace(base, **values))
    except HeadstartError as error:
        return Named(name, None, str(error))


_FIELDS = {"backbone": "source"}


def _matching(pattern: str, most: int) -> tuple[list[str], list[str]]:
    """Return the names that match, one of each architecture first, and what was left out."""
    found: list[str] = []
    for family in families():
        if "/" in pattern and not fnmatchcase(family.name, pattern.split("/", 1)[0]):
            continue  # its library is not loaded
        try:
            names = [f"{family.name}/{name}" for name in family.names()]
        except (HeadstartError, ImportError):
            continue  # an extra that is not installed has no names
        found += [name for name in names if fnmatchcase(name, pattern)]
    if len(found) <= most:
        return found, []
    first: dict[str, str] = {}
    for name in found:
        first.setdefault(name.split(".", 1)[0], name)
    one_each = list(first.values())
    kept = (one_each + [name for name in found if name not in set(one_each)])[:most]
    return kept, [
        f"'{pattern}' matches {count(len(found), 'backbone')}; {count(most, 'one', 'ones')} are"
        f" tried, {kept[0]} to {kept[-1]}: narrow the pattern, or raise most={most}"
    ]


def read_options(file: str | Path) -> dict[str, dict[str, Any]]:
    """Read a TOML file of options: a table for each backbone.

    ``backbone`` in a table says which one it is, where its name is the user's own; the others are
    the fields of :class:`~headstart.BackboneSpec`. A relative path of weights starts in the folder
    of the file.

    Raises:
        ConfigError: the file cannot be read, or holds something else; all is named.
    """
    path = Path(file).expanduser()
    try:
        tables = read_toml(path)
    except ValueError as error:
        raise ConfigError((f"the backbone options in '{path}' cannot be read: {error}",)) from error
    faults, found = [], {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            faults.append(f"'{name}' in {path.name} must be a table, such as [\"timm/resnet18\"]")
            continue
        faults += _unknown(table, f'["{name}"] in {path.name} has no option')
        found[name] = {key: _value(key, value, path) for key, value in table.items()}
    if faults:
        raise ConfigError(tuple(faults))
    return found


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of single backbones that no backbone has.

    Raises:
        ConfigError: naming all of them.
    """
    faults = []
    for name, table in options.items():
        if not isinstance(table, Mapping):
            faults.append(f"the options of '{name}' must be a mapping, not {table!r}")
        else:
            faults += _unknown(table, f"the options of '{name}' have no")
    if faults:
        raise ConfigError(tuple(faults))


def _unknown(table: Mapping[str, Any], lacking: str) -> list[str]:
    """Return a sentence for each key that is no field of a spec, with the nearest."""
    known = [field.name for field in dataclasses.fields(BackboneSpec)]
    known = [name for name in known if name not in ("source", "own_module")] + ["backbone"]
    faults = []
    for key in table:
        if key not in known:
            near = nearest(key, known, 1)
            did = f"did you mean '{near[0]}'" if near else f"known are {', '.join(known)}"
            faults.append(f"{lacking} '{key}' ({did})")
    return faults


def _value(key: str, value: Any, path: Path) -> Any:
    if key == "weights" and isinstance(value, str):
        return str(path.parent / Path(value).expanduser())
    return tuple(value) if isinstance(value, list) else value


__all__ = ["Named", "check_options", "named_backbones", "read_options"]
