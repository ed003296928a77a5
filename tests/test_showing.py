"""How objects show themselves: in a notebook as harmless HTML, in a terminal as a few lines."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import headstart
import headstart.commands
from headstart.commands.advise.indicators import Advice, Indicator
from headstart.core.cards import Card, Grid, Shown
from headstart.core.progress import SilentReporter
from headstart.core.records import Score
from headstart.extraction.plan import Plan
from headstart.finetuning import Stage

from .commands.serving import picture

EVIL = '<img src=x onerror="alert(1)">&amp;\x1b[2J'
"""The name of a class and of a folder."""
QUIET = SilentReporter()
ELSEWHERE: set[str] = set()
"""Names of results whose cards are tried by tests of their own."""
VOID = {"br", "img", "meta", "hr"}


class Balanced(HTMLParser):
    """Refuses tags that are not closed, and what could run or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "style", "iframe", "img", "a", "link", "object"}
        assert {name for name, _ in attrs} <= {"class", "style", "scope"}
        assert not any("url(" in (value or "") for _, value in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def advice() -> Any:
    half = Score(0.5, None)
    indicator = Indicator("trial", EVIL, "it gains", "unfreeze")
    return Advice(
        "unfreezing is likely to pay", "unfreeze", (indicator,), "accuracy", half, half, half,
        (), (),
        f"headstart finetune '{EVIL}'", (), 1.0,
    )  # fmt: skip


def check(html: str) -> None:
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert "\x1b" not in html


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("shown") / "data"
    for i in range(40):
        place = folder / ("train" if i < 28 else "test") / ("dark", "bright")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(picture(i))
    found = headstart.load_data(folder)
    classes = (EVIL, "dark")
    splits = {
        name: dataclasses.replace(split, classes=classes) for name, split in found.splits.items()
    }
    return dataclasses.replace(found, name=EVIL, classes=classes, splits=splits, notes=(EVIL,))


@pytest.fixture(scope="module")
def objects(data: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("objects")
    backbone = headstart.load_backbone("headstart/glyphs")
    common: dict[str, Any] = {"cache": place / "cache", "reporter": QUIET}
    run = headstart.fit(data, backbone, head="lda", out=place / "run", **common)
    configs = ("eval", "train")
    compared = headstart.compare(data, backbone, configs=configs, repeats=2, write=False, **common)
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    handle = headstart.freeze(network, {"0": "frozen", "1": "frozen"})
    plan = headstart.commands.plan_finetune(
        data, backbone, headstart.Recipe("short", (Stage("head", epochs=1),)), write=False, **common
    )
    sweep = headstart.sweep(data, backbone, heads=("lda", "ridge"), write=False, **common)
    examined = headstart.examine(data, backbone, repetitions=1, write=False, **common)
    return {
        "Run": run,
        "SavedRun": headstart.open_run(place / "run"),
        "Dataset": data,
        "Split": data.train,
        "Backbone": backbone,
        "Comparison": compared.comparison,
        "ComparisonRun": compared,
        "SweepResult": sweep,
        "Examination": examined,
        "Predictions": run.predict([picture(1), picture(2)], **common),
        "FineTuning": plan,
        "Extraction": Plan("eager", "float32", 16, 2, "120 images/s"),
        "FreezeHandle": handle,
        "FreezePlan": handle.plan,
        "Advice": advice(),
    }


def test_every_result_shows_itself(objects: dict[str, Any]) -> None:
    """What is offered by name and has a card is tried here; these have one."""
    offered = {
        name: value
        for module in (headstart, headstart.commands)
        for name in module.__all__
        if inspect.isclass(value := getattr(module, name))
    }
    shown = {name for name, value in offered.items() if hasattr(value, "_repr_html_")}
    assert shown >= {"Run", "SavedRun", "Dataset", "Split", "Backbone", "ComparisonRun", "Advice",
                     "SweepResult", "Examination", "Predictions"}  # fmt: skip
    assert shown <= set(objects) | ELSEWHERE
    for name in shown & set(objects):
        assert isinstance(objects[name], offered[name])
        assert callable(objects[name].card)


@pytest.mark.parametrize(
    "name",
    ["Run", "SavedRun", "Dataset", "Split", "Backbone", "Comparison", "ComparisonRun",
     "SweepResult", "Examination", "Predictions", "FineTuning", "Extraction", "FreezeHandle",
     "FreezePlan", "Advice"],
)  # fmt: skip
def test_an_object_is_harmless_html_and_a_few_lines(objects: dict[str, Any], name: str) -> None:
    shown = objects[name]
    check(shown._repr_html_())
    for text in (repr(shown), str(shown)):
        # A folder is shown whole, however long its name is.
        lines = text.replace(str(getattr(shown, "folder", None) or "\0"), "runs/x").splitlines()
        assert 1 <= len(lines) <= 40
        assert max(map(len, lines)) <= 160
        assert "\x1b" not in text
        assert "object at 0x" not in text
    card = shown.card()
    assert card.facts or card.tables
    for line in card.text().splitlines():
        assert len(line) <= 100


def test_what_matters_is_in_it(objects: dict[str, Any]) -> None:
    run = objects["Run"]
    assert "95 % interval" in repr(run)
    assert f"{100 * run.accuracy:.1f} %" in repr(run)
    assert str(run.folder) in run._repr_html_()
    assert "&lt;img" in run._repr_html_()
    assert "28" in repr(objects["Dataset"])
    assert "frozen" in objects["FreezeHandle"]._repr_html_()
    assert "eval" in repr(objects["Comparison"])


SHOWN = """
import sys
import headstart
from headstart.core.progress import SilentReporter

common = dict(cache=sys.argv[1], write=False, reporter=SilentReporter(), head="lda")
headstart.fit("digits", "headstart/glyphs", **common)
run = headstart.fit("digits", "headstart/glyphs", **common)
assert "module" not in vars(run.backbone)
assert "glyphs" in repr(run.backbone)
run.backbone._repr_html_()
assert "module" not in vars(run.backbone)
"""


def test_a_backbone_that_is_not_built_is_not_built_to_be_shown(tmp_path: Path) -> None:
    # In a process of its own: where another test has changed torch, every backbone is built.
    command = [sys.executable, "-c", SHOWN, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_large_table_is_cut_and_says_so() -> None:
    grid = Grid(("name", "items"), tuple((f"c{i}", i) for i in range(50)), "classes", 900)
    card = Card("Thing", "", (), (grid,))
    assert "and 888 more" in card.html()
    assert "and 894 more" in card.text()
    assert len(card.text().splitlines()) == 10


@pytest.mark.parametrize(
    "value", [EVIL, "'; drop", "日本語" * 60, "\u202egnp.exe", "a\nb", "", None, 1.5, True, 10**9]
)
def test_any_value_can_be_shown(value: Any) -> None:
    card = Card(
        str(value), str(value), (("x", value),), (Grid(("a",), ((value,),)),), (str(value),)
    )
    check(card.html())
    assert "\u202e" not in card.text() + card.html()


def test_what_cannot_be_shown_does_not_end_a_debugger() -> None:
    class Half(Shown):
        card: Callable[[], Card]

        def __init__(self) -> None:
            self.card = lambda: 1 / 0  # type: ignore[assignment,return-value]

    assert repr(Half()) == "<Half, which cannot be shown: ZeroDivisionError>"
