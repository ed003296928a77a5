"""How near an artefact comes to its run: on real items, and what half precision costs on labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from headstart.commands.export.items import Measured, picked
from headstart.commands.export.options import ExportConfig
from headstart.commands.predict.job import predicted
from headstart.commands.predictor import RunPredictor
from headstart.commands.run_facts import main_score
from headstart.commands.scoring import evaluated
from headstart.commands.session import Session
from headstart.core.errors import DataError
from headstart.evaluation.tasks import task_named
from headstart.export.parity import OfRows, Parity, difference, outputs_alone
from headstart.report.task_text import format_named

_LABELLED = 256
"""Tested items that both precisions are scored on, at most."""


def parity_of(
    place: Path, model: RunPredictor, items: Measured, config: ExportConfig, session: Session
) -> Parity:
    """Return how near an artefact comes to its run.

    Args:
        place: its folder.
        model: the run.
        items: what it is measured on.
        config: the tolerance.
        session: of the call.

    Raises:
        DataError: not near enough.
    """
    split, single = items.split, in_single(model)
    own = predicted(model, split, session)
    bad = {item.index for item in own.bad}
    kept = split.take(np.array([i for i in range(len(split)) if i not in bad], dtype=np.int64))
    expected = mine = np.asarray(own.probabilities)
    if single is not model:
        expected = np.asarray(predicted(single, kept, session).probabilities)
    found = outputs_alone(place, [kept.content(i) for i in range(len(kept))])
    gap = difference(found, expected, model.head.task)
    worst = int(gap.argmax())
    if not gap[worst] <= config.tolerance:  # NaN fails, too
        raise DataError(
            f"the artefact differs from the run by {gap[worst]:.2g} for '{kept.origins[worst]}',"
            f" more than the tolerance of {config.tolerance:g}: nothing is written",
            hint=_remedy(model, float(gap[worst])),
        )
    rows = None
    if single is not model:
        stored = float(difference(found, mine, model.head.task).max())
        rows = _of_rows(model, single, items, stored, session)
        session.say(*rows.sentences())
    return Parity(
        len(kept),
        items.name,
        float(gap[worst]),
        config.tolerance,
        _same(model, found, expected),
        None if rows is None else rows.largest,
        rows,
    )


def in_single(model: RunPredictor) -> RunPredictor:
    """Return a run as its artefact computes it: on features in float32."""
    if model.precision in ("float32", "tf32"):
        return model
    return dataclasses.replace(model, precision="float32")


def _of_rows(
    model: RunPredictor, single: RunPredictor, items: Measured, largest: float, session: Session
) -> OfRows:
    """Score the head on the rows that it was fitted on, and on those of its artefact."""
    if items.tested is None or items.truth is None or not len(items.tested):
        return OfRows(model.precision, largest)
    places = picked(len(items.tested), _LABELLED)
    tested, truth = items.tested.take(places), items.truth.take(places)
    both = [predicted(each, tested, session) for each in (model, single)]
    if any(each.bad for each in both):
        return OfRows(model.precision, largest)
    mine, theirs = (np.asarray(each.probabilities) for each in both)
    scores = [main_score(evaluated(model.head, truth, each)) for each in (mine, theirs)]
    largest = max(largest, float(difference(theirs, mine, model.head.task).max()))
    first, second = scores
    return OfRows(
        model.precision,
        largest,
        len(tested),
        first.name,
        format_named(first),
        format_named(second),
        second.score.value - first.score.value,
        _same(model, theirs, mine),
    )


def _same(model: RunPredictor, found: np.ndarray, expected: np.ndarray) -> int | None:
    if task_named(model.head.task).probabilities is None:
        return None
    if model.head.task == "classification":
        return int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
    limits = 0.5 if model.head.thresholds is None else model.head.thresholds
    return int(((found > limits) == (expected > limits)).all(axis=1).sum())


def _remedy(model: RunPredictor, gap: float) -> str:
    if model.storage == "int8":
        return "its features are stored in 8 bits: fit with storage='float32'"
    return f"try another format, or allow it with tolerance={gap * 1.5:.1g}"


__all__ = ["in_single", "parity_of"]
