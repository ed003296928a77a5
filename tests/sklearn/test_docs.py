"""The examples of docs/estimators.md run, in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from headstart.heads import load_head
from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / "docs" / "estimators.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "docs/estimators.md", "exec"), names)
    assert names["search"].score(names["x_test"], names["y_test"]) > 0.9
    assert names["head"].classes_.tolist() == ["even", "odd"]
    assert load_head(tmp_path / "parity").n_classes == 2
