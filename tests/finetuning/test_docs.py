"""The examples of docs/finetuning.md run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headstart.finetuning import PRESETS, load_recipe

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "finetuning.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text("utf-8"), flags=re.DOTALL)


def test_every_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = blocks("python")
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, str(GUIDE), "exec"), {})
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_recipe_of_the_guide_is_sound(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "mine.toml").write_text(text)
    recipe = load_recipe(tmp_path / "mine.toml")
    assert recipe.stages[0].train == ("last:2",)
    assert recipe.stages[0].rates == {"layer4.0": 5e-5}


def test_every_preset_is_listed() -> None:
    listed = set(re.findall(r"^\| (`.*?) \|", GUIDE.read_text("utf-8"), flags=re.MULTILINE))
    named = {name for cell in listed for name in re.findall(r"`([a-z-]+)`", cell)}
    assert named == set(PRESETS)
