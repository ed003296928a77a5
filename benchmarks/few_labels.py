"""Accuracy of every head with few labels a class, beside what chooses itself.

    python benchmarks/few_labels.py FEATURES.npz ... [--labels 1,2,5,10,20] [--repetitions 20]

Each file holds ``x_train (n, d)``, ``y_train (n,)``, ``x_test``, ``y_test``; ``headstart sweep``
takes such files, too. A repetition draws the labels of every class from the training rows, the
same for all heads, and scores on all test rows (``--most-test`` of them at most).

A file may also hold ``start_weight (d, k)`` and ``start_bias (k,)``: the columns of the backbone's
own classifier that stand for the classes. Then *started* is the head of ``--start classifier``, and
what it says without a label stands above the table.

Columns are labels a class; a cell is the mean accuracy over the repetitions, in per cent.

- *today*: logistic regression on standardised features, C by cross-validation in the drawn rows
  (``head="linear"``), the default before ``auto``;
- *linear*, *ridge*, *lda*, *prototype*: single heads as ``auto`` trains them;
- *auto*: the default; how often it took which head follows below.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from headstart.heads import TrainingRows, head_kind
from headstart.heads.started import StartedHead, fit_started

HEADS: dict[str, tuple[str, dict[str, object]]] = {
    "today": ("linear", {}),
    **{name: ("auto", {"heads": (name,)}) for name in ("linear", "ridge", "lda", "prototype")},
    "prototype alone": ("prototype", {}),
    "lda alone": ("lda", {}),
    "ridge alone": ("ridge", {}),
    "auto": ("auto", {}),
}


def drawn(labels: np.ndarray, each: int, seed: int) -> np.ndarray:
    """Return up to ``each`` rows of every class."""
    rng = np.random.default_rng([each, seed])
    rows = [rng.permutation(np.flatnonzero(labels == one))[:each] for one in np.unique(labels)]
    return np.sort(np.concatenate(rows))


def measure(file: Path, labels_a_class: list[int], repetitions: int, most_test: int) -> None:
    """Print the table of one file."""
    with np.load(file) as arrays:
        x, y, x_test, y_test = (arrays[f"{a}_{b}"] for b in ("train", "test") for a in "xy")
        start = (
            StartedHead.untrained(
                arrays["start_weight"], arrays["start_bias"], [[k] for k in range(int(y.max()) + 1)]
            )
            if "start_weight" in arrays
            else None
        )
    if len(x_test) > most_test:
        some = np.random.default_rng(0).permutation(len(x_test))[:most_test]
        x_test, y_test = x_test[some], y_test[some]
    classes = int(y.max()) + 1
    print(f"\n{file.stem}: {classes} classes, {x.shape[1]} features, {len(x_test)} test rows")
    found: dict[str, dict[int, list[float]]] = {name: {} for name in HEADS}
    if start is not None:
        found["started"] = {}
        print(f"without a label: {100 * (start.predict(x_test) == y_test).mean():.1f} %")
    taken: dict[int, Counter[str]] = {each: Counter() for each in labels_a_class}
    for each in labels_a_class:
        for repetition in range(repetitions):
            rows = drawn(y, each, repetition)
            for name, (kind, options) in HEADS.items():
                head = head_kind(kind)
                trained = head.fit(TrainingRows(x[rows], y[rows], classes), head.settings(options))
                right = float((trained.head.predict(x_test) == y_test).mean())
                found[name].setdefault(each, []).append(right)
                if name == "auto":
                    taken[each][str(trained.chosen["head"])] += 1
            if start is not None:
                trained = fit_started(TrainingRows(x[rows], y[rows], classes), start)
                right = float((trained.head.predict(x_test) == y_test).mean())
                found["started"].setdefault(each, []).append(right)
    print(f"{'':18}" + "".join(f"{each:>8}" for each in labels_a_class))
    for name, values in found.items():
        print(f"{name:18}" + "".join(f"{100 * np.mean(v):8.1f}" for v in values.values()))
    for each, counts in taken.items():
        print(f"{each} a class: " + ", ".join(f"{name} {n}" for name, n in counts.most_common()))


def main() -> None:
    """Read the command line, and measure every file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--labels", default="1,2,5,10,20")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--most-test", type=int, default=1000)
    given = parser.parse_args()
    labels = [int(each) for each in given.labels.split(",")]
    for file in given.files:
        measure(file, labels, given.repetitions, given.most_test)


if __name__ == "__main__":
    main()
