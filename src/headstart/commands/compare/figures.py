"""The figures of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.core.records import Curve
from headstart.study.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DRIFT = "drift from the running statistics, nats"


def mean_curves(runs: Sequence[Sequence[Curve]]) -> tuple[Curve, ...]:
    """Return the mean of the curves of several runs, with a band from the lowest to the highest.

    Args:
        runs: the same curves by name in each; a run may have ended earlier than another, and a
            point is the mean over those that came so far.
    """
    named: dict[str, list[Curve]] = {}
    for curve in (curve for run in runs for curve in run):
        named.setdefault(curve.name, []).append(curve)
    found = []
    for name, same in named.items():
        points: dict[float, list[float]] = {}
        for x, y in (pair for curve in same for pair in zip(curve.x, curve.y, strict=True)):
            if math.isfinite(y):
                points.setdefault(x, []).append(y)
        if not points:
            continue
        ys = [points[x] for x in sorted(points)]
        several = len(same) > 1
        found.append(
            Curve(
                name=name,
                x=tuple(sorted(points)),
                y=tuple(sum(values) / len(values) for values in ys),
                x_label=same[0].x_label,
                y_label=same[0].y_label,
                low=tuple(map(min, ys)) if several else (),
                high=tuple(map(max, ys)) if several else (),
                chosen=None if several else same[0].chosen,
            )
        )
    return tuple(found)


def accuracy_figure(comparison: Comparison) -> Figure:
    """Draw the figure of every configuration: its repetitions, their mean, its interval."""
    from headstart.report.figures import comparison_figure

    outcomes = comparison.outcomes
    names = [outcome.name for outcome in outcomes]
    return comparison_figure(
        names,
        [[run.accuracy for run in outcome.runs] for outcome in outcomes],
        [outcome.accuracy.interval for outcome in outcomes],
        reference=names.index(comparison.evidence.reference),
        x_label=f"{comparison.evidence.figure} on the test items, %",
    )


def drift_by_layer_figure(comparison: Comparison) -> Figure:
    """Draw how far each layer is from its running statistics."""
    from headstart.report.figures import drift_figure

    drift = comparison.evidence.drift
    layers = [layer.name for layer in next(iter(drift.values()))]
    values = {name: [layer.symmetric_kl for layer in found] for name, found in drift.items()}
    return drift_figure(layers, values, x_label=DRIFT)


def time_figure(comparison: Comparison) -> Figure:
    """Draw what a configuration gives against the time of its forward pass."""
    from headstart.report.figures import cost_figure

    frozen = comparison.evidence.frozen
    return cost_figure(
        [outcome.name for outcome in frozen],
        [comparison.seconds_per_item.get(outcome.name, math.nan) for outcome in frozen],
        [outcome.accuracy.value for outcome in frozen],
        [outcome.accuracy.interval for outcome in frozen],
        [comparison.seconds_range.get(outcome.name) for outcome in frozen],
        y_label=comparison.evidence.figure,
    )


__all__ = [
    "DRIFT",
    "accuracy_figure",
    "drift_by_layer_figure",
    "mean_curves",
    "time_figure",
]
