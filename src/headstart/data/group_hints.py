"""Groups that nobody named, but that names of files or other columns show.

Slices of a patient, frames of a film, crops of a photograph: where a split tears them apart, a
score says how well known things are recognised. What is found here are hints; whether a group makes
a difference is for whoever has features to measure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import HeadstartError
from headstart.data.dataset import Split
from headstart.data.item_groups import groups_of_names, groups_of_values

NAMES = (
    r"([^/]+)[-_. ][^-_. /]+\.\w+$",  # photo12_crop3.jpg → photo12
    r"([^/]+)[-_. ][^-_. /]+[-_. ][^-_. /]+\.\w+$",  # p7_left_03.png → p7
    r"([^-_. /]+)[-_. ][^/]*\.\w+$",  # p7_slice_of_three.png → p7
    r"([^/]*\d)[a-zA-Z]\.\w+$",  # 012a.jpg → 012
    r"([^/]+)/[^/]+$",  # cat/session4/0012.jpg → session4
    r"([^/]+)/[^/]+/[^/]+$",  # session4/left/0012.jpg → session4
)
"""What is tried on the path of every item, the most specific first."""
_MATES = 0.5
_GROUPS_PER_CLASS = 5
_TORN = 0.2


@dataclass(frozen=True, eq=False)
class GroupHint:
    """Something that may say which items belong together.

    Attributes:
        option: ``group_column`` or ``group_pattern``.
        value: what to give for it.
        train, test: ``(n,)`` of text, the groups of both splits.
        torn: how many test items have others of their group among the training items.
    """

    option: str
    value: str
    train: NDArray[np.str_]
    test: NDArray[np.str_]
    torn: int

    @property
    def example(self) -> str:
        """A group with items in both splits."""
        return str(self.test[np.isin(self.test, self.train)][0])


def group_hints(train: Split, test: Split) -> tuple[GroupHint, ...]:
    """Return what may be groups that the two splits tear apart.

    Half of the items must have others of their group, there must be many more groups than classes
    (or the groups are rather the classes in other words), and a fifth of the test items must have
    others of their group among the training items.

    Returns:
        Different divisions only, columns first; nothing where the splits have groups already.
    """
    if train.groups is not None or test.groups is not None or not len(train) or not len(test):
        return ()
    found: dict[bytes, GroupHint] = {}
    for option, value, first, second in _candidates(train, test):
        both = np.concatenate([first, second])
        _, of, sizes = np.unique(both, return_inverse=True, return_counts=True)
        if len(sizes) < _GROUPS_PER_CLASS * max(len(train.classes), 2):
            continue
        if (sizes[of] > 1).mean() < _MATES:
            continue
        torn = int(np.isin(second, first).sum())
        if torn >= _TORN * len(test):
            found.setdefault(of.tobytes(), GroupHint(option, value, first, second, torn))
    return tuple(found.values())


def _candidates(
    train: Split, test: Split
) -> Iterator[tuple[str, str, NDArray[np.str_], NDArray[np.str_]]]:
    if train.metadata is not None and test.metadata is not None:
        shared = set(test.metadata.schema.names)
        for name in train.metadata.schema.names:
            if name not in shared:
                continue
            groups = [_column(split, name) for split in (train, test)]
            if groups[0] is not None and groups[1] is not None:
                yield "group_column", name, groups[0], groups[1]
    for pattern in NAMES:
        groups = [_named(split, pattern) for split in (train, test)]
        if groups[0] is not None and groups[1] is not None:
            yield "group_pattern", pattern, groups[0], groups[1]


def _column(split: Split, name: str) -> NDArray[np.str_] | None:
    try:
        values = groups_of_values(split.metadata.column(name).to_pylist(), name)
    except HeadstartError:
        return None  # empty in some rows
    return np.array(values, dtype=np.str_)[split.rows]


def _named(split: Split, pattern: str) -> NDArray[np.str_] | None:
    some = split.items.origin(int(split.rows[0])).replace("\\", "/")
    if re.search(pattern, some) is None:
        return None  # not in every name
    try:
        values = groups_of_names(split.items, pattern)
    except HeadstartError:
        return None  # not in every name
    return np.array(values, dtype=np.str_)[split.rows]


__all__ = ["NAMES", "GroupHint", "group_hints"]
