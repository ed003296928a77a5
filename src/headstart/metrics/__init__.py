"""Arrays to scores, each with the interval that it deserves and the number it rests on."""

from __future__ import annotations

from headstart.metrics.classification import accuracy_score, evaluate, reliability
from headstart.metrics.intervals import (
    paired_accuracy_difference,
    paired_difference,
    repeated_accuracy,
    t_interval,
    wilson_interval,
)

__all__ = [
    "accuracy_score",
    "evaluate",
    "paired_accuracy_difference",
    "paired_difference",
    "reliability",
    "repeated_accuracy",
    "t_interval",
    "wilson_interval",
]
