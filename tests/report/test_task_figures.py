"""Figures of regressions and of parts of the items."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.records import Interval, Score
from headstart.report import figures
from headstart.report.figures.style import VERMILION
from headstart.report.figures.tasks import running_median
from tests.report.conftest import HOSTILE
from tests.report.test_figures import texts, texts_inside

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [1, 2, 39, 40, 5_000])
def test_residuals_of_any_number_of_items(n: int) -> None:
    truth = RNG.normal(size=n) * 1e4
    figure = figures.residuals_figure(truth, truth * 0.5, "age, in days")
    texts_inside(figure)
    said = " ".join(texts(figure))
    assert "predicted − true age, in days" in said
    assert ("2,000 of 5,000" in said) == (n == 5_000)
    medians = [line for line in figure.axes[0].lines if line.get_color() == VERMILION]
    assert len(medians) == (n >= 40)


def test_the_running_median_shows_errors_in_one_direction() -> None:
    truth = np.linspace(-1, 1, 400)
    shrunk = 0.5 * truth  # what a regression towards the mean does
    x, y = running_median(shrunk, shrunk - truth) or (None, None)
    np.testing.assert_allclose(y, -x, atol=1e-12)
    assert running_median(truth[:39], truth[:39]) is None


def test_constant_predictions_are_drawn() -> None:
    texts_inside(figures.residuals_figure(np.ones(50), np.ones(50), "y"))


@pytest.mark.parametrize("name", HOSTILE)
def test_parts_with_any_names(name: str) -> None:
    scores = [Score(0.5, Interval(0.2, 0.8, 0.95, "t", 4)), Score(1.0, None)]
    for percent in (True, False):
        figure = figures.parts_figure([name, "b"], scores, [4, 1], "right", percent=percent)
        assert "<script" not in figures.inline(figure)


def test_many_parts_are_cut_and_counted() -> None:
    names = [f"patient {i}" for i in range(45)]
    scores = [Score(float(i), None) for i in range(45)]
    figure = figures.parts_figure(names, scores, [3] * 45, "mean absolute error")
    texts_inside(figure)
    assert "15 better ones are not shown" in " ".join(texts(figure))
