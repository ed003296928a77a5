"""Groups through the commands: kept whole where they are named, warned of where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import SilentReporter


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of each of fifty films of two classes that hardly differ: ``odd/f07_3.png``."""
    root = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    for film in range(50):
        kind = root / ("odd" if film % 2 else "even")
        kind.mkdir(exist_ok=True)
        scene = rng.integers(0, 2, (4, 4)).repeat(2, 0).repeat(2, 1) * 200.0
        for frame in range(6):
            pixels = np.clip(scene + rng.normal(0, 40, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(kind / f"f{film:02}_{frame}.png")
    return root


def fit(films: Path, cache: Path, **options: Any) -> tuple[headstart.Run, str]:
    notes = Notes()
    run = headstart.fit(
        films, "headstart/glyphs", cache=cache, write=False, reporter=notes, head="ridge", **options
    )
    return run, "\n".join(notes.said)


def test_a_torn_group_is_told_and_the_figure_with_groups_is_the_honest_one(
    films: Path, tmp_path: Path
) -> None:
    torn, told = fit(films, tmp_path)
    assert "file names show groups of items that belong together" in told
    assert "others of their group in the training split" in told
    pattern = told.partition("group_pattern='")[2].partition("'")[0]
    whole, said = fit(films, tmp_path, group_pattern=pattern)
    assert "belong together" not in said
    assert torn.evaluation.accuracy.value > whole.evaluation.accuracy.value + 0.1
    interval = whole.evaluation.accuracy.interval
    assert interval is not None
    assert (interval.method, interval.n) == ("groups", 10)
    assert torn.fingerprints["train"] != whole.fingerprints["train"]


def test_heads_of_other_groups_are_trained_anew(films: Path, tmp_path: Path) -> None:
    fit(films, tmp_path, group_pattern=r"(f\d+)_")
    again, said = fit(films, tmp_path, group_pattern=r"(f\d+)_")
    assert "trained before" in said
    _, other = fit(films, tmp_path, group_pattern=r"(f\d)\d_")
    assert "trained before" not in other
    assert "(f" not in str(again.commands.later)


def test_what_groups_have_no_meaning_for_says_so(films: Path, tmp_path: Path) -> None:
    out, quiet = tmp_path / "run", SilentReporter()
    shared: dict[str, Any] = {"cache": tmp_path / "cache", "reporter": quiet}
    headstart.fit(films, "headstart/glyphs", out=out, group_pattern=r"(f\d+)_", **shared)
    # An update keeps the groups of the run, which it could not when its rows did not know them.
    with pytest.raises(DataError, match=r"none of .* is new to the run"):
        headstart.update(films, out, **shared)
    with pytest.raises(ConfigError, match="predict does not take group_pattern"):
        headstart.predict(films, out, group_pattern="f", **shared)
    found = headstart.evaluate(films, out, group_pattern=r"(f\d+)_", **shared)
    interval = found.accuracy.interval
    assert interval is not None
    assert interval.method == "groups"
