"""Which of the possible cuts a stage takes: what each would cost, from times measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.finetuning.measure import Disk
from headstart.finetuning.plan import PlannedPlace
from headstart.finetuning.stages import Stage
from headstart.prefix import Candidate

_MUCH_CHEAPER = 0.8
"""The boundary moves from where it always is only if the stage takes less than this share of the
time: rows are found again by the next run, and measured times differ a little between runs."""
_FREE_SHARE = 0.9
ROW_OVERHEAD = 80
"""Bytes of a row's id and its place in the index."""


@dataclass(frozen=True)
class StageCosts:
    """What a stage costs at the boundary where it always is, measured.

    Attributes:
        n_train, n_validation: items.
        rows: stored rows: one for every item, and for every view of a training item.
        epochs: of the stage.
        decode: seconds to read and decode an item.
        prefix, step: seconds an item: computing the boundary, and training what is behind it.
        memory: bytes of rows that may be held.
        free: bytes on the disk.
    """

    n_train: int
    n_validation: int
    rows: int
    epochs: int
    decode: float
    prefix: float
    step: float
    memory: int
    free: int

    @property
    def images_epoch(self) -> float:
        """Seconds of an epoch that begins with the images."""
        whole = self.prefix + self.step
        return self.n_train * (self.decode + whole) + self.n_validation * (
            self.decode + self.prefix + self.step / 3
        )


def weigh(
    found: Sequence[Candidate], missing: Sequence[int | None], costs: StageCosts, disk: Disk
) -> tuple[PlannedPlace, ...]:
    """Return what the stage would cost with each candidate.

    Args:
        found: the candidates, one of them the chosen one.
        missing: for each the rows that are not stored; None where that is not known yet.
        costs: of the stage.
        disk: where rows lie.
    """
    usual = next(candidate for candidate in found if candidate.chosen)
    # A pass through the whole prefix is free of the clock between operations, which is what
    # an operation of a few microseconds is measured by.
    scale = costs.prefix / usual.prefix_seconds if usual.prefix_seconds > 0 else 1.0
    items = costs.n_train + costs.n_validation
    places = []
    for candidate, lacking in zip(found, missing, strict=True):
        size = candidate.bytes_per_item
        prefix = scale * candidate.prefix_seconds
        # Frozen operations record nothing for the backward pass: they only add their time.
        more = scale * (candidate.recomputed_seconds - usual.recomputed_seconds)
        fits = costs.rows * size <= costs.memory
        computed = costs.rows if lacking is None else lacking
        storing = computed * (costs.decode + prefix + size * disk.write_seconds)
        reading = items * disk.read_seconds(size, fits)
        rest = items * more + (costs.n_train + costs.n_validation / 3) * costs.step
        places.append(
            PlannedPlace(
                place=candidate.place,
                boundary=tuple((spec.name, spec.shape, spec.dtype) for spec in candidate.boundary),
                bytes_per_item=size,
                bytes=costs.rows * size,
                missing=lacking,
                in_memory=fits,
                on_disk=computed * (size + ROW_OVERHEAD) <= _FREE_SHARE * costs.free,
                seconds_storing=storing,
                seconds_reading=reading,
                seconds_recomputing=items * (costs.decode + prefix),
                seconds_per_epoch=max(reading + rest, 0.0),
                seconds=storing + costs.epochs * max(reading + rest, 0.0),
            )
        )
    return tuple(places)


def choose(
    places: Sequence[PlannedPlace], usual: int, stage: Stage, decided: str
) -> tuple[int, str]:
    """Return which candidate a stage is cut at, and why if it is not the usual one.

    Args:
        places: the candidates.
        usual: the number of the one that is the same in every run and on every machine.
        stage: the stage.
        decided: the place that an unfinished run decided on, or nothing.
    """
    for number, place in enumerate(places):
        if decided and place.place == decided:
            return number, ""
    if stage.mixup > 0 or stage.noise > 0:
        return usual, ""  # they act on the boundary: elsewhere the stage would learn otherwise
    room = [number for number, place in enumerate(places) if place.on_disk]
    if not room:
        return usual, ""
    best = min(room, key=lambda number: places[number].seconds)
    if not places[usual].on_disk:
        return best, f"the rows {places[usual].place} do not fit on the disk"
    if places[best].seconds < _MUCH_CHEAPER * places[usual].seconds:
        stored = places[best].missing == 0 and places[usual].missing != 0
        why = "its rows are stored already" if stored else "it is much cheaper here"
        return best, f"{why} than {places[usual].place}" if not stored else why
    return usual, ""


__all__ = ["ROW_OVERHEAD", "StageCosts", "choose", "weigh"]
