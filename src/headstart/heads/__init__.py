"""Heads: what is trained on frozen features.

Pure solvers of arrays first, thin frozen objects second. Every head takes features ``(n, d)``,
predicts, and saves as safetensors and JSON; :func:`load_head` reads any of them back.
"""

from __future__ import annotations

from headstart.heads.base import Head, load_head
from headstart.heads.linear import LinearHead
from headstart.heads.logistic import LogisticPath, fit_logistic, fit_logistic_path

__all__ = [
    "Head",
    "LinearHead",
    "LogisticPath",
    "fit_logistic",
    "fit_logistic_path",
    "load_head",
]
