"""What ``fit``, ``sweep`` and ``compare`` log: scores as figures, and what was tried as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.commands.loggers import log_outcome
from headstart.commands.run import Run
from headstart.commands.scoring import tested_figures
from headstart.core.cards import Cell, Grid
from headstart.core.progress import Reporter
from headstart.core.records import Baseline, Evaluation
from headstart.core.records import to_plain as plain
from headstart.heads import Candidate

if TYPE_CHECKING:
    from headstart.study import Comparison


def log_run(
    run: Run, loggers: Sequence[str], reporter: Reporter, tables: Mapping[str, Grid] | None = None
) -> None:
    """Log a run that has been written: its scores, baselines and seconds, and scores by class.

    Args:
        run: of ``fit`` or ``sweep``.
        loggers: by name.
        reporter: notes what could not be logged.
        tables: more tables.
    """
    if not loggers or run.folder is None:
        return
    figures = {**tested_figures(run.evaluation), "n_train": run.n_train, "n_test": run.n_test}
    for each in run.baselines:
        if isinstance(each, Baseline):
            figures[f"baseline/{each.name}"] = each.accuracy.value
    figures |= {f"seconds/{step}": value for step, value in run.seconds.items()}
    settings = {"backbone": run.backbone.name, **plain(dict(run.configuration))}
    named = {**_by_class(run.evaluation), **(tables or {})}
    log_outcome(loggers, run.folder, settings, reporter, figures, named)


def _by_class(evaluation: Any) -> dict[str, Grid]:
    if not isinstance(evaluation, Evaluation):
        return {}
    rows = tuple(
        (row.label, row.support, row.precision, row.recall, row.f1) for row in evaluation.per_class
    )
    return {"classes": Grid(("class", "items", "precision", "recall", "F1"), rows)}


def candidate_table(candidates: Sequence[Any]) -> dict[str, Grid]:
    """Return what a sweep has tried, the best first."""
    rows: list[tuple[Cell, ...]] = []
    for one in candidates:
        options = ", ".join(f"{name}={value}" for name, value in one.options.items())
        if isinstance(one, Candidate):
            rows.append((one.view, one.head, options, one.accuracy.value, one.log_loss))
        else:
            rows.append((one.view, one.head, options, one.figures[0].score.value, None))
    header = ("features", "head", "options", "held out", "log loss")
    return {"candidates": Grid(header, tuple(rows))}


def log_comparison(
    comparison: Comparison,
    folder: Path | None,
    settings: Mapping[str, Any],
    loggers: Sequence[str],
    reporter: Reporter,
) -> None:
    """Log a comparison that has been written: the accuracy of every configuration, and all figures.

    Args:
        comparison: a finished study.
        folder: where it was written.
        settings: of the call, in plain values.
        loggers: by name.
        reporter: notes what could not be logged.
    """
    figures, rows = {}, []
    for one in comparison.outcomes:
        figures[f"accuracy/{one.name}"] = one.accuracy.value
        interval, apart = one.accuracy.interval, one.difference
        rows.append(
            (
                one.name,
                one.accuracy.value,
                None if interval is None else interval.low,
                None if interval is None else interval.high,
                None if one.held_out is None else one.held_out.value,
                None if apart is None else apart.value,
                None if apart is None else apart.p_holm,
            )
        )
    header = ("configuration", "accuracy", "low", "high", "held out", "difference", "p")
    table = {"configurations": Grid(header, tuple(rows))}
    log_outcome(loggers, folder, settings, reporter, figures, table)


__all__ = ["candidate_table", "log_comparison", "log_run"]
