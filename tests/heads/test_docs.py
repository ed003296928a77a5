"""The examples of docs/heads.md run, in order."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from headstart.heads import registry, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "heads.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    module = types.ModuleType("docs_of_heads")  # a dataclass looks its module up
    monkeypatch.setitem(sys.modules, module.__name__, module)
    registry.head_names()
    monkeypatch.setattr(table, "KINDS", dict(table.KINDS))
    for index, example in enumerate(examples):
        exec(compile(example, f"{PAGE.name}, example {index}", "exec"), vars(module))
    assert (tmp_path / "digits-head" / "head.safetensors").is_file()
