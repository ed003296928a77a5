"""Rows: carrying out the planned forward passes, through the cache or beside it.

Rows that are functions of their items go through the feature cache. All others depend on the
batch or on randomness and never enter it: they are kept beside it until the study is finished,
each under a digest of everything that decides it, so that an interrupted study goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.core.fingerprints import canonical_json, fingerprint
from headstart.core.progress import Progress, Reporter, SilentReporter
from headstart.core.records import CacheUse
from headstart.core.row_keys import units_among
from headstart.extraction import Extraction
from headstart.store import Result, Results
from headstart.study import network
from headstart.study.functions import Cut
from headstart.study.heads import FloatRows, HeadRows
from headstart.study.network import Networks
from headstart.study.plan import Case, Pass, Plan, PlannedPass, passes_of
from headstart.study.repetitions import Repetition, StudyData, loader_order

_PARTS = {"train": 0, "test": 1, "validation": 2}
_VERSION = 1


class Kept:
    """What a study keeps until it is finished: results, and folders of unfinished trainings.

    Args:
        results: where; several studies may share it.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self._used: set[str] = set()

    def get(self, key: str) -> Result | None:
        """Return what is kept under a key; None if nothing is, or if it is damaged."""
        self._used.add(key)
        return self.results.get(key)

    def put(
        self, key: str, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any] | None = None
    ) -> None:
        """Keep arrays and plain values under a key.

        Raises:
            StoreError: the disk forbids it.
        """
        self._used.add(key)
        self.results.put(key, arrays, values)

    def folder(self, key: str) -> Path:
        """Return the path of a folder for a training that keeps a state of its own."""
        self._used.add(key)
        return self.results.folder / f"{key}.run"

    def remove_folder(self, key: str) -> None:
        """Remove the folder of a training, if it is there."""
        shutil.rmtree(self.folder(key), ignore_errors=True)

    def clear(self) -> None:
        """Remove what this study has used; that of others stays."""
        for key in self._used:
            self.results.remove(key)
            shutil.rmtree(self.results.folder / f"{key}.run", ignore_errors=True)
        self._used.clear()
        with contextlib.suppress(OSError):  # it is not empty, or was never made
            self.results.folder.rmdir()


@dataclass(frozen=True, eq=False)
class Bench:
    """What forward passes are made with, and where their rows are kept.

    Attributes:
        networks: ready copies of the backbone.
        data: the items.
        extraction: precision, device, batch size and threads.
        rounds: passes over the training items of functions with ``recompute``.
        cache: for rows that are functions of their items.
        kept: for all others, and for what is computed from rows.
    """

    networks: Networks
    data: StudyData
    extraction: Extraction
    rounds: int
    cache: FeatureCache
    kept: Kept

    def passes(self, case: Case, repetition: Repetition) -> tuple[Pass, ...]:
        """Return the passes that one configuration needs in one repetition."""
        return passes_of(case, self.data, repetition.number, self.rounds)


@dataclass(frozen=True, eq=False)
class PassRows:
    """What carrying out a plan gave.

    Attributes:
        cached: rows of every split, by pass and cut, where they came through the cache.
        use: rows found in and added to the cache.
        resumed: passes that an interrupted study had finished.
    """

    cached: Mapping[tuple[Pass, Cut], list[FloatRows]] = field(default_factory=dict)
    use: CacheUse = field(default_factory=lambda: CacheUse(0, 0))
    resumed: int = 0


def run_passes(plan: Plan, bench: Bench, reporter: Reporter) -> PassRows:
    """Carry out all passes; what an interrupted study or the cache has is not run again."""
    cached: dict[tuple[Pass, Cut], list[FloatRows]] = {}
    use, resumed = CacheUse(0, 0), 0
    with reporter.task("forward passes", plan.items, plan.unit) as progress:
        for planned in plan.passes:
            counter = Within(progress, plan.unit)
            if planned.what.kind == "rows":
                found, used = _cached_rows(planned, bench, counter)
                cached |= found
                use += used
            elif _is_kept(planned, bench):
                resumed += 1
            else:
                _keep_batch_rows(planned, bench, counter)
            counter.finish(planned.items)
    bench.networks.forget()
    return PassRows(cached, use, resumed)


def rows_of(rows: PassRows, bench: Bench, case: Case, repetition: Repetition) -> HeadRows:
    """Return what the head of one configuration sees in one repetition.

    Args:
        rows: of the plan that the configuration is part of.
        bench: that they were made with.
        case: the configuration.
        repetition: which one.
    """
    validation = repetition.held_out
    labels, task = bench.data.labels(repetition, "train"), bench.data.task
    held = np.zeros(len(labels), dtype=bool)
    held[validation] = True
    split, positions = bench.data.items(repetition, "train")
    ids = [split.ids[i] for i in positions.tolist()]
    groups = None if split.groups is None else split.groups[positions]
    items = units_among(len(ids), ids, groups).of
    passes = bench.passes(case, repetition)
    if passes[0].kind == "rows":
        splits = rows.cached[passes[0], case.cut]
        train, test = splits[0][repetition.train], splits[-1][repetition.test]
        return HeadRows(train, labels, items, held, train[validation], test, task)
    if passes[0].kind == "recompute":
        blocks = _kept_rows(passes[0], case.cut, bench)
        rounds, _, width = blocks["train"].shape
        return HeadRows(
            blocks["train"].reshape(-1, width),
            np.tile(labels, (rounds, *[1] * (labels.ndim - 1))),
            np.tile(items, rounds),
            np.tile(held, rounds),
            blocks["validation"],
            blocks["test"],
            task,
        )
    blocks = {one.part: _kept_rows(one, case.cut, bench)["rows"] for one in passes}
    judged = blocks.get("validation", blocks["train"][validation])
    return HeadRows(blocks["train"], labels, items, held, judged, blocks["test"], task)


def rows_key(bench: Bench, case: Case, repetition: Repetition) -> str:
    """Return a digest of everything that decides the rows of one configuration, and its folds."""
    passes = bench.passes(case, repetition)
    own = [dataclasses.replace(one, repetition=repetition.number) for one in passes]
    groups = bench.data.train.groups  # decide no rows, but which are held out together
    grouped = [] if groups is None else ["groups", *groups.tolist()]
    return digest_of(*(_key(one, case.cut, bench) for one in own), *grouped)


def digest_of(*parts: object) -> str:
    """Return a content digest of arrays and texts."""
    ended = ((p.tobytes() if isinstance(p, np.ndarray) else str(p), b"\0") for p in parts)
    return fingerprint(*chain.from_iterable(ended))


def _cached_rows(
    planned: PlannedPass, bench: Bench, reporter: Reporter
) -> tuple[dict[tuple[Pass, Cut], list[FloatRows]], CacheUse]:
    what, networks = planned.what, bench.networks
    repetition = bench.data.repetitions[what.repetition or 0]
    own = what.function.measured_statistics
    base = networks.ready(what.function, repetition) if own else networks.backbone
    base = dataclasses.replace(base, inputs=what.function.inputs)
    found = [
        bench.cache.features(
            network.at_cuts(base, planned.cuts), split, settings=bench.extraction, reporter=reporter
        )
        for split in bench.data.splits
    ]
    rows = {
        (what, cut): [np.asarray(one.sets[at].array(), dtype=np.float32) for one in found]
        for at, cut in enumerate(planned.cuts)
    }
    return rows, sum((one.use for one in found), CacheUse(0, 0))


def _keep_batch_rows(planned: PlannedPass, bench: Bench, counter: Within) -> None:
    """Run a loader over a part, or several times over the training items, and keep the rows.

    With ``recompute``, training mode moves the running statistics of the copy, and what they have
    become is used for validation and test.
    """
    what = planned.what
    repetition = _repetition(what, bench)
    ready = bench.networks.ready(what.function, repetition)

    def run(part: str, round_: int = 0) -> list[FloatRows]:
        cuts = network.at_cuts(ready, planned.cuts)
        return _run_loader(cuts, what, repetition, part, round_, bench, counter)

    if what.kind == "batches":
        blocks = {"rows": run(what.part)}
    else:
        rounds = [run("train", round_) for round_ in range(what.rounds)]
        network.settle(ready.module)
        blocks = {part: run(part) for part in ("validation", "test")}
        blocks["train"] = [np.stack(same) for same in zip(*rounds, strict=True)]
    for at, cut in enumerate(planned.cuts):
        arrays = {name: block[at] for name, block in blocks.items()}
        bench.kept.put(_key(what, cut, bench), arrays)


def _run_loader(
    cuts: tuple[Backbone, ...],
    what: Pass,
    repetition: Repetition,
    part: str,
    round_: int,
    bench: Bench,
    counter: Within,
) -> list[FloatRows]:
    """Run over a part as a loader does, and return its rows at every cut, in the part's order."""
    function = what.function
    split, positions = bench.data.items(repetition, part)
    order_seed, chance_seed = (
        int(np.random.SeedSequence([seed, _PARTS[part], round_]).generate_state(1)[0])
        for seed in (repetition.seeds.order, repetition.seeds.chance)
    )
    # A loader in class order is meant for testing; training loaders shuffle.
    named = "shuffled" if part == "train" else function.order
    order = loader_order(split.labels[positions], named, order_seed)
    device = cuts[0].device
    size = function.batch_size or bench.extraction.batch_size
    given = function.inputs
    batches = bench.data.batches(split, positions[order], given, size, device)
    blocks: list[FloatRows] = []
    with network.seeded(chance_seed, device):
        for where, inputs in batches:
            outputs = network.run_batch(cuts, inputs, function.autograd, bench.extraction)
            if not blocks:
                blocks = [np.empty((len(order), *o.shape[1:]), np.float32) for o in outputs]
            for block, output in zip(blocks, outputs, strict=True):
                block[order[where]] = output.cpu().numpy()
            counter.advance(len(where))
    return blocks


def _is_kept(planned: PlannedPass, bench: Bench) -> bool:
    keys = [_key(planned.what, cut, bench) for cut in planned.cuts]
    return all(bench.kept.get(key) is not None for key in keys)


def _kept_rows(what: Pass, cut: Cut, bench: Bench) -> Mapping[str, FloatRows]:
    kept = bench.kept.get(_key(what, cut, bench))
    assert kept is not None, "the plan was carried out"
    return kept.arrays


def _repetition(what: Pass, bench: Bench) -> Repetition:
    assert what.repetition is not None
    return bench.data.repetitions[what.repetition]


def _key(what: Pass, cut: Cut, bench: Bench) -> str:
    """Digest everything that decides the rows of a pass at a cut."""
    repetition, data, networks = _repetition(what, bench), bench.data, bench.networks
    ids = [data.train.ids[i] for i in repetition.train]
    ids += [data.test.ids[i] for i in repetition.test]
    description = {
        "version": _VERSION,
        "torch": torch.__version__,
        "device": networks.backbone.device.type,
        "space": networks.space(cut, bench.extraction.precision),
        "function": what.function.describe(),
        "kind": what.kind,
        "part": what.part,
        "seeds": [repetition.seeds.order, repetition.seeds.chance],
        "batch_size": bench.extraction.batch_size,
        "statistics_items": networks.statistics_items,
        "rounds": what.rounds,
    }
    text = canonical_json(description, compact=False, default=str)
    labels = data.labels(repetition, "train")
    return digest_of(text, "\n".join(ids), labels, repetition.held_out)


class Within:
    """A reporter whose tasks of one unit advance a task that is shown already.

    Args:
        shown: that task.
        unit: of the tasks that count; others are steps of the same work.
        note: receives what is noted during such a task; all other notes are dropped.
    """

    def __init__(self, shown: Progress, unit: str, note: Callable[[str], None] | None = None):
        self._shown, self._unit, self._note = shown, unit, note
        self._counting = False
        self._done = 0

    def note(self, text: str) -> None:
        """Pass a note on during the work that counts."""
        if self._counting and self._note is not None:
            self._note(text)

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Progress]:
        """Count a task if its unit is the one that counts."""
        self._counting = unit == self._unit
        try:
            if self._counting:
                yield self
            else:
                with SilentReporter().task(name, total, unit) as uncounted:
                    yield uncounted
        finally:
            self._counting = False

    def advance(self, count: int = 1) -> None:
        """Count units that are done."""
        self._done += count
        self._shown.advance(count)

    def finish(self, total: int) -> None:
        """Count what was not necessary to reach a total."""
        self.advance(max(0, total - self._done))


__all__ = ["Bench", "Kept", "PassRows", "Within", "digest_of", "rows_key", "rows_of", "run_passes"]
