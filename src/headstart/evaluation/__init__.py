"""Scores with intervals, and honest choice: choosing inside the training rows."""

from __future__ import annotations

from headstart.evaluation.budget import LabelBudget, learning_curve
from headstart.evaluation.checks import DoubtfulLabel, Leak, doubtful_labels, find_leaks
from headstart.evaluation.classification import accuracy_score, evaluate, reliability
from headstart.evaluation.folds import Folds, make_folds
from headstart.evaluation.intervals import (
    Difference,
    holm,
    paired_accuracy_difference,
    paired_difference,
    repeated_accuracy,
    repeated_difference,
    repeated_mean,
    t_interval,
    wilson_interval,
)
from headstart.evaluation.linear import Selection, choose_linear
from headstart.evaluation.nested import NestedScore, nested_cross_validation
from headstart.evaluation.sweep import Candidate, Sweep, sweep

__all__ = [
    "Candidate",
    "Difference",
    "DoubtfulLabel",
    "Folds",
    "LabelBudget",
    "Leak",
    "NestedScore",
    "Selection",
    "Sweep",
    "accuracy_score",
    "choose_linear",
    "doubtful_labels",
    "evaluate",
    "find_leaks",
    "holm",
    "learning_curve",
    "make_folds",
    "nested_cross_validation",
    "paired_accuracy_difference",
    "paired_difference",
    "reliability",
    "repeated_accuracy",
    "repeated_difference",
    "repeated_mean",
    "sweep",
    "t_interval",
    "wilson_interval",
]
