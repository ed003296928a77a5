"""What ``finetune`` writes into its run folder, and its plan as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.data import Split
from headstart.jobs.run_report import find_mistakes, next_steps
from headstart.jobs.runs import Run, write_json
from headstart.jobs.tuned import save_tuned
from headstart.records import to_plain
from headstart.report import Code, Page, Section, Table, Text, fit_page, write_page
from headstart.report.wording import format_number, format_percent, format_seconds
from headstart.training.outcome import Trained
from headstart.training.plan import Plan, PlannedCut, PlannedPlace, PlannedStage

if TYPE_CHECKING:
    from rich.console import Group


def write_finetune(
    run: Run,
    folder: Path,
    plan: Plan,
    trained: Trained,
    test: Split,
    probabilities: NDArray[np.floating[Any]],
) -> None:
    """Write head, tuned weights, ``run.json``, ``metrics.json``, figures and ``report.html``.

    Args:
        run: the run.
        folder: an existing folder.
        plan: what was planned.
        trained: how it went.
        test: the test split that was evaluated.
        probabilities: ``(n_test, n_classes)``, what the network said of it.
    """
    from headstart.report.figures import (
        confusion_figure,
        curves_figure,
        reliability_figure,
        save_png,
    )

    run.head.save(folder)
    if run.tuned:
        save_tuned(folder, run.tuned)
    write_json(folder / "metrics.json", run.metrics())
    save_png(confusion_figure(run.evaluation), folder / "confusion.png")
    save_png(reliability_figure(run.evaluation), folder / "reliability.png")
    save_png(curves_figure(run.curves), folder / "curves.png")
    write_page(finetune_page(run, plan, trained, test, probabilities), folder / "report.html")
    # Last: a folder with a run.json is a whole run.
    write_json(folder / "run.json", run.description())


def finetune_page(
    run: Run,
    plan: Plan,
    trained: Trained,
    test: Split,
    probabilities: NDArray[np.floating[Any]],
) -> Page:
    """Build the page of the run: that of a fit, with the stages and the plan."""
    page = fit_page(
        run.evaluation,
        title=f"{run.configuration['data']}: {run.backbone.name} fine-tuned by {plan.recipe}",
        subtitle=f"{run.n_train:,} training, {plan.n_validation:,} validation and"
        f" {run.n_test:,} test images; {len(run.tuned):,} tensors of the backbone changed",
        baselines=run.baselines,
        curves=run.curves,
        configuration=to_plain({"backbone": run.spec, **run.configuration}),
        environment=run.environment,
        timing={step: value for step, value in run.seconds.items() if step != "total"},
        cache=run.cache,
        notes=run.notes,
        mistakes=find_mistakes(run.classes, test, probabilities),
        commands=next_steps(run),
        head_name="fine-tuned",
    )
    added = (Section("Stages", _outcomes(trained)), Section("Plan", _plan_blocks(plan)))
    return dataclasses.replace(page, sections=(*page.sections[:1], *added, *page.sections[1:]))


def _outcomes(trained: Trained) -> tuple[Table]:
    rows = []
    for number, stage in enumerate(trained.stages):
        reached = [r.validation_accuracy for r in trained.records if r.stage == number]
        rows.append(
            (
                stage.name,
                f"{stage.epochs}",
                stage.ended,
                format_percent(max(reached)) if reached else "none",
                format_seconds(stage.seconds),
                "stored rows" if stage.cached else "images",
                stage.proof,
            )
        )
    header = ("stage", "epochs", "ended", "best validation", "time", "trained on", "proof")
    return (Table(header, tuple(rows), "How the stages went", "lrlrrll"),)


def _plan_blocks(plan: Plan) -> tuple[Table | Text | Code, ...]:
    blocks: list[Table | Text | Code] = [Table(HEADER, plan_rows(plan), "As planned", "llrllrr")]
    for stage in plan.stages:
        rates = tuple(
            (rate.name, f"{rate.parameters:,}", f"{rate.lr:.3g}", f"{rate.weight_decay:.3g}")
            for rate in stage.rates
        )
        header = ("group", "parameters", "rate", "weight decay")
        caption = f"Stage '{stage.name}': {stage.settings}"
        blocks.append(Table(header, rates, caption, "lrrr", folded=True))
        blocks.append(Text(f"Stage '{stage.name}': {describe_cut(stage)}."))
        if stage.cut is not None:
            caption = (
                f"Stage '{stage.name}': what every possible cut would cost; storing once, reading"
                " or recomputing in every epoch"
            )
            blocks.append(Table(PLACES, place_rows(stage), caption, "llrrrrrr"))
        blocks.append(Code(stage.policy, caption=f"what stage '{stage.name}' freezes"))
    return tuple(blocks)


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
                f"{stage.trainable:,} of {stage.parameters:,}",
                f"{high:.3g}" if low == high else f"{low:.3g} to {high:.3g}",
                "stored rows" if read else "images",
                _time(stage),
                format_bytes(stage.memory),
            )
        )
    return tuple(rows)


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
    where = ", ".join(f"{name} {_shape(shape)} {dtype}" for name, shape, dtype in cut.at.boundary)
    state = "stored" if cut.read else "not stored"
    return f"cut {cut.at.place}, at {where}; {_rows(cut)}; {state}, since {cut.reason}"


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(str(extent) for extent in shape)


def _tiny(seconds: float) -> str:
    if seconds >= 1e-4 or seconds == 0:
        return format_seconds(seconds)
    return f"{format_number(1e6 * seconds, digits=2)} µs"


def _rows(cut: PlannedCut) -> str:
    total = f"{cut.rows:,} rows, {format_bytes(cut.at.bytes)}"
    if cut.at.missing is None:
        return f"{total}, known when the stage begins"
    if cut.at.missing == 0:
        return f"{total}, all in the cache already"
    return f"{total}, {cut.at.missing:,} of them to be computed"


PLACES = ("cut behind", "stored", "an item", "in all", "store", "read", "recompute", "stage")
"""The header of :func:`place_rows`: ``store`` is once, ``read`` and ``recompute`` are an epoch."""
_TAKEN = "→ "


def place_rows(stage: PlannedStage) -> tuple[tuple[str, ...], ...]:
    """Return one row for every possible cut of a stage under :data:`PLACES`, and one without."""
    cut = stage.cut
    if cut is None:
        return ()
    rows = [
        (
            _name(place, taken=cut.read and place is cut.at),
            " + ".join(_shape(shape) for _, shape, _ in place.boundary),
            format_bytes(place.bytes_per_item),
            format_bytes(place.bytes),
            "is there" if place.missing == 0 else _tiny(place.seconds_storing),
            _tiny(place.seconds_reading),
            _tiny(place.seconds_recomputing),
            format_seconds(place.seconds),
        )
        for place in cut.places
    ]
    images = "" if cut.read else _TAKEN
    nothing = (f"{images}nothing stored", *[""] * 6, format_seconds(cut.seconds_images))
    return (*rows, nothing)


def _name(place: PlannedPlace, *, taken: bool) -> str:
    name = place.place.removeprefix("behind ")
    room = "" if place.on_disk else " (disk too full)"
    return f"{_TAKEN if taken else ''}{name}{room}"


def format_bytes(count: float) -> str:
    """Return a number of bytes in the unit that suits it: ``12.5 MB``."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{format_number(float(count))} {unit}"
        count /= 1000
    raise AssertionError


def plan_table(plan: Plan) -> Group:
    """Return the plan for a rich console; names of parts are never read as markup."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> RichTable:
        made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name, side in zip(header, align, strict=True):
            made.add_column(name, justify="right" if side == "r" else "left")
        for row in rows:
            style = "bold" if row[0].startswith(_TAKEN) else ""
            made.add_row(*(RichText(cell, style=style) for cell in row))
        return made

    start = "a probe" if plan.start == "probe" else "a random head"
    lines = [
        f"plan: {plan.recipe} from {start}, {plan.n_train:,} items train,"
        f" {plan.n_validation:,} choose the best epoch; about {format_seconds(plan.seconds)}"
    ]
    details: list[RichText | RichTable] = []

    def say(text: str) -> None:
        details.append(RichText(text, style="dim"))

    for stage in plan.stages:
        say(f"{stage.name}: {describe_rates(stage)}")
        say(f"{stage.name}: {describe_cut(stage)}")
        if stage.cut is not None:
            details.append(table(PLACES, place_rows(stage), "llrrrrrr"))
    settings: dict[str, list[str]] = {}
    for stage in plan.stages:
        settings.setdefault(stage.settings, []).append(stage.name)
    for text, names in settings.items():
        say(f"{', '.join(names)}: {text}")
    say(f"disk: {format_bytes(plan.bytes_free)} free")
    main = table(HEADER, plan_rows(plan), "llrlllr")
    return Group(RichText(lines[0], style="bold"), main, *details)


__all__ = [
    "describe_cut",
    "describe_rates",
    "finetune_page",
    "format_bytes",
    "place_rows",
    "plan_rows",
    "plan_table",
    "write_finetune",
]
