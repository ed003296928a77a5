"""What items belong to: a column's values, or a part of their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from headstart.core.errors import ConfigError, DataError
from headstart.core.wording import count, quoted
from headstart.data.items import Items
from headstart.data.labels import cell_text, plain_values
from headstart.data.names import composed


def groups_of_values(values: Sequence[Any], where: str) -> tuple[str, ...]:
    """Return the group of every item from the values of a column.

    Whole numbers are one group whether they came as 3 or 3.0; texts lose surrounding white space.

    Args:
        values: text, numbers, truth values or dates.
        where: what they are, for messages ("column 'patient' of train.csv").

    Raises:
        DataError: some are missing, so that nothing says what those items belong to.
    """
    found = [cell_text(value) for value in plain_values(values)]
    missing = [row for row, value in enumerate(found) if value is None]
    if missing:
        rows = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise DataError(
            f"{where} is empty in {count(len(missing), 'row')} (row {rows}; the first is row 0)",
            hint="fill in their group, or remove them; an item that belongs to no other gets a"
            " group of its own",
        )
    return tuple(value for value in found if value is not None)


def groups_of_names(items: Items, pattern: str) -> tuple[str, ...]:
    """Return the group of every item from its path.

    Args:
        items: files.
        pattern: a regular expression that is searched for in the path below the source; its first
            bracket, or all of it where it has none, names the group.

    Raises:
        ConfigError: it is no regular expression.
        DataError: it is not found in some path, or the items have none.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            (f"group_pattern='{pattern}' is not a valid regular expression: {error}",)
        ) from error
    paths = [items.origin(row).replace("\\", "/") for row in range(len(items))]
    matches = [compiled.search(path) for path in paths]
    without = [path for path, match in zip(paths, matches, strict=True) if match is None]
    if without:
        raise DataError(
            f"group_pattern='{pattern}' is not found in {count(len(without), 'name')} of"
            f" {len(paths):,}, such as {quoted(without, 3)}",
            hint="it is searched for in the path of each item relative to the source; for a"
            " table, name the group column with group_column=NAME",
        )
    at = min(compiled.groups, 1)
    named = [match.group(at) for match in matches if match is not None]
    if any(not name for name in named):
        empty = paths[named.index(next(name for name in named if not name))]
        raise DataError(
            f"group_pattern='{pattern}' names no group in '{empty}'",
            hint="the group in brackets must not match an empty text",
        )
    return tuple(composed(name) for name in named)


__all__ = ["groups_of_names", "groups_of_values"]
