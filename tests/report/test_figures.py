"""Figures: drawn at every size and over every gap in the data, whatever the user's style."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import matplotlib.style
import matplotlib.text
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from headstart.core.errors import HeadstartError
from headstart.core.records import Curve, Evaluation, Interval
from headstart.report import figures
from headstart.report.figures.scales import (
    Box,
    finite_range,
    log_ticks,
    nice_ticks,
    percent_range,
    place_names,
    spread,
    tick_label,
)
from headstart.report.palette import stylesheet
from tests.report.conftest import HOSTILE, MakeEvaluation


def texts(figure: Figure) -> list[str]:
    svg = ElementTree.fromstring(figures.inline(figure))
    return [element.text or "" for element in svg.iter("text")]


def texts_inside(figure: Figure) -> None:
    """No text may leave the figure: measured by matplotlib with the font of the PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(canvas.get_renderer())
            assert box.x0 > -2, text
            assert box.x1 < width + 2, text
            assert box.y0 > -2, text
            assert box.y1 < height + 2, text


def pixels(figure: Figure) -> np.ndarray:
    with Image.open(io.BytesIO(figures.png(figure))) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("count", [2, 10, 15, 41, 100])
def test_confusion_matrix_fits_its_names(make_evaluation: MakeEvaluation, count: int) -> None:
    names = tuple(f"class {index:03d} with a name" for index in range(count))
    figure = figures.confusion_figure(make_evaluation(names, n=20 * count))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts_inside(figure)
    width, height = (72 * inches for inches in figure.get_size_inches())
    assert width < 800
    assert height < 800
    labels = [text for text in texts(figure) if text.startswith("class ")]
    assert len(labels) == (2 * count if count <= 40 else 2 * math.ceil(count / 2))


def test_confusion_counts_are_written_up_to_fifteen_classes(
    make_evaluation: MakeEvaluation,
) -> None:
    names = tuple("abcdefghijklmno")
    evaluation = make_evaluation(names)
    wanted = sorted(str(cell) for row in evaluation.confusion for cell in row if cell)
    assert sorted(t for t in texts(figures.confusion_figure(evaluation)) if t.isdigit()) == wanted
    larger = make_evaluation((*names, "p"))
    assert not [t for t in texts(figures.confusion_figure(larger)) if t.isdigit()]


def test_confusion_colours_tell_right_from_wrong(make_evaluation: MakeEvaluation) -> None:
    evaluation = make_evaluation(tuple(f"{index:02d}" for index in range(20)))
    figure = figures.confusion_figure(evaluation)
    image = figure.axes[0].images[0].get_array()
    shares = np.array(evaluation.confusion) / np.array(evaluation.confusion).sum(1, keepdims=True)
    np.testing.assert_allclose(image[..., 3], np.sqrt(shares))
    right, wrong = image[3, 3, :3], image[3, 4, :3]
    assert right[2] > right[0]  # blue
    assert wrong[0] > wrong[2]  # vermilion


def test_empty_classes_are_dashes_not_zeros(make_evaluation: MakeEvaluation) -> None:
    evaluation = make_evaluation(("a", "b", "c"), empty=(1,))
    assert texts(figures.confusion_figure(evaluation)).count("–") == 3
    assert "n = 0" in texts(figures.per_class_figure(evaluation))


def test_hostile_names_draw(make_evaluation: MakeEvaluation) -> None:
    evaluation = make_evaluation(HOSTILE, empty=(4,))
    for make in (figures.confusion_figure, figures.per_class_figure, figures.reliability_figure):
        figure = make(evaluation)
        ElementTree.fromstring(figures.inline(figure, alt='<&">'))
        assert figures.png(figure).startswith(b"\x89PNG")
    assert "<script>alert(1)</script>" in texts(figures.per_class_figure(evaluation))


def test_per_class_shows_the_worst_and_says_what_is_left_out(
    make_evaluation: MakeEvaluation,
) -> None:
    evaluation = make_evaluation(tuple(f"c{index:02d}" for index in range(50)), n=2000)
    written = texts(figures.per_class_figure(evaluation, limit=10))
    shown = [text for text in written if re.fullmatch(r"c\d\d", text)]
    ranked = sorted(evaluation.per_class, key=lambda row: (row.f1, row.label))
    assert shown == [row.label for row in ranked[:10]]
    assert any("40 classes" in text for text in written)


def test_per_class_without_any_defined_score(make_evaluation: MakeEvaluation) -> None:
    evaluation = make_evaluation(("a", "b"))
    from dataclasses import replace

    nothing = replace(evaluation.per_class[0], precision=math.nan, recall=math.nan, f1=math.nan)
    written = texts(figures.per_class_figure(replace(evaluation, per_class=(nothing,))))
    assert any("not defined" in text for text in written)


def test_reliability_without_bins(make_evaluation: MakeEvaluation) -> None:
    from dataclasses import replace

    evaluation = replace(make_evaluation(("a", "b")), reliability=(), ece=math.nan)
    written = texts(figures.reliability_figure(evaluation))
    assert "no items to show" in written
    assert not any("ECE" in text for text in written)


def test_curves_name_every_line_and_the_chosen_point(curves: tuple[Curve, ...]) -> None:
    figure = figures.curves_figure(curves)
    assert len(figure.axes) == 2  # one panel for each y axis
    written = texts(figure)
    assert {"training loss", "validation loss", "chosen: 0.1", "epoch", "loss, nats"} <= set(
        written
    )
    texts_inside(figure)


@pytest.mark.parametrize(
    "curve",
    [
        Curve("one point", (1.0,), (0.5,), "x", "y"),
        Curve("nothing finite", (1.0, 2.0), (math.nan, math.inf), "x", "y"),
        Curve("no point", (), (), "x", "y"),
        Curve("constant", (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), "x", "y"),
        Curve("one on a log axis", (0.01,), (0.5,), "x", "y", log_x=True, chosen=0.01),
        Curve("zero on a log axis", (0.0, 1.0, 10.0), (1.0, 2.0, 3.0), "x", "y", log_x=True),
        Curve("chosen outside", (1.0, 2.0), (1.0, 2.0), "x", "y", chosen=99.0),
    ],
    ids=lambda curve: curve.name,
)
def test_odd_curves_draw_without_a_warning(curve: Curve) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figures.curves_figure([curve, curve])
        texts_inside(figure)
        assert "y" in texts(figure)


def test_no_curve_says_so() -> None:
    assert texts(figures.curves_figure([])) == ["no curve to show"]


def test_comparison_shows_each_repetition_mean_and_interval() -> None:
    bands = [Interval(0.90, 0.96, 0.95, "t", 3), None, None]
    figure = figures.comparison_figure(
        ["eval", "train", "failed"], [[0.92, 0.93, 0.94], [0.8], [math.nan]], bands, reference=0
    )
    written = texts(figure)
    assert [t for t in written if t.endswith("%") and t[0].isdigit()] == ["93.0 %", "80.0 %"]
    assert "–" in written
    drawn = [list(line.get_xdata()) for line in figure.axes[0].lines]
    assert pytest.approx([92, 93, 94]) in drawn
    assert pytest.approx([90, 96]) in drawn
    texts_inside(figure)


def test_drift_is_logarithmic_only_where_it_spans_much() -> None:
    layers = [f"blocks.{index}.bn" for index in range(60)]
    wide = {"eval": [0.2] * 60, "unscaled": [41.0] * 59 + [math.nan]}
    figure = figures.drift_figure(layers, wide, limit=3.0)
    assert figure.axes[0].get_xscale() == "log"
    texts_inside(figure)
    near = figures.drift_figure(layers[:3], {"eval": [0.2, 0.3, 0.4]})
    assert near.axes[0].get_xscale() == "linear"
    assert [t for t in texts(near) if t.startswith("blocks")] == layers[:3]


def test_cost_names_every_point_apart_from_the_others() -> None:
    names = [f"configuration {index}" for index in range(8)]
    figure = figures.cost_figure(names, [0.008 + 1e-5 * i for i in range(8)], [0.9] * 8)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [
        text.get_window_extent(canvas.get_renderer())
        for text in figure.axes[0].texts
        if text.get_text() in names
    ]
    assert len(boxes) == 8
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])


@pytest.mark.parametrize(
    "make",
    [
        lambda: figures.comparison_figure([], []),
        lambda: figures.drift_figure([], {}),
        lambda: figures.cost_figure([], [], []),
        lambda: figures.learning_curve_figure([5], [[0.5, 0.6]]),
        lambda: figures.learning_curve_figure([1, 2], [[math.nan], []]),
        lambda: figures.cost_figure(["nan"], [math.nan], [0.5]),
    ],
)
def test_little_or_nothing_to_draw_gives_no_warning(make: Callable[[], Figure]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts_inside(make())


def test_learning_curve_marks_what_was_not_measured() -> None:
    figure = figures.learning_curve_figure(
        [1, 2, 5, 10],
        [[0.5, 0.6], [0.6, 0.7], [0.7, 0.8], [0.8, 0.9]],
        [Interval(0.4, 0.7, 0.95, "t", 2)] * 4,
        extrapolated=(20, 0.88),
        extrapolated_interval=Interval(0.8, 0.95, 0.95, "t", 2),
    )
    assert "expected at 20: 88.0 %" in texts(figure)
    texts_inside(figure)


@pytest.mark.parametrize("end", [0.1, 0.5, 0.6, 0.65, 0.99])
def test_what_is_expected_is_written_where_nothing_is_drawn(end: float) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = figures.learning_curve_figure(
        [5, 10, 21, 42],
        [[0.5], [0.55], [0.58], [0.6]],
        [Interval(0.4, 0.7, 0.95, "t", 2)] * 4,
        extrapolated=(84, end),
        extrapolated_interval=Interval(max(0, end - 0.2), min(1, end + 0.2), 0.95, "t", 2),
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    (expected,) = (text for text in found if text.get_text().startswith("expected at 84"))
    box = expected.get_window_extent(canvas.get_renderer())
    for drawn in figure.axes[0].lines:
        path = drawn.get_path().transformed(drawn.get_transform())
        assert not path.intersects_bbox(box, filled=False)
    others = [t.get_window_extent(canvas.get_renderer()) for t in found if t is not expected]
    assert not any(box.overlaps(other) for other in others)


def test_the_users_style_changes_nothing_and_is_not_changed(
    make_evaluation: MakeEvaluation, curves: tuple[Curve, ...]
) -> None:
    def draw() -> list[str]:
        evaluation = make_evaluation(("ants", "bees", "wasps"))
        made = [
            figures.confusion_figure(evaluation),
            figures.per_class_figure(evaluation),
            figures.reliability_figure(evaluation),
            figures.curves_figure(curves),
            figures.comparison_figure(["a", "b"], [[0.8, 0.9], [0.7]], reference=0),
            figures.drift_figure(["l1", "l2"], {"a": [1.0, 2.0], "b": [50.0, 3.0]}),
            figures.cost_figure(["a", "b"], [0.01, 0.5], [0.8, 0.9]),
            figures.learning_curve_figure([1, 2], [[0.5], [0.6]]),
        ]
        return [figures.inline(figure) for figure in made]

    plain = draw()
    with matplotlib.rc_context():
        matplotlib.style.use(["dark_background", "ggplot"])
        matplotlib.rcParams.update(
            {
                "axes.grid": True,
                "axes.grid.which": "both",
                "xtick.minor.visible": True,
                "xtick.top": True,
                "ytick.right": True,
                "font.size": 30,
                "lines.marker": "x",
                "lines.linewidth": 9,
                "figure.constrained_layout.use": True,
                "figure.dpi": 300,
                "svg.fonttype": "path",
                "svg.hashsalt": "salt",
                "savefig.bbox": "tight",
                "text.usetex": True,
                "xtick.alignment": "right",
                "axes.formatter.use_locale": True,
            }
        )
        before = dict(matplotlib.rcParams)
        styled = draw()
        assert dict(matplotlib.rcParams) == before
    assert styled == plain


def test_pyplot_stays_out() -> None:
    import subprocess
    import sys

    code = "import sys, headstart.report.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_png_is_sharp_dated_by_nothing_and_the_same_each_time(
    make_evaluation: MakeEvaluation, tmp_path: Path
) -> None:
    evaluation: Evaluation = make_evaluation(("ants", "bees"))
    paths = [
        figures.save_png(figures.confusion_figure(evaluation), tmp_path / f"{index}.png")
        for index in range(2)
    ]
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert b"Software" not in first
    figure = figures.confusion_figure(evaluation)
    height, width, _ = pixels(figure).shape
    assert (width, height) == tuple(round(144 * inches) for inches in figure.get_size_inches())
    assert (pixels(figure)[0, 0] == 255).all()  # paper, not transparent


def test_a_figure_can_be_drawn_again_after_it_was_inlined(curves: tuple[Curve, ...]) -> None:
    figure = figures.curves_figure(curves)
    first = figures.inline(figure)
    figures.png(figure)
    assert figures.inline(figure) == first


def test_saving_where_nothing_can_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="cannot write"):
        figures.save_png(figures.curves_figure([]), tmp_path / "missing" / "a.png")


def test_every_colour_of_a_drawing_follows_the_page(
    make_evaluation: MakeEvaluation, curves: tuple[Curve, ...]
) -> None:
    style = stylesheet()
    dark = style[style.index("dark") : style.index("main {")]
    evaluation = make_evaluation(("ants", "bees", "wasps"))
    for figure in (figures.curves_figure(curves), figures.per_class_figure(evaluation)):
        drawn = re.findall(r"(fill|stroke): (#[0-9a-f]{6})\b", figures.inline(figure))
        assert drawn
        for part, colour in drawn:
            selector = re.escape(f'[style*="{part}: {colour}"]')
            rule = rf"{selector} {{ {part}: var\((--\w+)\) !important; }}"
            (variable,) = re.findall(rule, style)
            assert style.count(f"{variable}: {colour};") == 1
            assert f"{variable}: #" in dark


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=12),
    st.floats(1, 15),
)
def test_spread_keeps_order_and_distance(positions: list[float], gap: float) -> None:
    moved = spread(positions, gap, 0, 300)
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    ranked = [moved[index] for index in order]
    assert all(b - a > gap - 1e-6 for a, b in pairwise(ranked))
    assert min(ranked) > -1e-6
    assert max(ranked) < 300 + 1e-6
    if all(b - a >= gap for a, b in pairwise(sorted(positions))):
        assert moved == pytest.approx(positions)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_within_the_axis(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert 1 <= len(ticks) <= 7
    assert all(low - 1e-6 * span <= tick <= low + 1.000001 * span + 1e-9 for tick in ticks)


@given(st.floats(1e-8, 1e3), st.floats(1.5, 1e12))
def test_log_ticks_are_few_and_within(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert 1 <= len(ticks) <= 8
    assert all(low * 0.99 <= tick <= low * factor * 1.01 for tick in ticks)


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=8))
def test_percent_range_holds_the_values(values: list[float]) -> None:
    low, high = percent_range(values)
    assert 0 <= low < high <= 100
    assert all(low <= 100 * value <= high for value in values if not math.isnan(value))


def test_finite_range_of_nothing() -> None:
    assert finite_range([math.nan, math.inf]) == (0.0, 1.0)
    assert finite_range([2.0]) == (1.8, 2.2)


def test_tick_labels() -> None:
    assert [tick_label(v) for v in (0, 0.001, 2.5, 1000, 1e-5, -3, 2e7)] == [
        "0", "0.001", "2.5", "1,000", "1e−5", "−3", "2e7",
    ]  # fmt: skip


def test_names_of_distant_points_stand_beside_them() -> None:
    room = Box(0, 0, 500, 500)
    assert place_names([(50, 50), (50, 300)], [80, 80], 14, room) == [(10, 0), (10, 0)]
    assert place_names([(480, 50)], [80], 14, room) == [(-10, 0)]  # no room on the right
