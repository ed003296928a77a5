"""What labels of suggested items bring, against as many of random ones, over many draws.

    python benchmarks/label_next.py FEATURES.npz ... [--start 2] [--count 20] [--rounds 3]

Each file holds ``x_train (n, d)``, ``y_train (n,)`` and may hold ``x_test``, ``y_test``; where it
does not, half of the rows, drawn anew each time, are for scoring. A draw labels
``--start`` training rows of every class; then, ``--rounds`` times, each strategy labels ``--count``
more of the rest, and the head is trained anew and scored on all test rows. Draws are
paired: every strategy starts from the same rows.

A cell is the mean accuracy, and the mean gain over random with its 95 % interval over the draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from headstart.core.division import stratified_split
from headstart.evaluation import t_interval
from headstart.heads import Head, TrainingRows, head_kind
from headstart.heads.suggesting import margins, take_next

STRATEGIES = ("random", "typical", "margin", "k-centre", "mix")


def fitted(name: str, x: np.ndarray, y: np.ndarray, rows: np.ndarray, classes: int) -> Head:
    """Train a head."""
    kind = head_kind(name)
    return kind.fit(TrainingRows(x[rows], y[rows], classes), kind.settings({})).head


def divided(whole: dict[str, np.ndarray], seed: int) -> tuple[np.ndarray, ...]:
    """Return rows to choose from and rows to score on; half of all where a file has no test."""
    x, y = whole["x_train"].astype(np.float32), whole["y_train"].astype(np.int64)
    if "x_test" in whole:
        return x, y, whole["x_test"].astype(np.float32), whole["y_test"].astype(np.int64)
    pool, test = stratified_split(y, 0.5, seed=seed)
    return x[pool], y[pool], x[test], y[test]


def measure(file: Path, name: str, start: int, count: int, rounds: int, draws: int) -> None:
    """Print the table of one file."""
    with np.load(file) as arrays:
        whole = {name: arrays[name] for name in arrays.files}
    classes = int(whole["y_train"].max()) + 1
    found = np.zeros((draws, len(STRATEGIES), rounds + 1))
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        x, y, x_test, y_test = divided(whole, draw)
        first = np.concatenate(
            [rng.permutation(np.flatnonzero(y == c))[:start] for c in range(classes)]
        )
        begun = fitted(name, x, y, first, classes)
        for at, by in enumerate(STRATEGIES):
            labelled, head = first, begun
            found[draw, at, 0] = (head.predict(x_test) == y_test).mean()
            for turn in range(1, rounds + 1):
                rest = np.setdiff1d(np.arange(len(x)), labelled)
                if by == "random":
                    new = rng.permutation(len(rest))[:count]
                else:
                    unsure = margins(head, head.predict_proba(x[rest]))
                    new = take_next(x[rest], count, by=by, unsure=unsure, labelled=x[labelled]).rows
                labelled = np.concatenate([labelled, rest[new]])
                head = fitted(name, x, y, labelled, classes)
                found[draw, at, turn] = (head.predict(x_test) == y_test).mean()
    print(f"\n{file.stem}: {classes} classes, {len(x)} rows to choose from, {draws} draws, {name}")
    sizes = [start * classes + count * turn for turn in range(rounds + 1)]
    print(f"{'labels':10}" + "".join(f"{size:>26}" for size in sizes))
    for at, by in enumerate(STRATEGIES):
        cells = []
        for turn in range(rounds + 1):
            cell = f"{100 * found[:, at, turn].mean():.1f}"
            if at and turn:
                gain = t_interval((found[:, at, turn] - found[:, 0, turn]).tolist())
                low, high = (100 * v for v in (gain.interval.low, gain.interval.high))
                cell += f" ({100 * gain.value:+.1f}: {low:+.1f} to {high:+.1f})"
            cells.append(f"{cell:>26}")
        print(f"{by:10}" + "".join(cells))


def main() -> None:
    """Read the command line, and measure every file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--start", type=int, default=2)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--head", default="auto")
    given = parser.parse_args()
    for file in given.files:
        measure(file, given.head, given.start, given.count, given.rounds, given.draws)


if __name__ == "__main__":
    main()
