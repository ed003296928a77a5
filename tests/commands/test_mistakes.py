"""What a report shows of the items: map, reasons, slices; and the same in Python."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import headstart
from headstart.commands.collection import glimpse
from headstart.core.errors import DataError
from headstart.core.progress import SilentReporter

QUIET = SilentReporter()
NAMES = ("zero", "one & <b>uno</b>", "two")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of drawings with a pen, a year and a weight, of which some labels are swapped."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("mistakes")
    digits, generator, rows = load_digits(), np.random.default_rng(0), []
    for i in range(600):
        if digits.target[i] > 2:
            continue
        Image.fromarray((255 - digits.images[i] * 15).astype(np.uint8)).save(folder / f"{i}.png")
        pen = ["blue", "red", None][i % 3]
        swapped = pen == "red" and generator.random() < 0.5
        label = int(digits.target[i] + swapped) % 3
        rows.append({
            "image": f"{i}.png", "label": NAMES[label], "pen": pen, "weight": float(i) / 7,
            "split": "test" if i % 2 else "train",
        })  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "data.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> headstart.Run:
    return headstart.fit(
        place / "data.csv", "headstart/glyphs", cache=place / "cache", out=place / "run",
        baselines=False, reporter=QUIET,
    )  # fmt: skip


def test_the_report_has_a_map_reasons_and_slices_and_stays_small(
    run: headstart.Run, place: Path
) -> None:
    page = (place / "run" / "report.html").read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles[titles.index("Mistakes") : titles.index("Mistakes") + 3] == [
        "Mistakes", "Map", "Slices",
    ]  # fmt: skip
    assert "Rings mark mistakes." in page
    assert "nearest of one &amp; &lt;b&gt;uno&lt;/b&gt; (true)" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert len(page) < 1_500_000
    tables = re.findall(r"<th[^>]*>(pen|weight)</th>", page)
    assert tables == ["pen", "weight"]
    for value in ("blue", "red", "(none)", "up to "):
        assert value in page


def test_slices_are_those_of_the_predictions(run: headstart.Run, place: Path) -> None:
    said = pd.read_parquet(place / "run" / "predictions.parquet")
    page = (place / "run" / "report.html").read_text()
    table = pd.read_csv(place / "data.csv")
    tested = table[table.split == "test"].reset_index(drop=True)
    for pen, items in said.groupby(tested.pen):
        share = f"{100 * items.right.mean():.1f} %"
        assert re.search(
            rf"<bdi>{pen}</bdi></td><td[^>]*><bdi>{len(items)}</bdi></td>.*?{share}", page
        )


def test_mistakes_are_the_most_confident_first_with_their_neighbours(
    run: headstart.Run, place: Path
) -> None:
    said = pd.read_parquet(place / "run" / "predictions.parquet")
    wrong = said[~said.right].sort_values("probability", ascending=False, kind="stable")
    mistakes = run.show_mistakes()
    assert len(mistakes) == min(24, len(wrong))
    assert [case.example.name for case in mistakes] == wrong.item[:24].tolist()
    first = mistakes[0]
    truth, guess = wrong.truth.iloc[0], wrong.prediction.iloc[0]
    assert [title for title, _ in first.groups] == [
        f"nearest of {truth} (true)", f"nearest of {guess} (predicted)",
    ]  # fmt: skip
    assert all(len(near) == 3 for _, near in first.groups)
    assert first.example.excerpt is not None
    assert not mistakes[12].groups
    assert f"{len(wrong):,} mistakes of {len(said):,} test items" in repr(mistakes)
    page = mistakes._repr_html_()
    assert page.startswith('<iframe sandbox="" srcdoc="')
    assert "<b>" not in page


def test_a_saved_run_shows_the_same(run: headstart.Run, place: Path) -> None:
    opened = headstart.open_run(place / "run").show_mistakes(5, cache=place / "cache")
    assert repr(opened) == repr(run.show_mistakes(5))
    assert opened[0].example.excerpt == run.show_mistakes(5)[0].example.excerpt


def test_a_run_that_knows_no_items_says_so(run: headstart.Run) -> None:
    import dataclasses

    bare = dataclasses.replace(
        run, around=None, rows=None, configuration={**run.configuration, "source": None}
    )
    with pytest.raises(DataError, match="does not record where its data are"):
        bare.show_mistakes()


def test_an_evaluation_shows_them_too(run: headstart.Run, place: Path, tmp_path: Path) -> None:
    headstart.evaluate(
        place / "data.csv", place / "run", cache=place / "cache", out=tmp_path / "e", reporter=QUIET
    )
    page = (tmp_path / "e" / "report.html").read_text()
    assert "<h2>Map</h2>" in page
    assert "<h2>Slices</h2>" in page
    assert "(predicted)" in page


def test_what_examine_has_found_is_in_the_next_report(place: Path, tmp_path: Path) -> None:
    settings = {"cache": place / "cache", "reporter": QUIET}
    headstart.examine(
        place / "data.csv",
        "headstart/glyphs",
        repetitions=1,
        write=False,
        threshold=0.95,
        **settings,
    )
    run = headstart.fit(
        place / "data.csv", "headstart/glyphs", out=tmp_path / "r", baselines=False, **settings
    )
    page = (tmp_path / "r" / "report.html").read_text()
    assert "<h2>What examine found</h2>" in page
    assert "doubtful.</p>" in page
    with headstart.view(run, **settings) as viewer:
        field = next(f for f in viewer.scene.fields if f.name == "found by examine")
        assert (field.data == 1).sum() > 0


@pytest.mark.parametrize("task", ["regression", "multi-label"])
def test_other_tasks(place: Path, tmp_path: Path, task: str) -> None:
    table = pd.read_csv(place / "data.csv")
    table["image"] = [str(place / name) for name in table.image]
    if task == "multi-label":
        table["label"] = [
            f"{name}|{'late' if weight > 40 else 'early'}"
            for name, weight in zip("ab" * 300, table.weight, strict=False)
        ]
    else:
        table["label"] = table.weight
    table.drop(columns="weight").to_csv(tmp_path / "data.csv", index=False)
    settings = {"cache": place / "cache", "reporter": QUIET}
    run = headstart.fit(
        tmp_path / "data.csv", "headstart/glyphs", out=tmp_path / "r", baselines=False, task=task,
        **settings,
    )  # fmt: skip
    page = (tmp_path / "r" / "report.html").read_text()
    for title in ("Largest mistakes", "Map", "Slices"):
        assert f"<h2>{title}</h2>" in page
    assert "nearest training items" in page
    assert (
        f"Some {'labels' if task == 'multi-label' else 'values'} may be wrong: check them" in page
    )
    gallery = page[page.index("<h2>Largest mistakes") : page.index("<h2>Map")]
    assert not re.search(r"[ab]\|(late|early)", gallery)  # bars are for tables
    assert task == "regression" or re.search(r"p = 0\.\d\d", gallery)
    mistakes = run.show_mistakes(3)
    assert len(mistakes) == 3
    assert "<img" in mistakes._repr_html_() or "&lt;img" in mistakes._repr_html_()
    with headstart.view(tmp_path / "r", **settings) as viewer:
        scene = viewer.scene
        assert len(scene.points())
        near = scene.near(int(np.nanargmax(scene.wrong)))
        assert near[0]["title"] == "Nearest training items"
        assert len(near[0]["items"]) == 6
    with headstart.view(
        tmp_path / "data.csv", "headstart/glyphs", label_column="label", task=task, **settings
    ) as viewer:
        names = [field.name for field in viewer.scene.fields]
        assert ("true label" in names) if task == "regression" else ("late" in names)


def test_an_item_that_is_gone_or_damaged_has_no_picture(tmp_path: Path) -> None:
    """A report is written all the same; what was computed is not lost by a picture."""
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "gone.png").write_bytes(b"nor this")
    split = headstart.load_items(tmp_path)
    (tmp_path / "gone.png").unlink()
    inputs = headstart.Preprocessing(size=8, mean=0.5, std=0.5)
    shown = {Path(o).name: glimpse(inputs, split, at) for at, o in enumerate(split.origins)}
    assert shown["good.png"] is not None
    assert shown["bad.png"] is None
    assert shown["gone.png"] is None
