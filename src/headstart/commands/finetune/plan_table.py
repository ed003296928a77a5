"""The plan of a fine-tuning as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from headstart.commands.finetune.plan_words import (
    HEADER,
    NOTHING,
    PLACES,
    TAKEN,
    describe_cut,
    describe_rates,
    place_rows,
    plan_rows,
)
from headstart.core.wording import format_bytes, format_seconds, format_shape
from headstart.finetuning.plan import Plan, PlannedPlace, PlannedStage

_FEW, _WIDE = 3, 7
"""So many stages are told one by one; of more, so many stand side by side in a table."""


def plan_table(plan: Plan) -> Group:
    """Return the plan for a rich console; names of parts are never read as markup."""
    start = "a probe" if plan.start == "probe" else "a random head"
    title = (
        f"plan: {plan.recipe} from {start}, {plan.n_train:,} items train,"
        f" {plan.n_validation:,} choose the best epoch; about {format_seconds(plan.seconds)}"
    )
    told = _one_by_one if len(plan.stages) <= _FEW else _side_by_side
    return Group(
        Text(title, style="bold"),
        _table(HEADER, plan_rows(plan), "llrlllr"),
        *told(plan.stages),
        *(_said(line) for line in _settings(plan.stages)),
        _said(f"disk: {format_bytes(plan.bytes_free)} free"),
    )


def _one_by_one(stages: Sequence[PlannedStage]) -> Iterator[Text | Table]:
    for stage in stages:
        yield _said(f"{stage.name}: {describe_rates(stage)}")
        yield _said(f"{stage.name}: {describe_cut(stage)}")
        if stage.cut is not None:
            yield _table(PLACES, place_rows(stage), "llrrrrrr")


def _side_by_side(stages: Sequence[PlannedStage]) -> Iterator[Text | Table]:
    """Show many stages beside one another: their rates, and what they cost at every cut."""
    parts = [stages[start : start + _WIDE] for start in range(0, len(stages), _WIDE)]
    # A group stands twice where its weights decay and its biases do not.
    groups = _in_order([list(dict.fromkeys(r.name for r in stage.rates)) for stage in stages])
    rows: list[tuple[str, ...]]
    for part in parts:
        rates = [{rate.name: f"{rate.lr:.3g}" for rate in stage.rates} for stage in part]
        rows = [(name, *(rate.get(name, "") for rate in rates)) for name in groups]
        rows = [row for row in rows if any(row[1:])]
        yield _table(("rate", *(stage.name for stage in part)), rows, "l" + "r" * len(part))
    places = {place.place: place for stage in stages for place in _places(stage)}
    order = _in_order([[place.place for place in _places(stage)] for stage in stages])
    if places:
        about = [_place(places[name]) for name in order]
        header = ("cut", "stored", "an item", "in all", "read an epoch", "recompute an epoch")
        yield _table(header, about, "llrrrr")
    for part in parts:
        if any(stage.cut is not None for stage in part):
            rows = [
                (name, *(_seconds(stage, name) for stage in part)) for name in (*order, NOTHING)
            ]
            rows = [row for row in rows if any(row[1:])]
            names = ("the whole stage", *(stage.name for stage in part))
            yield _table(names, rows, "l" + "r" * len(part))
    for stage in stages:
        if stage.cut is None or not stage.cut.read or "; cut " in stage.cut.reason:
            yield _said(f"{stage.name}: {describe_cut(stage)}")


def _places(stage: PlannedStage) -> tuple[PlannedPlace, ...]:
    return () if stage.cut is None else stage.cut.places


def _place(place: PlannedPlace) -> tuple[str, ...]:
    return (
        place.place,
        " + ".join(format_shape(shape) for _, shape, _ in place.boundary),
        format_bytes(place.bytes_per_item),
        format_bytes(place.bytes),
        format_seconds(place.seconds_reading),
        format_seconds(place.seconds_recomputing),
    )


def _seconds(stage: PlannedStage, name: str) -> str:
    """Return what a stage takes if it is cut at a place; empty where it cannot be."""
    cut = stage.cut
    if cut is None:
        return f"{TAKEN}{format_seconds(stage.seconds)}" if name == NOTHING else ""
    if name == NOTHING:
        return f"{'' if cut.read else TAKEN}{format_seconds(cut.seconds_images)}"
    for place in cut.places:
        if place.place == name:
            taken = cut.read and place is cut.at
            return f"{TAKEN if taken else ''}{format_seconds(place.seconds)}"
    return ""


def _in_order(lists: Sequence[Sequence[str]]) -> list[str]:
    """Merge lists of names, each of them from the input to the output, to one."""
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


def _said(text: str) -> Text:
    return Text(text, style="dim")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, side in zip(header, align, strict=True):
        made.add_column(
            Text(name), justify="right" if side == "r" else "left", no_wrap=name != "trains"
        )
    for row in rows:
        bold = "bold" if row[0].startswith(TAKEN) else ""
        made.add_row(
            *(Text(cell, style=bold or ("bold" if cell.startswith(TAKEN) else "")) for cell in row)
        )
    return made


__all__ = ["plan_table"]
