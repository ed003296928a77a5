"""Honest choice: every hyper-parameter is chosen inside the training rows."""

from __future__ import annotations

from headstart.selection.budget import LabelBudget, learning_curve
from headstart.selection.checks import DoubtfulLabel, Leak, doubtful_labels, find_leaks
from headstart.selection.folds import Folds, make_folds
from headstart.selection.linear import Selection, choose_linear
from headstart.selection.nested import NestedScore, nested_cross_validation
from headstart.selection.sweep import Candidate, Sweep, sweep

__all__ = [
    "Candidate",
    "DoubtfulLabel",
    "Folds",
    "LabelBudget",
    "Leak",
    "NestedScore",
    "Selection",
    "Sweep",
    "choose_linear",
    "doubtful_labels",
    "find_leaks",
    "learning_curve",
    "make_folds",
    "nested_cross_validation",
    "sweep",
]
