"""The report of a fine-tuning: that of a fit, with the stages and the plan."""

from __future__ import annotations

import dataclasses
from typing import Any

from headstart.commands.finetune.plan_table import (
    HEADER,
    PLACES,
    describe_cut,
    place_rows,
    plan_rows,
)
from headstart.commands.prediction_table import Probabilities
from headstart.commands.run import Run
from headstart.commands.run_report import report_page, task_report_page
from headstart.commands.task_report import scored_items
from headstart.core.records import ACCURACY, Evaluation
from headstart.core.wording import (
    count,
    format_number,
    format_percent,
    format_seconds,
    singular,
)
from headstart.data import Split
from headstart.finetuning.outcome import Trained
from headstart.finetuning.plan import Plan
from headstart.report import Code, Page, Section, Table, Text


def finetune_page(
    run: Run,
    plan: Plan,
    trained: Trained,
    test: Split,
    probabilities: Probabilities,
) -> Page:
    """Build the page.

    Args:
        run: the run.
        plan: what was planned.
        trained: how it went.
        test: the test split that was evaluated.
        probabilities: ``(n_test, n_classes)``, what the network said of it.
    """
    told: dict[str, Any] = {
        "title": f"{run.configuration['data']}: {run.backbone.name} fine-tuned by {plan.recipe}",
        "subtitle": f"{run.n_train:,} training, {plan.n_validation:,} validation and"
        f" {count(run.n_test, f'test {singular(run.backbone.inputs.unit)}')};"
        f" {count(len(run.tuned), 'tensor')} of the backbone changed",
        "head_name": "fine-tuned",
    }
    if isinstance(run.evaluation, Evaluation):
        page = report_page(run, test, probabilities, told=told)
    else:
        inputs = run.backbone.inputs
        scored = scored_items(run.evaluation, run.head, test, probabilities, inputs)
        page = task_report_page(run, scored, told=told)
    added = (Section("Stages", _outcomes(trained, plan.unit)), Section("Plan", _plan_blocks(plan)))
    return dataclasses.replace(page, sections=(*page.sections[:1], *added, *page.sections[1:]))


def _outcomes(trained: Trained, unit: str) -> tuple[Table]:
    rows = []
    for number, stage in enumerate(trained.stages):
        reached = [r.validation_score for r in trained.records if r.stage == number]
        rows.append(
            (
                stage.name,
                f"{stage.epochs}",
                stage.ended,
                _worded(max(reached), trained.best.figure) if reached else "none",
                format_seconds(stage.seconds),
                "stored rows" if stage.cached else unit,
                stage.proof,
            )
        )
    best = "best validation" if trained.best.figure == ACCURACY else f"best {trained.best.figure}"
    header = ("stage", "epochs", "ended", best, "time", "trained on", "proof")
    return (Table(header, tuple(rows), "How the stages went", "lrlrrll"),)


def _worded(score: float, figure: str) -> str:
    return format_number(score) if figure == "R²" else format_percent(score)


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
                f"Stage '{stage.name}': the cost of every possible cut: storing rows once, and"
                " reading or recomputing them in every epoch"
            )
            blocks.append(Table(PLACES, place_rows(stage, plan.unit), caption, "llrrrrrr"))
        blocks.append(Code(stage.policy, caption=f"what stage '{stage.name}' freezes"))
    return tuple(blocks)


__all__ = ["finetune_page"]
