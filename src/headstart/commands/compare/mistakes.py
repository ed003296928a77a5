"""Which test items a comparison got wrong: as files of all predictions, and as examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from headstart.commands.prediction_table import write_table
from headstart.commands.task_report import joined
from headstart.core.wording import any_of, count, format_number
from headstart.data import Inputs
from headstart.report.page import Block, Example, Gallery
from headstart.study import Comparison

MISTAKES = 24


def write_predictions(comparison: Comparison, folder: Path) -> None:
    """Write ``predictions.parquet`` and ``predictions.csv``: a row an item and repetition.

    Every configuration has a column ``prediction of NAME``.
    """
    tested, classes = comparison.tested, comparison.evidence.classes
    split, task = tested.split, comparison.evidence.task
    columns: dict[str, list[object]] = {
        name: [] for name in ("item", "split", "repetition", "truth")
    }
    for repetition, positions in enumerate(tested.positions):
        columns["item"] += [split.origins[i] for i in positions]
        columns["split"] += ["test"] * len(positions)
        columns["repetition"] += [repetition] * len(positions)
        columns["truth"] += _worded(task, classes, split.y[positions])
    for name, predicted in tested.predicted.items():
        columns[f"prediction of {name}"] = [
            text for found in predicted for text in _worded(task, classes, found)
        ]
    for ending in ("parquet", "csv"):
        write_table(columns, folder / f"predictions.{ending}")


def _worded(task: str, classes: Sequence[str], values: NDArray[Any]) -> list[object]:
    """Return classes, the labels of each item in one text, or numbers."""
    if task == "classification":
        return [classes[int(i)] for i in values]
    if task == "multi-label":
        return list(joined(classes, values))
    if values.shape[1] == 1:
        return list(values[:, 0].tolist())
    return ["|".join(f"{value:.6g}" for value in row) for row in values.tolist()]


def _task_mistakes(comparison: Comparison, inputs: Inputs | None, name: str) -> tuple[Block, ...]:
    """Return the items that are predicted worst, of several labels or of numbers."""
    evidence, tested = comparison.evidence, comparison.tested
    split, examples = tested.split, []
    for position, scores in list(tested.worst(name).items())[:MISTAKES]:
        if min(scores) >= 1.0:
            break
        said = [
            _worded(evidence.task, evidence.classes, predicted[positions == position])[0]
            for positions, predicted in zip(tested.positions, tested.predicted[name], strict=True)
            if (positions == position).any()
        ]
        truth = _worded(evidence.task, evidence.classes, split.y[[position]])[0]
        facts = (
            ("true", _shown(truth)),
            ("predicted", any_of(list(dict.fromkeys(map(_shown, said)))[:3])),
            (evidence.figure, f"{100 * sum(scores) / len(scores):.0f} %"),
        )
        excerpt = None if inputs is None else inputs.excerpt(split.content(position))
        examples.append(Example(split.origins[position], facts, excerpt))
    text = (
        f"The worst predictions of {name}. The files predictions.csv and predictions.parquet"
        " next to this page hold the prediction of every configuration for every test item in"
        " every repetition."
    )
    if not examples:
        return (text,)
    return text, Gallery(tuple(examples), "Worst first. Some targets may be wrong: check them.")


def _shown(value: object) -> str:
    return format_number(value) if isinstance(value, float) else str(value) or "none"


def find_mistakes(comparison: Comparison, inputs: Inputs | None) -> tuple[Block, ...]:
    """Return what the recommended configuration, or the reference, got wrong most often.

    Args:
        comparison: the finished study.
        inputs: shows items; None: they are named only.
    """
    evidence, tested = comparison.evidence, comparison.tested
    name = comparison.recommendation.configuration or evidence.reference
    if evidence.task != "classification":
        return _task_mistakes(comparison, inputs, name)
    wrong = tested.wrong(name)
    total = sum(map(len, wrong.values()))
    tries = sum(map(len, tested.positions))
    text = (
        f"{name} is wrong in {total:,} of {count(tries, 'prediction')}"
        f" ({count(len(wrong), 'different item')}). The files predictions.csv and"
        " predictions.parquet next to this page hold the prediction of every configuration for"
        " every test item in every repetition."
    )
    most = sorted(wrong.items(), key=lambda entry: (-len(entry[1]), entry[0]))[:MISTAKES]
    split = tested.split
    examples = []
    for position, predicted in most:
        times = sum(position in positions for positions in tested.positions)
        taken = sorted(set(predicted), key=lambda label: (-predicted.count(label), label))
        facts = (
            ("true", evidence.classes[split.labels[position]]),
            ("predicted", any_of([evidence.classes[label] for label in taken[:3]])),
            ("wrong", f"{len(predicted)} of {times}"),
        )
        excerpt = None if inputs is None else inputs.excerpt(split.content(position))
        examples.append(Example(split.origins[position], facts, excerpt))
    if not examples:
        return (text,)
    caption = "Wrong most often. Some labels may be wrong: check them."
    return text, Gallery(tuple(examples), caption)


__all__ = ["find_mistakes", "write_predictions"]
