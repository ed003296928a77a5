"""What the items of a map are coloured and filtered by: columns of categories and of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.commands.collection import Collection
from headstart.commands.judged import Judged
from headstart.core.wording import clean, format_number
from headstart.data.table_columns import columns_of

NONE = 0xFFFF
"""The code of an item without a value."""

_LABELS, _TARGETS, _COLUMNS = 20, 8, 20
"""Of several labels, of targets and of columns of a table so many are offered."""
_VALUES, _FEW = 60, 12
"""Different texts, and different numbers, up to which a column is one of categories."""


@dataclass(frozen=True, eq=False)
class Field:
    """One column of the items.

    Attributes:
        name: what it is called.
        kind: categories, or numbers.
        values: names of the categories.
        data: ``(n,)``: codes ``uint16``, :data:`NONE` without; or ``float32``, NaN without.
        result: whether it says of each item that it is predicted right (0) or wrong (1).
    """

    name: str
    kind: Literal["category", "number"]
    data: NDArray[Any]
    values: tuple[str, ...] = ()
    result: bool = False

    def describe(self) -> dict[str, Any]:
        """Return what a page needs to know of it, in plain values."""
        said: dict[str, Any] = {"name": clean(self.name), "kind": self.kind}
        if self.kind == "category":
            names = [clean(value) for value in self.values]
            return {**said, "values": names, "result": self.result}
        finite = self.data[np.isfinite(self.data)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        return {**said, "low": low, "high": high}


def fields_of(among: Collection, said: Mapping[str, Judged]) -> tuple[Field, ...]:
    """Return the columns of a collection.

    Args:
        among: the items.
        said: by split what the head of the run says of them; empty where there is none.
    """
    split = Field("split", "category", among.split_of.astype(np.uint16), tuple(among.splits))
    own = [*_predicted(among, said), *_examined(among), split]
    taken = {field.name for field in own}
    truth = [  # labels may have any name
        replace(field, name=f"{field.name} (label)") if field.name in taken else field
        for field in _truth(among)
    ]
    return (*truth, *own, *_columns(among, taken | {field.name for field in truth}))


def _codes(values: NDArray[np.int64]) -> NDArray[np.uint16]:
    return np.where((values >= 0) & (values < NONE), values, NONE).astype(np.uint16)


def _truth(among: Collection) -> list[Field]:
    splits = list(among.splits.values())
    if among.task == "classification":
        if not among.classes or not (among.labels >= 0).any():
            return []
        return [Field("class", "category", _codes(among.labels), among.classes)]
    targets = [split.targets for split in splits if split.targets is not None]
    if len(targets) < len(splits):
        return []
    values = np.concatenate(targets)
    if among.task == "regression":
        return [
            Field(f"true {name}", "number", values[:, at].astype(np.float32))
            for at, name in enumerate(among.classes[:_TARGETS])
        ]
    often = np.argsort(-values.sum(axis=0), kind="stable")[:_LABELS]
    return [
        Field(
            among.classes[at], "category", (values[:, at] <= 0.5).astype(np.uint16), ("yes", "no")
        )
        for at in often.tolist()
    ]


def _predicted(among: Collection, said: Mapping[str, Judged]) -> list[Field]:
    if not said:
        return []
    every = [said[name] for name in among.splits]
    wrong = np.concatenate([each.wrong for each in every])
    confidence = np.concatenate([each.confidence for each in every])
    found = []
    if among.task == "regression":
        made = np.concatenate([np.asarray(each.outputs, np.float32) for each in every])
        found += [
            Field(f"predicted {name}", "number", made[:, at])
            for at, name in enumerate(among.classes[:_TARGETS])
        ]
        if np.isfinite(wrong).any():
            found.append(Field("error, in deviations", "number", wrong))
        return found
    known = np.isfinite(wrong)
    if known.any():
        result = np.where(known, (np.nan_to_num(wrong) > 0).astype(np.int64), -1)
        found.append(Field("result", "category", _codes(result), ("right", "wrong"), result=True))
    if among.task == "classification":
        predicted = np.concatenate([each.predicted for each in every])
        found.append(Field("predicted", "category", _codes(predicted), among.classes))
    name = "confidence" if among.task == "classification" else "distance from the threshold"
    found.append(Field(name, "number", confidence))
    return found


def _examined(among: Collection) -> list[Field]:
    """Return what ``examine`` has found of the items."""
    if among.examined is None:
        return []
    copies = {key for a, b, _ in among.examined.copies for key in (a, b)}
    doubts = {key for key, _, _ in among.examined.doubts}
    ids = [key for split in among.splits.values() for key in split.ids]
    codes = [1 if key in doubts else 0 if key in copies else -1 for key in ids]
    if max(codes, default=-1) < 0:
        return []
    names = ("near copy across the splits", "doubtful label")
    return [Field("found by examine", "category", _codes(np.array(codes)), names)]


def _columns(among: Collection, taken: set[str]) -> list[Field]:
    """Return the columns of the table that the items come from, as far as all splits have them."""
    tables = [columns_of(split) for split in among.splits.values()]
    shared = [name for name in tables[0] if all(name in table for table in tables)]
    found = []
    for name in shared:
        values = [value for table in tables for value in table[name]]
        field = _column(f"{name} (column)" if name in taken else name, values)
        found += [field] if field is not None else []
        if len(found) == _COLUMNS:
            break
    return found


def _column(name: str, values: list[Any]) -> Field | None:
    """Return a column as categories or as numbers; None where it is neither."""
    seen = {value for value in values if value is not None}
    numbers = all(isinstance(value, float) for value in seen)
    if 1 < len(seen) <= (_FEW if numbers else _VALUES):
        ordered = sorted(seen)
        place = {value: at for at, value in enumerate(ordered)}
        codes = np.array([place.get(value, -1) for value in values], dtype=np.int64)
        names = [format_number(value) if numbers else value for value in ordered]
        return Field(name, "category", _codes(codes), tuple(names))
    if numbers and len(seen) > 1:
        data = [np.nan if value is None else value for value in values]
        return Field(name, "number", np.array(data, dtype=np.float32))
    return None


__all__ = ["NONE", "Field", "fields_of"]
