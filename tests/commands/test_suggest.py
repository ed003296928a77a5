"""Which items to label next, through Python and as a user."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape

import headstart
from headstart.core.errors import ConfigError, DataError, HeadError

from .test_abstaining import GLYPHS, NAMES, QUIET, place, run, save  # noqa: F401  fixtures
from .test_cli import Command, command  # noqa: F401  fixtures


def test_suggestions_show_themselves(run: Any, place: Path) -> None:  # noqa: F811
    asked: dict[str, Any] = {"cache": place / "cache", "reporter": QUIET}
    found = headstart.suggest(place / "strange", run, count=14, **asked)
    shown, printed = found._repr_html_(), repr(found)
    assert f"{len(found)} items to label next" in shown
    assert printed.startswith(f"Suggestions: {len(found)} items to label next")
    for name, why in zip(found.origins[:12], found.reasons[:12], strict=True):
        assert str(escape(name)) in shown
        assert str(escape(why)) in shown
    assert f"and {len(found) - 12} more" in shown


@pytest.mark.parametrize("by", ["typical", "mix", "margin", "k-centre"])
def test_suggestions_name_reasons(run: Any, place: Path, by: str) -> None:  # noqa: F811
    asked: dict[str, Any] = {"cache": place / "cache", "reporter": QUIET}
    found = headstart.suggest(place / "strange", run, count=9, by=by, **asked)
    again = headstart.suggest(place / "strange", run.folder, count=9, by=by, **asked)
    assert again.columns() == found.columns()
    assert len(set(found.origins)) == 9
    if by == "margin":
        assert (np.diff(found.margin) >= 0).all()
        assert all(" or " in why and "%" in why for why in found.reasons)
        assert set(found.columns()["distance"]) == {None}
    elif by == "typical":
        assert all(why.startswith("typical of about ") for why in found.reasons[:4])
        assert found.by == headstart.suggest(place / "strange", run, count=1, **asked).by
    else:
        assert all("far from what is labelled" in why for why in found.reasons)
        assert (found.distance > 0).all()
    if by == "k-centre":  # noise is what is farthest from digits
        assert sum("noise" in name for name in found.origins) > 4


def test_an_item_like_its_labelled_ones_is_not_called_unlike_them(
    run: Any,  # noqa: F811
    place: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    save(tmp_path, np.flatnonzero(np.arange(1797) == 1500), None)
    found = headstart.suggest(tmp_path, run, cache=place / "cache", reporter=QUIET)
    assert found.reasons in (
        ("the only item of its group",), ("the only item of its group without a label",),
    )  # fmt: skip


def test_what_the_run_knows_is_not_suggested(run: Any, place: Path, tmp_path: Path) -> None:  # noqa: F811
    asked: dict[str, Any] = {"cache": place / "cache", "reporter": QUIET}
    with pytest.raises(DataError, match="none of 260 items is new to the run"):
        headstart.suggest(place / "train", run, **asked)
    source = next((place / "strange").glob("noise0.png"))
    for i in range(3):
        (tmp_path / f"again{i}.png").write_bytes(source.read_bytes())
    (tmp_path / "known.png").write_bytes(next((place / "train").rglob("*.png")).read_bytes())
    notes: list[str] = []

    class Listening(type(QUIET)):  # type: ignore[misc]
        def note(self, text: str) -> None:
            notes.append(text)

    found = headstart.suggest(tmp_path, run, cache=place / "cache", reporter=Listening())
    assert found.origins == ("again0.png",)
    told = " ".join(notes)
    assert "1 item is in the run's training or test split" in told
    assert "2 of the items are copies of another" in told
    assert "only 1 item is new" in told
    (tmp_path / "nothing").mkdir()
    with pytest.raises((DataError, ConfigError)):
        headstart.suggest(tmp_path / "nothing", run, **asked)
    with pytest.raises(DataError, match="no items to choose among"):
        headstart.suggest([], run, **asked)


def test_numbers_have_no_margin(tmp_path: Path) -> None:
    save(tmp_path, np.arange(60), None)
    with (tmp_path / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "value"])
        rows.writerows([f"{i}.png", i * 1.5 + 0.1] for i in range(40))
    asked: dict[str, Any] = {"cache": tmp_path / "cache", "reporter": QUIET}
    made = headstart.fit(
        tmp_path / "train.csv", GLYPHS, task="regression", write=False, baselines=False, **asked
    )
    with pytest.raises(HeadError, match="by='k-centre'"):
        headstart.suggest([tmp_path / "50.png"], made, by="margin", **asked)
    pool = [tmp_path / f"{i}.png" for i in range(40, 60)]
    assert len(headstart.suggest(pool, made, count=4, **asked)) == 4
    found = headstart.suggest(pool, made, by="k-centre", count=4, **asked)
    assert len(found) == 4
    assert all("far from what is labelled" in why for why in found.reasons)


def test_the_command_line(command: Command, run: Any, place: Path, tmp_path: Path) -> None:  # noqa: F811
    words = ("suggest", run.folder, place / "strange", "--cache", place / "cache")
    status, out, err = command(*words, "--count", "5", "--out", tmp_path / "next.csv")
    assert status == 0, err
    assert "5 suggestions written" in out
    with (tmp_path / "next.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == list("12345")
    assert list(rows[0]) == ["rank", "item", "why", "prediction", "margin", "distance"]
    assert {row["prediction"].removeprefix("'") for row in rows} <= set(NAMES)
    status, out, _ = command(*words, "--by", "margin", "--json")
    assert status == 0
    assert len(json.loads(out)) == 20
    status, out, _ = command(*words, "--quiet", "--count", "3")
    assert status == 0
    assert len(out.splitlines()) == 3
    status, _, err = command(*words, "--out", tmp_path / "next.txt")
    assert status == 1
    assert "must end in .csv or .parquet" in err
