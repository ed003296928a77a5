"""The examples of docs/freezing.md run, in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from headstart.freezing import plan_freeze

PAGE = Path(__file__).resolve().parents[2] / "docs" / "freezing.md"


def test_the_examples_run() -> None:
    text = PAGE.read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) >= 6
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "docs"}
    for index, example in enumerate(examples):
        exec(compile(example, f"{PAGE.name}, example {index}", "exec"), names)
    assert isinstance(names["composed"], torch.nn.Module)


def test_the_table_is_what_is_printed() -> None:
    import torchvision

    text = PAGE.read_text(encoding="utf-8")
    table = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert table is not None
    plan = plan_freeze(
        torchvision.models.resnet18(num_classes=2), {"": "frozen", "fc": "trainable"}
    )
    assert str(plan) == table.group(1).strip()
