"""The plan of a fine-tuning in words and rows, for the terminal and for the report."""

from __future__ import annotations

from headstart.core.wording import (
    format_bytes,
    format_percent,
    format_seconds,
    format_shape,
)
from headstart.finetuning.plan import Plan, PlannedCut, PlannedPlace, PlannedStage

HEADER = ("stage", "trains", "parameters", "rates", "trains on", "expected time", "memory")


def plan_rows(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Return one row a stage under :data:`HEADER`."""
    rows = []
    for stage in plan.stages:
        rates = [rate.lr for rate in stage.rates]
        low, high = min(rates), max(rates)
        read = stage.cut is not None and stage.cut.read
        rows.append(
            (
                stage.name,
                _groups(stage.groups),
                f"{stage.trainable:,} ({_percent(stage)})",
                f"{high:.3g}" if low == high else f"{low:.3g} to {high:.3g}",
                "stored rows" if read else "images",
                _time(stage),
                format_bytes(stage.memory),
            )
        )
    return tuple(rows)


def _percent(stage: PlannedStage) -> str:
    return format_percent(stage.trainable / stage.parameters)


def _groups(groups: tuple[str, ...]) -> str:
    if len(groups) <= 3:
        return ", ".join(groups)
    return f"{groups[0]} … {groups[-2]} ({len(groups) - 1} groups), {groups[-1]}"


def _time(stage: PlannedStage) -> str:
    each = f"{stage.epochs} × {format_seconds(stage.seconds_per_epoch)}"
    if stage.seconds_storing > 0:
        return f"{format_seconds(stage.seconds_storing)} + {each}"
    return each


def describe_rates(stage: PlannedStage) -> str:
    """Say the effective rate of every group, from the input to the output."""
    rates = {rate.name: rate.lr for rate in stage.rates}
    return "rates " + ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())


def describe_cut(stage: PlannedStage) -> str:
    """Say in one sentence where a stage is cut, and whether that is used."""
    cut = stage.cut
    if cut is None:
        return f"nothing is stored: {stage.no_cut}"
    where = ", ".join(
        f"{name} {format_shape(shape)} {dtype}" for name, shape, dtype in cut.at.boundary
    )
    state = "stored" if cut.read else "not stored"
    return f"cut {cut.at.place}, at {where}; {_rows(cut)}; {state}, since {cut.reason}"


def _rows(cut: PlannedCut) -> str:
    total = f"{cut.rows:,} rows, {format_bytes(cut.at.bytes)}"
    if cut.at.missing is None:
        return f"{total}, known when the stage begins"
    if cut.at.missing == 0:
        return f"{total}, all in the cache already"
    return f"{total}, {cut.at.missing:,} of them to be computed"


PLACES = ("cut", "stored", "an item", "in all", "store", "read", "recompute", "stage")
"""The header of :func:`place_rows`: ``store`` is once, ``read`` and ``recompute`` are an epoch."""
NOTHING = "nowhere: from the images"
TAKEN = "→ "
"""Stands before what the stage does."""


def place_rows(stage: PlannedStage) -> tuple[tuple[str, ...], ...]:
    """Return one row for every possible cut of a stage under :data:`PLACES`, and one without."""
    cut = stage.cut
    if cut is None:
        return ()
    rows = [
        (
            _name(place, taken=cut.read and place is cut.at),
            " + ".join(format_shape(shape) for _, shape, _ in place.boundary),
            format_bytes(place.bytes_per_item),
            format_bytes(place.bytes),
            "is there" if place.missing == 0 else format_seconds(place.seconds_storing),
            format_seconds(place.seconds_reading),
            format_seconds(place.seconds_recomputing),
            format_seconds(place.seconds),
        )
        for place in cut.places
    ]
    images = "" if cut.read else TAKEN
    nothing = (f"{images}{NOTHING}", *[""] * 6, format_seconds(cut.seconds_images))
    return (*rows, nothing)


def _name(place: PlannedPlace, *, taken: bool) -> str:
    room = "" if place.on_disk else " (disk too full)"
    return f"{TAKEN if taken else ''}{place.place}{room}"


__all__ = [
    "HEADER",
    "NOTHING",
    "PLACES",
    "TAKEN",
    "describe_cut",
    "describe_rates",
    "place_rows",
    "plan_rows",
]
