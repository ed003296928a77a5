"""The sweep for several labels an item and for numbers: every head on every view of the features.

Each head is trained beside every fold and judged by what it says of the fold: by the mean average
precision of labels, by the explained share of the variance of numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core.division import Folds, make_folds
from headstart.core.errors import HeadError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import NamedScore, Score
from headstart.core.row_keys import Keys
from headstart.core.seeds import require_seeds
from headstart.evaluation.targets import FloatArray
from headstart.evaluation.tasks import Task, task_named
from headstart.heads.base import Head
from headstart.heads.contract import HeadKind, Trained, TrainingRows
from headstart.heads.copies import keep_together
from headstart.heads.features import as_rows
from headstart.heads.registry import head_kind, head_kinds
from headstart.heads.thresholds import Rule, with_thresholds


@dataclass(frozen=True)
class TaskCandidate:
    """One row of the table.

    Attributes:
        view: the name of the features (layer and pooling).
        head: the kind of head.
        options: what distinguishes it beside that.
        figures: its scores on held-out training rows, the one that chooses first; the mean over
            the seeds, with an interval where there is one seed.
    """

    view: str
    head: str
    options: Mapping[str, Any]
    figures: tuple[NamedScore, ...]


@dataclass(frozen=True)
class TaskSweep:
    """The table and the winner.

    Attributes:
        candidates: the best first.
        winner: the first of them.
        trained: the winner on all rows, with its thresholds.
        n_folds, seeds: what every figure rests on.
        notes: what was decided on the user's behalf.
    """

    candidates: tuple[TaskCandidate, ...]
    winner: TaskCandidate
    trained: Trained
    n_folds: int
    seeds: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def head(self) -> Head:
        """The winner on all rows."""
        return self.trained.head


def sweep_task(
    views: Mapping[str, object],
    y: np.ndarray,
    names: Sequence[str],
    task: str,
    *,
    heads: Sequence[str] | None = None,
    standardise: Sequence[bool] = (True,),
    folds: int = 5,
    seeds: Sequence[int] = (0,),
    keys: Keys | None = None,
    groups: Keys | None = None,
    threshold: Rule = "auto",
    class_weight: str | None = None,
    reporter: Reporter | None = None,
) -> TaskSweep:
    """Score every head on every view by cross-validation inside the training rows.

    Heads choose their penalties inside the rows beside each fold, from a coarse grid.

    Args:
        views: features ``(n, d)`` by name, of the same rows.
        y: memberships or numbers ``(n, k)``.
        names: of the labels or targets.
        task: ``multi-label`` or ``regression``.
        heads: the kinds to try; None: those that a sweep tries, of this task.
        standardise: whether features are scaled to unit deviation; both may be tried.
        folds: how many.
        seeds: one division into folds for each.
        keys, groups: which rows are held out together; see :mod:`headstart.core.division`.
        threshold: where a probability of the winner becomes a prediction.
        class_weight: ``balanced``, for the heads whose weights are those of labels; None: none.
        reporter: receives progress.

    Raises:
        ConfigError: a kind is unknown.
        HeadError: nothing can be held out, or the input is invalid.
    """
    require_seeds(*seeds)
    what, reporter = task_named(task), reporter or SilentReporter()
    swept = [kind.name for kind in head_kinds(task) if kind.swept]
    kinds = [head_kind(name) for name in (swept if heads is None else heads)]
    features = {name: as_rows(x, together=len(views)) for name, x in views.items()}
    first = next(iter(features.values()))
    targets = what.encode(y, len(first), len(names))
    together = keep_together(None, *features.values(), keys=keys)
    divisions = [
        make_folds(targets.levels, folds, seed=seed, keys=together.keys, groups=groups)
        for seed in seeds
    ]
    known = [division for division in divisions if division is not None]
    if len(known) < len(seeds):
        raise HeadError("a sweep needs more different items, so that something can be held out")
    tried: list[tuple[TaskCandidate, HeadKind, TrainingRows, Any]] = []
    with reporter.task("sweep", len(features) * len(kinds), "kinds of head") as progress:
        for view, x in features.items():
            rows = TrainingRows(
                x, y, len(names), task=task, keys=together.keys, groups=groups, names=names,
                seed=seeds[0],
            )  # fmt: skip
            for kind in kinds:
                for values in _options(kind, standardise, class_weight):
                    figures = _scored(kind, values, rows, known, what)
                    candidate = TaskCandidate(view, kind.name, values, figures)
                    tried.append((candidate, kind, rows, kind.settings(values)))
                progress.advance()
    tried.sort(key=lambda each: -np.nan_to_num(each[0].figures[0].score.value, nan=-np.inf))
    winner, kind, rows, settings = tried[0]
    trained = with_thresholds(kind.fit(rows, settings), rows, threshold)
    return TaskSweep(
        tuple(candidate for candidate, *_ in tried),
        winner,
        trained,
        known[0].count,
        tuple(seeds),
        tuple(dict.fromkeys((*together.notes, *trained.notes))),
    )


def _options(
    kind: HeadKind, standardise: Sequence[bool], class_weight: str | None
) -> list[dict[str, Any]]:
    weighed = {"class_weight": class_weight} if class_weight and kind.weighs_labels else {}
    if "standardise" not in kind.option_names:
        return [weighed]
    return [{"standardise": scaled, **weighed} for scaled in dict.fromkeys(standardise)]


def _scored(
    kind: HeadKind,
    values: Mapping[str, Any],
    rows: TrainingRows,
    divisions: Sequence[Folds],
    task: Task,
) -> tuple[NamedScore, ...]:
    """Return the scores on held-out rows: the mean over divisions."""
    settings = kind.settings(values, **kind.coarse)
    found = [_once(kind, settings, rows, division, task) for division in divisions]
    if len(found) == 1:
        return found[0]
    return tuple(
        dataclasses.replace(
            same[0], score=Score(float(np.mean([s.score.value for s in same])), None)
        )
        for same in zip(*found, strict=True)
    )


def _once(
    kind: HeadKind, settings: Any, rows: TrainingRows, division: Folds, task: Task
) -> tuple[NamedScore, ...]:
    y = np.asarray(rows.y)
    outputs: FloatArray = np.zeros(y.shape)
    for train, held in division.splits():
        head = kind.fit(rows.take(train), settings).head
        x = rows.take(held).x
        outputs[held] = head.predict(x) if task.probabilities is None else head.predict_proba(x)
    named = rows.names or [str(i) for i in range(rows.n_classes)]
    scores: tuple[NamedScore, ...] = task.evaluate(y, outputs, named, groups=rows.groups).figures()
    return scores


__all__ = ["TaskCandidate", "TaskSweep", "sweep_task"]
