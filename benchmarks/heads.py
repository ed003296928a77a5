"""Time the sweep of linear heads, and nearest neighbours, against scikit-learn.

    python benchmarks/heads.py FOLDER [--threads 2] [--grid near|all] [--json OUT]

FOLDER holds ``x_train.npy (n, d) float32``, ``y_train.npy (n,)``, ``x_test.npy``, ``y_test.npy``;
``FeatureCache.features(...).rows`` saved with ``numpy.save`` makes such files. Every contender
runs in a process of its own with the same number of threads, and the two sides take turns, so
that a machine which slows down does so for both.

What is compared:

- *headstart*: 45 values of C with 5-fold cross-validation (225 problems), the choice, and the
  refit on all rows: one call of ``choose_linear``.
- *scikit-learn*: single fits of ``LogisticRegression`` (L-BFGS) on standardised features, one for
  each of five values of C spread over the useful range. No cross-validation.
- accuracy on the test rows: of headstart's one choice, and of scikit-learn's fits at the values of
  C around it (``--grid near``) or at all 45 (``--grid all``, which takes long).
- *nearest neighbours*: 20 neighbours by cosine, against scikit-learn's brute force.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

FIVE = (1e-4, 1e-3, 3.1622776601683795e-3, 1e-2, 1e-1)
ALL = tuple(float(c) for c in 10.0 ** np.linspace(-6, 5, 45))


def load(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    names = ("x_train", "y_train", "x_test", "y_test")
    x_train, y_train, x_test, y_test = (np.load(folder / f"{n}.npy") for n in names)
    return x_train, y_train, x_test, y_test


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def cpu_seconds() -> float:
    """User and system time of all threads: what a busy machine distorts less than the clock."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run_headstart(folder: Path) -> dict[str, object]:
    """One call: cross-validation over the grid, choice, refit; then the test rows."""
    from headstart.heads import choose_linear

    x, y, _, _ = load(folder)
    k = int(y.max()) + 1
    # Libraries are loaded and warm on both sides; memory is counted from here.
    choose_linear(x[:500], y[:500], k, grid=[0.01])
    before = peak_mb()
    begun, cpu = time.perf_counter(), cpu_seconds()
    selection = choose_linear(x, y, k)
    seconds, cpu = time.perf_counter() - begun, cpu_seconds() - cpu
    extra = peak_mb() - before
    _, _, x_test, y_test = load(folder)
    accuracy = float((selection.head.predict(x_test) == y_test).mean())
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "C": selection.chosen["C"],
        "test_accuracy": accuracy,
        "peak_over_features": (x.nbytes / 1e6 + extra) / (x.nbytes / 1e6),
        "refit_gradient": selection.convergence.gradient,
        "notes": list(selection.notes),
        "passes": int(np.sum(selection.details["passes"])),
    }


def run_sklearn(folder: Path, c: float) -> dict[str, object]:
    """One fit, timed without its standardisation; 1,000 iterations at most."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y, x_test, y_test = load(folder)
    scaler = StandardScaler().fit(x)
    x, x_test = scaler.transform(x), scaler.transform(x_test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        LogisticRegression(max_iter=5).fit(x[:500], y[:500])
        begun, cpu = time.perf_counter(), cpu_seconds()
        model = LogisticRegression(C=c, max_iter=1000).fit(x, y)
    seconds, cpu = time.perf_counter() - begun, cpu_seconds() - cpu
    return {
        "C": c,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "iterations": int(model.n_iter_[0]),
        "test_accuracy": float(model.score(x_test, y_test)),
    }


def run_neighbours(folder: Path, whose: str) -> dict[str, object]:
    x, y, x_test, y_test = load(folder)
    k = int(y.max()) + 1
    begun, cpu = time.perf_counter(), cpu_seconds()
    if whose == "headstart":
        from headstart.heads import fit_neighbours

        predicted = fit_neighbours(x, y, k, weights="uniform").predict(x_test)
    else:
        from sklearn.neighbors import KNeighborsClassifier

        model = KNeighborsClassifier(20, metric="cosine", algorithm="brute").fit(x, y)
        predicted = model.predict(x_test)
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": cpu_seconds() - cpu,
        "test_accuracy": float((predicted == y_test).mean()),
    }


def child(folder: Path, threads: int, *job: str) -> dict[str, object]:
    """Run one job in a fresh process with a fixed number of threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    done = subprocess.run(
        [sys.executable, __file__, str(folder), "--job", *job],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    print("  ".join([*job, json.dumps(found)]), flush=True)
    return found


def work(folder: Path, job: list[str]) -> dict[str, object]:
    if job[0] == "sklearn":
        return run_sklearn(folder, float(job[1]))
    if job[0] == "neighbours":
        return run_neighbours(folder, job[1])
    return run_headstart(folder)


def compare(folder: Path, threads: int, grid: str) -> dict[str, object]:
    fits = {c: child(folder, threads, "sklearn", repr(c)) for c in FIVE[:3]}
    ours = child(folder, threads, "headstart")
    fits |= {c: child(folder, threads, "sklearn", repr(c)) for c in FIVE[3:]}
    again = child(folder, threads, "headstart")
    # What is timed comes first; the fits that follow only look for the best accuracy.
    neighbours = {w: child(folder, threads, "neighbours", w) for w in ("headstart", "sklearn")}
    five = sum(float(str(fits[c]["seconds"])) for c in FIVE)
    chosen = float(str(ours["C"]))
    wanted = ALL if grid == "all" else [c for c in ALL if 0.15 < c / chosen < 6.5]
    for c in wanted:
        if not any(np.isclose(c, done) for done in fits):
            fits[c] = child(folder, threads, "sklearn", repr(c))
    best = max(float(str(fit["test_accuracy"])) for fit in fits.values())
    return {
        "threads": threads,
        "headstart_seconds": [ours["seconds"], again["seconds"]],
        "five_sklearn_fits_seconds": five,
        "headstart_test_accuracy": ours["test_accuracy"],
        "best_sklearn_test_accuracy": best,
        "sklearn_values_of_C": len(fits),
        "peak_memory_over_features": ours["peak_over_features"],
        "neighbours": neighbours,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--grid", choices=("near", "all"), default="near")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--job", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(work(options.folder, options.job)))
        return
    summary = compare(options.folder, options.threads, options.grid)
    text = json.dumps(summary, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
