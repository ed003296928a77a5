"""Choosing the penalty of logistic regression by cross-validation inside the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from headstart.core.division import make_folds
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import Curve
from headstart.core.row_keys import Keys, RowKeys, content_order, take_keys
from headstart.core.seeds import require_seeds
from headstart.core.wording import count, verb
from headstart.evaluation.targets import FloatArray, Targets, as_weights
from headstart.evaluation.tasks import task_named
from headstart.heads.base import Head
from headstart.heads.calibration import fit_temperature
from headstart.heads.contract import SweepRequest, Trained, TrainingRows, Trial
from headstart.heads.copies import distinct_rows, keep_together, linked_groups
from headstart.heads.features import Features, as_rows, streaming_note
from headstart.heads.logistic import (
    LogisticPath,
    fit_logistic,
    fit_logistic_path,
    fit_logistic_paths,
)
from headstart.heads.many_classes import fit_many_classes, search_takes_too_long
from headstart.heads.rules import (
    Rule,
    choose_penalty,
    curve_of,
    grid_of,
    held_out_of,
    without_folds,
)
from headstart.heads.source import StreamedFeatures


def choose_linear(
    x: object,
    y: object,
    n_classes: int,
    *,
    seed: int = 0,
    folds: int = 5,
    grid: Sequence[float] | None = None,
    rule: Rule = "best",
    keys: Keys | None = None,
    groups: Keys | None = None,
    class_weight: str | np.ndarray | None = None,
    sample_weight: object = None,
    standardise: bool = True,
    task: str = "classification",
    names: Sequence[str] | None = None,
    tolerance: float = 1e-5,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> Trained:
    """Fit logistic regression with the C that cross-validation inside these rows prefers.

    The head is refitted on all rows, and its temperature fitted to the held-out predictions at
    that C. With more than 1,000 classes and five billion products of rows, features and classes, C
    and temperature are chosen on the items of some classes, and nothing is held out of the rest.

    Args:
        x: training features ``(n, d)``; large ones on disk are read in blocks, as by
            :func:`~headstart.heads.fit_logistic`.
        y: ``(n,)`` class indices in ``[0, n_classes)``, of which some may be absent; ``(n, k)``
            soft labels or, for several labels an item, memberships.
        n_classes: the number of classes.
        seed: of the folds.
        folds: how many; fewer are made, with a note, if a class is too rare.
        grid: values of C; None takes the 45 of DINOv2's linear evaluation, 1e-6 to 1e5.
        rule: ``best`` takes, of the values whose held-out accuracy is within one standard error
            (of the paired difference over folds) of the highest, the one of least held-out log
            loss: between neighbours accuracy is mostly noise, and log loss is not.
            ``one-standard-error`` takes the strongest penalty within one standard error of the
            highest accuracy (Breiman et al. 1984). ``prior`` is for few labels, see
            :mod:`headstart.heads.rules`; its grid is its own.
        keys, groups: what the folds follow from, and which rows are held out together; see
            :mod:`headstart.core.division`. Without keys the content of a row is its key; near
            copies are kept together, too (:func:`~headstart.heads.keep_together`).
        class_weight, sample_weight, standardise, task, device: as for
            :func:`~headstart.heads.fit_logistic`. Of several labels an item, accuracy is the share
            that is right, and probabilities are not calibrated.
        names: class names, for the notes.
        tolerance: of the refit's gradient; ten times tighter than scikit-learn's default.
        reporter: receives progress.

    Returns:
        The head; its C as ``chosen["C"]``; a curve of held-out accuracy against C with a band of
        one standard error over the folds, without values that were given up early; the held-out
        accuracy at the chosen C, which is a maximum over values and so slightly optimistic: an
        estimate to choose by, not to report; and as ``details``, lists over the grid of accuracy,
        log loss, gradient and passes, the number of ``folds`` (0 where nothing could be held out)
        and the precision of the products.

    Raises:
        HeadError: if the input is invalid, or fewer than two classes occur.
    """
    require_seeds(seed)
    reporter = reporter or SilentReporter()
    features = as_rows(x)
    encoded = task_named(task).encode(y, len(features), n_classes)
    weight = as_weights(sample_weight, len(features))
    absent = absent_note(np.flatnonzero(encoded.present), n_classes, names)
    notes = [*streaming_note(features), *absent]
    values = grid_of(grid, rule, features.shape[1])
    together = keep_together(encoded.strata, features, keys=keys, names=names)
    notes += together.notes
    rows = _different(features, encoded, weight, together.keys, groups)
    fixed = {"class_weight": class_weight, "standardise": standardise, "device": device}
    if encoded.labels is not None and search_takes_too_long(features.shape, n_classes):
        return fit_many_classes(
            rows.training(n_classes, seed, reporter),
            notes,
            choose_linear,
            {"folds": folds, "grid": grid, "rule": rule, **fixed},
            {"tolerance": tolerance, "order": rows.order, **fixed},
        )
    divided = make_folds(
        rows.levels,
        folds,
        seed=seed,
        keys=rows.keys,
        groups=rows.groups,
        names=None if rows.strata is None else names,
    )
    common: dict[str, Any] = {
        **fixed,
        "sample_weight": rows.weight,
        "task": task,
        "order": rows.order,
    }
    path: LogisticPath | None = None
    if divided is None:
        at = without_folds(values, rule, features.shape[1])
        notes.append(
            f"C = {values[at]:g} without cross-validation, because too few classes have two"
            " different items and nothing can be held out"
        )
    else:
        notes += divided.notes if rows.strata is not None else ()
        path = fit_logistic_path(
            rows.x,
            rows.targets,
            n_classes,
            divided.of,
            grid=values,
            reporter=reporter,
            **common,
        )
        at = choose_penalty(path, rule, features.shape[1])
        notes += _path_notes(path, at)
    head, convergence = fit_logistic(
        rows.x,
        rows.targets,
        n_classes,
        C=float(values[at]),
        tolerance=tolerance,
        start=None if path is None else path.start(at),
        **common,
    )
    probabilities = None
    if path is not None:
        logits = path.held_out_decision(at)
        if rows.strata is not None:
            few, own = rule == "prior", logits[np.arange(len(logits)), rows.strata]
            if np.isfinite(own).any():
                temperature = fit_temperature(logits, rows.strata, rows.weight, few=few)
            else:  # every class lies in one group, which is held out as a whole
                temperature = 1.0
                notes += (
                    "no held-out item has a class that its fold was trained on: the"
                    " probabilities are not calibrated",
                )
            head = head.with_temperature(temperature)
        of_logits = task_named(task).probabilities
        assert of_logits is not None
        probabilities = of_logits(logits / head.temperature)[rows.inverse]
    if not convergence.reached:
        notes.append(
            f"the refit stopped at a gradient of {convergence.gradient:.1e} after"
            f" {count(convergence.passes, 'pass', 'passes')}, above the tolerance of {tolerance:g}"
        )
    return Trained(
        head=head,
        chosen={"C": float(values[at])},
        curves=(curve_of(path, at),),
        notes=tuple(notes),
        convergence=convergence,
        held_out=None if path is None else held_out_of(path, at, task),
        held_out_probabilities=probabilities,
        details=_details(path),
    )


@dataclass(frozen=True, eq=False)
class _Different:
    """The rows that are solved: of equal ones with equal targets one, with the weight of all.

    Attributes:
        x: features ``(m, d)``.
        targets: ``(m,)`` or ``(m, k)``.
        strata: ``(m,)``, classes, by which probabilities are calibrated; None where there are none.
        levels: ``(m,)``, what folds keep in proportion.
        weight, keys, groups: of these rows.
        order: ``(m,)``, in which they are summed up; None: as they lie.
        inverse: ``(n,)``, which of them each row is.
    """

    x: Features
    targets: np.ndarray
    strata: np.ndarray | None
    levels: np.ndarray
    weight: FloatArray | None
    keys: RowKeys
    groups: Keys | None
    order: np.ndarray | None
    inverse: np.ndarray

    def training(self, n_classes: int, seed: int, reporter: Reporter) -> TrainingRows:
        """Return them as training rows of a classification."""
        return TrainingRows(
            self.x,
            self.targets,
            n_classes,
            keys=self.keys,
            groups=self.groups,
            weights=self.weight,
            seed=seed,
            reporter=reporter,
        )


def _different(
    x: Features,
    encoded: Targets,
    weight: FloatArray | None,
    keys: RowKeys,
    groups: Keys | None,
) -> _Different:
    targets, strata, levels = encoded.values, encoded.strata, encoded.levels
    every = np.arange(len(targets))
    if isinstance(x, StreamedFeatures):
        return _Different(x, targets, strata, levels, weight, keys, groups, None, every)
    found = distinct_rows(x, keys, targets, weight)
    rows = found.rows
    if not found.merged:
        return _Different(x, targets, strata, levels, weight, keys, groups, rows, every)
    return _Different(
        x[rows],
        targets[rows],
        None if strata is None else strata[rows],
        levels[rows],
        found.counts,
        keys.take(rows),
        take_keys(linked_groups(keys, groups), rows),
        None,
        found.inverse,
    )


def sweep_linear(rows: TrainingRows, request: SweepRequest) -> tuple[list[Trial], list[Curve]]:
    """Score every C and standardisation in every fold of every division, all solved together."""
    labels = np.asarray(rows.y)
    paths = fit_logistic_paths(
        rows.x,
        labels,
        rows.n_classes,
        np.stack([division.of for division in request.divisions]),
        grid=request.grid,
        standardise=request.standardise,
        order=None if rows.keys is None else content_order(rows.keys, labels),
        **request.shared,
    )
    trials, curves = [], []
    for path, standardise in zip(paths, request.standardise, strict=True):
        for at, c in enumerate(path.grid):
            trials.append(
                Trial(
                    options={"C": c, "standardise": standardise},
                    accuracy=path.accuracy[:, at],
                    counts=path.held_out,
                    log_loss=float(path.mean_log_loss[at]),
                    given_up=bool(path.dropped[at]),
                    refit=partial(_refit_swept, rows, request, path, standardise, at),
                )
            )
        curves.append(_sweep_curve(request.view, path, standardise))
    return trials, curves


def _refit_swept(
    rows: TrainingRows, request: SweepRequest, path: LogisticPath, standardise: bool, at: int
) -> Head:
    head, _ = fit_logistic(
        rows.x,
        rows.y,
        rows.n_classes,
        C=path.grid[at],
        standardise=standardise,
        tolerance=1e-5,
        start=path.start(at),
        **request.shared,
    )
    labels = np.asarray(rows.y)
    return head.with_temperature(fit_temperature(path.held_out_decision(at), labels))


def _sweep_curve(view: str, path: LogisticPath, standardise: bool) -> Curve:
    mean = path.mean_accuracy
    return Curve(
        name=f"{view}{'' if standardise else ', not standardised'}",
        x=path.grid,
        y=tuple(float(v) for v in mean),
        x_label="C (inverse penalty)",
        y_label="held-out accuracy",
        log_x=True,
        chosen=path.grid[int(np.where(path.dropped, -1.0, mean).argmax())],
    )


def absent_note(present: np.ndarray, n_classes: int, names: Sequence[str] | None) -> list[str]:
    """Return the note that some classes have no training row; nothing where all have."""
    absent = sorted(set(range(n_classes)) - set(present.tolist()))
    if not absent:
        return []
    listed = ", ".join(str(names[i]) if names is not None else str(i) for i in absent[:10])
    more = f" and {len(absent) - 10} more" if len(absent) > 10 else ""
    return [f"no training row has class {listed}{more}; its probability is always 0"]


def _path_notes(path: LogisticPath, at: int) -> list[str]:
    notes = []
    if path.dropped.any():
        given_up = int(path.dropped.sum())
        notes.append(
            f"{given_up} of {count(len(path.grid), 'value')} of C {verb(given_up, 'was', 'were')}"
            " given up early, more than three standard errors below the best, and"
            f" {verb(given_up)} not in the curve"
        )
    late = (path.gradient > path.tolerance).any(axis=0) & ~path.dropped
    if late.any():
        notes.append(
            f"{count(int(late.sum()), 'value')} of C did not reach a gradient of {path.tolerance:g}"
            f" in some fold (largest {path.gradient[:, late].max():.1e})"
        )
    if len(path.grid) > 1 and at in (0, len(path.grid) - 1):
        notes.append(
            f"the chosen C = {path.grid[at]:g} is at the end of the grid; a wider grid may be"
            " better"
        )
    return notes


def _details(path: LogisticPath | None) -> dict[str, Any]:
    if path is None:
        return {"folds": 0}
    return {
        "folds": len(path.accuracy),
        "accuracy": [float(v) for v in path.mean_accuracy],
        "log_loss": [float(v) for v in path.mean_log_loss],
        "gradient": [float(v) for v in path.gradient.max(axis=0)],
        "tolerance": path.tolerance,
        "precision": path.precision,
        "device": path.device,
        "passes": [int(v) for v in path.passes.sum(axis=0)],
        "given_up": [bool(v) for v in path.dropped],
    }
