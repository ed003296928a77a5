"""Several labels in one value: lists, texts of lists, names with a separator, zeros and ones."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.data.names import composed

SEPARATORS = ("|", ";", ",")
"""Between several labels in one text; a space counts where several labels are asked for."""
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def holds(where: str) -> str:
    """Return the verb for a column, or for "the labels of …"."""
    return "hold" if where.startswith("the ") else "holds"


def zeros_and_ones(values: Sequence[Any]) -> list[int] | None:
    """Return the values of a column that holds 0 and 1 in any form; None for another."""
    known = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
    found = [known.get(str(value).strip().casefold()) for value in values]
    return None if None in found else [bit or 0 for bit in found]


def is_list(value: Any) -> bool:
    """Return whether a value holds several."""
    return isinstance(value, list | tuple | set | frozenset | np.ndarray)


def written_lists(values: Sequence[Any]) -> bool:
    """Return whether every value is the text of a list, a tuple or a set: ``"['cat', 'dog']"``."""
    return bool(values) and all(isinstance(v, str) and _is_written(v.strip()) for v in values)


def _is_written(text: str) -> bool:
    ends = text[:1] + text[-1:]
    return ends == "[]" or (ends in ("()", "{}") and _literal(text) is not None)


def _literal(text: str) -> list[Any] | None:
    """Return what the text of a list holds; of ``{'cat': 1, 'dog': 0}`` what has a 1."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    if isinstance(found, dict):
        bits = zeros_and_ones(list(found.values()))
        return None if bits is None else [n for n, bit in zip(found, bits, strict=True) if bit]
    if isinstance(found, set):
        return sorted(found, key=str)
    return list(found) if isinstance(found, list | tuple) else None


def multi_hot(values: Sequence[Any], where: str) -> list[list[int]] | None:
    """Return lists of 0 and 1, one for each label; None where lists hold names or numbers."""
    rows = [members(value, where, None) for value in values]
    lengths = {len(row) for row in rows if row is not None}
    if len(lengths) != 1 or max(lengths) < 2:
        return None
    bits = [None if row is None else zeros_and_ones(row) for row in rows]
    if any(found is None for found in bits):
        return None
    return [found for found in bits if found is not None]


def separator_of(values: Sequence[Any], *, asked: bool) -> str | None:
    """Return what stands between several labels in one text; None where nothing does.

    Unless several labels are asked for, the parts must make up fewer names than the whole texts
    do, and each must occur in two of them: names of classes may hold a comma.
    """
    texts = Counter(value.strip() for value in values if isinstance(value, str))
    for separator in (*SEPARATORS, " ") if asked else SEPARATORS:
        if not any(separator in text for text in texts):
            continue
        if asked:
            return separator
        parts = Counter(part for text in texts for part in set(_parts(text, separator)))
        several = [text for text in texts if separator in text]
        again = all(parts[part] > 1 for text in several for part in _parts(text, separator))
        if len(parts) < len(texts) and again:
            return separator
    return None


def _parts(text: str, separator: str) -> list[str]:
    return [composed(part.strip()) for part in text.split(separator) if part.strip()]


def members(value: Any, where: str, separator: str | None) -> list[Any] | None:
    """Return the labels of one value; None for a missing one.

    Args:
        value: a list, a text of one, a text of several labels, or one label.
        where: what it is, for messages.
        separator: what stands between labels in a text; None: nothing does.

    Raises:
        DataError: it begins as a list and is none.
    """
    if value is None:
        return None
    if is_list(value):
        return list(value.tolist() if isinstance(value, np.ndarray) else value)
    if isinstance(value, str):
        text = value.strip()
        if _is_written(text):
            return _written(text, where)
        return [text] if separator is None else list(_parts(text, separator))
    return [value]


def _written(text: str, where: str) -> list[Any]:
    """Return the entries of a list that was written as text; numpy leaves out the commas."""
    quoted_names = _QUOTED.findall(text)
    if len(quoted_names) > 1 and "," not in text:
        return [first or second for first, second in quoted_names]
    found = _literal(text)
    if found is not None:
        return found
    inner = [part.strip(" '\"") for part in re.split(r"[,;|\s]+", text[1:-1])]
    if any("[" in part or "{" in part for part in inner):
        raise DataError(f"{where} {holds(where)} '{text[:60]}', expected a list of labels")
    return [part for part in inner if part]


def one_text(names: Iterable[str]) -> str:
    r"""Return the labels of an item in one text, ``|`` between them.

    One in a name is written ``\|``, and a backslash twice: two lists of labels are never one text.
    """
    bar = SEPARATORS[0]
    return bar.join(name.replace("\\", "\\\\").replace(bar, f"\\{bar}") for name in names)


def joined_names(values: Sequence[Any]) -> str:
    """Return a text with a comma of which a part is a whole text elsewhere; empty without one."""
    texts = dict.fromkeys(value.strip() for value in values if isinstance(value, str))
    several = (text for text in texts if "," in text)
    return next((t for t in several if any(part in texts for part in _parts(t, ","))), "")


def divides_at_spaces(values: Sequence[Any]) -> bool:
    """Return whether texts are combinations of far fewer words, each of which comes often."""
    texts = {value.strip() for value in values if isinstance(value, str)}
    several = [text for text in texts if " " in text]
    words = Counter(word for text in texts for word in set(text.split()))
    return len(several) * 2 > len(texts) > 2 * len(words) and min(words.values(), default=0) > 1


__all__ = [
    "SEPARATORS", "divides_at_spaces", "holds", "is_list", "joined_names", "members", "multi_hot",
    "one_text", "separator_of", "written_lists", "zeros_and_ones",
]  # fmt: skip
