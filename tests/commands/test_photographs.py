"""The sample photographs: what ``make demo`` shows first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstart import fit, load_data
from headstart.core.progress import SilentReporter


def test_pieces_do_not_overlap_and_neighbours_stay_on_one_side() -> None:
    data = load_data("photographs")
    assert data.classes == ("flower", "temple")
    assert len(data.train) == len(data.test) == 24
    assert not data.leaks()
    assert data.train.content(0).shape == (106, 106, 3)  # type: ignore[union-attr]
    assert np.bincount(data.test.labels).tolist() == [12, 12]


def test_the_report_shows_test_items(tmp_path: Path) -> None:
    fit(
        "photographs", "headstart/glyphs", head="prototype", out=tmp_path / "run",
        cache=tmp_path / "cache", reporter=SilentReporter(), baselines=False,
    )  # fmt: skip
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Some test items" in page
    assert page.count("data:image/") >= 12


def test_the_report_names_the_head_that_chose_itself(tmp_path: Path) -> None:
    run = fit(
        "photographs", "headstart/glyphs", out=tmp_path / "run", cache=tmp_path / "cache",
        reporter=SilentReporter(), baselines=False,
    )  # fmt: skip
    page = (tmp_path / "run" / "report.html").read_text()
    chosen = run.configuration["chosen"]["head"]
    assert chosen != "auto"
    assert f"photographs: {chosen} head on headstart/glyphs" in page
    assert "auto head" not in page
