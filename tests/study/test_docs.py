"""The examples of docs/compare.md run unchanged, and its words are those that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headstart.study import TERMS, findings, resolve

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "compare.md").read_text("utf-8")


@pytest.mark.slow
def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    rules = list(findings.RULES)
    monkeypatch.setattr(findings, "RULES", list(rules))
    for example in re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL):
        exec(compile(example, "compare.md", "exec"), {})
    assert "Use eval+inference_mode" in capsys.readouterr().out
    assert len(findings.RULES) == len(rules) + 1  # the example registers its own


def test_words_of_the_guide():
    table = GUIDE[GUIDE.index("| words |") : GUIDE.index("Words that contradict")]
    named = set(re.findall(r"`([a-z_-]+)`", table)) | {"features", "finetune", "sgd", "adam"}
    assert set(TERMS) - named == {"grad"}
    for line in re.findall(r"--configs (\S+)$", GUIDE, flags=re.MULTILINE):
        assert resolve(line)
