"""The execution plan: which engine runs a network, chosen by what a job costs with each.

With ``engine='auto'`` a small job runs the network as it is written, without any preparation. For a
larger one the plan compares ``seconds to prepare + items × seconds an item`` over the engines:
those that were measured before for this network, shape of batch, device and library versions by
what is remembered, others by what the table expects of them. An engine that should pay clearly is
opened on the first batch, checked, and timed against the network on a copy with folded norms; the
faster one runs the job, and its figures are remembered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from headstart.backbones import Backbone, features_of
from headstart.core.arguments import Arguments
from headstart.core.cards import Card, Shown
from headstart.core.devices import synchronize
from headstart.core.errors import BackboneError, ConfigError
from headstart.core.records import Precision
from headstart.core.threads import one_is_faster
from headstart.core.wording import format_seconds
from headstart.extraction.engines import EAGER, EngineUnfitError, find_engine
from headstart.extraction.engines.eager import arranged
from headstart.extraction.engines.table import Engine, Shelf, Slot, engines
from headstart.extraction.machine import describe_build, describe_machine, describe_network
from headstart.extraction.precision import ROW_TOLERANCE, TOLERANCE, row_errors
from headstart.extraction.row_checks import finite_rows

if TYPE_CHECKING:
    from headstart.extraction.engines.table import Run

AS_WRITTEN = "as written"
_SMALL_SECONDS = 1.0
"""A job that takes no longer than this is not worth any preparation."""
_MARGIN = 1.1
"""A job has to promise to be this much shorter with an engine that was not measured."""
_TRIAL_SHARE = 0.15
"""An engine that was not measured is tried, too, where preparing it takes no more of the job."""
_SAMPLE_SECONDS, _SAMPLE_SHARE, _SAMPLE, _ROUNDS = 0.3, 0.01, 8, 2
"""Timing takes a few passes over at most this many items, fewer where the network is slow: a pass
takes no more than these seconds, and no more than this share of the job."""
_THREADS_SECONDS = 5.0
"""From this length on a job finds out whether one thread is faster; a busy machine may be."""


_KEPT_SECONDS = 1.0
"""Until a kept program runs, where no run has measured it."""
_WAS_KEPT = "its program was kept by an earlier run"


class Memory(Protocol):
    """Keeps small figures by what they depend on; the cache has one on disk.

    Attributes:
        shelf: of programs that engines have made; None: none are kept.
    """

    @property
    def shelf(self) -> Shelf | None:
        """Where programs are kept."""

    def get(self, about: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return what is remembered; None: nothing."""

    def put(self, about: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Remember values; what cannot be kept is forgotten."""


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """How a network runs in this job.

    Attributes:
        engine: name of an engine, or ``as written``.
        precision: of the passes.
        batch_size: items in a pass.
        threads: of torch, on the CPU.
        reason: why; empty where nothing was weighed.
    """

    engine: str
    precision: Precision
    batch_size: int
    threads: int
    reason: str = ""

    def card(self) -> Card:
        """Return what there is to see."""
        facts = (
            ("precision", self.precision),
            ("batches of", self.batch_size),
            ("threads", self.threads),
        )
        why = (("because", self.reason),) if self.reason else ()
        return Card("Plan of an extraction", f"engine '{self.engine}'", (*facts, *why))

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return (
            f"engine '{self.engine}' in {self.precision}, batches of {self.batch_size}, {threads}: "
            f"{self.reason}"
        )


@dataclass
class Trial:
    """What is known of a network and a job when its engine is chosen.

    Attributes:
        cuts: one network.
        precision, device: of the passes.
        inputs: the first batch, filled up to the shape of all.
        count: items that have to be computed.
        expected: rows of the first items, from the network as it is written.
        item_seconds: as it is written; a first estimate.
        enter: keeps a context open as long as the extractor.
        memory: of earlier trials.
        fixed: whether all batches will have this shape; no engine made for a shape is tried else.
        notes: engines that did not work out, and why.
    """

    cuts: Sequence[Backbone]
    precision: Precision
    device: torch.device
    inputs: Arguments
    count: int
    expected: Sequence[Tensor]
    item_seconds: float
    enter: Callable[[contextlib.AbstractContextManager[Run]], Run]
    memory: Memory | None = None
    fixed: bool = True
    notes: list[str] = field(default_factory=list)
    _slots: dict[str, Slot | None] = field(default_factory=dict)

    def named(self, name: str) -> tuple[Run, Plan]:
        """Open the engine that was asked for; one that is unfit gives way, with a note.

        Raises:
            BackboneError: its rows are not those of the network.
            MissingExtraError: it is not installed.
        """
        engine = find_engine(name)
        missing = engine.missing()
        if missing is not None:
            raise missing
        try:
            run, slot = self._opened(engine), self._slot(engine)
            was_kept = slot is not None and slot.found
            return run, self._plan(name, _WAS_KEPT if was_kept else "")
        except EngineUnfitError as unfit:
            self.notes.append(unfit_note(name, unfit))
            return self.as_written()

    def as_written(self) -> tuple[Run, Plan]:
        """Run the network as it is written."""
        return (lambda inputs: features_of(self.cuts, arranged(inputs))), self._plan(AS_WRITTEN)

    def in_int8(self) -> tuple[Run, Plan]:
        """Run a network that was calibrated; it brings its engine with it.

        Raises:
            ConfigError: it was not.
        """
        from headstart.extraction.int8 import Int8Network

        if not isinstance(self.cuts[0].module, Int8Network):
            raise ConfigError(
                (
                    f"precision 'int8' needs a calibrated network, and {self.cuts[0].name} is not"
                    " calibrated",
                ),
                hint="fit calibrates one on its training items",
            )
        run, plan = self.as_written()
        return run, dataclasses.replace(plan, reason="OpenVINO runs it")

    def chosen(self) -> tuple[Run, Plan]:
        """Choose an engine for the job, and open it."""
        if self.count * self.item_seconds <= _SMALL_SECONDS:
            return self.as_written()
        written, _ = self.as_written()
        own = self._timed(written, self._sample())
        if self.count * own <= _SMALL_SECONDS:
            return self.as_written()
        self._choose_threads(written, own)
        eager = self._opened(find_engine(EAGER))
        with torch.no_grad():
            eager(self._sample())
        eager_item = self._timed(eager, self._fair_sample())
        known = self._remembered()
        reason = f"{self._rate(eager_item)}"
        for total, engine in self._candidates(known, eager_item):
            if total >= self.count * eager_item and not self._cheap(engine, known, eager_item):
                reason += f"; '{engine.name}' does not pay off for {self.count:,} {self._unit}"
                break
            remembered = engine.name in known
            begun = time.perf_counter()
            try:
                run = self._opened(engine)
            except (EngineUnfitError, BackboneError) as unfit:
                known[engine.name] = {"unfit": str(unfit)}
                self._remember(known)
                reason += f"; '{engine.name}' cannot run it ({unfit})"
                continue
            seconds = time.perf_counter() - begun
            kept = self._is_kept(engine)
            if remembered:
                item = float(known[engine.name]["item"])
                how = f"{self._rate(item)}, measured in an earlier run"
                if kept:
                    known[engine.name].setdefault("again", seconds)
                    self._remember(known)
                    how += f"; {_WAS_KEPT}, and ready after {format_seconds(seconds)}"
                return run, self._plan(engine.name, how)
            item = self._timed(run, self.inputs, rounds=1)
            known[engine.name] = {"item": item, "seconds": max(0.0, seconds - item)}
            self._remember(known)
            if item < eager_item:
                how = (
                    f"{self._rate(item)} against {self._rate(eager_item)} in eager, ready after"
                    f" {format_seconds(seconds)}{'; its program is kept for later runs' * kept}"
                )
                return run, self._plan(engine.name, how)
            reason += f"; '{engine.name}' is slower ({self._rate(item)})"
        return eager, self._plan(EAGER, reason)

    @property
    def _unit(self) -> str:
        return self.cuts[0].inputs.unit

    def _rate(self, item_seconds: float) -> str:
        return f"{1 / item_seconds:,.0f} {self._unit}/s"

    def _plan(self, engine: str, reason: str = "") -> Plan:
        threads = torch.get_num_threads()
        return Plan(engine, self.precision, len(self.inputs), threads, reason)

    def _candidates(
        self, known: Mapping[str, Any], eager_item: float
    ) -> list[tuple[float, Engine]]:
        """Return engines with the seconds that the job should take on them, the fastest first."""
        found: list[tuple[float, Engine]] = []
        for engine in engines() if self.fixed else ():
            prospect = engine.prospect.get(self.device.type)
            if prospect is None or self.precision not in prospect.gain or engine.missing():
                continue
            record = known.get(engine.name)
            if record is None:
                gain = prospect.gain[self.precision]
                job = prospect.seconds + self.count * eager_item / gain
                found.append((_MARGIN * job, engine))
            elif "unfit" not in record:
                seconds = float(record["seconds"])
                if self._is_kept(engine):
                    seconds = float(record.get("again", min(seconds, _KEPT_SECONDS)))
                found.append((seconds + self.count * record["item"], engine))
        return sorted(found, key=lambda each: each[0])

    def _choose_threads(self, run: Run, seconds: float) -> None:
        """Take one thread where several wait for each other: on a busy machine, say."""
        several = torch.get_num_threads()
        if self.device.type != "cpu" or several == 1 or self.count * seconds < _THREADS_SECONDS:
            return
        sample = self._sample()
        if one_is_faster(lambda: run(sample), several, blocks=_ROUNDS, seconds=0.0):
            torch.set_num_threads(1)  # the pipeline restores it behind every batch

    def _sample(self) -> Arguments:
        seconds = min(_SAMPLE_SECONDS, _SAMPLE_SHARE * self.count * self.item_seconds)
        most = int(seconds / max(self.item_seconds, 1e-9))
        return self.inputs[: max(1, min(_SAMPLE, most))]

    def _fair_sample(self) -> Arguments:
        """Return a whole batch, as engines get it, where the job is long beside it.

        A few items fit the processor's caches and run faster than the batches of the job.
        """
        return self.inputs if len(self.inputs) <= _SAMPLE_SHARE * self.count else self._sample()

    def _cheap(self, engine: Engine, known: Mapping[str, Any], eager_item: float) -> bool:
        """Whether an engine that was not measured costs little to try."""
        prospect = engine.prospect[self.device.type]
        share = prospect.seconds / (self.count * eager_item)
        return engine.name not in known and share <= _TRIAL_SHARE

    def _timed(self, run: Run, inputs: Arguments, rounds: int = _ROUNDS) -> float:
        """Return the seconds an item of passes that are warm: the best of a few."""
        times = []
        for _ in range(rounds):
            begun = time.perf_counter()
            run(inputs)
            synchronize(self.device)
            times.append(time.perf_counter() - begun)
        return min(times) / len(inputs)

    def _opened(self, engine: Engine) -> Run:
        """Open an engine, run it, and check its rows; the eager one checks its own copy."""
        slot = self._slot(engine)
        if engine.kept is not None and slot is not None:
            run = self.enter(engine.kept(self.cuts, self.precision, self.device, slot))
        else:
            run = self.enter(engine.open(self.cuts, self.precision, self.device))
        if engine.name != EAGER:
            check_engine(engine.name, self.cuts, self.expected, run(self.inputs), self.precision)
        return run

    def _slot(self, engine: Engine) -> Slot | None:
        """Return the place of this network's programs; None: none is kept."""
        shelf = None if self.memory is None or engine.kept is None else self.memory.shelf
        if shelf is None:
            return None
        if engine.name not in self._slots:
            about: dict[str, Any] = {
                "kind": engine.name,
                "precision": self.precision,
                "build": describe_build(self.device),
            }
            try:
                about["network"] = [cut.identity() for cut in self.cuts]
                self._slots[engine.name] = Slot(shelf, about)
            except BackboneError:  # part of the network has no description
                self._slots[engine.name] = None
        return self._slots[engine.name]

    def _is_kept(self, engine: Engine) -> bool:
        slot = self._slot(engine)
        return slot is not None and slot.find(self.inputs) is not None

    def _about(self) -> dict[str, Any]:
        return {
            "kind": "engines",
            "network": describe_network(self.cuts, self.inputs),
            "machine": describe_machine(self.device),
            "precision": self.precision,
        }

    def _remembered(self) -> dict[str, Any]:
        found = None if self.memory is None else self.memory.get(self._about())
        return dict(found or {})

    def _remember(self, known: Mapping[str, Any]) -> None:
        if self.memory is not None:
            self.memory.put(self._about(), known)


def unfit_note(name: str, unfit: EngineUnfitError) -> str:
    """Say that an engine gives way, and why."""
    return f"the engine '{name}' cannot run this network ({unfit}): it runs as written"


def check_engine(
    name: str,
    cuts: Sequence[Backbone],
    expected: Sequence[Tensor],
    found: Sequence[Tensor],
    precision: Precision,
) -> None:
    """Refuse an engine whose rows are not those of the network.

    Raises:
        BackboneError: they differ by more than the tolerance of the precision.
    """
    for cut, all_rows, others in zip(cuts, expected, found, strict=True):
        good = finite_rows(all_rows)
        rows, other = all_rows[good], others[: len(all_rows)][good]
        if not len(rows):
            continue
        scale = float(rows.float().abs().max()) or 1.0
        change = float((rows.float() - other.float()).abs().max()) / scale
        off = float(row_errors(other, rows).max())
        # Written so that NaN fails, too.
        if not (change <= TOLERANCE[precision] and off <= ROW_TOLERANCE[precision]):
            raise BackboneError(
                f"the engine '{name}' and the network itself return different features of"
                f" {cut.name} (they differ by {change:.2g} of the largest feature)",
                hint="use engine='eager'",
            )


__all__ = ["AS_WRITTEN", "Memory", "Plan", "Trial", "check_engine", "unfit_note"]
