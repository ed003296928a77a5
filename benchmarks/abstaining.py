"""Coverage of conformal sets on new items, and how large they are, over many draws.

    python benchmarks/abstaining.py FEATURES.npz ... [--train 300] [--draws 100] [--head auto]
        [--folds 5]

Each file holds ``x_train (n, d)``, ``y_train (n,)``, ``x_test``, ``y_test``. A draw divides all
rows anew, the share of every class kept; the head and its sets see the training rows alone.

Columns: the coverage that was asked for; the mean of what was measured over the draws; in how
many draws it lies within the 95 % interval of what split conformal does in one draw (a
beta-binomial: held-out and new items both vary; by class the sum of those of all classes); classes
in a set; share of items with one class, with none.

The head that answers has learned from all training rows, each head that judged from all but a fold.
Where heads still gain by every row, the mean is above what was asked for. Up to 1,000 rows, heads
judge in 20 folds whatever ``--folds`` says; above, more folds bring the mean down.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from scipy.stats import betabinom

from headstart.core.division import stratified_split
from headstart.core.errors import HeadError
from headstart.heads import TrainingRows, head_kind
from headstart.heads.abstaining import calibrated

ASKED = [(c, s, False) for c in (0.8, 0.9, 0.95) for s in ("lac", "aps", "raps")]
ASKED += [(c, "lac", True) for c in (0.8, 0.9)]


def usual(y: np.ndarray, judges: np.ndarray, coverage: float) -> tuple[int, int]:
    """Return the hits among the items ``y`` between which 95 % of draws are.

    Args:
        y: ``(m,)``, what has its own judges: the class where sets are made by class, else 0.
        judges: ``(n,)``, likewise, of the held-out items.
        coverage: in (0, 1).
    """
    chances = np.ones(1)
    for each in np.unique(y):
        m, n = int((y == each).sum()), int((judges == each).sum())
        rank = math.ceil((n + 1) * coverage - 1e-9)
        chances = np.convolve(chances, betabinom.pmf(np.arange(m + 1), m, rank, n + 1 - rank))
    total = np.cumsum(chances)
    return int(np.searchsorted(total, 0.025)), int(np.searchsorted(total, 0.975))


def measure(file: Path, n: int, draws: int, head: str, folds: int) -> None:
    """Print the table of one file."""
    with np.load(file) as arrays:
        parts = [part for part in ("train", "test") if f"x_{part}" in arrays]
        x = np.concatenate([arrays[f"x_{part}"] for part in parts]).astype(np.float32)
        y = np.concatenate([arrays[f"y_{part}"] for part in parts]).astype(np.int64)
    classes, names = int(y.max()) + 1, [str(i) for i in range(int(y.max()) + 1)]
    kind = head_kind(head)
    found: dict[tuple[float, str, bool], list[tuple[float, ...]]] = {}
    right = []
    for seed in range(draws):
        test, train = stratified_split(y, n / len(y), seed=seed)
        test = np.random.default_rng(seed).permutation(test)[:5000]
        keys = [f"item {i}" for i in train]
        rows = TrainingRows(x[train], y[train], classes, keys=keys, seed=seed)
        settings = kind.settings({}, folds=folds)
        made = calibrated(kind.fit(rows, settings), rows, kind, settings, folds=folds)
        if made.calibration is None:
            raise SystemExit(made.uncalibrated)
        p = made.head.predict_proba(x[test])
        right.append(float((p.argmax(axis=1) == y[test]).mean()))
        for asked in ASKED:
            coverage, score, by_class = asked
            try:
                sets = made.calibration.sets(
                    p,
                    coverage=coverage,
                    by_class=by_class,
                    score=score,
                    keys=[f"item {i}" for i in test],
                )
            except HeadError:
                continue
            told = sets.measured(y[test], names)
            low, high = usual(y[test] * by_class, y[train] * by_class, coverage)
            worst = min(row.covered.value for row in told.rows)
            inside = low <= round(told.covered.value * len(test)) <= high
            found.setdefault(asked, []).append(
                (told.covered.value, inside, told.size, told.answered, told.empty, worst)
            )
    print(f"\n{file.stem}: {n} training rows, {classes} classes, {head}, {folds} folds,"
          f" {draws} draws, accuracy {100 * np.mean(right):.1f} %")  # fmt: skip
    print(f"{'asked':>6} {'score':>10} {'measured':>9} {'inside':>8} {'classes':>8} {'one':>6}"
          f" {'none':>6} {'worst class':>12}")  # fmt: skip
    for (coverage, score, by_class), values in found.items():
        mean = np.mean(values, axis=0)
        name = score + (" by class" if by_class else "")
        print(
            f"{100 * coverage:6.0f} {name:>12} {100 * mean[0]:7.2f}"
            f" {sum(v[1] for v in values):>4.0f}/{len(values)} {mean[2]:8.2f} {100 * mean[3]:6.1f}"
            f" {100 * mean[4]:6.1f} {100 * mean[5]:8.1f}"
        )


def main() -> None:
    """Read the command line, and measure every file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--train", type=int, default=300)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--head", default="auto")
    parser.add_argument("--folds", type=int, default=5)
    given = parser.parse_args()
    for file in given.files:
        measure(file, given.train, given.draws, given.head, given.folds)


if __name__ == "__main__":
    main()
