"""The example of docs/reports.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "reports.md"


def test_the_example_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(GUIDE), "exec"), {})
    assert "Keep the running statistics." in (tmp_path / "report.html").read_text("utf-8")
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
