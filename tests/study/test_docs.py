"""The example of docs/compare.md runs as it stands there, and its words are those there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headstart.study import TERMS, resolve

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "compare.md").read_text("utf-8")


@pytest.mark.slow
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    exec(compile(example, "compare.md", "exec"), {})
    assert "Use eval+inference_mode" in capsys.readouterr().out


def test_words_of_the_guide():
    table = GUIDE[GUIDE.index("| words |") : GUIDE.index("Words that contradict")]
    named = set(re.findall(r"`([a-z_-]+)`", table)) | {"features", "finetune", "sgd", "adam"}
    assert set(TERMS) - named == {"grad"}
    for line in re.findall(r"--configs (\S+)$", GUIDE, flags=re.MULTILINE):
        assert resolve(line)
