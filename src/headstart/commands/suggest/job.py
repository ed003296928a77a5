"""``suggest``: of many unlabelled items those that are worth labelling next."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.kept_rows import KeptRows, KeptSplit
from headstart.commands.predict.model import Model
from headstart.commands.prediction_table import Probabilities, checked_file, save_table
from headstart.commands.run import Run
from headstart.commands.saved_run import SavedRun
from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.commands.suggest.options import SUGGEST, SuggestConfig
from headstart.commands.task_report import joined
from headstart.core.cards import Card, Grid, Shown
from headstart.core.errors import DataError
from headstart.core.wording import count, format_number, format_percent, verb
from headstart.data import Split
from headstart.evaluation import probability_blocks
from headstart.evaluation.targets import FloatArray
from headstart.heads.suggesting import By, Margins, Taken, margins, take_next

_SHOWN = 12
"""Suggestions that a notebook shows."""


@dataclass(frozen=True, eq=False, repr=False)
class Suggestions(Shown):
    """Items to label next, the first one first.

    Attributes:
        origins: where each is found in the input.
        ids: content ids.
        reasons: why each was taken, one sentence.
        predictions: what the run says of each so far.
        margin: ``(c,)``, how unsure it is; NaN where that was not asked for.
        distance: ``(c,)``, to the nearest item that is labelled or was taken before; NaN likewise.
        by: how they were chosen.
    """

    origins: tuple[str, ...]
    ids: tuple[str, ...]
    reasons: tuple[str, ...]
    predictions: tuple[Any, ...]
    margin: FloatArray
    distance: FloatArray
    by: By

    def __len__(self) -> int:
        return len(self.origins)

    def card(self) -> Card:
        """Return what there is to see: the first items, why, and what is predicted of them."""
        rows = zip(self.origins, self.reasons, self.predictions, strict=True)
        shown = tuple(
            (rank, *row) for rank, row in enumerate(itertools.islice(rows, _SHOWN), start=1)
        )
        grid = Grid(("rank", "item", "why", "prediction"), shown, "", len(self))
        facts = (("chosen by", self.by),)
        title = f"{count(len(self), 'item')} to label next"
        return Card("Suggestions", title, facts, (grid,) if shown else ())

    def columns(self) -> dict[str, list[Any]]:
        """Return a table: rank, item, why, what is predicted so far, margin, distance."""
        return {
            "rank": list(range(1, len(self) + 1)),
            "item": list(self.origins),
            "why": list(self.reasons),
            "prediction": list(self.predictions),
            "margin": [_number(v) for v in self.margin],
            "distance": [_number(v) for v in self.distance],
        }

    def write(self, path: Path | str) -> Path:
        """Write the table as CSV or Parquet, by the suffix of ``path``.

        Raises:
            ConfigError: another suffix, or the file cannot be written.
        """
        return save_table(self.columns(), path)


def suggest(
    data: Any,
    trained: Run | SavedRun | Path | str,
    *,
    config: SuggestConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Suggestions:
    """Say which of some unlabelled items to label next, and why.

    Items in the run's training or test split, recognised by content, are skipped; copies of one
    another count once.

    Args:
        data: as for :func:`headstart.predict`.
        trained: a run, or its folder.
        config: how many, and how they are chosen.
        run, reading, **overrides: as for :func:`headstart.predict`.

    Raises:
        DataError: nothing is new to the run; or not a run folder, or data that cannot be read.
        HeadError: ``by`` needs a margin, and the run predicts numbers.
        BadFilesError: items cannot be read (``on_bad="raise"``).
    """
    config, run, reading, _ = SUGGEST.settle(overrides, config, run, reading)
    if config.table is not None:
        checked_file(config.table)
    session = Session(run)
    model = Model.of(trained, config, session)
    if config.by in ("margin", "mix"):
        margins(model.head, np.empty((0, len(model.classes))))  # refuses what has none
    kind = model.predictor.backbone.inputs.kind
    split = session.open_items(data, model.predictor.reading(reading, session), kind=kind)
    kept = model.kept()
    split = _new(split, model, kept, session)
    said = model.say(split, session)
    split = split.take(said.found.kept)
    unsure = None if model.head.task == "regression" else margins(model.head, said.outputs)
    labelled = None if config.by == "margin" else _labelled(model, kept, session)
    known = None if labelled is None else labelled.rows
    taken = take_next(said.found.sets[0], config.count, by=config.by, unsure=unsure, labelled=known)
    outputs = _some(said.outputs, taken.rows)
    found = Suggestions(
        tuple(split.origins[i] for i in taken.rows),
        tuple(split.ids[i] for i in taken.rows),
        tuple(_reasons(taken, unsure, outputs, labelled, split, model, config.by)),
        tuple(_predictions(model, outputs)),
        np.full(len(taken.rows), np.nan) if unsure is None else unsure.value[taken.rows],
        taken.distance,
        config.by,
    )
    if len(found) < config.count:
        session.say(
            f"only {count(len(found), 'item')} {verb(len(found))} new to the run: all are suggested"
        )
    if config.table is not None:
        found.write(config.table)
    return found


def _new(split: Split, model: Model, kept: KeptRows | None, session: Session) -> Split:
    """Leave out what the run knows, and all but one of equal items."""
    if not len(split):
        raise DataError("there are no items to choose among", hint="give unlabelled items")
    known = (
        set().union(*model.predictor.trained_on.values()) if model.predictor.trained_on else set()
    )
    tested = set(kept.test.ids) if kept is not None else set()
    first: dict[str, int] = {}
    for i, key in enumerate(split.ids):
        if key not in known and key not in tested:
            first.setdefault(key, i)
    again = sum(key in known or key in tested for key in split.ids)
    if again:
        session.say(
            f"{count(again, 'item')} {verb(again)} in the run's training or test split: skipped"
        )
    if len(first) + again < len(split):
        session.say(
            f"{len(split) - again - len(first):,} of the items are copies of another: skipped"
        )
    if not first:
        raise DataError(
            f"none of {count(len(split), 'item')} is new to the run", hint="give other items"
        )
    return split.take(np.array(list(first.values()), dtype=np.int64))


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Features of the items that trained a run, and where they were."""

    rows: NDArray[Any]
    names: tuple[str, ...]


def _labelled(model: Model, kept: KeptRows | None, session: Session) -> _Labelled | None:
    """Return what is labelled already: as the run has kept it, or as the cache has it."""
    train = None if kept is None else kept.train
    if train is None and model.predictor.trained_on:
        ids = tuple(sorted(set().union(*model.predictor.trained_on.values())))
        train = KeptSplit(ids, np.zeros(len(ids), np.int64), ("a training item",) * len(ids), None)
    if train is None or not len(train.ids):
        session.say(
            "the run does not record its training items: items close to them may be suggested"
        )
        return None
    try:
        return _Labelled(model.features_of(train, session), train.origins)
    except DataError:
        session.say(
            "the features of the training items are neither in the run nor in this cache: items"
            " close to them may be suggested"
        )
        return None


def _some(outputs: Probabilities, rows: NDArray[np.int64]) -> FloatArray:
    """Return the outputs of some items, ``(c, k)``; the others are not kept."""
    found = np.empty((len(rows), outputs.shape[1]))
    for part, block in probability_blocks(outputs):
        inside = (rows >= part.start) & (rows < part.stop)
        found[inside] = block[rows[inside] - part.start]
    return found


def _predictions(model: Model, outputs: Any) -> list[Any]:
    made = np.asarray(outputs, dtype=np.float64)
    if model.head.task == "classification":
        return [model.classes[i] for i in made.argmax(axis=1)]
    if model.head.task == "regression":
        return [", ".join(format_number(v) for v in row) for row in made]
    limits = 0.5 if model.head.thresholds is None else model.head.thresholds
    return joined(model.classes, np.asarray(made > limits, dtype=np.float64))


def _reasons(
    taken: Taken,
    unsure: Margins | None,
    outputs: Any,
    labelled: _Labelled | None,
    split: Split,
    model: Model,
    by: By,
) -> list[str]:
    """Say why each item was taken."""
    made, found = np.asarray(outputs, dtype=np.float64), []
    for at, row in enumerate(taken.rows.tolist()):
        why = []
        if taken.stands_for is not None and taken.labelled is not None:
            why.append(_typicality(int(taken.stands_for[at]), int(taken.labelled[at])))
        if by in ("margin", "mix") and unsure is not None:
            why.append(_hesitation(unsure, row, made[at], model))
        if by in ("k-centre", "mix"):
            why.append(_remoteness(taken, at, labelled, split))
        found.append("; ".join(why))
    return found


def _typicality(size: int, labelled: int) -> str:
    if size == 1:  # among few items a group may hold no second one, however alike they are
        return f"the only item of its group{' without a label' if labelled else ''}"
    return f"typical of about {size:,} similar items"


def _hesitation(unsure: Margins, row: int, p: FloatArray, model: Model) -> str:
    first, second = int(unsure.first[row]), int(unsure.second[row])
    names = model.classes
    if model.head.task != "classification":
        limit = 0.5 if model.head.thresholds is None else float(model.head.thresholds[first])
        sure, bound = (format_percent(value, digits=0) for value in (p[first], limit))
        return f"unsure of {names[first]} ({sure}, predicted above {bound})"
    likely = ", ".join(format_percent(p[i], digits=0) for i in (first, second))
    return f"{names[first]} or {names[second]} ({likely})"


def _remoteness(taken: Taken, at: int, labelled: _Labelled | None, split: Split) -> str:
    distance, near = float(taken.distance[at]), int(taken.near[at])
    if not np.isfinite(distance):
        return "in the middle of all items"
    if near >= 0 and labelled is not None:
        return f"far from what is labelled ({distance:.2f} from {labelled.names[near]})"
    before = int(taken.rows[-1 - near])
    return f"far from what is labelled or suggested ({distance:.2f} from {split.origins[before]})"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


__all__ = ["SuggestConfig", "Suggestions", "suggest"]
