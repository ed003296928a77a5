"""Heads: what is trained on frozen features.

Pure solvers of arrays first, thin frozen objects second. Every head takes features ``(n, d)``,
predicts, and saves as safetensors and JSON; :func:`load_head` reads any of them back.
"""

from __future__ import annotations

from headstart.heads.base import Head, load_head
from headstart.heads.calibration import fit_temperature
from headstart.heads.lda import fit_lda
from headstart.heads.linear import LinearHead
from headstart.heads.logistic import (
    DINO_GRID,
    Convergence,
    LogisticPath,
    fit_logistic,
    fit_logistic_path,
    fit_logistic_paths,
)
from headstart.heads.mlp import MLPFit, MLPHead, fit_mlp
from headstart.heads.neighbours import (
    NeighboursHead,
    PrototypeHead,
    fit_neighbours,
    fit_prototype,
)
from headstart.heads.ridge import RIDGE_GRID, RidgePath, fit_ridge
from headstart.heads.source import StreamedFeatures

__all__ = [
    "DINO_GRID",
    "RIDGE_GRID",
    "Convergence",
    "Head",
    "LinearHead",
    "LogisticPath",
    "MLPFit",
    "MLPHead",
    "NeighboursHead",
    "PrototypeHead",
    "RidgePath",
    "StreamedFeatures",
    "fit_lda",
    "fit_logistic",
    "fit_logistic_path",
    "fit_logistic_paths",
    "fit_mlp",
    "fit_neighbours",
    "fit_prototype",
    "fit_ridge",
    "fit_temperature",
    "load_head",
]
