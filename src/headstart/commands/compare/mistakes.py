"""Which test items a comparison got wrong: as files of all predictions, and as examples."""

from __future__ import annotations

from pathlib import Path

from headstart.commands.prediction_table import write_table
from headstart.core.wording import any_of, count
from headstart.data import Inputs
from headstart.report.page import Block, Example, Gallery
from headstart.study import Comparison

MISTAKES = 24


def write_predictions(comparison: Comparison, folder: Path) -> None:
    """Write ``predictions.parquet`` and ``predictions.csv``: a row an item and repetition.

    Every configuration has a column ``prediction of NAME``.
    """
    tested, classes = comparison.tested, comparison.evidence.classes
    split = tested.split
    columns: dict[str, list[object]] = {
        name: [] for name in ("item", "split", "repetition", "truth")
    }
    for repetition, positions in enumerate(tested.positions):
        columns["item"] += [split.origins[i] for i in positions]
        columns["split"] += ["test"] * len(positions)
        columns["repetition"] += [repetition] * len(positions)
        columns["truth"] += [classes[split.labels[i]] for i in positions]
    for name, predicted in tested.predicted.items():
        columns[f"prediction of {name}"] = [classes[i] for found in predicted for i in found]
    for ending in ("parquet", "csv"):
        write_table(columns, folder / f"predictions.{ending}")


def find_mistakes(comparison: Comparison, inputs: Inputs | None) -> tuple[Block, ...]:
    """Return what the recommended configuration, or the reference, got wrong most often.

    Args:
        comparison: the finished study.
        inputs: shows items; None: they are named only.
    """
    evidence, tested = comparison.evidence, comparison.tested
    name = comparison.recommendation.configuration or evidence.reference
    wrong = tested.wrong(name)
    total = sum(map(len, wrong.values()))
    tries = sum(map(len, tested.positions))
    text = (
        f"{name} is wrong in {total:,} of {count(tries, 'prediction')}"
        f" ({count(len(wrong), 'different item')}). The files predictions.csv and"
        " predictions.parquet beside this page hold the prediction of every configuration for"
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
    caption = "Wrong most often. Some may be wrong labels: look at them."
    return text, Gallery(tuple(examples), caption)


__all__ = ["find_mistakes", "write_predictions"]
