"""The page of a sweep: what was tried, what was chosen and why, and how the winner did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.invocation import Commands
from headstart.commands.page_blocks import command_blocks, curve_pictures
from headstart.commands.prediction_table import Probabilities, prediction_columns, write_predictions
from headstart.commands.run import Run
from headstart.commands.run_facts import describe_environment
from headstart.commands.run_page import fit_page
from headstart.commands.run_report import report_page
from headstart.core.files import write_json
from headstart.core.records import Evaluation, to_plain
from headstart.core.wording import count
from headstart.data import Split
from headstart.heads import Candidate, Sweep
from headstart.report import Page, Section, Table, format_score, write_page
from headstart.report.page import Block, Callout
from headstart.report.text import flatten

HEADER = ("features", "head", "chosen", "seeds", "held-out accuracy")
_SHOWN = 10
_GRID = ("features", "head", "options", "held-out accuracy", "log loss", "")


def best_rows(found: Sweep) -> list[tuple[str, ...]]:
    """Return a row under :data:`HEADER` for the best of every kind of head on every view."""
    best = {(each.view, each.head): each for each in reversed(found.candidates)}
    return [
        (
            each.view,
            each.head,
            _options(each),
            ", ".join(map(str, each.seeds)),
            format_score(each.accuracy),
        )
        for each in found.candidates
        if best[each.view, each.head] is each
    ]


def sweep_page(found: Sweep, run: Run, test: Split, probabilities: Probabilities) -> Page:
    """Build the page: that of a run, with what was swept before it.

    Args:
        found: the sweep.
        run: its winner.
        test: the test split.
        probabilities: ``(n_test, n_classes)``, what the winner predicts for it.
    """
    page = report_page(dataclasses.replace(run, curves=()), test, probabilities)
    return _with_sweep(page, found)


def _with_sweep(page: Page, found: Sweep) -> Page:
    first, *others = page.sections
    text = f"{_chosen(found.winner)}, chosen among {count(len(found.candidates), 'candidate')}:"
    return dataclasses.replace(
        page, sections=(first, _section(found), *others), verdict=f"{text} {page.verdict}"
    )


def write_features_sweep(
    folder: Path,
    found: Sweep,
    tested: tuple[Evaluation, NDArray[np.int64], Probabilities] | None,
    classes: tuple[str, ...],
    configuration: Mapping[str, Any],
    command: str,
) -> None:
    """Write ``report.html``, ``sweep.json`` and the predictions of a sweep over bare features.

    Args:
        folder: an existing folder.
        found: the sweep.
        tested: scores, true classes ``(n,)`` and probabilities ``(n, n_classes)`` on the test rows;
            None if there are none.
        classes: names of the classes.
        configuration: every setting.
        command: the call.
    """
    environment, title = describe_environment(), f"{configuration['data']}: a sweep over heads"
    commands = Commands(command)
    if tested is None:
        rows = tuple(flatten(configuration))
        settings = Table(("setting", "value"), rows, "Configuration", "ll", folded=True)
        page = Page(title, "", (), (
            _section(found),
            Section("How to reproduce this", (settings, *command_blocks(commands))),
        ))  # fmt: skip
    else:
        evaluation, truth, probabilities = tested
        origins = [f"row {i}" for i in range(len(truth))]
        named = [classes[label] for label in truth]
        columns = prediction_columns(origins, named, classes, probabilities, split="test")
        write_predictions(folder, columns, classes, probabilities)
        page = fit_page(
            evaluation, title=title, notes=found.notes, listed=True, configuration=configuration,
            environment=environment, commands=commands,
        )  # fmt: skip
        page = _with_sweep(page, found)
    write_page(page, folder / "report.html")
    document = {
        "command": command,
        "configuration": dict(configuration),
        "winner": to_plain(found.winner),
        "candidates": to_plain(found.candidates),
        "curves": to_plain(found.curves),
        "evaluation": None if tested is None else to_plain(tested[0]),
        "environment": environment,
    }
    write_json(folder / "sweep.json", document)


def _section(found: Sweep) -> Section:
    winner, n = found.winner, len(found.candidates)
    views = {each.view for each in found.candidates}
    heads = {each.head for each in found.candidates}
    tried = (
        f"{count(n, 'candidate')} ({count(len(heads), 'kind')} of head on"
        f" {count(len(views), 'view')} of the features), each scored on the same held-out training"
        f" rows: {count(found.n_folds, 'fold')} for"
        f" {'seed' if len(found.seeds) == 1 else 'each of the seeds'}"
        f" {', '.join(map(str, found.seeds))}. The test items chose nothing."
    )
    chosen = _chosen(winner)
    second = next((each for each in found.candidates if each.head != winner.head), None)
    text = f"Chosen: {chosen}: {format_score(winner.accuracy)} on held-out training rows."
    if second is not None:
        text += (
            f" The best of another kind is {second.head} on {second.view}:"
            f" {format_score(second.accuracy)}."
        )
    grid = tuple(
        (
            each.view,
            each.head,
            _options(each),
            format_score(each.accuracy),
            each.log_loss,
            "given up early" if each.given_up else "",
        )
        for each in found.candidates
    )
    blocks: list[Block] = [
        Callout(text, "advice"),
        tried,
        *_best(best_rows(found)),
        *curve_pictures(found.curves),
        Table(_GRID, grid, f"The whole grid: {count(n, 'candidate')}", "llllrl", folded=True),
    ]
    return Section("The sweep", tuple(blocks))


def _best(rows: list[tuple[str, ...]]) -> list[Block]:
    """Return the best candidates, those after the first ten folded."""
    caption = "The best of every kind of head on every view"
    if len(rows) <= _SHOWN + 2:
        return [Table(HEADER, tuple(rows), caption, "lllrl")]
    more = f"The other {len(rows) - _SHOWN}"
    return [
        Table(HEADER, tuple(rows[:_SHOWN]), f"{caption}: the first {_SHOWN}", "lllrl"),
        Table(HEADER, tuple(rows[_SHOWN:]), more, "lllrl", folded=True),
    ]


def _chosen(winner: Candidate) -> str:
    options = _options(winner)
    return f"{winner.head} on {winner.view}" + (f" with {options}" if options else "")


def _options(each: Candidate) -> str:
    return ", ".join(f"{name} {value}" for name, value in flatten(each.options))


__all__ = ["HEADER", "best_rows", "sweep_page", "write_features_sweep"]
