"""Honest choice: every hyper-parameter is chosen inside the training rows."""

from __future__ import annotations

from headstart.selection.folds import Folds, make_folds
from headstart.selection.linear import Selection, choose_linear

__all__ = ["Folds", "Selection", "choose_linear", "make_folds"]
