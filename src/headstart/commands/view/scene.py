"""What the page of ``view`` asks for: all points at once, single items as they are looked at."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.collection import Collection
from headstart.commands.judged import Judged
from headstart.commands.reasons import Near, Reason, reasons
from headstart.commands.view.fields import Field, fields_of
from headstart.commands.view.maps import Map
from headstart.core.fingerprints import canonical_json, sha256
from headstart.core.nearest import mean_row
from headstart.core.records import Excerpt
from headstart.core.wording import clean, count, singular

_KEPT, _KEPT_BYTES = 2000, 32 * 2**20
"""Excerpts that are kept in memory: so many, of so many bytes."""
_AT_ONCE = 4
"""Excerpts that are made at the same time."""
_NEAR = 6
LISTED = 48
"""Items that a page lists first."""
_LOOKED = 8
"""Items of which one shows whether there are pictures."""


@dataclass(frozen=True, eq=False)
class Scene:
    """The items of a map.

    Attributes:
        among: the items with their features.
        said: by split what the head of the run says of them; empty where there is none.
        map: where they lie.
        notes: what is to be said of how this was made.
    """

    among: Collection
    said: Mapping[str, Judged]
    map: Map
    notes: tuple[str, ...] = ()
    _glimpses: OrderedDict[int, Excerpt | None] = field(default_factory=OrderedDict, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)
    _makers: Any = field(default_factory=lambda: threading.Semaphore(_AT_ONCE), repr=False)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """What the items are coloured and filtered by."""
        return fields_of(self.among, self.said)

    @cached_property
    def wrong(self) -> NDArray[np.float32]:
        """How wrong each item is, ``(n,)``; NaN where nothing says."""
        if not self.said:
            return np.full(len(self.among), np.nan, dtype=np.float32)
        return np.concatenate([self.said[name].wrong for name in self.among.splits])

    @cached_property
    def pictures(self) -> bool:
        """Whether items are looked at, as images and the spectra of sounds are, and not read."""
        for i in range(min(len(self.among), _LOOKED)):
            glimpse = self.excerpt(i)
            if glimpse is not None:
                return bool(glimpse.picture)
        return self.among.backbone.inputs.kind != "text"  # the contents are not there

    @cached_property
    def identity(self) -> str:
        """What the page depends on: items, their names and columns, features, map, head."""
        said = {name: value for name, value in self.describe().items() if name != "notes"}
        body = sha256(self.points())
        listed = self.named(self.first())  # files that were renamed have the same content ids
        about = [said, self.among.space, self.among.ids_digest, body, listed]
        return sha256(canonical_json(about))

    def first(self, most: int = LISTED) -> list[int]:
        """Return the items that the page lists first, in its order: the worst mistakes, or all."""
        flawed = self.among.task == "regression" or any(f.result for f in self.fields)
        wrong = np.nan_to_num(self.wrong)
        if not flawed or not (wrong > 0).any():
            return list(range(min(most, len(self.among))))
        order = np.argsort(-np.maximum(wrong, 0.0), kind="stable")[:most]
        return [int(i) for i in order]

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to know before any item."""
        among, unit = self.among, singular(self.among.backbone.inputs.unit)
        of = "" if among.run is None else f", run {clean(among.run.name)}"
        return {
            "title": f"{clean(among.name)}{of}",
            "subtitle": f"{count(len(among), unit)} by features of {clean(among.backbone.name)}",
            "count": len(among),
            "task": among.task,
            "pictures": self.pictures,
            "about": self.map.about,
            "notes": [clean(note) for note in self.notes],
            "fields": [each.describe() for each in self.fields],
            "sections": ["x", "y", "wrong"],
        }

    def points(self) -> bytes:
        """Return all points: x, y and how wrong, ``float32``; then every field in its order.

        Categories are ``uint16``, filled up to four bytes; numbers ``float32``; little-endian.
        """
        places = self.map.places
        parts = [places[:, 0], places[:, 1], self.wrong]
        packed = [np.ascontiguousarray(part, dtype="<f4").tobytes() for part in parts]
        for each in self.fields:
            kind = "<u2" if each.kind == "category" else "<f4"
            data = np.ascontiguousarray(each.data, dtype=kind).tobytes()
            packed.append(data + b"\0" * (-len(data) % 4))
        return b"".join(packed)

    # -- single items ----------------------------------------------------------------------------

    def item(self, i: int) -> dict[str, Any]:
        """Return what is known of an item."""
        among = self.among
        name, _, at = among.place(i)
        known = self._named(i)
        judged = self.said.get(name)
        if judged is not None:
            known["likeliest"] = [
                [clean(label), value] for label, value in judged.likeliest(at, among.classes)
            ]
        known["columns"] = [
            [clean(column), clean(value)]
            for column, value in list(among.metadata(i).items())[:40]
            if value is not None
        ]
        return known

    def named(self, items: Sequence[int]) -> list[dict[str, Any]]:
        """Return what a gallery shows of some items."""
        return [self._named(i) for i in items]

    def _named(self, i: int) -> dict[str, Any]:
        among = self.among
        name, _, at = among.place(i)
        known: dict[str, Any] = {
            "i": i,
            "item": clean(among.origin(i)),
            "split": clean(name),
            "label": clean(among.said(i)),
        }
        judged = self.said.get(name)
        if judged is not None:
            known["predicted"] = clean(judged.said(at, among.classes))
            for key, values in (("confidence", judged.confidence), ("wrong", judged.wrong)):
                known[key] = float(values[at]) if np.isfinite(values[at]) else None
        if not self.pictures:
            glimpse = self.excerpt(i)
            known["text"] = clean(glimpse.text) if glimpse is not None else ""
        return known

    def near(self, i: int) -> list[dict[str, Any]]:
        """Return the training items of both classes that an item is nearest to; or its neighbours.

        Where nothing trained, all other items count.
        """
        among = self.among
        name, split, at = among.place(i)
        labels = among.labels[: self._trained] if among.task == "classification" else None
        judged = self.said.get(name)
        single = judged is not None and labels is not None
        label = int(split.labels[at]) if split.targets is None else -1
        guess = int(judged.predicted[at]) if judged is not None and single else -1
        (found,) = reasons(
            among.rows[i : i + 1],
            _First(among.rows, self._trained),
            centre=self._centre,
            packed=among.packed[: self._trained],
            own=among.packed[i : i + 1],
            labels=labels if single else None,
            true=np.array([label]) if label >= 0 else None,
            predicted=np.array([guess]) if single else None,
            k=_NEAR,
        )
        return self._told(found, label, guess)

    def _told(self, found: Reason, label: int, guess: int) -> list[dict[str, Any]]:
        classes = self.among.classes
        what = "training items" if self.said else "items"
        if found.any or guess < 0:
            return [self._group(f"Nearest {what}", found.any)]
        if label == guess or label < 0:
            return [self._group(f"Nearest {what} of {classes[guess]}", found.predicted)]
        return [
            self._group(f"Nearest {what} of {classes[label]}, its own class", found.true),
            self._group(f"Nearest {what} of {classes[guess]}, as predicted", found.predicted),
        ]

    def _group(self, title: str, near: Sequence[Near]) -> dict[str, Any]:
        items = [{**self._named(each.at), "similarity": each.similarity} for each in near]
        return {"title": clean(title), "items": items}

    @cached_property
    def _trained(self) -> int:
        """How many items come first that trained the run; all where there is none."""
        if not self.said:
            return len(self.among)
        return len(self.among.splits.get("train", ())) or len(self.among)

    @cached_property
    def _centre(self) -> NDArray[np.float64]:
        return mean_row(_First(self.among.rows, self._trained))

    def excerpt(self, i: int) -> Excerpt | None:
        """Return a glimpse of an item, made when it is asked for, the latest of them kept."""
        with self._lock:
            if i in self._glimpses:
                self._glimpses.move_to_end(i)
                return self._glimpses[i]
        with self._makers:
            made = self.among.excerpt(i)
        with self._lock:
            self._glimpses[i] = made
            size = sum(len(each.picture) for each in self._glimpses.values() if each is not None)
            while len(self._glimpses) > _KEPT or (size > _KEPT_BYTES and len(self._glimpses) > 1):
                _, gone = self._glimpses.popitem(last=False)
                size -= 0 if gone is None else len(gone.picture)
        return made


class _First:
    """The first n of some rows, unread."""

    def __init__(self, rows: Any, n: int) -> None:
        self._rows, self._n = rows, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, key: Any, /) -> Any:
        start, stop, _ = key.indices(self._n)
        return self._rows[start:stop]


__all__ = ["LISTED", "Scene"]
