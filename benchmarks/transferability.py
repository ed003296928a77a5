"""How well transferability scores rank backbones, and what they cost: LogME, H-score and NLEEP.

    python benchmarks/transferability.py FEATURES.npz FEATURES.npz ... [--repetitions 5]

Each file holds ``x_train (n, d)`` and ``y_train (n,)``: the features of one backbone for the same
items. The accuracy that they are compared with is that of nested cross-validation with logistic
regression, as ``headstart sweep --backbones`` probes.

NLEEP (Li et al., CVPR 2021) is LEEP on the posteriors of a mixture of Gaussians, of five components
a class, behind a PCA that keeps 80 % of the variance. The mixture starts at random, so it is
fitted once for each seed, and its spread over the seeds is printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from headstart.heads import head_kind
from headstart.heads.nested import nested_cross_validation
from headstart.heads.transferability import h_score, log_evidence, rank_correlation

COMPONENTS, VARIANCE = 5, 0.8
COARSE = dict(head_kind("linear").coarse)


def nleep(x: np.ndarray, y: np.ndarray, n_classes: int, seed: int) -> float:
    """Return NLEEP: the mean log of the expected empirical probability of the true class."""
    reduced = PCA(VARIANCE, svd_solver="full", random_state=seed).fit_transform(x)
    count = min(COMPONENTS * n_classes, len(x) // 2)
    mixture = GaussianMixture(count, covariance_type="diag", reg_covar=1e-3, random_state=seed)
    posterior = mixture.fit(reduced).predict_proba(reduced)
    joint = np.stack([posterior[y == k].sum(axis=0) for k in range(n_classes)]) / len(x)
    conditional = joint / np.maximum(joint.sum(axis=0), 1e-12)
    return float(np.log(np.maximum((posterior * conditional[y]).sum(axis=1), 1e-12)).mean())


def timed(score: Callable[[], float]) -> tuple[float, float]:
    """Return a score and its seconds."""
    begun = time.perf_counter()
    return score(), time.perf_counter() - begun


def main() -> None:
    """Read the command line, and compare the scores over the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    accuracies: list[float] = []
    scores: dict[str, list[float]] = {"LogME": [], "H-score": []}
    seeds = range(given.repetitions)
    scores |= {f"NLEEP seed {seed}": [] for seed in seeds}
    for file in given.files:
        with np.load(file) as arrays:
            x, y = arrays["x_train"].astype(np.float64), arrays["y_train"]
        classes = int(y.max()) + 1
        nested = nested_cross_validation(x, y, classes, head_options=COARSE)
        right = nested.accuracy.value
        accuracies.append(right)
        print(f"{file.stem:32} {len(x):6} items, {x.shape[1]:5} features: {100 * right:5.1f} %")
        found = {
            "LogME": timed(lambda x=x, y=y, k=classes: log_evidence(x, y, k)),  # type: ignore[misc]
            "H-score": timed(lambda x=x, y=y, k=classes: h_score(x, y, k)),  # type: ignore[misc]
        }
        for seed in seeds:
            found[f"NLEEP seed {seed}"] = timed(
                lambda x=x, y=y, k=classes, seed=seed: nleep(x, y, k, seed)  # type: ignore[misc]
            )
        for name, (value, seconds) in found.items():
            scores[name].append(value)
            print(f"    {name:14} {value:9.4f}  {seconds:6.2f} s")
    for name, values in scores.items():
        print(f"{name:14} Kendall's tau with the accuracy {rank_correlation(values, accuracies)}")


if __name__ == "__main__":
    main()
