"""What a run in memory and one that was opened again have in common: how they show, ``predict``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from headstart.core.cards import Card, Cell, Grid, Shown
from headstart.core.records import Baseline, Evaluation
from headstart.core.wording import clean, count, listed

_MANY = {"multi-label": "labels", "regression": "targets"}


class RunMethods(Shown):
    """The methods of both."""

    head: Any
    classes: tuple[str, ...]

    def predict(self, items: Any, **overrides: Any) -> Any:
        """Predict for items: paths, PIL images, arrays or texts, one or a list, or other data.

        Args:
            items: as for :func:`headstart.predict`.
            **overrides: settings of :func:`headstart.predict`, such as ``batch_size=16``.

        Returns:
            :class:`~headstart.commands.Predictions`, in the order of the input.
        """
        # By name: the command imports the runs that it takes.
        job = importlib.import_module("headstart.commands.predict.job")
        return job.predict(items, self, **overrides)


def run_card(run: Any, backbone: str, evaluation: Any, more: Sequence[tuple[str, Cell]]) -> Card:
    """Return what there is to see of a run.

    Args:
        run: with head, classes, folder and notes.
        backbone: its name and layer.
        evaluation: its scores on the test split; None: not known.
        more: facts to add.
    """
    many = _MANY.get(run.head.task, "classes")
    facts: list[tuple[str, Cell]] = [*_scores(evaluation)]
    facts.append((many, f"{len(run.classes):,}: {listed(run.classes, 5)}"))
    facts += more
    if run.folder is not None:
        facts.append(("folder", clean(run.folder)))
    title = f"{run.head.kind} head on {backbone}"
    return Card("Run", title, tuple(facts), _per_class(evaluation), run.notes)


def _scores(evaluation: Any) -> list[tuple[str, Cell]]:
    from headstart.report.task_text import format_named
    from headstart.report.text import format_score

    if evaluation is None:
        return []
    if isinstance(evaluation, Evaluation):
        return [("accuracy", format_score(evaluation.accuracy))]
    first = evaluation.figures()[0]
    return [(first.name, format_named(first))]


def _per_class(evaluation: Any) -> tuple[Grid, ...]:
    """Return the classes with the lowest recall, where there are scores by class."""
    from headstart.report.text import class_cells

    if not isinstance(evaluation, Evaluation) or not evaluation.per_class:
        return ()
    worst = sorted(evaluation.per_class, key=lambda row: (row.support == 0, row.recall))
    rows = tuple((row.label, *class_cells(row)) for row in worst[:12])
    caption = "by class, the lowest recall first"
    header = ("class", "items", "precision", "recall", "F1")
    return (Grid(header, rows, caption, len(worst)),)


def memory_facts(run: Any) -> list[tuple[str, Cell]]:
    """Return what a run in memory knows besides: baselines, items, time."""
    from headstart.core.wording import format_seconds
    from headstart.report.text import format_score

    facts: list[tuple[str, Cell]] = [
        (f"baseline: {each.name}", format_score(each.accuracy))
        for each in run.baselines[:3]
        if isinstance(each, Baseline)
    ]
    facts.append(("items", f"{count(run.n_train, 'training item')}, {run.n_test:,} tested"))
    if "total" in run.seconds:
        facts.append(("took", format_seconds(run.seconds["total"])))
    return facts


__all__ = ["RunMethods", "memory_facts", "run_card"]
