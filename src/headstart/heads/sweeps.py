"""The sweep: every head on every view of the features, scored on the same held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from headstart.core.division import Folds, make_folds, require_two_classes_beside
from headstart.core.errors import HeadError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import Curve, Score
from headstart.core.row_keys import Keys
from headstart.core.seeds import require_seeds
from headstart.evaluation import probability_blocks, repeated_accuracy
from headstart.evaluation.targets import as_labels, require_two_classes
from headstart.heads.base import Head
from headstart.heads.calibration import calibration_rows, fit_temperature
from headstart.heads.contract import HeadKind, SweepRequest, TrainingRows, Trial
from headstart.heads.copies import keep_together
from headstart.heads.features import as_rows, streaming_note
from headstart.heads.logistic import DINO_GRID
from headstart.heads.many_classes import choose_on_some_classes, search_takes_too_long
from headstart.heads.penalty import absent_note, choose_linear
from headstart.heads.registry import head_kind, head_kinds, head_names


@dataclass(frozen=True)
class Candidate:
    """One row of the table.

    Attributes:
        view: the name of the features (layer and pooling).
        head: the kind of head.
        options: the options that distinguish it; ``standardise`` where it applies.
        accuracy: over all held-out rows: Wilson's interval for one division into folds. Several
            seeds divide the same rows, so the interval then counts both, and is never narrower
            than Wilson's (:func:`~headstart.evaluation.repeated_accuracy`).
        log_loss: mean over the held-out rows, in nats.
        per_fold: the accuracy of each fold of each division.
        seeds: of the divisions; a perceptron is also initialised and shuffled by them.
        given_up: the solver dropped it early because it was clearly beaten.
    """

    view: str
    head: str
    options: Mapping[str, Any]
    accuracy: Score
    log_loss: float
    per_fold: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    given_up: bool = False


@dataclass(frozen=True)
class Sweep:
    """The table, the curves, and the winner.

    Attributes:
        candidates: best held-out accuracy first.
        curves: accuracy against C for each view and standardisation.
        winner: the first candidate.
        head: the winner refitted on all rows. ``linear`` and ``mlp`` are calibrated on the rows
            that the sweep held out, ``ridge`` and ``prototype`` on their own left-out outputs;
            ``lda`` and ``knn`` keep the probabilities of their model.
        n_folds, seeds: what every figure rests on.
        notes: what was decided on the user's behalf.
    """

    candidates: tuple[Candidate, ...]
    curves: tuple[Curve, ...]
    winner: Candidate
    head: Head
    n_folds: int
    seeds: tuple[int, ...]
    notes: tuple[str, ...]


def swept_heads() -> tuple[str, ...]:
    """Return the heads that a sweep tries by default."""
    return tuple(kind.name for kind in head_kinds("classification") if kind.swept)


def sweep(
    views: Mapping[str, object] | object,
    y: object,
    n_classes: int,
    *,
    heads: Sequence[str] | None = None,
    grid: Sequence[float] = DINO_GRID,
    standardise: Sequence[bool] = (True,),
    folds: int = 5,
    seeds: Sequence[int] = (0,),
    keys: Keys | None = None,
    groups: Keys | None = None,
    class_weight: str | None = None,
    names: Sequence[str] | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> Sweep:
    """Score every head on every view by cross-validation inside the training rows.

    All values of C, standardisations, folds and seeds of logistic regression on one view are
    solved together. Ridge chooses its penalty by leave-one-out error inside the training rows of
    each fold.

    Args:
        views: features ``(n, d)`` by name, one entry for each layer and pooling; or one array.
            Those on disk that together exceed 0.4 of the free memory are read in blocks.
        y: class indices ``(n,)``, of the same rows in every view.
        n_classes: their number.
        heads: the kinds to try; None: all that :func:`swept_heads` lists, which leaves out
            ``mlp``.
        grid: values of C for logistic regression.
        standardise: whether features are scaled to unit deviation; both may be tried.
        folds: how many.
        seeds: one division into folds for each, no seed twice.
        keys, groups: what the folds follow from, and which rows are held out together, near copies
            included; see :mod:`headstart.core.division` and
            :func:`~headstart.heads.keep_together`.
        class_weight: ``"balanced"`` or None, for the heads that have such an option.
        names: class names, for the notes.
        device: of logistic regression, as for :func:`~headstart.heads.fit_logistic`.
        reporter: receives progress.

    Raises:
        ConfigError: a kind is unknown.
        HeadError: if the input is invalid, or nothing can be held out.
    """
    reporter = reporter or SilentReporter()
    named = dict(views) if isinstance(views, Mapping) else {"features": views}
    kinds = [head_kind(name) for name in (swept_heads() if heads is None else heads)]
    if not kinds or not named or not seeds or not standardise:
        raise HeadError(
            f"expected views, seeds and heads of {', '.join(head_names())}; found"
            f" {len(named)} views, {len(seeds)} seeds, heads {[kind.name for kind in kinds]}"
        )
    require_seeds(*seeds)
    features = {
        name: as_rows(x, name=f"features of {name!r}", together=len(named))
        for name, x in named.items()
    }
    labels = as_labels(y, len(next(iter(features.values()))), n_classes)
    for name, x in features.items():
        if len(x) != len(labels):
            raise HeadError(f"expected {len(labels):,} rows in every view, {name!r} has {len(x):,}")
    present = require_two_classes(labels)
    together = keep_together(labels, *features.values(), keys=keys, names=names)
    keys = together.keys
    divisions = _divide(labels, folds, seeds, keys, groups, names)
    notes = (
        *together.notes,
        *divisions[0].notes,
        *absent_note(present, n_classes, names),
        *dict.fromkeys(note for x in features.values() for note in streaming_note(x)),
    )
    shared = {"class_weight": class_weight, "device": device}
    more_notes: list[str] = []
    tried: list[tuple[Candidate, Trial]] = []
    trials: Sequence[Trial]
    curves: list[Curve] = []
    with reporter.task("sweep", len(features) * len(kinds), "kinds of head") as progress:
        for view, x in features.items():
            rows = TrainingRows(
                x, labels, n_classes, keys=keys, groups=groups, names=names, seed=seeds[0]
            )
            request = SweepRequest(view, divisions, tuple(grid), _distinct(standardise), shared)
            for kind in kinds:
                if kind.solve is not None and search_takes_too_long(x.shape, n_classes):
                    if len(kinds) > 1:
                        more_notes.append(_left_out(kind, n_classes))
                        progress.advance()
                        continue
                    c, _, found = choose_on_some_classes(rows, choose_linear, shared)
                    more_notes += found
                    options = [{"C": c, "standardise": s} for s in request.standardise]
                    trials = [_trial(kind, one, rows, request, tuple(seeds)) for one in options]
                elif kind.solve is not None:
                    trials, more = kind.solve(rows, request)
                    curves += more
                else:
                    trials = _one_by_one(kind, rows, request, tuple(seeds))
                tried += [
                    (_candidate(view, kind, trial, request, seeds), trial) for trial in trials
                ]
                progress.advance()
    # Among equals the simpler wins: fewer options come earlier, and so do stronger penalties.
    tried.sort(key=lambda pair: (pair[0].given_up, -pair[0].accuracy.value))
    winner, trial = tried[0]
    candidates = tuple(candidate for candidate, _ in tried)
    return Sweep(
        candidates,
        tuple(curves),
        winner,
        trial.refit(),
        divisions[0].count,
        tuple(seeds),
        (*notes, *dict.fromkeys(more_notes)),
    )


def _left_out(kind: HeadKind, n_classes: int) -> str:
    return (
        f"{kind.name} heads are skipped: in every fold, with all {n_classes:,} classes, they"
        " would take hours; fit trains one, and so does a sweep of only this head"
    )


def _distinct(standardise: Sequence[bool]) -> tuple[bool, ...]:
    return tuple(dict.fromkeys(standardise))


def _divide(
    labels: np.ndarray,
    folds: int,
    seeds: Sequence[int],
    keys: Keys | None,
    groups: Keys | None,
    names: Sequence[str] | None,
) -> tuple[Folds, ...]:
    divisions = [
        make_folds(labels, folds, seed=seed, keys=keys, groups=groups, names=names)
        for seed in seeds
    ]
    kept = tuple(division for division in divisions if division is not None)
    for division in kept:
        require_two_classes_beside(labels, division)
    if not kept:
        raise HeadError(
            "a sweep needs two classes with two different items or more, so that something can be"
            " held out"
        )
    return kept


def _one_by_one(
    kind: HeadKind, rows: TrainingRows, request: SweepRequest, seeds: tuple[int, ...]
) -> list[Trial]:
    """Score a kind of head by one fit for every candidate and fold."""
    tried: Sequence[Mapping[str, Any]] = [{}]
    if kind.candidates is not None:
        tried = kind.candidates(len(rows.x))  # type: ignore[arg-type]
    if "standardise" in kind.option_names:
        tried = [{**values, "standardise": s} for values in tried for s in request.standardise]
    return [_trial(kind, values, rows, request, seeds) for values in tried]


def _trial(
    kind: HeadKind,
    values: Mapping[str, Any],
    rows: TrainingRows,
    request: SweepRequest,
    seeds: tuple[int, ...],
) -> Trial:
    options = kind.settings(values, **request.shared)
    labels = np.asarray(rows.y)
    calibrate = not kind.calibrated or kind.solve is not None
    judges = calibration_rows(len(labels), rows.n_classes) if calibrate else np.empty(0, np.int64)
    place = np.full(len(labels), -1)
    place[judges] = np.arange(len(judges))
    held_out = np.empty((len(judges), rows.n_classes))
    accuracy, counts, loss = [], [], 0.0
    for division, seed in zip(request.divisions, seeds, strict=True):
        for train, held in division.splits():
            head = kind.fit(rows.take(train, seed=seed), options).head
            right = 0
            for part, p in probability_blocks(head.likelihoods(rows.take(held).x)):
                truth, judging = labels[held[part]], place[held[part]] >= 0
                held_out[place[held[part]][judging]] = p[judging]
                right += int((p.argmax(axis=1) == truth).sum())
                own = np.maximum(p[np.arange(len(p)), truth], 1e-12)
                loss -= float(np.log(own).sum())
            accuracy.append(right / len(held))
            counts.append(len(held))
    temperature = 1.0
    if calibrate:
        with np.errstate(divide="ignore"):
            temperature = fit_temperature(np.log(held_out), labels[judges])

    def refit() -> Head:
        head = kind.fit(rows, options).head
        return head.with_temperature(temperature) if calibrate else head

    return Trial(
        values, np.array(accuracy), np.array(counts), loss / float(sum(counts)), False, refit
    )


def _candidate(
    view: str, kind: HeadKind, trial: Trial, request: SweepRequest, seeds: Sequence[int]
) -> Candidate:
    divisions = request.divisions
    n, edges = len(divisions[0].of), np.cumsum([0, *(division.count for division in divisions)])
    right = trial.accuracy * trial.counts
    by_seed = [float(right[a:b].sum() / n) for a, b in pairwise(edges)]
    return Candidate(
        view=view,
        head=kind.name,
        options=trial.options,
        accuracy=repeated_accuracy(by_seed, n),
        log_loss=trial.log_loss,
        per_fold=tuple(float(v) for v in trial.accuracy),
        seeds=tuple(seeds),
        given_up=trial.given_up,
    )
