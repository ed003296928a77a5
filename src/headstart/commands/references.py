"""Figures to beat for several labels an item and for regressions, on the same test items."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from headstart.core.division import few_per_class, make_folds
from headstart.core.progress import Reporter
from headstart.core.records import Baseline, Reference
from headstart.core.row_keys import RowKeys
from headstart.core.wording import quoted
from headstart.data import Inputs, Split
from headstart.evaluation import accuracy_score
from headstart.evaluation.tasks import MULTI_LABEL, Task, task_named
from headstart.heads.registry import TrainingRows, automatic_heads, head_kind

_GRID = (0.01, 0.1, 1.0, 10.0)


def references(
    train: Split, test: Split, inputs: Inputs, *, seed: int, reporter: Reporter
) -> tuple[Reference, ...]:
    """Return what needs no features, and what rows made without a network give, where there are.

    Args:
        train, test: splits of one data set.
        inputs: of the backbone, whose raw rows are the second.
        seed: of folds and draws.
        reporter: receives progress.
    """
    constant = constant_reference(train, test)
    plain = _plain(train, test, inputs, seed=seed, reporter=reporter)
    return (constant,) if plain is None else (constant, plain)


def columns_baseline(
    train: Split,
    test: Split,
    x: NDArray[np.float64],
    z: NDArray[np.float64],
    seed: int,
) -> Baseline | Reference:
    """Return what the columns that join the features predict without them.

    Args:
        train, test: splits of one data set.
        x, z: the columns of both, as numbers.
        seed: of folds.
    """
    kind, task = head_kind(automatic_heads(train.task)[0]), task_named(train.task)
    rows = TrainingRows(
        x,
        train.y,
        len(train.classes),
        task=train.task,
        # Items of one age are not copies of one another, as items of equal features would be.
        keys=RowKeys(train.ids, train.ids),
        groups=train.groups,
        seed=seed,
    )
    head = kind.fit(rows, kind.settings({}, **kind.coarse)).head
    name, about = "columns alone", f"{kind.name} head on the columns without the features"
    if train.targets is None:
        score = accuracy_score(test.labels, head.predict(z), groups=test.groups)
        return Baseline(name, about, score)
    outputs = head.predict(z) if task.probabilities is None else head.predict_proba(z)
    found = task.evaluate(test.y, outputs, test.classes, groups=test.groups)
    return Reference(name, about, found.figures())


def constant_reference(train: Split, test: Split) -> Reference:
    """Return what the mean of the training targets, or the shares of its labels, would get."""
    task = task_named(train.task)
    targets = task.encode(train.y, len(train), len(train.classes))
    outputs = np.tile(task.constant(targets), (len(test), 1))
    if task.probabilities is not None:
        outputs = task.probabilities(outputs)
    found = task.evaluate(test.y, outputs, test.classes, groups=test.groups)
    if task.name == MULTI_LABEL.name:
        shares = train.y.mean(axis=0)
        most = [n for n, share in zip(test.classes, shares, strict=True) if share > 0.5]
        answer = quoted(most, 3) if most else "no label at all"
        about = f"every label as likely as it is in the training split; predicts {answer}"
    else:
        values = ", ".join(f"{value:.4g}" for value in train.y.mean(axis=0)[:3])
        about = f"always {values}{', …' if train.y.shape[1] > 3 else ''}"
    return Reference(task.constant_name, about, found.figures())


def _plain(
    train: Split, test: Split, inputs: Inputs, *, seed: int, reporter: Reporter
) -> Reference | None:
    plain = inputs.plain_rows(train, test)
    if plain is None:
        return None
    task = task_named(train.task)
    known = train
    if len(train) > plain.most:
        each = max(1, plain.most // len(np.unique(train.labels)))
        known = train.take(few_per_class(train.labels, each, seed=(seed, 1), keys=train.ids))
    x, z = plain.of(known, reporter), plain.of(test, reporter)
    if issparse(x):
        outputs, model = _from_sparse(x, known, z, seed), "linear model"
    else:
        kind = head_kind(automatic_heads(train.task)[0])
        rows = TrainingRows(
            x,
            known.y,
            len(known.classes),
            task=known.task,
            keys=known.ids,
            groups=known.groups,
            seed=seed,
        )
        head = kind.fit(rows, kind.settings({}, **kind.coarse)).head
        said = head.predict(z) if task.probabilities is None else head.predict_proba(z)
        outputs = np.asarray(said, np.float64)
        model = f"{kind.name} head"
    found = task.evaluate(test.y, outputs, test.classes, groups=test.groups)
    used = f"{len(known):,} training" if len(known) < len(train) else "all training"
    about = f"{model} on {plain.about}, {used} {inputs.unit}"
    return Reference(plain.name, about, found.figures())


def _from_sparse(x: Any, train: Split, z: Any, seed: int) -> NDArray[np.float64]:
    """Return outputs of scikit-learn's linear models on sparse rows; the penalty from 3 folds."""
    task, y = task_named(train.task), train.y
    folds = make_folds(train.labels, 3, seed=seed, keys=train.ids, groups=train.groups)
    error = dict.fromkeys(_GRID, 0.0)
    for kept, held in () if folds is None else folds.splits():
        for penalty in _GRID:
            said = _sparse_outputs(x[kept], y[kept], x[held], penalty, task)
            error[penalty] += float(((said - y[held]) ** 2).sum())
    best = min(_GRID, key=lambda penalty: (error[penalty], penalty))
    return _sparse_outputs(x, y, z, best, task)


def _sparse_outputs(
    x: Any, y: NDArray[np.float64], z: Any, penalty: float, task: Task
) -> NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    if task.probabilities is None:
        return np.asarray(Ridge(penalty).fit(x, y).predict(z), np.float64).reshape(-1, y.shape[1])
    varies = np.flatnonzero((y.min(axis=0) < 1) & (y.max(axis=0) > 0))
    found = np.tile(y[0], (z.shape[0], 1))  # what no or every item has is no question
    if len(varies):
        model = OneVsRestClassifier(LogisticRegression(C=1 / penalty, max_iter=1_000))
        found[:, varies] = model.fit(x, y[:, varies].astype(np.int64)).predict_proba(z)
    return found


__all__ = ["columns_baseline", "constant_reference", "references"]
