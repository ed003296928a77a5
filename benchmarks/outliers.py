"""AUROC of strange items against ordinary ones, beside pytorch-ood on the same features.

    python benchmarks/outliers.py ORDINARY.npz STRANGE.npz ...

The first file holds ``x_train (n, d)``, ``y_train (n,)``, ``x_test``, ``y_test``; of the others
``x_test`` is taken. Also: how many ordinary test items are flagged where 5 % may be, and how many
strange ones.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from headstart.heads.outliers import K, fit_outliers


def main() -> None:
    """Read the command line, and print a row for every method and file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("ordinary", type=Path)
    parser.add_argument("strange", nargs="+", type=Path)
    given = parser.parse_args()
    with np.load(given.ordinary) as arrays:
        x, y = arrays["x_train"].astype(np.float32), arrays["y_train"].astype(np.int64)
        test = arrays["x_test"].astype(np.float32)
    strange = {file.stem: np.load(file)["x_test"].astype(np.float32) for file in given.strange}
    scores: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for method in ("knn", "mahalanobis"):
        found = fit_outliers({"features": x}, y, method=method)
        scores[f"headstart {method}"] = lambda rows, found=found: found.scores([rows])
        alarms = found.flagged(found.scores([test]), 0.05).mean()
        told = ", ".join(
            f"{name} {100 * found.flagged(found.scores([rows]), 0.05).mean():.1f} %"
            for name, rows in strange.items()
        )
        print(f"{method}: {100 * alarms:.1f} % false alarms of 5 % asked; flagged: {told}")
    from pytorch_ood.detector import KNN, Mahalanobis

    rows, labels = torch.from_numpy(x), torch.from_numpy(y)
    for k in (K, 50):
        knn = KNN(None, k=k).fit_features(rows, labels)
        scores[f"pytorch-ood KNN, k = {k}"] = lambda z, knn=knn: knn.predict_features(
            torch.from_numpy(z)
        ).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gauss = Mahalanobis(None).fit_features(rows, labels)
    scores["pytorch-ood Mahalanobis"] = lambda z: gauss.predict_features(
        torch.from_numpy(z)
    ).numpy()
    print(f"{'AUROC':28}" + "".join(f"{name:>16}" for name in strange))
    for name, score in scores.items():
        known = score(test)
        cells = []
        for other in strange.values():
            truth = np.r_[np.zeros(len(known)), np.ones(len(other))]
            cells.append(f"{roc_auc_score(truth, np.r_[known, score(other)]):16.4f}")
        print(f"{name:28}" + "".join(cells))


if __name__ == "__main__":
    main()
