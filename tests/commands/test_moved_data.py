"""Where the data of a run have moved, what is said of its items stays what it was."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.core.progress import SilentReporter

QUIET = SilentReporter()
LABELS = {"classification": "digit", "multi-label": "tags", "regression": "ink,age"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawings with a class, labels, two numbers, and a site and a weight beside them."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("moved")
    digits, rng = load_digits(), np.random.default_rng(0)
    (folder / "data").mkdir()
    with (folder / "data" / "data.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "digit", "tags", "ink", "age", "site", "weight"])
        for i in np.flatnonzero(digits.target < 3)[:90].tolist():
            tile = np.rint(digits.images[i] * rng.uniform(6, 15.9)).astype(np.uint8)
            Image.fromarray(tile).save(folder / "data" / f"{i}.png")
            tags = f"d{digits.target[i]}" + ("|dark" if tile.mean() > 50 else "")
            row = [f"{i}.png", f"d{digits.target[i]}", tags, tile.mean() + 0.003, 20.5 + i % 40]
            rows.writerow([*row, "ABC"[i % 3], "" if i % 9 == 0 else i % 7])
    return folder


@pytest.mark.parametrize("task", LABELS)
def test_a_run_says_the_same_of_its_items(task: str, place: Path) -> None:
    out, how = place / task, {"cache": place / "cache", "reporter": QUIET}
    headstart.fit(
        place / "data" / "data.csv", "headstart/glyphs", layer="stem", columns="site,weight",
        label_column=LABELS[task], task=task, baselines=False, out=out, **how,
    )  # fmt: skip

    def told() -> tuple[Any, ...]:
        with headstart.view(out, **how) as page:
            scene = page.scene
            fields = {
                field.name: (field.kind, field.values, np.nan_to_num(field.data).tolist())
                for field in scene.fields
                if not field.name.startswith(("ink (", "age", "digit", "tags", "path"))
                and field.name not in ("ink", "site", "weight")
            }
            items = [scene.item(i) for i in range(0, len(scene.among), 7)]
            near = [scene.near(i) for i in (0, len(scene.among) - 1)]
        for item in items:
            item.pop("columns")
        name = items[0]["item"]
        found = headstart.similar(out, name, k=3, **how).answers[0].matches
        mistakes = headstart.open_run(out).show_mistakes(cache=place / "cache")
        return fields, items, near, found, [case.example.facts for case in mistakes]

    before = told()
    (place / "data").rename(place / "elsewhere")
    try:
        after = told()
    finally:
        (place / "elsewhere").rename(place / "data")
    assert before[0].keys() == after[0].keys()
    for was, now in zip(before, after, strict=True):
        assert was == now


def test_labels_and_groups_are_those_of_the_run_where_the_data_have_them(place: Path) -> None:
    """Else a table of many columns is asked about again, and intervals would count items."""
    how = {"cache": place / "cache", "reporter": QUIET}
    table, out = place / "data" / "data.csv", place / "grouped"
    rows = table.read_text().splitlines()
    grouped = place / "data" / "grouped.csv"
    grouped.write_text(
        "\n".join([rows[0] + ",film", *(f"{r},f{i % 30}" for i, r in enumerate(rows[1:]))])
    )
    headstart.fit(
        grouped, "headstart/glyphs", layer="stem", label_column="digit", group_column="film",
        baselines=False, out=out, **how,
    )  # fmt: skip
    found = headstart.evaluate(grouped, out, include_training=True, **how)
    assert found.accuracy.interval.method == "groups"
    assert found.accuracy.interval.n == 30
    plain = headstart.evaluate(table, out, include_training=True, label_column="digit", **how)
    assert (plain.n, plain.accuracy.interval.method) == (90, "exact")
    folder = place / "folders"
    for i, row in enumerate(rows[1:31]):
        target = folder / row.split(",")[1] / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((place / "data" / row.split(",")[0]).read_bytes())
    assert headstart.evaluate(folder, out, include_training=True, **how).n == 30
