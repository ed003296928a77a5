"""What is recommended, where nothing can be, and the commands that apply it."""

from __future__ import annotations

import dataclasses
import io
import shlex

import pytest
import typer
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from headstart.commands.cli import app
from headstart.commands.compare.job import compare
from headstart.commands.compare.page import comparison_page
from headstart.commands.compare.tables import comparison_rows, terminal
from headstart.commands.settings import BackboneSpec
from headstart.core.progress import SilentReporter
from headstart.report.page import render_page
from headstart.study import Configuration

from .conftest import QUICK, RIGHT, pictures, planted, quick


def parsed(command: str) -> dict[str, object]:
    """Return what the command line makes of a command, by parameter."""
    words = shlex.split(command)
    assert words[0] == "headstart"
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return group.commands[words[1]].make_context(words[1], words[2:]).params


@pytest.fixture
def table(tmp_path):
    """Pictures in a table whose columns have to be named, one of them unreadable."""
    x, y = pictures(40, seed=3)
    lines = ["left,right,kind,source"]
    for i in range(40):
        for side in ("left", "right"):
            Image.fromarray(x[i]).save(tmp_path / f"{side} {i}.png")
        lines.append(f"left {i}.png,right {i}.png,{'abc'[y[i]]},{'xy'[i % 2]}")
    (tmp_path / "right 5.png").write_bytes(b"no image")
    (tmp_path / "my data.csv").write_text("\n".join(lines))
    return tmp_path / "my data.csv"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("train,no_grad", "no configuration compared here gives each item"),
        ("train,features+sgd", "no configuration compared here that trains this head gives"),
    ],
)
def test_nothing_is_recommended_where_every_row_depends_on_others(study, names, words):
    result = study(names, reference="train", repeats=1)
    advice = result.recommendation
    assert (advice.configuration, advice.code, advice.options) == (None, "", {})
    assert words in advice.text
    assert f"(configs='{names},eval+inference_mode')" in advice.text
    assert "omit reference='train'" in advice.text
    assert "cached, and served" not in advice.text
    page = render_page(comparison_page(result, title="t"))
    assert "none of these" in page
    assert "In a loop of your own" not in page
    assert terminal(result).renderables
    assert result.document()["recommendation"]["configuration"] is None
    added = study(f"{names},eval+inference_mode", reference="train", repeats=1)
    assert added.recommendation.configuration == "eval+inference_mode"


def test_a_mended_configuration_with_chance_is_not_the_suggested_one(study):
    backbone = planted(dataclasses.replace(RIGHT, channels="BGR"), dropout=0.4)
    result = study("swapped-channels+dropout", backbone=backbone, repeats=1)
    assert result.evidence.suggested == "inputs mended"
    assert result.recommendation.configuration == "inputs mended"


def test_the_options_of_the_recommendation(study):
    backbone = planted(dataclasses.replace(RIGHT, channels="BGR", std=0.25))
    mended = study("eval", backbone=backbone, repeats=1).recommendation
    assert mended.configuration == "inputs mended"
    assert mended.options == {"channels": "RGB", "std": (0.5, 0.5, 0.5)}
    assert study("eval", repeats=1).recommendation.options == {}


def test_the_next_command_reads_the_same_data_in_the_same_way(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {
        "image_column": "right",
        "label_column": "kind",
        "test_fraction": 0.4,
        "on_bad": "skip",
        "seed": 3,
        "size": "24",
    }
    words = ["compare", str(table), "--configs", "no_grad", "--repeats", "1"]
    for name, value in given.items():
        flag = {"on_bad": "bad-files"}.get(name, name.replace("_", "-"))
        words += [f"--{flag}", str(value)]
    words += ["--cache", str(tmp_path / "cache"), "--out", "run"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    command = next(
        line.removeprefix("next:").strip()
        for line in done.output.splitlines()
        if line.startswith("next:")
    )
    said = parsed(command)
    assert said["data"] == str(table)
    assert {name: said[name] for name in given} == given


def commands(configuration, tmp_path):
    x, y = pictures(60, seed=3)
    for i in range(60):
        folder = tmp_path / "data" / "abc"[y[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[i]).save(folder / f"{i}.png")
    return compare(
        tmp_path / "data",
        BackboneSpec(preprocessing={"mean": 0.4}),
        config=quick([configuration], repeats=1, reference=configuration.name, suggest=False),
        batch_size=QUICK.batch_size,
        device=QUICK.device,
        write=False,
        cache=tmp_path / "cache",
        reporter=SilentReporter(),
    ).commands


def test_inputs_of_the_recommended_configuration_are_said(tmp_path):
    inputs = {
        "crop_fraction": 0.5,
        "interpolation": "lanczos",
        "size": (40, 24),
        "mean": 0.3,
        "std": (0.1, 0.2, 0.3),
        "scale": 1.0,
        "channels": "BGR",
    }
    one = Configuration("other", preprocessing=inputs, layer="stage2.0", pooling="gem")
    (command,) = commands(one, tmp_path)
    said = parsed(command)
    assert (said["crop_fraction"], said["interpolation"], said["size"]) == (0.5, "lanczos", "40,24")
    assert (said["mean"], said["std"]) == ("0.3", "0.1,0.2,0.3")
    assert (said["scale"], said["channels"]) == (1.0, "BGR")
    assert (said["layer"], said["pooling"]) == ("stage2.0", "gem")


def test_what_no_option_sets_makes_no_command(tmp_path):
    another = Configuration("another", preprocessing={"resize": "shortest"})
    assert commands(another, tmp_path) == ()


@pytest.mark.parametrize("width", [60, 80, 100, 110, 120, 160, 250])
def test_no_figure_of_the_table_is_cut_off(study, width):
    result = study("train,class-ordered", repeats=2)
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal(result))
    table = console.file.getvalue().split("Differences are paired")[0]
    assert "…" not in table
    header, rows = comparison_rows(result)
    shown = table.splitlines()[0]
    kept = [name for name in header if name in shown]
    assert kept == list(header[: len(kept)])
    assert len(kept) >= 2
    assert len(kept) == len(header) or width < 160
    for row in rows:
        assert all(cell in table for cell in row[: len(kept)])
