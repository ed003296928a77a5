"""How good predictions are: figures from labels and outputs, and intervals around them.

Nothing here knows features or heads; heads and everything above them use it.
"""

from __future__ import annotations

from headstart.evaluation.classification import (
    ProbabilityBlocks,
    accuracy_score,
    evaluate,
    most_likely,
    probability_blocks,
    reliability,
)
from headstart.evaluation.intervals import (
    paired_accuracy_difference,
    proportion_interval,
    wilson_interval,
)
from headstart.evaluation.repetitions import (
    Difference,
    holm,
    repeated_accuracy,
    repeated_difference,
    repeated_mean,
    t_interval,
)

__all__ = [
    "Difference",
    "ProbabilityBlocks",
    "accuracy_score",
    "evaluate",
    "holm",
    "most_likely",
    "paired_accuracy_difference",
    "probability_blocks",
    "proportion_interval",
    "reliability",
    "repeated_accuracy",
    "repeated_difference",
    "repeated_mean",
    "t_interval",
    "wilson_interval",
]
