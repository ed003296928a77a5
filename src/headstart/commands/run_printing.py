"""What a run of ``fit``, ``sweep`` or ``finetune`` shows in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.commands.console import (
    Printing,
    command_seconds,
    print_json,
    print_lines,
    print_quietly,
    stdout,
)
from headstart.commands.run import Run
from headstart.commands.run_page import wrong_items
from headstart.commands.scoring import AnyEvaluation
from headstart.core.records import (
    Baseline,
    Evaluation,
    Reference,
)
from headstart.core.wording import count, format_seconds
from headstart.evaluation.multi_label import MultiLabelEvaluation
from headstart.evaluation.regression import RegressionEvaluation
from headstart.report import evaluation_table
from headstart.report.task_text import task_table

if TYPE_CHECKING:
    from rich.console import Group


def mistakes_line(evaluation: AnyEvaluation) -> str:
    """Say how many items were predicted wrong; nothing where none is right or wrong."""
    if isinstance(evaluation, RegressionEvaluation):
        return f"{count(evaluation.n, 'test item')} predicted"
    if isinstance(evaluation, MultiLabelEvaluation):
        wrong = evaluation.n - round(evaluation.n * evaluation.exact_match.value)
        return f"a label wrong: {wrong:,} of {count(evaluation.n, 'test item')}"
    wrong = wrong_items(evaluation)
    return f"mistakes: {wrong:,} of {count(evaluation.n, 'test item')}"


def time_line(
    seconds: Mapping[str, float], rate: str = "", *, rest: str = "imports and report"
) -> str:
    """Say how long the whole command took, and its steps.

    Args:
        seconds: by step, with ``total``.
        rate: what is said of the speed, in brackets.
        rest: what the remaining time went to.
    """
    steps = {name: value for name, value in seconds.items() if name != "total"}
    whole = max(command_seconds(seconds["total"]), sum(steps.values()))
    steps[rest] = whole - sum(steps.values())
    told = ", ".join(f"{name} {format_seconds(value)}" for name, value in steps.items())
    return f"time:   {format_seconds(whole)}{rate}: {told}"


def print_run(run: Run, printing: Printing, out: Path | str | None = None) -> None:
    """Show scores, time, and what to do next; or the metrics as JSON.

    Args:
        run: the run.
        printing: how.
        out: the folder that was asked for.
    """
    if printing.json:
        print_json({**run.metrics(), "folder": str(run.folder), "next": list(run.commands.next)})
        return
    if printing.quiet:
        print_quietly(run.folder, out)
        return
    console = stdout()
    console.print(scores_table(run.evaluation, run.baselines))
    rate = run.images_per_second
    speed = "" if rate is None else f" ({rate:,.0f} {run.backbone.inputs.unit}/s)"
    console.print(f"\n{time_line(run.seconds, speed)}")
    if run.folder is not None:
        files = f"{mistakes_line(run.evaluation)}; all are in {run.folder}/predictions.csv"
        print_lines(console, (f"\n{files}", f"\nreport: {run.folder}/report.html"))
    print_lines(console, run.commands.lines())


def scores_table(
    evaluation: AnyEvaluation, baselines: Sequence[Baseline | Reference] = ()
) -> Group:
    """Return scores, baselines and the rows of classes, labels or targets, for rich."""
    if isinstance(evaluation, Evaluation):
        known = [each for each in baselines if isinstance(each, Baseline)]
        return evaluation_table(evaluation, baselines=known)
    return task_table(evaluation, baselines=[b for b in baselines if isinstance(b, Reference)])


__all__ = ["mistakes_line", "print_run", "scores_table", "time_line"]
