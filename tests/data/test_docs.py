"""The examples of docs/data.md run, in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from headstart.data import INPUT_KINDS, Inputs, source
from tests.conftest import REPOSITORY
from tests.data.conftest import Pictures


def test_examples_run(
    pictures: Pictures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pictures.write(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 6
    monkeypatch.setattr(source, "_REGISTERED", [])
    monkeypatch.setitem(INPUT_KINDS, "bases", Inputs)
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "docs/data.md", "exec"), names)
    assert "tensor([4, 7])" in capsys.readouterr().out
    assert names["x"].shape[1:] == (3, 224, 224)
    assert sorted([*names["first"], *names["second"]]) == list(range(10))


@pytest.mark.slow
def test_the_examples_of_bands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    text = (REPOSITORY / "docs" / "bands.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"__name__": "docs"}
    exec(compile(example, "docs/bands.md", "exec"), names)
    assert names["run"].accuracy > 0.9
