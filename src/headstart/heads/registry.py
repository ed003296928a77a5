"""The registry of heads: the one table that training, sweeps, comparisons, fine-tuning, the
estimators and ``--help`` read.

It begins with the heads of ``heads/built_in.py``. To add one, write its options as a frozen
dataclass and its training as one function, and call :func:`register_head`. Importing this module
loads no numerical library, so that ``--help`` can list the heads.
"""

from __future__ import annotations

import dataclasses

from headstart.core.errors import ConfigError
from headstart.heads import table
from headstart.heads.built_in import BUILT_IN
from headstart.heads.contract import HeadKind, Trained, TrainingRows
from headstart.heads.table import (
    automatic_heads,
    find,
    head_for,
    head_kind,
    head_kinds,
    head_names,
    unknown,
)

table.KINDS.update({kind.name: kind for kind in BUILT_IN})


def register_head(kind: HeadKind) -> HeadKind:
    """Enter a kind of head into the registry, under its name and its aliases.

    Raises:
        ConfigError: a name is taken by another kind, or an option has no default.
    """
    faults = [
        f"the head name '{name}' is taken by '{taken.name}'"
        for name in (kind.name, *kind.aliases)
        if (taken := find(name)) is not None
    ]
    for option in dataclasses.fields(kind.options):
        if option.default is option.default_factory is dataclasses.MISSING:
            faults.append(f"the option '{option.name}' of head '{kind.name}' needs a default")
    if faults:
        raise ConfigError(tuple(faults))
    table.KINDS[kind.name] = kind
    return kind


def head_fault(name: object, task: str = "classification") -> str | None:
    """Return what is wrong with the name of a head, as one sentence; None if nothing is."""
    kind = find(name) if isinstance(name, str) else None
    if kind is not None and task in kind.tasks:
        return None
    if kind is not None:
        return (
            f"head must be one of {', '.join(head_names(task))}, not {name!r}, which cannot be"
            f" trained for {task}"
        )
    return unknown(name, task)


def describe_heads(task: str = "classification", *, linear: bool = False) -> str:
    """Return all heads with their summaries in one line, for ``--help``.

    Args:
        task: only those for this task.
        linear: only those that fine-tuning can start from.
    """
    kinds = [kind for kind in head_kinds(task) if kind.linear or not linear]
    return " ".join(f"{kind.name}: {kind.summary}." for kind in kinds)


__all__ = [
    "HeadKind",
    "Trained",
    "TrainingRows",
    "automatic_heads",
    "describe_heads",
    "head_fault",
    "head_for",
    "head_kind",
    "head_kinds",
    "head_names",
    "register_head",
]
