"""What a run on several labels an item, or on numbers, writes and shows beside the common files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.prediction_table import COLUMNS, Probabilities, write_table
from headstart.commands.task_page import Scored, example
from headstart.core.errors import BadFilesError
from headstart.core.records import Excerpt
from headstart.core.wording import format_number
from headstart.data import Inputs, Split
from headstart.data.label_texts import one_text
from headstart.heads import Head
from headstart.report.page import Example
from headstart.report.task_text import TaskEvaluation

_WORST, _EXAMPLES = 24, 12


def said_of(head: Head, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is predicted from probabilities or values: memberships, or the values.

    Args:
        head: which predicts.
        outputs: ``(n, k)``.
    """
    if head.task == "regression":
        return outputs
    thresholds = 0.5 if head.thresholds is None else head.thresholds
    return np.asarray(outputs > thresholds, dtype=np.float64)


def joined(names: Sequence[str], members: NDArray[np.float64]) -> list[str]:
    """Return the labels of every item in one text."""
    return [
        one_text(name for name, has in zip(names, row, strict=True) if has > 0.5) for row in members
    ]


def task_columns(
    head: Head,
    names: Sequence[str],
    origins: Sequence[str],
    outputs: Probabilities,
    truth: NDArray[np.float64] | None = None,
    split: str | None = None,
) -> dict[str, list[Any]]:
    """Return the columns of a table of predictions.

    Several labels: the labels in one text, and the probability of each of up to 100 labels.
    Numbers: the prediction of each target, with the truth and the error where it is known.

    Args:
        head: which predicts.
        names: of the labels or targets.
        origins: where each item is found.
        outputs: ``(n, k)``.
        truth: ``(n, k)``; None: not known.
        split: what the items are of the data; None: not said.
    """
    made = np.asarray(outputs, dtype=np.float64)
    table: dict[str, list[Any]] = {"item": list(origins)}
    if split is not None:
        table["split"] = [split] * len(origins)
    said = said_of(head, made)
    if head.task == "regression":
        for at, name in enumerate(names):
            suffix = "" if len(names) == 1 else f" of {name}"
            if truth is not None:
                table[f"truth{suffix}"] = truth[:, at].tolist()
            table[f"prediction{suffix}"] = made[:, at].tolist()
            if truth is not None:
                table[f"error{suffix}"] = (made[:, at] - truth[:, at]).tolist()
        return table
    if truth is not None:
        table["truth"] = list(joined(names, truth))
    table["prediction"] = list(joined(names, said))
    if truth is not None:
        table["right"] = [bool(v) for v in ((truth > 0.5) == (said > 0.5)).all(axis=1)]
    for at, name in enumerate(names[:COLUMNS]):
        table[f"probability of {name}"] = made[:, at].tolist()
    return table


def write_task_tested(
    folder: Path,
    head: Head,
    test: Split,
    outputs: Probabilities,
    *,
    split: str = "test",
    more: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Write what was predicted for every test item: ``predictions.parquet`` and ``.csv``.

    Args:
        folder, head, test, outputs: the run folder, the head, the items, what it says of them.
        split: what the items are of the data.
        more: further columns.
    """
    columns = task_columns(head, test.classes, test.origins, outputs, test.targets, split)
    columns |= {name: list(values) for name, values in (more or {}).items()}
    for name in ("predictions.csv", "predictions.parquet"):
        write_table(columns, folder / name)


def scored_items(
    evaluation: TaskEvaluation, head: Head, test: Split, outputs: Probabilities, inputs: Inputs
) -> Scored:
    """Return what a page shows of the test items: scores, the worst of them, and some others.

    Args:
        evaluation: the scores.
        head: which predicted.
        test: the items.
        outputs: ``(n, k)``, what it said of them.
        inputs: of the backbone, for excerpts.
    """
    made = np.asarray(outputs, dtype=np.float64)
    assert test.targets is not None
    truth, said = test.targets, said_of(head, made)
    worst = np.argsort(-badness(head, truth, made, said), kind="stable")[:_WORST]
    if head.task != "regression":
        worst = worst[((truth > 0.5) != (said > 0.5)).any(axis=1)[worst]]
    spread = np.argsort(test.labels, kind="stable")
    some = spread[np.linspace(0, len(test) - 1, min(_EXAMPLES, len(test))).astype(np.int64)]
    shown = [
        tuple(_example(test, int(i), head, truth, made, said, inputs) for i in rows)
        for rows in (worst, some)
    ]
    return Scored(evaluation, truth, made, shown[0], tuple(e for e in shown[1] if e.excerpt))


def badness(
    head: Head,
    truth: NDArray[np.float64],
    made: NDArray[np.float64],
    said: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return how wrong each item is: its errors in deviations, or how sure its wrong labels are."""
    if head.task == "regression":
        spread = truth.std(axis=0)
        return np.asarray((np.abs(made - truth) / np.where(spread > 0, spread, 1.0)).max(axis=1))
    return np.asarray(
        np.where((truth > 0.5) != (said > 0.5), np.abs(made - truth), 0.0).max(axis=1)
    )


def _example(
    test: Split,
    i: int,
    head: Head,
    truth: NDArray[np.float64],
    made: NDArray[np.float64],
    said: NDArray[np.float64],
    inputs: Inputs,
) -> Example:
    glimpse: Excerpt | None
    try:
        glimpse = inputs.excerpt(test.content(i))
    except BadFilesError:
        glimpse = None
    if head.task == "regression":
        words = [", ".join(format_number(v) for v in row[i, :4]) for row in (truth, made)]
        return example(test.origins[i], words[0], words[1], (), glimpse)
    names = test.classes
    words = [in_words(names, row[i]) for row in (truth, said)]
    more = wrong_labels(names, truth[i], said[i], made[i])
    return example(test.origins[i], words[0], words[1], more, glimpse)


def in_words(names: Sequence[str], member: NDArray[np.float64]) -> str:
    """Return the labels of an item ``(k,)`` for readers: with commas, or that there are none."""
    return ", ".join(name for name, has in zip(names, member, strict=True) if has > 0.5) or "none"


def wrong_labels(
    names: Sequence[str],
    truth: NDArray[np.float64],
    said: NDArray[np.float64],
    made: NDArray[np.float64],
) -> list[tuple[str, str]]:
    """Return the first three labels that are wrong of an item, each with its probability.

    Args:
        names: of the labels.
        truth, said: ``(k,)``, 0 or 1.
        made: ``(k,)``, probabilities.
    """
    wrong = np.flatnonzero((truth > 0.5) != (said > 0.5))
    return [(names[j], f"p = {made[j]:.2f}") for j in wrong[:3].tolist()]


__all__ = [
    "in_words",
    "joined",
    "said_of",
    "scored_items",
    "task_columns",
    "write_task_tested",
    "wrong_labels",
]
