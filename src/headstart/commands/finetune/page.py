"""What ``finetune`` writes into its run folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.finetune.plan_words import (
    HEADER,
    PLACES,
    describe_cut,
    place_rows,
    plan_rows,
)
from headstart.commands.run_folder import Run
from headstart.commands.run_page import fit_page
from headstart.commands.run_report import find_mistakes, next_steps
from headstart.commands.tuned import save_tuned
from headstart.core.files import write_json
from headstart.core.records import to_plain
from headstart.core.wording import format_percent, format_seconds
from headstart.data import Split
from headstart.finetuning.outcome import Trained
from headstart.finetuning.plan import Plan
from headstart.report import Code, Page, Section, Table, Text, write_page


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
        mistakes=find_mistakes(run.classes, test, probabilities, run.backbone.inputs),
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


__all__ = ["finetune_page", "write_finetune"]
