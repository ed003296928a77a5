"""Heads: what is trained on frozen features, and chosen inside the training rows.

Pure solvers of arrays first, thin frozen objects second. Every head takes features ``(n, d)``,
predicts, and saves as safetensors and JSON; :func:`load_head` reads any of them. The registry
(:func:`head_kind`, :func:`register_head`) is what commands and estimators read.

Names load their module on first use: the registry is also read by ``--help``, which loads no
numerical library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.core.lazy import contents

if TYPE_CHECKING:
    from headstart.heads.base import Head as Head
    from headstart.heads.calibration import fit_temperature as fit_temperature
    from headstart.heads.contract import HeadKind as HeadKind
    from headstart.heads.contract import Trained as Trained
    from headstart.heads.contract import TrainingRows as TrainingRows
    from headstart.heads.copies import Together as Together
    from headstart.heads.copies import keep_together as keep_together
    from headstart.heads.data_checks import DoubtfulLabel as DoubtfulLabel
    from headstart.heads.data_checks import Leak as Leak
    from headstart.heads.data_checks import doubtful_labels as doubtful_labels
    from headstart.heads.data_checks import (
        doubtful_labels_of_many_classes as doubtful_labels_of_many_classes,
    )
    from headstart.heads.data_checks import find_leaks as find_leaks
    from headstart.heads.lda import fit_lda as fit_lda
    from headstart.heads.learning_curves import LabelBudget as LabelBudget
    from headstart.heads.learning_curves import learning_curve as learning_curve
    from headstart.heads.linear import LinearHead as LinearHead
    from headstart.heads.logistic import DINO_GRID as DINO_GRID
    from headstart.heads.logistic import Convergence as Convergence
    from headstart.heads.logistic import LogisticPath as LogisticPath
    from headstart.heads.logistic import fit_logistic as fit_logistic
    from headstart.heads.logistic import fit_logistic_path as fit_logistic_path
    from headstart.heads.logistic import fit_logistic_paths as fit_logistic_paths
    from headstart.heads.many_classes import search_takes_too_long as search_takes_too_long
    from headstart.heads.merges import ArrayPart as ArrayPart
    from headstart.heads.merges import RowPart as RowPart
    from headstart.heads.mlp import fit_mlp as fit_mlp
    from headstart.heads.neighbours import NeighboursHead as NeighboursHead
    from headstart.heads.neighbours import PrototypeHead as PrototypeHead
    from headstart.heads.neighbours import fit_neighbours as fit_neighbours
    from headstart.heads.neighbours import fit_prototype as fit_prototype
    from headstart.heads.nested import NestedScore as NestedScore
    from headstart.heads.nested import nested_cross_validation as nested_cross_validation
    from headstart.heads.partitioned import lda_over as lda_over
    from headstart.heads.partitioned import ridge_over as ridge_over
    from headstart.heads.partitioned_logistic import logistic_over as logistic_over
    from headstart.heads.penalty import choose_linear as choose_linear
    from headstart.heads.perceptron import MLPHead as MLPHead
    from headstart.heads.registry import head_kind as head_kind
    from headstart.heads.registry import head_kinds as head_kinds
    from headstart.heads.registry import register_head as register_head
    from headstart.heads.ridge import RIDGE_GRID as RIDGE_GRID
    from headstart.heads.ridge import RidgePath as RidgePath
    from headstart.heads.ridge import fit_ridge as fit_ridge
    from headstart.heads.saved import load_head as load_head
    from headstart.heads.saved import unpack_head as unpack_head
    from headstart.heads.source import StreamedFeatures as StreamedFeatures
    from headstart.heads.sweeps import Candidate as Candidate
    from headstart.heads.sweeps import Sweep as Sweep
    from headstart.heads.sweeps import sweep as sweep
    from headstart.heads.transferability import h_score as h_score
    from headstart.heads.transferability import log_evidence as log_evidence

__getattr__, __dir__, __all__ = contents(
    __name__,
    {
        "base": ("Head",),
        "calibration": ("fit_temperature",),
        "many_classes": ("search_takes_too_long",),
        "penalty": ("choose_linear",),
        "contract": ("HeadKind", "Trained", "TrainingRows"),
        "copies": ("Together", "keep_together"),
        "learning_curves": ("LabelBudget", "learning_curve"),
        "lda": ("fit_lda",),
        "linear": ("LinearHead",),
        "logistic": (
            "DINO_GRID",
            "Convergence",
            "LogisticPath",
            "fit_logistic",
            "fit_logistic_path",
            "fit_logistic_paths",
        ),
        "merges": ("ArrayPart", "RowPart"),
        "mlp": ("fit_mlp",),
        "partitioned": ("lda_over", "ridge_over"),
        "partitioned_logistic": ("logistic_over",),
        "perceptron": ("MLPHead",),
        "neighbours": ("NeighboursHead", "PrototypeHead", "fit_neighbours", "fit_prototype"),
        "nested": ("NestedScore", "nested_cross_validation"),
        "registry": (
            "head_kind",
            "head_kinds",
            "register_head",
        ),
        "ridge": ("RIDGE_GRID", "RidgePath", "fit_ridge"),
        "saved": ("load_head", "unpack_head"),
        "source": ("StreamedFeatures",),
        "data_checks": (
            "DoubtfulLabel",
            "Leak",
            "doubtful_labels",
            "doubtful_labels_of_many_classes",
            "find_leaks",
        ),
        "sweeps": ("Candidate", "Sweep", "sweep"),
        "transferability": ("h_score", "log_evidence"),
    },
)
