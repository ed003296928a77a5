"""What a stage costs, and whether it trains from images or from stored rows: the one cost model.

A stage can compute everything from the images in every epoch. Or it can store the output of its
frozen part once, at one of several cuts, and train from those rows. :meth:`Chooser.choose` decides,
stage by stage, in these steps:

1. What could be stored: the possible cuts of the network, or why there is none.
2. What is measured, on a few items and on this machine: decoding, the frozen part, one training
   step, writing to the disk of the cache and reading from it (:mod:`headstart.finetuning.timing`).
3. What follows from it (:class:`StageCosts`), in seconds, for ``n`` items that train and ``v``
   that validate; validating costs a third of a step, since it has no backward pass:

   * from images, an epoch: ``n (decode + prefix + step) + v (decode + prefix + step / 3)``;
   * from rows, once: ``rows (decode + prefix + write)``, and an epoch:
     ``(n + v)(read + recompute) + (n + v / 3) step``.

   Rows that another run has stored are counted for the expected time, and not for the choice: the
   weights must not depend on what the cache holds.

4. What there is room for: rows are held in memory where they fit into a quarter of what is free,
   and stored where they fit into nine tenths of the free disk. :class:`PlannedRows` counts what
   earlier stages of the same plan store.
5. The choice: :func:`choose_cut` says where, :func:`choose_rows` says whether.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headstart.data import decode_seconds
from headstart.finetuning.feeds import Feeds
from headstart.finetuning.gradients import gradients_for
from headstart.finetuning.network import network_groups
from headstart.finetuning.plan import PlannedCut, PlannedPlace
from headstart.finetuning.recipe import Stage
from headstart.finetuning.room import ROW_OVERHEAD, PlannedRows, RowCount, memory_for_rows
from headstart.finetuning.targets import Target
from headstart.finetuning.timing import Disk, measure_prefix, measure_step, probe_items
from headstart.prefix import Candidate, Cut, NoCut, Recording, candidates, record

StoredMode = Literal["auto", "on", "off"]

_FREE_SHARE = 0.9
_MUCH_CHEAPER = 0.8
"""The choice moves away from the usual one only if the stage then takes less than this share of the
time: rows at the usual cut are found again by the next run, and measured times vary a little."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What a stage trains on.

    Attributes:
        costs: the measured costs of the stage.
        activations: bytes kept for the backward pass, per item.
        planned: the possible cuts with their costs, and the choice; None where nothing can be cut.
        no_cut: the reason, then.
        cut: whose rows the stage trains on; None: it trains from images.
    """

    costs: StageCosts
    activations: int
    planned: PlannedCut | None
    no_cut: str = ""
    cut: Cut | None = None

    @property
    def rows_at(self) -> PlannedPlace | None:
        """What training from rows costs; None where the stage trains from images."""
        return self.planned.at if self.planned is not None and self.planned.read else None


class Chooser:
    """Chooses what the stages of a recipe train on, one after the other.

    Args:
        feeds: the items and the network, which is left unchanged.
        disk: of the cache.
        mode: ``auto`` stores rows where that is faster, ``on`` wherever something can be cut,
            ``off`` never.
    """

    def __init__(self, feeds: Feeds, disk: Disk, mode: StoredMode) -> None:
        self.feeds, self.network, self.disk, self.mode = feeds, feeds.network, disk, mode
        self.memory = memory_for_rows(feeds.device)
        self.rows = PlannedRows(feeds)
        self._example = feeds.source.probe(probe_items(self.network))
        inputs = feeds.source.inputs
        self._decode = decode_seconds(feeds.train, inputs, workers=feeds.workers)
        self._blocks = {group.name: group.modules for group in network_groups(self.network)}
        self._recording: Recording | None = None

    def choose(self, target: Target, stable: bool, decided: str | None) -> Choice:
        """Choose for a stage.

        Args:
            target: the stage.
            stable: whether its frozen part is now what it will be when the stage begins.
            decided: where an unfinished run cut it, empty if that trained from images; None for a
                new run.
        """
        found = self._candidates(target)
        usual = found if isinstance(found, NoCut) else _usual(found).cut()
        costs, activations = self._measure(target, usual)
        if isinstance(found, NoCut) or isinstance(usual, NoCut):
            return Choice(
                costs, activations, None, usual.reason if isinstance(usual, NoCut) else ""
            )
        planned, cut = self._choose_among(found, target.stage, costs, stable, decided)
        return Choice(costs, activations, planned, "", cut)

    def _candidates(self, target: Target) -> tuple[Candidate, ...] | NoCut:
        """Return the possible cuts, from the input to the output; or why there is none."""
        if self.mode == "off":
            return NoCut("storing rows is switched off")
        if target.stage.frozen != "frozen":
            return NoCut(
                "the frozen part normalises by the batch and has dropout on: its rows would"
                " depend on the batch and on random numbers"
            )
        if self.feeds.source.inputs.ragged:
            unit = self.feeds.source.inputs.unit
            return NoCut(f"{unit} differ in length, and stored rows have one shape")
        if self._recording is None:
            self._recording = record(self.network, self._example)
        return candidates(self._recording, target.freeze, self._blocks, dtype=self.feeds.dtype)

    def _measure(self, target: Target, usual: Cut | NoCut) -> tuple[StageCosts, int]:
        """Return the costs of a stage, and the bytes of activations per item."""
        stage, feeds, example = target.stage, self.feeds, self._example
        batch = example[: min(len(example), stage.batch_size)]
        classes = self.network.head.out_features
        with gradients_for(self.network, target.trainable):
            if isinstance(usual, Cut):
                rows, prefix = measure_prefix(usual.prefix, batch, stage.precision)
                if stage.precision == "float32":  # then both figures are valid: the lower counts
                    prefix = min(prefix, usual.prefix_seconds)
                step = measure_step(usual.suffix, rows, classes, stage.precision)
            else:
                prefix = 0.0
                step = measure_step(self.network, batch, classes, stage.precision)
        costs = StageCosts(
            n_train=len(feeds.train),
            n_validation=len(feeds.validation),
            rows=len(feeds.train) * max(1, stage.views) + len(feeds.validation),
            epochs=stage.epochs,
            decode=self._decode,
            prefix=prefix,
            step=step.seconds,
            memory=self.memory,
            disk=self.rows.disk,
        )
        return costs, step.activations

    def _choose_among(
        self,
        found: tuple[Candidate, ...],
        stage: Stage,
        costs: StageCosts,
        stable: bool,
        decided: str | None,
    ) -> tuple[PlannedCut, Cut | None]:
        """Choose a cut, and whether the stage trains from its rows; return the cut if it does."""
        usual = _usual(found)
        places = tuple(
            costs.at(one, usual, self.rows.count(one, stage, stable), self.disk) for one in found
        )
        taken, why = choose_cut(places, found.index(usual), stage, decided or "")
        cut = found[taken].cut()
        if isinstance(cut, NoCut):
            taken, why, cut = found.index(usual), "", usual.cut()
        images = stage.epochs * costs.images_epoch
        at = places[taken]
        read, reason = choose_rows(at, images, stage, self.mode, decided, self.rows.disk)
        if read:
            self.rows.add(found[taken], at, stage, stable)
        if why:
            reason = f"{reason}; cut {at.place}, since {why}"
        planned = PlannedCut(places, taken, costs.rows, images, read, reason)
        return planned, cut if read and isinstance(cut, Cut) else None


def _usual(found: Sequence[Candidate]) -> Candidate:
    """Return the candidate that is chosen in every run and on every machine.

    It is placed by estimated times, so that a second run finds the rows of the first.
    """
    return next(candidate for candidate in found if candidate.chosen)


# What a stage costs


@dataclass(frozen=True)
class StageCosts:
    """The measured costs of a stage.

    Attributes:
        n_train, n_validation: items.
        rows: rows to store: one per item, or per view of a training item.
        epochs: of the stage.
        decode: seconds per item to read and decode.
        prefix: seconds per item to run the frozen part up to the usual cut.
        step: seconds per item to train what is behind it.
        memory: bytes of rows that may be held in memory.
        disk: free bytes on the disk of the cache.
    """

    n_train: int
    n_validation: int
    rows: int
    epochs: int
    decode: float
    prefix: float
    step: float
    memory: int
    disk: int

    @property
    def images_epoch(self) -> float:
        """Seconds of an epoch from images."""
        whole = self.prefix + self.step
        return self.n_train * (self.decode + whole) + self.n_validation * (
            self.decode + self.prefix + self.step / 3
        )

    def at(
        self, candidate: Candidate, usual: Candidate, count: RowCount, disk: Disk
    ) -> PlannedPlace:
        """Return what the stage costs with rows stored at a cut.

        Args:
            candidate: the cut.
            usual: the cut that :attr:`prefix` and :attr:`step` were measured at.
            count: how many of its rows there are.
            disk: where the rows are stored.
        """
        # The whole prefix was timed in one run; single operations include the cost of timing them.
        scale = self.prefix / usual.prefix_seconds if usual.prefix_seconds > 0 else 1.0
        prefix = scale * candidate.prefix_seconds
        # Frozen operations behind the cut run again in every epoch. They record nothing for the
        # backward pass, so that they add only their own time.
        recompute = scale * (candidate.recomputed_seconds - usual.recomputed_seconds)
        size, items = candidate.bytes_per_item, self.n_train + self.n_validation
        in_memory = self.rows * size <= self.memory
        planned = self.rows if count.planned is None else count.planned
        missing = planned if count.missing is None else count.missing
        row = self.decode + prefix + size * disk.write_seconds
        on_disk = size + ROW_OVERHEAD
        reading = items * disk.read_seconds(size, in_memory)
        behind = items * recompute + (self.n_train + self.n_validation / 3) * self.step
        epoch = max(reading + behind, 0.0)
        return PlannedPlace(
            place=candidate.place,
            boundary=tuple((spec.name, spec.shape, spec.dtype) for spec in candidate.boundary),
            bytes_per_item=size,
            bytes=self.rows * size,
            missing=count.missing,
            in_memory=in_memory,
            # Rows that are stored take room already: with them or without, there must be as much.
            on_disk=missing == 0
            or planned * on_disk <= _FREE_SHARE * (self.disk + (planned - missing) * on_disk),
            seconds_storing=missing * row,
            seconds_reading=reading,
            seconds_recomputing=items * (self.decode + prefix),
            seconds_per_epoch=epoch,
            seconds=planned * row + self.epochs * epoch,
        )


# The choice


def choose_cut(
    places: Sequence[PlannedPlace], usual: int, stage: Stage, decided: str
) -> tuple[int, str]:
    """Return the number of the cut to take, and why if it is not the usual one.

    Args:
        places: the possible cuts with their costs.
        usual: the number of the one that is the same in every run and on every machine.
        stage: the stage.
        decided: the cut that an unfinished run decided on, or nothing.
    """
    for number, place in enumerate(places):
        if decided and place.place == decided:
            return number, ""
    if _acts_on_rows(stage):
        return usual, ""  # elsewhere the stage would learn something else
    fitting = [number for number, place in enumerate(places) if place.on_disk]
    if not fitting:
        return usual, ""
    best = min(fitting, key=lambda number: places[number].seconds)
    if not places[usual].on_disk:
        return best, f"the rows {places[usual].place} do not fit on the disk"
    if places[best].seconds < _MUCH_CHEAPER * places[usual].seconds:
        return best, f"it is much cheaper here than {places[usual].place}"
    return usual, ""


def choose_rows(
    at: PlannedPlace, images: float, stage: Stage, mode: StoredMode, decided: str | None, disk: int
) -> tuple[bool, str]:
    """Return whether a stage trains from stored rows, and why.

    Args:
        at: the cut that was chosen.
        images: seconds of the whole stage from images.
        stage: the stage.
        mode: ``on`` stores wherever something can be cut, ``auto`` where that is faster.
        decided: the cut that an unfinished run decided on, nothing if it trained from images; None
            for a new run.
        disk: free bytes.
    """
    if not at.on_disk and decided != "":
        return False, f"the rows need {at.bytes:,} bytes, and the disk has {disk:,} free"
    if decided is not None:
        return bool(decided), "as the unfinished run decided"
    if mode == "on":
        return True, "as requested"
    if _acts_on_rows(stage):
        return True, "mixup and noise act on the stored rows"  # which timing must not decide
    words = f"{_spelled(at.seconds)} with stored rows against {_spelled(images)} without"
    # Measured times vary from run to run, and must not decide where the two are about the same.
    again = stage.epochs > 1
    usual, other = (at.seconds, images) if again else (images, at.seconds)
    read = again if other >= _MUCH_CHEAPER * usual else not again
    if (at.seconds <= images) == read:
        return read, f"{'reading' if read else 'recomputing'} is cheaper: {words}"
    return read, f"{'reading' if read else 'recomputing'} costs about the same: {words}"


def _acts_on_rows(stage: Stage) -> bool:
    return stage.mixup > 0 or stage.noise > 0


def _spelled(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


__all__ = [
    "Choice",
    "Chooser",
    "StageCosts",
    "StoredMode",
    "choose_cut",
    "choose_rows",
]
