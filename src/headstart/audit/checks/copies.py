"""The same items, or near-duplicates, are on both sides of a split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.audit import replay
from headstart.audit.check import Check
from headstart.audit.events import Batch, Pass, Split
from headstart.audit.loaders import Sources
from headstart.audit.places import Trail
from headstart.audit.records import Finding, Place
from headstart.audit.rows import keys_of
from headstart.audit.scene import Scene
from headstart.heads import find_leaks
from headstart.modules.observing import tensors_in

ROWS = 512
"""Items that are compared, by line and data loader."""
SIDE = 8
"""Images are compared at so many pixels a side."""
NEAR = 0.12
"""Copies differ by less than this share of how far items lie from the mean."""
SHOWN = 0.25
"""And images, without the mean of each channel, by less than this share of what they show."""
WHOLE = 0.9
"""A set of which so many are exactly training items is the training set, tested on purpose."""
LEAST = 2
MOST = 4096
"""Training items of a division that its test items are compared with."""
SPLITS = 4
SHARE = 0.05
"""Copies among fewer test items than this share do not come from a way of dividing."""
_EXACT = 1e-6
"""Cosines by which copies that are no nearly equal items differ from 1."""
_Key = tuple[int, int | None, Trail]


class TrainTestCopies(Check):
    """Evaluation items are copies or near-duplicates of training items.

    If both sides come from one data set, the split has separated what belongs together: frames of a
    film, images of a patient, crops of a photograph.
    """

    code: ClassVar[str] = "train-test-copies"
    cost: ClassVar[str] = "the score is too optimistic: the network has seen what it is tested on"

    def __init__(self) -> None:
        self.groups: dict[_Key, list[tuple[Pass, NDArray[np.float32]]]] = {}
        self.whole: dict[int, tuple[int, bool]] = {}
        self.sources = Sources()
        self.images: dict[tuple[str, ...], NDArray[np.float32]] = {}
        self.divided: dict[Place, tuple[str, int, int, float]] = {}

    def on_split(self, seen: Split, scene: Scene) -> None:
        """Compare both sides of a division by scikit-learn, unless it keeps groups together."""
        if (seen.grouped and "Group" in seen.kind) or seen.place in self.divided:
            return
        if len(self.divided) >= SPLITS:
            return
        train = self._items(seen.x, np.asarray(seen.train)[:MOST])
        test = self._items(seen.x, np.asarray(seen.test)[:ROWS])
        if train is None or test is None:
            return
        found = _near(_distinct(train), _distinct(test))
        if found is not None and found[0] >= SHARE * found[1]:
            self.divided[seen.place] = (seen.kind, *found)

    def on_batch(self, seen: Batch, scene: Scene) -> None:
        """Take note of which data set a loader's items are part of."""
        number = seen.loader.number
        self.sources.note(seen)
        if number not in self.whole:
            whole = getattr(seen.dataset, "dataset", None)
            self.whole[number] = (id(whole), whole is not None)

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Keep small versions of what a network is given."""
        if seen.failed:
            return
        loader = self.sources.same(seen.loader)
        group = self.groups.setdefault((seen.network.number, loader, seen.trail), [])
        if sum(len(small) for _, small in group) >= ROWS:
            return
        given = replay.images_of(seen)
        rows = given if given is not None else replay.rows_of(seen)
        if rows is not None:
            small = _small(rows)
            if small is not None:
                group.append((seen, small))
                self._remember(seen, small)

    def _remember(self, seen: Pass, small: NDArray[np.float32]) -> None:
        """Keep which image a row of features was made of."""
        output = next(tensors_in(seen.output), None)
        if output is None or output.ndim < 2 or small.ndim != 3 or len(self.images) >= MOST:
            return
        rows = output.detach().flatten(1)
        if rows.shape[1] > 1 and rows.is_floating_point() and len(rows) == len(small):
            self.images.update(zip(keys_of(rows), small, strict=True))

    def _items(self, x: Any, index: NDArray[Any]) -> NDArray[np.float32] | None:
        """Return small images: of a division's data, or those that its features were made of."""
        items = _items(x, index)
        if items is None or items.ndim != 2:
            return items
        found = [self.images.get(key) for key in keys_of(torch.as_tensor(items))]
        known = [each for each in found if each is not None]
        return np.stack(known) if len(known) > 0.9 * len(items) else items

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every network."""
        yield from self._of_splits()
        told: set[int] = {key[0] for key in self.groups} if self.divided else set()
        for key, group in self.groups.items():
            tested = [(p, s) for p, s in group if p.purpose in ("evaluation", "extraction")]
            if not tested or key[0] in told:
                continue
            if tested[0][0].purpose == "extraction" and self.sources.is_random(key[1]):
                continue  # views of the same pictures, one after the other
            earlier = self._trained_before(key, tested)
            if earlier is not None:
                told.add(key[0])
                yield self._goes_on(scene, tested, earlier)
                continue
            for other, more in self.groups.items():
                if other == key or other[0] != key[0] or not more or more[0][0] is tested[0][0]:
                    continue
                trained = [(p, s) for p, s in more if p.purpose == _counterpart(tested)]
                if not trained or trained[0][0].number > tested[0][0].number:
                    continue
                found = self._compare(trained, tested)
                if found:
                    told.add(key[0])
                    line = trained[0][0].place.line
                    yield self._said(scene, key, other, tested[0][0], line, *found)
                    break

    def _trained_before(
        self, key: _Key, tested: list[tuple[Pass, NDArray[np.float32]]]
    ) -> Pass | None:
        """Return a pass on training data that hold all tested items, where the latest hold none.

        So it is where the network of one fold is trained on in the next. The training set itself,
        or a part of it, may be evaluated on purpose.
        """
        if tested[0][0].purpose != "evaluation":
            return None
        items = {each.tobytes() for _, small in tested for each in small}
        found: list[tuple[int, float, Pass]] = []
        for other, group in self.groups.items():
            before = [(p, s) for p, s in group if p.trained and p.number < tested[0][0].number]
            if other[0] == key[0] and before:
                known = {each.tobytes() for _, small in before for each in small}
                share = len(items & known) / len(items)
                found.append((before[-1][0].number, share, before[0][0]))
        if len(items) < 4 or not found or max(found, key=lambda f: f[0])[1] > 1 - WHOLE:
            return None
        return next((seen for _, share, seen in found if share >= WHOLE), None)

    def _goes_on(
        self, scene: Scene, tested: list[tuple[Pass, NDArray[np.float32]]], earlier: Pass
    ) -> Finding:
        seen = tested[0][0]
        return self.finding(
            f"{seen.network.kind} is tested on items it was trained on earlier (line"
            f" {earlier.place.line}), although its current training data exclude them: the network"
            " of an earlier fold is trained further in this one.",
            place=seen.place,
            module=seen.network.kind,
            confidence=0.75,
            evidence={
                "items": sum(len(small) for _, small in tested),
                "trained at step": earlier.step,
            },
            fix="model = build()  # a new network, and a new optimizer, for every fold",
        )

    def _of_splits(self) -> Iterator[Finding]:
        for place, (kind, copies, of, similarity) in self.divided.items():
            yield self.finding(
                f"{copies} of {of} test items of the first division by {kind} are near-duplicates"
                " of training items: it separates items that belong together, such as images of"
                " one subject.",
                place=place,
                module=kind,
                confidence=0.85,
                evidence={
                    "copies": copies,
                    "items": of,
                    "median cosine": round(similarity, 4),
                    "parts of one data set": True,
                },
                fix="sklearn.model_selection.GroupKFold(5).split(x, y, groups=subjects)",
            )

    def _compare(
        self,
        trained: list[tuple[Pass, NDArray[np.float32]]],
        tested: list[tuple[Pass, NDArray[np.float32]]],
    ) -> tuple[int, int, float] | None:
        one = _distinct(np.concatenate([small for _, small in trained]))
        other = _distinct(np.concatenate([small for _, small in tested]))
        return _near(one, other)

    def _said(
        self,
        scene: Scene,
        tested: _Key,
        trained: _Key,
        seen: Pass,
        line: int,
        count: int,
        of: int,
        similarity: float,
    ) -> Finding:
        parts = [self.whole.get(n, (0, False)) for n in (tested[1], trained[1]) if n is not None]
        same = len(parts) == 2 and parts[0] == parts[1] and parts[0][1]
        evidence: dict[str, Any] = {
            "copies": count,
            "items": of,
            "median cosine": round(similarity, 4),
            "parts of one data set": same,
        }
        why = (
            " Both sides come from one data set: the split separates items that belong together."
            if same
            else ""
        )
        few = count < SHARE * of and similarity < 1 - _EXACT
        return self.finding(
            f"{count} of {of} items that {scene.networks[tested[0]].kind} is tested on are"
            f" near-duplicates of items it was trained on (line {line}).{why}",
            place=seen.place,
            severity="info" if few and not same else None,  # as data have some of themselves
            confidence=0.85,
            evidence=evidence,
            fix="divide by group, not by item: all of a film, a patient or a photograph on one side"
            if same
            else "remove the copies from the test data (headstart examine lists them)",
        )


def _near(one: NDArray[np.float32], other: NDArray[np.float32]) -> tuple[int, int, float] | None:
    """Return how many of the other items are copies, of how many, and their similarity."""
    if one.shape[1:] != other.shape[1:] or len(one) < 8 or len(other) < 4:
        return None
    leaks = find_leaks(one.reshape(len(one), -1), other.reshape(len(other), -1), threshold=0.99)
    centre = one.mean(0)
    near: dict[int, float] = {}
    same = 0
    for leak in leaks:
        a, b = other[leak.test], one[leak.train]
        if np.linalg.norm(a - b) <= NEAR * np.linalg.norm(b - centre) and _alike(a, b):
            near[leak.test] = leak.similarity
            same += bool(np.array_equal(a, b))
    if len(near) < LEAST or same >= WHOLE * len(other):
        return None
    return len(near), len(other), float(np.median(list(near.values())))


def _alike(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    """Whether two images show the same, apart from their colour: two pieces of sky do not."""
    if a.ndim == 1:
        return True
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    return bool(np.linalg.norm(a - b) <= SHOWN * np.linalg.norm(b))


def _items(x: Any, index: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return small images, ``(n, channels, positions)``, or rows as they are; else None."""
    try:
        values = torch.as_tensor(np.asarray(x)[index])
    except (TypeError, ValueError, RuntimeError, IndexError):
        return None
    if values.ndim not in (2, 3, 4):
        return None
    if values.ndim == 4 and values.shape[-1] in (1, 3, 4):
        values = values.movedim(-1, 1)
    if values.ndim == 3:
        values = values[:, None]
    return None if values.ndim == 2 and values.shape[1] < 16 else _shrunk(values)


def _counterpart(tested: list[tuple[Pass, NDArray[np.float32]]]) -> str:
    return "training" if tested[0][0].purpose == "evaluation" else "extraction"


def _small(rows: Tensor) -> NDArray[np.float32] | None:
    few = rows.detach()[:ROWS]
    return None if few.ndim == 2 and few.shape[1] < 16 else _shrunk(few)


def _shrunk(rows: Tensor) -> NDArray[np.float32]:
    few = rows.float()
    if few.ndim == 4:
        few = torch.nn.functional.adaptive_avg_pool2d(few, SIDE).flatten(2)
    return few.cpu().numpy().astype(np.float32)


def _distinct(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.unique(rows, axis=0)


__all__ = ["TrainTestCopies"]
