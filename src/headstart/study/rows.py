"""Carrying out the plan: forward passes to rows, through the cache or the study's own state."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones import Backbone
from headstart.cache import FeatureCache, describe_space
from headstart.core.fingerprints import canonical_json
from headstart.core.progress import Reporter
from headstart.core.progress import Task as ProgressTask
from headstart.core.records import CacheUse
from headstart.data import Preprocessing, Split
from headstart.extraction import Extraction
from headstart.freezing.norm import Reestimation
from headstart.study import network
from headstart.study.functions import Cut, Facts, Function
from headstart.study.heads import TaskRows
from headstart.study.material import Division, Images, Material, digest_of, visiting_order
from headstart.study.plan import Pass, Plan, PlannedPass, Task, passes_of
from headstart.study.workspace import Workspace

Rows = NDArray[np.float32]
Ints = NDArray[np.int64]
_PARTS = {"train": 0, "test": 1, "validation": 2}
_VERSION = 1


@dataclass(eq=False)
class RowMaker:
    """Computes the rows of a study and hands them out.

    Attributes:
        backbone: as given; never changed.
        deepest: the same, cut where the deepest configuration is.
        material: the items.
        facts: of the network.
        cache: for rows that are functions of their items.
        workspace: for all others.
        images: decoded pixels.
        settings: precision, device, workers.
        statistics_items: training items that statistics are re-estimated on.
        recompute_passes: walks over the training items of ``recompute``.
        use: rows found in and added to the cache.
        resumed: passes that an interrupted study had finished.
    """

    backbone: Backbone
    deepest: Backbone
    material: Material
    facts: Facts
    cache: FeatureCache
    workspace: Workspace
    images: Images
    settings: Extraction
    statistics_items: int
    recompute_passes: int
    use: CacheUse = field(default_factory=lambda: CacheUse(0, 0))
    resumed: int = 0
    _found: dict[tuple[Pass, Cut], Any] = field(default_factory=dict)
    _statistics: dict[tuple[Preprocessing, int], tuple[Backbone, Reestimation]] = field(
        default_factory=dict
    )
    _spaces: dict[Cut, dict[str, Any]] = field(default_factory=dict)

    def run(self, plan: Plan, reporter: Reporter) -> None:
        """Carry out all passes; what an interrupted study or the cache has is not run again."""
        with reporter.task("forward passes", plan.images, "images") as task:
            for planned in plan.passes:
                counter = _Counter(task)
                if planned.what.kind == "rows":
                    self._run_rows(planned, _Within(reporter, counter))
                elif self._resume(planned):
                    self.resumed += 1
                elif planned.what.kind == "batches":
                    self._run_batches(planned, counter)
                else:
                    self._run_recompute(planned, counter)
                counter.advance(planned.images - counter.done)
        self._statistics.clear()

    def rows_of(self, task: Task, division: Division) -> TaskRows:
        """Return what the head of one configuration sees in one repetition."""
        validation = division.validation
        labels = self.material.train.labels[division.train]
        held = np.zeros(len(labels), dtype=bool)
        held[validation] = True
        items = np.arange(len(labels))
        passes = passes_of(task, self.material, division.repetition)
        if passes[0].kind == "recompute":
            blocks = self._kept(passes[0], task.cut)
            rounds = len(blocks["train"])
            return TaskRows(
                blocks["train"].reshape(-1, blocks["train"].shape[-1]),
                np.tile(labels, rounds),
                np.tile(items, rounds),
                np.tile(held, rounds),
                blocks["validation"],
                blocks["test"],
            )
        if passes[0].kind == "rows":
            parts = self._found[passes[0], task.cut]
            x_train = parts[0][division.train]
            x_test = parts[-1][division.test]
            return TaskRows(x_train, labels, items, held, x_train[validation], x_test)
        blocks = {one.part: self._kept(one, task.cut)["rows"] for one in passes}
        judged = blocks.get("validation", blocks["train"][validation])
        return TaskRows(blocks["train"], labels, items, held, judged, blocks["test"])

    def run_key(self, task: Task, division: Division) -> str:
        """Return a digest of everything that decides what :meth:`rows_of` returns."""
        passes = passes_of(task, self.material, division.repetition)
        own = [dataclasses.replace(one, repetition=division.repetition) for one in passes]
        return digest_of(*(self._key(one, task.cut) for one in own))

    def network_for(self, function: Function, division: Division) -> Backbone:
        """Return a copy of the network, ready to compute training rows of ``function``."""
        if not function.measured_statistics:
            return network.prepared(self.backbone, function)
        restated, done = self._restated(function.preprocessing, division)
        if function.statistics == "reestimated":
            return restated
        assert function.alpha is not None
        return network.blended(restated, done, function.alpha)

    def _restated(
        self, preprocessing: Preprocessing, division: Division
    ) -> tuple[Backbone, Reestimation]:
        """Measure the statistics of the training split once a preprocessing and split."""
        key = (preprocessing, division.repetition if self.material.redrawn else 0)
        if key not in self._statistics:
            base = self.deepest
            chosen = statistics_sample(division.train, self.statistics_items, division)
            device = base.device
            batches = [
                preprocessing.normalise(pixels.to(device))
                for _, pixels in self.images.batches(
                    self.material.train, chosen, preprocessing, self.settings.batch_size
                )
            ]
            self._statistics[key] = network.restate(base, self.facts.norms, batches)
        return self._statistics[key]

    def _run_rows(self, planned: PlannedPass, reporter: Reporter) -> None:
        function = planned.what.function
        division = self.material.divisions[planned.what.repetition or 0]
        own = function.measured_statistics
        base = self.network_for(function, division) if own else self.backbone
        base = dataclasses.replace(base, preprocessing=function.preprocessing)
        cuts = network.at_cuts(base, planned.cuts)
        parts = [
            self.cache.features(cuts, split, settings=self.settings, reporter=reporter)
            for split in self.material.parts
        ]
        for part in parts:
            self.use += part.use
        for position, cut in enumerate(planned.cuts):
            self._found[planned.what, cut] = [
                np.asarray(part.sets[position].array(), dtype=np.float32) for part in parts
            ]

    def _run_batches(self, planned: PlannedPass, counter: _Counter) -> None:
        what = planned.what
        assert what.repetition is not None
        division = self.material.divisions[what.repetition]
        ready = self.network_for(what.function, division)
        rows = self._walk(ready, planned.cuts, what, division, what.part, counter)
        for cut, block in zip(planned.cuts, rows, strict=True):
            self.workspace.put(self._key(what, cut), {"rows": block})

    def _run_recompute(self, planned: PlannedPass, counter: _Counter) -> None:
        """Training mode moves the copy's running statistics; the test uses what they became."""
        what = planned.what
        assert what.repetition is not None
        division = self.material.divisions[what.repetition]
        ready = self.network_for(what.function, division)
        walks = [
            self._walk(ready, planned.cuts, what, division, "train", counter, round_)
            for round_ in range(self.recompute_passes)
        ]
        network.settle(ready.module)
        ends = {
            part: self._walk(ready, planned.cuts, what, division, part, counter)
            for part in ("validation", "test")
        }
        for position, cut in enumerate(planned.cuts):
            arrays = {part: blocks[position] for part, blocks in ends.items()}
            arrays["train"] = np.stack([walk[position] for walk in walks])
            self.workspace.put(self._key(what, cut), arrays)

    def _walk(
        self,
        ready: Backbone,
        cut_names: tuple[Cut, ...],
        what: Pass,
        division: Division,
        part: str,
        counter: _Counter,
        round_: int = 0,
    ) -> list[Rows]:
        """Walk over a part as a loader does, and return its rows in the order of the part."""
        split, positions = self._items(division, part)
        function = what.function
        seeds = division.seeds
        order_seed, chance_seed = (
            int(np.random.SeedSequence([seed, _PARTS[part], round_]).generate_state(1)[0])
            for seed in (seeds.order, seeds.chance)
        )
        # A loader in class order is meant for testing; training loaders shuffle.
        named = "shuffled" if part == "train" else function.order
        order = visiting_order(split.labels[positions], named, order_seed)
        device = ready.device
        cuts = network.at_cuts(ready, cut_names)
        blocks: list[Rows] = []
        size = function.batch_size or self.settings.batch_size
        batches = self.images.batches(split, positions[order], function.preprocessing, size)
        with network.seeded(chance_seed, device):
            for where, pixels in batches:
                inputs = function.preprocessing.normalise(pixels.to(device))
                outputs = network.run_batch(cuts, inputs, function.autograd, self.settings)
                if not blocks:
                    blocks = [_room(len(order), output) for output in outputs]
                for block, output in zip(blocks, outputs, strict=True):
                    block[order[where]] = output.cpu().numpy()
                counter.advance(len(where))
        return blocks

    def _items(self, division: Division, part: str) -> tuple[Split, Ints]:
        if part == "test":
            return self.material.test, division.test
        chosen = division.train if part == "train" else division.train[division.validation]
        return self.material.train, chosen

    def _resume(self, planned: PlannedPass) -> bool:
        keys = [self._key(planned.what, cut) for cut in planned.cuts]
        return all(self.workspace.get(key) is not None for key in keys)

    def _kept(self, one: Pass, cut: Cut) -> dict[str, Any]:
        kept = self.workspace.get(self._key(one, cut))
        assert kept is not None, "the plan was carried out"
        return kept

    def _key(self, one: Pass, cut: Cut) -> str:
        """Digest everything that decides the rows of a pass at a cut."""
        assert one.repetition is not None
        division = self.material.divisions[one.repetition]
        if cut not in self._spaces:
            at = network.at_cuts(self.backbone, [cut])[0]
            self._spaces[cut] = describe_space(at, self.settings.precision)
        ids = [self.material.train.ids[i] for i in division.train]
        ids += [self.material.test.ids[i] for i in division.test]
        description = {
            "version": _VERSION,
            "torch": torch.__version__,
            "device": self.backbone.device.type,
            "space": self._spaces[cut],
            "function": one.function.describe(),
            "kind": one.kind,
            "part": one.part,
            "seeds": [division.seeds.order, division.seeds.chance],
            "batch_size": self.settings.batch_size,
            "statistics_items": self.statistics_items,
            "rounds": self.recompute_passes if one.kind == "recompute" else 1,
        }
        text = canonical_json(description, compact=False, default=str)
        labels = self.material.train.labels[division.train]
        return digest_of(text, "\n".join(ids), labels, division.validation)


def statistics_sample(train: Ints, most: int, division: Division) -> Ints:
    """Return the training items that statistics are measured on: at most ``most``, by chance."""
    if len(train) <= most:
        return train
    generator = np.random.default_rng(division.seeds.validation)
    return np.sort(generator.permutation(train)[:most])


def _room(count: int, output: Tensor) -> Rows:
    return np.empty((count, *output.shape[1:]), dtype=np.float32)


@dataclass
class _Counter:
    """Advances the study's progress, and knows how far one pass has come."""

    task: ProgressTask
    done: int = 0

    def advance(self, count: int = 1) -> None:
        self.done += count
        self.task.advance(count)


class _Within:
    """A reporter whose tasks advance the one that is already shown."""

    def __init__(self, outer: Reporter, counter: _Counter) -> None:
        self._outer, self._counter = outer, counter

    def note(self, text: str) -> None:
        """Drop what concerns one pass only: the study tells its own plan."""

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[ProgressTask]:  # noqa: ARG002
        """Count images; other units are steps of what is already counted."""
        yield self._counter if unit == "images" else _Counter(_Nothing())


class _Nothing:
    def advance(self, count: int = 1) -> None:
        pass


__all__ = ["RowMaker", "statistics_sample"]
