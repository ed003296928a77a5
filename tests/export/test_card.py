"""The model card states what was measured, and nothing of the data acts in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import headstart
from headstart.commands.card.job import card, card_content
from headstart.commands.card.options import CardConfig
from headstart.commands.saved_run import open_run
from headstart.core.errors import ConfigError, DataError
from headstart.report.markdown import code, plain, table
from headstart.report.model_card import card_metadata, model_card

HOSTILE = (
    "<script>alert(1)</script> [x](javascript:y) ![z](https://evil.example) | `c` \n# head @you"
)


def parts(text: str) -> tuple[dict[str, Any], str]:
    _, metadata, body = text.split("---\n", 2)
    return yaml.safe_load(metadata), body


def test_what_a_card_says(place: Path) -> None:
    metadata, body = parts(card(place / "run", licence="MIT", data_licence="CC0"))
    assert metadata["license"] == "mit"
    assert metadata["library_name"] == "headstart"
    assert metadata["pipeline_tag"] == "image-classification"
    assert metadata["tags"][:2] == ["headstart", "transfer-learning"]
    assert "datasets" not in metadata  # a folder called data is no data set of the hub
    run = open_run(place / "run")
    (result,) = metadata["model-index"][0]["results"]
    accuracy = next(m for m in result["metrics"] if m["type"] == "accuracy")
    interval = run.evaluation.accuracy.interval  # type: ignore[union-attr]
    assert accuracy["value"] == pytest.approx(run.accuracy, abs=1e-6)
    assert accuracy["args"]["interval"] == pytest.approx([interval.low, interval.high], abs=1e-6)
    assert accuracy["args"]["n"] == interval.n
    expected = ("95 % interval", "majority class", "CC0", "## Limits", "Apache-2.0", "Omniglot")
    for said in (*expected, "headstart/glyphs"):
        assert said in body, said
    assert str(place) not in body  # no path of this machine
    assert "cache" not in body


def test_nothing_of_the_data_acts_in_a_card(place: Path) -> None:
    content = replace(
        card_content(place / "run", CardConfig()),
        title=HOSTILE, data=HOSTILE, classes=(HOSTILE, "b"), notes=(HOSTILE,), backbone=HOSTILE,
        about={"licence": HOSTILE, "origin": HOSTILE, "data": HOSTILE},
    )  # fmt: skip
    row = replace(content.evaluation.per_class[0], label=HOSTILE)  # type: ignore[union-attr]
    evaluation = replace(content.evaluation, per_class=(row,))  # type: ignore[type-var, arg-type]
    text = model_card(replace(content, evaluation=evaluation))
    metadata, body = parts(text)
    assert metadata["license"] == "other"
    outside = without_code(body)
    for mark in ("<script", "](", "![", "https://evil", "@you", "`c`", "\n# head"):
        assert mark not in outside, mark
    assert body.count("\n# ") == 1
    lines = [line for line in outside.splitlines() if line.startswith("| &#60;script")]
    assert lines
    assert all(line.count("|") == 6 for line in lines)


def test_a_bar_is_written_out_in_tables_alone(place: Path) -> None:
    content = replace(card_content(place / "run", CardConfig()), classes=("a|b", "c`d"))
    body = model_card(replace(content, data="x|y"))
    assert "Predicts 2 classes of an image: `a|b`, `` c`d ``." in body
    assert "`x|y`: " in body
    assert table(("a", "b"), [(code("a|b"), "1")]).splitlines()[-1] == "| `a\\|b` | 1 |"


def without_code(text: str) -> str:
    """Return Markdown without its spans of code, as a reader of CommonMark finds them."""
    import re

    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", re.sub(r"(?s)```.*?```", "", text))


@given(st.text())
def test_text_stays_text(text: str) -> None:
    shown = plain(text)
    assert not set(shown) & set("\n\r<>`*_[]|\\~$@")
    inside = code(text)
    assert "\n" not in inside
    row = table(("a", "b"), [(shown, "1")]).splitlines()[-1]
    assert row.count("|") == 3


def test_licences_that_the_hub_does_not_know(place: Path) -> None:
    content = card_content(place / "run", CardConfig(licence="My own: v1"))
    found = card_metadata(content)
    assert (found["license"], found["license_name"]) == ("other", "My own: v1")
    for known in ("GPL-2.0", "odbl", "CC-BY-NC-ND-4.0"):
        found = card_metadata(replace(content, licence=known))
        assert (found["license"], "license_name" in found) == (known.lower(), False)
    nothing = replace(content, licence="", about={})
    assert card_metadata(nothing)["license"] == "unknown"
    assert "base_model" not in card_metadata(nothing)
    hub = {"origin": "huggingface.co/timm/resnet18.a1_in1k", "licence": "Apache-2.0"}
    assert card_metadata(replace(content, about=hub))["base_model"] == "timm/resnet18.a1_in1k"


def test_a_run_in_memory_damaged_files_and_places(place: Path, tmp_path: Path) -> None:
    text = card(place / "run", output=tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text
    with pytest.raises(ConfigError, match=r"cannot write .*README\.md"):
        card(place / "run", output=tmp_path / "no" / "README.md")
    with pytest.raises(DataError, match="is not a run folder"):
        card(tmp_path)
    moved = tmp_path / "run"
    moved.mkdir()
    for path in (place / "run").iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    run = json.loads((moved / "run.json").read_text())
    del run["backbone"]["source"], run["files"]["metrics.json"]
    (moved / "run.json").write_text(json.dumps(run))
    with pytest.raises(DataError, match=r"run\.json"):
        card(moved)


def test_numbers_have_a_card_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    values = images.mean(axis=(1, 2, 3))
    run = headstart.fit(
        {"train": (images[:40], values[:40]), "test": (images[40:], values[40:])},
        "headstart/glyphs", task="regression", write=False, cache=tmp_path / "cache",
    )  # fmt: skip
    metadata, body = parts(card(run))
    assert "pipeline_tag" not in metadata
    assert {"mae", "rmse"} & set(metadata["metrics"])
    assert "Predicts 1 number of an image" in body
