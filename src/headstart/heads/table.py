"""The table of heads: what is entered, and how it is found. ``registry`` fills it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.core.errors import ConfigError
from headstart.core.wording import did_you_mean
from headstart.heads.contract import HeadKind

KINDS: dict[str, HeadKind] = {}


def head_kind(name: str) -> HeadKind:
    """Return the kind of head with a name or an alias.

    Raises:
        ConfigError: no head has that name; the nearest ones are offered.
    """
    found = find(name)
    if found is None:
        raise ConfigError((unknown(name, None),))
    return found


def head_kinds(task: str | None = None) -> tuple[HeadKind, ...]:
    """Return all kinds of head, or those for one task, in the order of registration."""
    return tuple(kind for kind in KINDS.values() if task is None or task in kind.tasks)


def head_names(task: str | None = None) -> tuple[str, ...]:
    """Return the canonical names of all kinds, or of those for one task."""
    return tuple(kind.name for kind in head_kinds(task))


def head_for(name: str, options: Mapping[str, Any] | None) -> HeadKind:
    """Return the kind of head that a name and options mean.

    ``auto`` with options that it does not have, such as ``C``, is the first head that it would
    choose from and that has all of them: who names a penalty has chosen.

    Args:
        name: of a kind, or an alias.
        options: by name.

    Raises:
        ConfigError: no head has that name.
    """
    kind, given = head_kind(name), set(options or {})
    if kind.name != "auto" or given <= set(kind.option_names):
        return kind
    fitting = (one for one in map(head_kind, automatic_heads()) if given <= set(one.option_names))
    return next(fitting, kind)


def automatic_heads(task: str = "classification") -> tuple[str, ...]:
    """Return the names of the heads that ``auto`` chooses from, the favourite first."""
    return tuple(kind.name for kind in head_kinds(task) if kind.automatic)


def unknown(name: object, task: str | None) -> str:
    """Return the sentence that no head for a task has a name, with the nearest ones."""
    names = head_names(task)
    aliases = [alias for kind in head_kinds(task) for alias in kind.aliases]
    near = did_you_mean(str(name), [*names, *aliases])
    known = f"head must be one of {', '.join(names)}, not {name!r}"
    return f"{known} ({near})" if near else known


def find(name: str) -> HeadKind | None:
    """Return the kind with a name or an alias; None if there is none."""
    for kind in KINDS.values():
        if name == kind.name or name in kind.aliases:
            return kind
    return None


__all__ = [
    "KINDS",
    "automatic_heads",
    "find",
    "head_for",
    "head_kind",
    "head_kinds",
    "head_names",
    "unknown",
]
