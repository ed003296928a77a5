"""Real photographs, each cropped five times: the leak is told, and new photographs decide."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.commands.fit.job import fit
from headstart.commands.predict.job import evaluate
from headstart.core.progress import SilentReporter

pytestmark = [pytest.mark.real, pytest.mark.slow]


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def cropped(photos: Path, folder: Path, most: int) -> Path:
    """Crop every photograph five times at random; return the table of the crops."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir()
    for label in ("ants", "bees"):
        for file in sorted((photos / label).iterdir())[:most]:
            photo = Image.open(file).convert("RGB")
            side = int(0.9 * min(photo.size))
            for crop in range(5):
                x, y = (int(rng.integers(0, each - side + 1)) for each in photo.size)
                name = f"{label}-{file.stem}-{crop}.png"
                photo.crop((x, y, x + side, y + side)).resize((48, 48)).save(folder / name)
                rows.append((name, label, f"{label} {file.stem}"))
    table = folder / "crops.csv"
    with table.open("w", newline="") as out:
        csv.writer(out).writerows([("file", "label", "photo"), *rows])
    return table


def test_the_figure_with_groups_is_that_of_new_photographs(
    shared_data: Path, tmp_path: Path
) -> None:
    photos, cache = shared_data / "hymenoptera", tmp_path / "cache"
    table = cropped(photos / "train", tmp_path / "crops", 94)
    new = cropped(photos / "val", tmp_path / "new", 200)
    notes = Notes()
    shared = {"head": "linear", "cache": cache, "baselines": False}
    torn = fit(table, "headstart/glyphs", out=tmp_path / "torn", reporter=notes, **shared)
    told = " ".join(notes.said)
    assert "groups of items that belong together" in told
    assert "188 of 188 test items have others of their group in the training split" in told
    whole = fit(
        table, "headstart/glyphs", out=tmp_path / "whole", group_column="photo",
        reporter=SilentReporter(), **shared,
    )  # fmt: skip
    truth = evaluate(
        new, tmp_path / "torn", group_column="photo", cache=cache, reporter=SilentReporter()
    )
    torn_said, whole_said = (run.evaluation.accuracy for run in (torn, whole))
    found = truth.accuracy
    assert torn_said.interval is not None
    assert whole_said.interval is not None
    assert torn_said.value > found.value + 0.05  # without the column it flatters
    assert not torn_said.interval.low < found.value < torn_said.interval.high
    assert whole_said.interval.low < found.value < whole_said.interval.high
    assert whole_said.interval.method == "groups"
