"""What a sweep for several labels or for numbers shows."""

from __future__ import annotations

import dataclasses

from headstart.commands.prediction_table import Probabilities
from headstart.commands.run import Run
from headstart.commands.run_report import task_report_page
from headstart.commands.task_report import scored_items
from headstart.core.records import Evaluation
from headstart.core.wording import count
from headstart.data import Split
from headstart.heads.task_sweeps import TaskCandidate, TaskSweep
from headstart.report import Page, Section, Table
from headstart.report.page import Callout
from headstart.report.task_text import format_named, short_named


def task_rows(found: TaskSweep) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and one row a candidate, the best first."""
    names = [figure.name for figure in found.winner.figures]
    header = ("features", "head", "options", *(f"held-out {name}" for name in names))
    rows = [
        (each.view, each.head, _options(each), *(short_named(figure) for figure in each.figures))
        for each in found.candidates
    ]
    return header, rows


def task_sweep_page(found: TaskSweep, run: Run, test: Split, outputs: Probabilities) -> Page:
    """Build the page: that of the winner, with what was swept before it."""
    assert not isinstance(run.evaluation, Evaluation)
    scored = scored_items(run.evaluation, run.head, test, outputs, run.backbone.inputs)
    page = task_report_page(run, scored)
    winner, n = found.winner, len(found.candidates)
    first = winner.figures[0]
    chosen = f"{winner.head} on {winner.view}"
    text = f"Chosen: {chosen}: {first.name} {format_named(first)} on held-out training rows."
    tried = (
        f"{count(n, 'candidate')}, each scored on the same held-out training rows:"
        f" {count(found.n_folds, 'fold')} for"
        f" {'seed' if len(found.seeds) == 1 else 'each of the seeds'}"
        f" {', '.join(map(str, found.seeds))}. The test items chose nothing."
    )
    header, rows = task_rows(found)
    table = Table(header, tuple(rows), "All candidates", "lll" + "r" * (len(header) - 3))
    swept = Section("The sweep", (Callout(text, "advice"), tried, table))
    top, *others = page.sections
    verdict = f"{chosen}, chosen among {count(n, 'candidate')}: {page.verdict}"
    return dataclasses.replace(page, sections=(top, swept, *others), verdict=verdict)


def _options(each: TaskCandidate) -> str:
    scaled = each.options.get("standardise")
    return "not standardised" if scaled is False else ""


__all__ = ["task_rows", "task_sweep_page"]
