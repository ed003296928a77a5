"""The examples of the documentation run."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY


def test_the_examples_run() -> None:
    text = (REPOSITORY / "docs" / "the-cut.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert examples
    names: dict[str, object] = {}  # the page is one session, read from top to bottom
    for example in examples:
        exec(compile(example, "docs/the-cut.md", "exec"), names)
