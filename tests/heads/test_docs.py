"""The example of docs/heads.md runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "heads.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    for index, example in enumerate(examples):
        names: dict[str, Any] = {"__name__": "docs"}
        exec(compile(example, f"{PAGE.name}, example {index}", "exec"), names)
    assert (tmp_path / "digits-head" / "head.safetensors").is_file()
