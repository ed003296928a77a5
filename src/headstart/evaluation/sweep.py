"""The sweep: every head on every view of the features, scored on the same held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, cast, get_args

import numpy as np

from headstart.core.errors import HeadError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import Curve, Score
from headstart.evaluation.folds import Folds, make_folds
from headstart.evaluation.intervals import repeated_accuracy
from headstart.evaluation.linear import absent_note
from headstart.heads import (
    DINO_GRID,
    Head,
    LogisticPath,
    fit_lda,
    fit_logistic,
    fit_logistic_paths,
    fit_mlp,
    fit_neighbours,
    fit_prototype,
    fit_ridge,
    fit_temperature,
)
from headstart.heads.checks import (
    Features,
    as_labels,
    as_rows,
    require_seeds,
    require_two_classes,
    streaming_note,
    subset,
)

HeadKind = Literal["logistic", "ridge", "lda", "neighbours", "prototype", "mlp"]
QUICK_HEADS: tuple[HeadKind, ...] = ("logistic", "ridge", "lda", "neighbours", "prototype")
"""What is tried by default: a perceptron takes longer than all of these together."""

_NEIGHBOURS = (1, 5, 20)


@dataclass(frozen=True)
class Candidate:
    """One row of the table.

    Attributes:
        view: the name of the features (layer and pooling).
        head: the kind of head.
        options: its hyper-parameters; ``standardise`` where it applies.
        accuracy: over all held-out rows: Wilson's interval for one division into folds. Several
            seeds divide the same rows, so the interval then counts both, and is never narrower
            than Wilson's (:func:`~headstart.evaluation.repeated_accuracy`).
        log_loss: mean over the held-out rows, in nats; None where it was not computed.
        per_fold: the accuracy of each fold of each division.
        seeds: of the divisions; a perceptron is initialised and shuffled by them, too.
        given_up: the solver dropped it early because it was clearly beaten.
    """

    view: str
    head: HeadKind
    options: Mapping[str, float | bool]
    accuracy: Score
    log_loss: float | None
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
        head: the winner refitted on all rows. ``logistic`` and ``mlp`` are calibrated on the rows
            that the sweep held out, ``ridge`` and ``prototype`` on their own left-out outputs;
            ``lda`` and ``neighbours`` give the probabilities of their model as they are.
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


@dataclass
class _Run:
    """What all parts of one sweep share."""

    labels: np.ndarray
    n_classes: int
    divisions: list[Folds]
    seeds: tuple[int, ...]
    grid: Sequence[float]
    class_weight: str | None
    device: str
    candidates: list[Candidate] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    temperatures: dict[str, float] = field(default_factory=dict)  # of the perceptron, by view


def sweep(
    views: Mapping[str, object] | object,
    y: object,
    n_classes: int,
    *,
    heads: Sequence[HeadKind] = QUICK_HEADS,
    grid: Sequence[float] = DINO_GRID,
    standardise: Sequence[bool] = (True,),
    folds: int = 5,
    seeds: Sequence[int] = (0,),
    groups: np.ndarray | None = None,
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
        views: features ``(n, d)`` by name, one entry a layer and pooling; or one array. Those on
            disk that together exceed 0.4 of the free memory are read in blocks.
        y: class indices ``(n,)``, of the same rows in every view.
        n_classes: their number.
        heads: the kinds to try; ``mlp`` only if it is named.
        grid: values of C for logistic regression.
        standardise: whether features are scaled to unit deviation; both may be tried.
        folds: how many.
        seeds: one division into folds for each, no seed twice.
        groups: ``(n,)``, rows that must be held out together.
        class_weight: ``"balanced"`` or None, for logistic regression, ridge and the perceptron.
        names: class names, for the notes.
        device: of logistic regression, as for :func:`~headstart.heads.fit_logistic`.
        reporter: is told how the work goes.

    Raises:
        HeadError: if the input is unfit, a kind is unknown, or nothing can be held out.
    """
    reporter = reporter or SilentReporter()
    named = dict(views) if isinstance(views, Mapping) else {"features": views}
    unknown = [kind for kind in heads if kind not in get_args(HeadKind)]
    if unknown or not heads or not named or not seeds or not standardise:
        raise HeadError(
            f"expected views, seeds and heads of {', '.join(get_args(HeadKind))}; found"
            f" {len(named)} views, {len(seeds)} seeds, heads {list(heads)}"
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
    divisions, notes = _divide(labels, folds, seeds, groups, names)
    notes += tuple(absent_note(present, n_classes, names))
    notes += tuple(dict.fromkeys(n for x in features.values() for n in streaming_note(x)))
    run = _Run(labels, n_classes, divisions, tuple(seeds), grid, class_weight, device)
    paths: dict[tuple[str, bool], LogisticPath] = {}
    with reporter.task("sweep", len(features) * len(heads), "kinds of head") as progress:
        for view, x in features.items():
            for kind in heads:
                if kind == "logistic":
                    solved = _logistic(run, view, x, standardise)
                    paths |= {(view, scaled): path for scaled, path in solved.items()}
                else:
                    _one_by_one(run, view, x, kind, standardise)
                progress.advance()
    # Of equals the simpler: fewer options tried before it, the stronger penalty.
    ranked = sorted(run.candidates, key=lambda c: (c.given_up, -c.accuracy.value))
    winner = ranked[0]
    path = paths.get((winner.view, bool(winner.options.get("standardise", True))))
    head = _refit(run, winner, features[winner.view], path)
    return Sweep(
        tuple(ranked), tuple(run.curves), winner, head, divisions[0].count, tuple(seeds), notes
    )


def _divide(
    labels: np.ndarray,
    folds: int,
    seeds: Sequence[int],
    groups: np.ndarray | None,
    names: Sequence[str] | None,
) -> tuple[list[Folds], tuple[str, ...]]:
    divisions = [make_folds(labels, folds, seed=s, groups=groups, names=names) for s in seeds]
    kept = [division for division in divisions if division is not None]
    if not kept:
        raise HeadError(
            "a sweep needs two classes with two items or more, so that something can be held out"
        )
    return kept, kept[0].notes


def _logistic(
    run: _Run, view: str, x: Features, standardise: Sequence[bool]
) -> dict[bool, LogisticPath]:
    kinds = list(dict.fromkeys(standardise))
    paths = fit_logistic_paths(
        x,
        run.labels,
        run.n_classes,
        np.stack([division.of for division in run.divisions]),
        grid=run.grid,
        standardise=kinds,
        class_weight=run.class_weight,
        device=run.device,
    )
    for scaled, path in zip(kinds, paths, strict=True):
        _record_path(run, view, path, scaled)
    return dict(zip(kinds, paths, strict=True))


def _record_path(run: _Run, view: str, path: LogisticPath, standardise: bool) -> None:
    for at, c in enumerate(path.grid):
        run.candidates.append(
            _candidate(
                run,
                view,
                "logistic",
                {"C": c, "standardise": standardise},
                path.accuracy[:, at],
                path.held_out,
                float(path.mean_log_loss[at]),
                bool(path.dropped[at]),
            )
        )
    mean = path.mean_accuracy
    run.curves.append(
        Curve(
            name=f"{view}{'' if standardise else ', not standardised'}",
            x=path.grid,
            y=tuple(float(v) for v in mean),
            x_label="C (inverse penalty)",
            y_label="held-out accuracy",
            log_x=True,
            chosen=path.grid[int(np.where(path.dropped, -1.0, mean).argmax())],
        )
    )


def _one_by_one(
    run: _Run, view: str, x: Features, kind: HeadKind, standardise: Sequence[bool]
) -> None:
    """Score a kind of head by a fit for each fold, with each of its options."""
    for options in _options(kind, standardise, len(x)):
        accuracy, loss, sizes = [], 0.0, []
        held_out = np.empty((len(x), run.n_classes))
        for division, seed in zip(run.divisions, run.seeds, strict=True):
            for train, held in division.splits():
                head = _fit(run, kind, options, subset(x, train), run.labels[train], seed)
                p = held_out[held] = head.predict_proba(subset(x, held))
                truth = run.labels[held]
                accuracy.append(float((p.argmax(axis=1) == truth).mean()))
                own = np.maximum(p[np.arange(len(held)), truth], 1e-12)
                loss -= float(np.log(own).sum())
                sizes.append(len(held))
        counts = np.array(sizes)
        mean_loss = loss / float(counts.sum())
        if kind == "mlp":
            # The other kinds calibrate themselves, or not at all.
            with np.errstate(divide="ignore"):
                run.temperatures[view] = fit_temperature(np.log(held_out), run.labels)
        run.candidates.append(
            _candidate(run, view, kind, options, np.array(accuracy), counts, mean_loss, False)
        )


def _options(kind: HeadKind, standardise: Sequence[bool], n: int) -> list[dict[str, float | bool]]:
    if kind == "neighbours":
        return [{"k": float(k)} for k in _NEIGHBOURS if k <= n // 2]
    if kind in ("prototype", "mlp"):
        return [{}]
    return [{"standardise": scaled} for scaled in standardise]


def _fit(
    run: _Run,
    kind: HeadKind,
    options: Mapping[str, float | bool],
    x: Features,
    y: np.ndarray,
    seed: int,
) -> Head:
    scaled = bool(options.get("standardise", True))
    fits: dict[str, Callable[[], Head]] = {
        "ridge": lambda: (
            fit_ridge(x, y, run.n_classes, standardise=scaled, class_weight=run.class_weight).head
        ),
        "lda": lambda: fit_lda(x, y, run.n_classes, standardise=scaled)[0],
        "neighbours": lambda: fit_neighbours(x, y, run.n_classes, k=int(options["k"])),
        "prototype": lambda: fit_prototype(x, y, run.n_classes),
        "mlp": lambda: fit_mlp(x, y, run.n_classes, seed=seed, class_weight=run.class_weight).head,
    }
    return fits[kind]()


def _candidate(
    run: _Run,
    view: str,
    kind: HeadKind,
    options: dict[str, Any],
    accuracy: np.ndarray,
    counts: np.ndarray,
    loss: float,
    given_up: bool,
) -> Candidate:
    n, edges = len(run.labels), np.cumsum([0, *(division.count for division in run.divisions)])
    right = accuracy * counts
    by_seed = [float(right[a:b].sum() / n) for a, b in pairwise(edges)]
    score, per_fold = repeated_accuracy(by_seed, n), tuple(float(v) for v in accuracy)
    return Candidate(view, kind, options, score, loss, per_fold, run.seeds, given_up)


def _refit(run: _Run, winner: Candidate, x: Features, path: LogisticPath | None) -> Head:
    if winner.head != "logistic":
        fitted = _fit(run, winner.head, winner.options, x, run.labels, run.seeds[0])
        if winner.head == "mlp":
            return fitted.with_temperature(run.temperatures[winner.view])
        return fitted
    path = cast(LogisticPath, path)
    at = path.grid.index(float(winner.options["C"]))
    head, _ = fit_logistic(
        x,
        run.labels,
        run.n_classes,
        C=path.grid[at],
        standardise=bool(winner.options["standardise"]),
        class_weight=run.class_weight,
        tolerance=1e-5,
        start=path.start(at),
        device=run.device,
    )
    return head.with_temperature(fit_temperature(path.held_out_decision(at), run.labels))
