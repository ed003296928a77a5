"""Records to figures: plain functions, each from values to a :class:`matplotlib.figure.Figure`.

The figures are drawn by matplotlib's object interface. ``pyplot`` and the global settings are not
touched, so a notebook that imports this keeps its own style and backend.
"""

from headstart.report.figures.comparison import comparison_figure, cost_figure, drift_figure
from headstart.report.figures.curves import curves_figure, learning_curve_figure
from headstart.report.figures.evaluation import (
    confusion_figure,
    per_class_figure,
    reliability_figure,
)
from headstart.report.figures.maps import map_figure, value_map_figure
from headstart.report.figures.output import inline, png, save_png
from headstart.report.figures.tasks import (
    labels_figure,
    parts_figure,
    residuals_figure,
    values_figure,
)

__all__ = [
    "comparison_figure",
    "confusion_figure",
    "cost_figure",
    "curves_figure",
    "drift_figure",
    "inline",
    "labels_figure",
    "learning_curve_figure",
    "map_figure",
    "parts_figure",
    "per_class_figure",
    "png",
    "reliability_figure",
    "residuals_figure",
    "save_png",
    "value_map_figure",
    "values_figure",
]
