"""Every kind of report in a real browser, on a desk and on a phone, in light and in dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import headstart
from headstart.core.progress import SilentReporter
from headstart.core.records import Curve, Interval
from headstart.report import Headline, Page, Picture, Section, Table, render_page
from headstart.report.figures import comparison_figure, cost_figure, curves_figure
from headstart.report.figures.scales import off_scale

from .browser import browser, measure

pytestmark = pytest.mark.skipif(
    browser() is None, reason="needs Chromium, which is not installed here"
)
VIEWS = {
    "desk": {"width": 1280, "whole": True},
    "desk, opened, dark": {"width": 1280, "opened": True, "dark": True},
    "phone": {"width": 390},
    "phone, opened, dark": {"width": 390, "opened": True, "dark": True},
}
QUIET = SilentReporter()


def write(page: Page, folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(render_page(page), encoding="utf-8")
    return path


def check(page: Path, folder: Path, view: str) -> None:
    seen = measure(page, folder, **VIEWS[view])  # type: ignore[arg-type]
    assert seen["width"] == VIEWS[view]["width"]
    assert not seen["found"], "\n".join(seen["found"])  # type: ignore[arg-type]
    if VIEWS[view]["width"] == 390:
        assert seen["unsaid"] == []  # what is hidden to the side says so


def test_the_measurement_finds_faults(tmp_path: Path) -> None:
    wide = Table(tuple("abcdefghijkl"), (("a long cell without end " * 3,) * 12,))
    curves = [
        Curve(f"line {i}", (1.0, 10.0), (0.5, 0.6), "C", "accuracy", log_x=True) for i in range(3)
    ]
    figure = curves_figure(curves)
    figure.axes[0].text(1, 0.55, "one text on another")
    figure.axes[0].text(1.1, 0.55, "a text below it")
    page = Page("W" * 10, sections=(Section("One", (wide, Picture(figure, "a"))),))
    found = measure(write(page, tmp_path), tmp_path, 390)
    assert any("overprinted: one text on another" in fault for fault in found["found"])
    assert found["hidden"]
    cut = measure(write(page, tmp_path), tmp_path, 390, whole=True)
    assert any("cut at this width" in fault for fault in cut["found"])
    text = render_page(page).replace("<h1>", '<h1 style="width:500px;white-space:nowrap">')
    (tmp_path / "broken.html").write_text(text, encoding="utf-8")
    broken = measure(tmp_path / "broken.html", tmp_path, 390)
    assert any("beyond the edge: h1" in fault for fault in broken["found"])


@pytest.mark.parametrize("view", VIEWS)
def test_names_of_any_length_fit(
    make_page: Callable[[tuple[str, ...]], Page], tmp_path: Path, view: str
) -> None:
    names = ("Pneumonoultramicroscopicsilicovolcanoconiosis" * 3, "二" * 60, "a b " * 40)
    if view == "desk":
        view = "desk, opened, dark"  # a cell of 135 letters may be scrolled
    check(write(make_page(names), tmp_path), tmp_path, view)


@pytest.mark.parametrize("lines", [1, 2, 4, 7, 14, 30])
def test_any_number_of_curves_with_chosen_values(tmp_path: Path, lines: int) -> None:
    grid = tuple(np.logspace(-6, 5, 45).tolist())
    curves = [
        Curve(
            f"stage{i}.0 gem, not standardised",
            grid,
            tuple((0.5 + 0.2 / (1 + np.exp(-np.log10(grid) - i / 20))).tolist()),
            "C (inverse penalty)",
            "held-out accuracy",
            log_x=True,
            chosen=grid[15 + i % 8],
        )
        for i in range(lines)
    ]
    picture = Picture(curves_figure(curves), "curves")
    page = Page("curves", headlines=(Headline("a", "b"),), sections=(Section("s", (picture,)),))
    check(write(page, tmp_path), tmp_path, "desk")


@pytest.mark.parametrize("failed", [None, 0.5, 0.12, 0.0])
def test_a_failed_configuration_leaves_the_others_their_scale(
    tmp_path: Path, failed: float | None
) -> None:
    means = [0.94, 0.935, 0.93, 0.941] + ([] if failed is None else [failed])
    names = ["eval", "reestimated", "batch", "blend(0.5)", "unscaled"][: len(means)]
    bands = [Interval(m - 0.02, min(1, m + 0.02), 0.95, "t", 5) if m else None for m in means]
    assert off_scale(means, bands) == (frozenset() if failed is None else {4})
    accuracy = comparison_figure(names, [[m, m] for m in means], bands, reference=0)
    low, high = accuracy.axes[0].get_xlim()
    assert high - low < 10
    texts = " ".join(text.get_text() for text in accuracy.axes[0].texts)
    assert all(f"{100 * mean:.1f} %" in texts for mean in means)
    assert ("below this scale" in texts) == (failed is not None)
    times = [(0.0018, 0.0025)] * len(means)
    cost = cost_figure(
        names, [0.002, 0.0021, 0.0022, 0.004, 0.002][: len(means)], means, bands, times
    )
    low, high = cost.axes[0].get_ylim()
    assert high - low < 10
    pictures = (Picture(accuracy, "accuracy"), Picture(cost, "cost"))
    check(write(Page("t", sections=(Section("s", pictures),)), tmp_path), tmp_path, "desk")


def test_what_is_off_the_scale() -> None:
    assert off_scale([0.9, 0.1]) == frozenset()  # of two, none is the rule
    assert off_scale([0.9, 0.91, 0.1, 0.12]) == frozenset()  # nor of two halves
    assert off_scale([0.9, 0.5, 0.1]) == frozenset()
    assert off_scale([0.9, 0.91, float("nan"), 0.1, 0.92]) == {3}
    assert off_scale([0.98, 0.97, 0.96, 0.9]) == frozenset()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One report of every kind, on 200 digits as images, one configuration of them failing."""
    root = tmp_path_factory.mktemp("reports")
    images, labels = load_digits(return_X_y=True)
    for i in range(200):
        folder = root / "digits of a data set with a long name" / f"digit {labels[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((images[i].reshape(8, 8) * 15).astype(np.uint8))
        picture.save(folder / f"scan of {i:04d} in the archive.png")
    data = root / "digits of a data set with a long name"
    common = {"cache": root / "cache", "reporter": QUIET}
    fitted = headstart.fit(data, out=root / "fit", **common)
    headstart.evaluate(data, fitted, out=root / "evaluate", **common)
    headstart.sweep(
        data, out=root / "sweep", layers=("stage1.0", "stage2.0", "stage3.0", None),
        poolings=("avg", "gem"), standardise=(True, False), heads=("linear", "lda", "ridge", "knn"),
        grid=tuple(np.logspace(-4, 3, 8).tolist()), **common,
    )  # fmt: skip
    headstart.examine(data, out=root / "examine", repetitions=2, **common)
    headstart.finetune(data, recipe="gradual", epochs=1, out=root / "finetune", **common)
    headstart.compare(
        data, configs="no_grad,train,unscaled,reestimated,layer=stage2.0,class-ordered,dropout,"
        "finetune:last-block", epochs=1, repeats=2, out=root / "compare", **common,
    )  # fmt: skip
    return root


@pytest.mark.slow  # six jobs, and two dozen starts of a browser
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", ["fit", "evaluate", "sweep", "examine", "finetune", "compare"])
def test_every_kind_of_report_fits(reports: Path, tmp_path: Path, kind: str, view: str) -> None:
    page = reports / kind / "report.html"
    check(page, tmp_path, view)
    text = page.read_text(encoding="utf-8")
    assert text.index('class="verdict"') < text.index("<section")
