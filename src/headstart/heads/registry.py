"""The registry of heads: the one table that training, sweeps, comparisons, fine-tuning, the
estimators and ``--help`` read.

It begins with the heads of ``heads/built_in.py``. To add one, write its options as a frozen
dataclass and its training as one function, and call :func:`register_head`. Importing this module
loads no numerical library, so that ``--help`` can list the heads.
"""

from __future__ import annotations

import dataclasses

from headstart.core.errors import ConfigError
from headstart.core.wording import did_you_mean
from headstart.heads.built_in import BUILT_IN
from headstart.heads.contract import HeadKind, Trained, TrainingRows

_KINDS: dict[str, HeadKind] = {kind.name: kind for kind in BUILT_IN}


def register_head(kind: HeadKind) -> HeadKind:
    """Enter a kind of head into the registry, under its name and its aliases.

    Raises:
        ConfigError: a name is taken by another kind, or an option has no default.
    """
    faults = [
        f"the head name '{name}' is taken by '{taken.name}'"
        for name in (kind.name, *kind.aliases)
        if (taken := _find(name)) is not None
    ]
    for option in dataclasses.fields(kind.options):
        if option.default is option.default_factory is dataclasses.MISSING:
            faults.append(f"the option '{option.name}' of head '{kind.name}' needs a default")
    if faults:
        raise ConfigError(tuple(faults))
    _KINDS[kind.name] = kind
    return kind


def head_kind(name: str) -> HeadKind:
    """Return the kind of head with a name or an alias.

    Raises:
        ConfigError: no head has that name; the nearest ones are offered.
    """
    found = _find(name)
    if found is None:
        raise ConfigError((_unknown(name, None),))
    return found


def head_kinds(task: str | None = None) -> tuple[HeadKind, ...]:
    """Return all kinds of head, or those for one task, in the order of registration."""
    return tuple(kind for kind in _KINDS.values() if task is None or task in kind.tasks)


def head_names(task: str | None = None) -> tuple[str, ...]:
    """Return the canonical names of all kinds, or of those for one task."""
    return tuple(kind.name for kind in head_kinds(task))


def head_fault(name: object, task: str = "classification") -> str | None:
    """Return what is wrong with the name of a head, as one sentence; None if nothing is."""
    kind = _find(name) if isinstance(name, str) else None
    if kind is not None and task in kind.tasks:
        return None
    if kind is not None:
        return (
            f"head must be one of {', '.join(head_names(task))}, not {name!r}, which cannot be"
            f" trained for {task}"
        )
    return _unknown(name, task)


def describe_heads(task: str = "classification", *, linear: bool = False) -> str:
    """Return all heads with their summaries in one line, for ``--help``.

    Args:
        task: only those for this task.
        linear: only those that fine-tuning can start from.
    """
    kinds = [kind for kind in head_kinds(task) if kind.linear or not linear]
    return " ".join(f"{kind.name}: {kind.summary}." for kind in kinds)


def _unknown(name: object, task: str | None) -> str:
    names = head_names(task)
    aliases = [alias for kind in head_kinds(task) for alias in kind.aliases]
    near = did_you_mean(str(name), [*names, *aliases])
    known = f"head must be one of {', '.join(names)}, not {name!r}"
    return f"{known} ({near})" if near else known


def _find(name: str) -> HeadKind | None:
    for kind in _KINDS.values():
        if name == kind.name or name in kind.aliases:
            return kind
    return None


__all__ = [
    "HeadKind",
    "Trained",
    "TrainingRows",
    "describe_heads",
    "head_fault",
    "head_kind",
    "head_kinds",
    "head_names",
    "register_head",
]
