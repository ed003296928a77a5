"""The plan of a fine-tuning in tables and sentences, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from headstart.core.wording import (
    count,
    format_bytes,
    format_percent,
    format_seconds,
    format_shape,
)
from headstart.finetuning.plan import Plan, PlannedPlace, PlannedStage

_FEW, _WIDE = 3, 7
"""So many stages are shown one after the other; of more, so many are beside one another."""

HEADER = ("stage", "trains", "parameters", "rates", "trains on", "expected time", "memory")
PLACES = ("cut", "stored", "an item", "in all", "store", "read", "recompute", "stage")
"""The header of :func:`place_rows`: ``store`` is once, ``read`` and ``recompute`` are an epoch."""
_TAKEN = "→ "


# Rows and sentences


def plan_rows(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Return one row a stage under :data:`HEADER`."""
    rows = []
    for stage in plan.stages:
        rates = [rate.lr for rate in stage.rates]
        low, high = min(rates), max(rates)
        rows.append(
            (
                stage.name,
                _groups(stage.groups),
                f"{stage.trainable:,} ({format_percent(stage.trainable / stage.parameters)})",
                f"{high:.3g}" if low == high else f"{low:.3g} to {high:.3g}",
                "stored rows" if stage.cut is not None and stage.cut.read else plan.unit,
                _time(stage),
                format_bytes(stage.memory),
            )
        )
    return tuple(rows)


def place_rows(stage: PlannedStage, unit: str) -> tuple[tuple[str, ...], ...]:
    """Return one row for every possible cut of a stage under :data:`PLACES`, and one without.

    Args:
        stage: the stage.
        unit: what several items are called ("images").
    """
    cut = stage.cut
    if cut is None:
        return ()
    rows = []
    for place in cut.places:
        taken = _TAKEN if cut.read and place is cut.at else ""
        room = "" if place.on_disk else " (disk too full)"
        store = "is there" if place.missing == 0 else format_seconds(place.seconds_storing)
        name, *sizes, read, recompute = _about(place)
        whole = format_seconds(place.seconds)
        rows.append((f"{taken}{name}{room}", *sizes, store, read, recompute, whole))
    nowhere = f"{'' if cut.read else _TAKEN}{_nowhere(unit)}"
    return (*rows, (nowhere, *[""] * 6, format_seconds(cut.seconds_images)))


def describe_cut(stage: PlannedStage) -> str:
    """Describe in one sentence where a stage is cut, and whether it trains from stored rows."""
    cut = stage.cut
    if cut is None:
        return f"nothing is stored: {stage.no_cut}"
    where = ", ".join(
        f"{name} {format_shape(shape)} {dtype}" for name, shape, dtype in cut.at.boundary
    )
    rows = f"{count(cut.rows, 'row')}, {format_bytes(cut.at.bytes)}"
    if cut.at.missing is None:
        rows += ", known when the stage begins"
    elif cut.at.missing == 0:
        rows += ", all in the cache already"
    else:
        rows += f", {cut.at.missing:,} of them to be computed"
    state = "stored" if cut.read else "not stored"
    return f"cut {cut.at.place}, at {where}; {rows}; {state}, since {cut.reason}"


def _nowhere(unit: str) -> str:
    return f"nowhere: from the {unit}"


def _groups(groups: tuple[str, ...]) -> str:
    if len(groups) <= 3:
        return ", ".join(groups)
    return f"{groups[0]} … {groups[-2]} ({len(groups) - 1} groups), {groups[-1]}"


def _time(stage: PlannedStage) -> str:
    each = f"{stage.epochs} × {format_seconds(stage.seconds_per_epoch)}"
    once = stage.seconds_storing
    return f"{format_seconds(once)} + {each}" if once > 0 else each


def _about(place: PlannedPlace) -> tuple[str, ...]:
    """Return place, shape, bytes of an item and of all, seconds to read and to recompute."""
    return (
        place.place,
        " + ".join(format_shape(shape) for _, shape, _ in place.boundary),
        format_bytes(place.bytes_per_item),
        format_bytes(place.bytes),
        format_seconds(place.seconds_reading),
        format_seconds(place.seconds_recomputing),
    )


# The terminal


def plan_table(plan: Plan) -> Group:
    """Return the plan for a rich console; names of parts are never read as markup."""
    start = "a probe" if plan.start == "probe" else "a random head"
    title = (
        f"plan: {plan.recipe} from {start}, {count(plan.n_train, 'training item')},"
        f" {plan.n_validation:,} to choose the best epoch; about {format_seconds(plan.seconds)}"
    )
    shown = _one_by_one if len(plan.stages) <= _FEW else _side_by_side
    return Group(
        Text(title, style="bold"),
        _table(HEADER, plan_rows(plan), "llrlllr"),
        *shown(plan.stages, plan.unit),
        *(_dim(line) for line in _settings(plan.stages)),
        _dim(f"disk: {format_bytes(plan.bytes_free)} free"),
    )


def _one_by_one(stages: Sequence[PlannedStage], unit: str) -> Iterator[Text | Table]:
    for stage in stages:
        rates = {rate.name: rate.lr for rate in stage.rates}
        listed = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
        yield _dim(f"{stage.name}: rates {listed}")
        yield _dim(f"{stage.name}: {describe_cut(stage)}")
        if stage.cut is not None:
            yield _table(PLACES, place_rows(stage, unit), "llrrrrrr")


def _side_by_side(stages: Sequence[PlannedStage], unit: str) -> Iterator[Text | Table]:
    """Show many stages beside one another: their rates, and what they cost at every cut."""
    parts = [stages[start : start + _WIDE] for start in range(0, len(stages), _WIDE)]
    # A group is listed twice where its weights decay and its biases do not.
    groups = _merged([list(dict.fromkeys(r.name for r in stage.rates)) for stage in stages])
    for part in parts:
        rates = [{rate.name: f"{rate.lr:.3g}" for rate in stage.rates} for stage in part]
        rows = [(name, *(rate.get(name, "") for rate in rates)) for name in groups]
        yield _beside("rate", part, rows)
    places = {place.place: place for stage in stages for place in _places(stage)}
    order = _merged([[place.place for place in _places(stage)] for stage in stages])
    if places:
        header = ("cut", "stored", "an item", "in all", "read an epoch", "recompute an epoch")
        yield _table(header, [_about(places[name]) for name in order], "llrrrr")
    for part in parts:
        if any(stage.cut is not None for stage in part):
            rows = [
                *((name, *(_seconds(stage, name) for stage in part)) for name in order),
                (_nowhere(unit), *map(_without, part)),
            ]
            yield _beside("the whole stage", part, rows)
    for stage in stages:
        if stage.cut is None or not stage.cut.read or "; cut " in stage.cut.reason:
            yield _dim(f"{stage.name}: {describe_cut(stage)}")


def _places(stage: PlannedStage) -> tuple[PlannedPlace, ...]:
    return () if stage.cut is None else stage.cut.places


def _seconds(stage: PlannedStage, name: str) -> str:
    """Return what a stage takes if it is cut at a place; empty where it cannot be."""
    cut = stage.cut
    for place in _places(stage):
        if cut is not None and place.place == name:
            taken = cut.read and place is cut.at
            return f"{_TAKEN if taken else ''}{format_seconds(place.seconds)}"
    return ""


def _without(stage: PlannedStage) -> str:
    """Return what a stage takes if nothing is stored."""
    cut = stage.cut
    taken = cut is None or not cut.read
    seconds = stage.seconds if cut is None else cut.seconds_images
    return f"{_TAKEN if taken else ''}{format_seconds(seconds)}"


def _merged(lists: Sequence[Sequence[str]]) -> list[str]:
    """Merge lists of names, each of them ordered from the input to the output."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for names in sorted(lists, key=len, reverse=True):
        for name in names:
            sorter.add(name)
        for earlier, later in pairwise(names):
            sorter.add(later, earlier)
    return list(sorter.static_order())


def _settings(stages: Sequence[PlannedStage]) -> list[str]:
    names: dict[str, list[str]] = {}
    for stage in stages:
        names.setdefault(stage.settings, []).append(stage.name)
    if len(names) == 1 < len(stages):
        return [f"all stages: {text}" for text in names]
    return [f"{', '.join(owners)}: {text}" for text, owners in names.items()]


def _dim(text: str) -> Text:
    return Text(text, style="dim")


def _beside(title: str, stages: Sequence[PlannedStage], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table with a column for each stage, without empty rows."""
    header = (title, *(stage.name for stage in stages))
    return _table(header, [row for row in rows if any(row[1:])], "l" + "r" * len(stages))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, side in zip(header, align, strict=True):
        made.add_column(
            Text(name), justify="right" if side == "r" else "left", no_wrap=name != "trains"
        )
    for row in rows:
        taken = row[0].startswith(_TAKEN)
        made.add_row(
            *(Text(cell, style="bold" if taken or cell.startswith(_TAKEN) else "") for cell in row)
        )
    return made


__all__ = ["HEADER", "PLACES", "describe_cut", "place_rows", "plan_rows", "plan_table"]
