"""Logistic regression on frozen features, alone or as a whole path in several folds."""

from __future__ import annotations

from headstart.heads.logistic.path import DINO_GRID, fit_logistic_path, fit_logistic_paths
from headstart.heads.logistic.search import LogisticPath
from headstart.heads.logistic.single import Convergence, fit_logistic

__all__ = [
    "DINO_GRID",
    "Convergence",
    "LogisticPath",
    "fit_logistic",
    "fit_logistic_path",
    "fit_logistic_paths",
]
