"""docs/architecture.md is a true picture of the house."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import headstart

PACKAGE = Path(headstart.__file__).parent
PAGE = PACKAGE.parent.parent / "docs" / "architecture.md"
ADD = re.compile(r"^\| ([\w ]+) \| (.+) \| (.+) \| `(test_\w+)` \|$", re.MULTILINE)
ROW = re.compile(r"^\| (\d) \| `(\w+)` \| .* \| `([\w/.]+)` \|$", re.MULTILINE)


def rooms_on_disk() -> set[str]:
    return {
        path.stem
        for path in PACKAGE.iterdir()
        if not path.name.startswith("_") and (path.is_dir() or path.suffix == ".py")
    }


def test_every_room_is_in_the_table_and_every_row_is_a_room():
    assert {room for _, room, _ in ROW.findall(PAGE.read_text())} == rooms_on_disk()


def test_the_files_to_start_at_exist():
    for _, _, start in ROW.findall(PAGE.read_text()):
        assert (PACKAGE / start).is_file(), start


ONE_PLACE = {
    r"\bimport hashlib\b": ["core/fingerprints.py"],
    r"\bimport difflib\b": ["core/wording.py"],
    r"\b(import tempfile|os\.replace|os\.rename)\b": ["core/scratch.py"],
    r"\bos\.fsync\b|\bdisk_usage\b": ["core/files.py"],
    r"\bfcntl\b|\bmsvcrt\b": ["core/locks.py"],
    # Only core/division.py divides rows. The others draw an order or a sample to measure on:
    r"\brandperm\(|\.permutation\(|\.shuffle\(|\brng\.choice\(": [
        "commands/advise/job.py",  # items that drift and gradients are measured on
        "commands/finetune/start.py",  # items that gradients are measured on
        "core/division.py",
        "finetuning/epoch.py",  # partners of mixup
        "finetuning/rng.py",  # the items of an epoch
        "finetuning/timing.py",  # rows that are timed
        "heads/mlp.py",  # the rows of an epoch
        "study/network.py",  # items that statistics are measured on
        "study/repetitions.py",  # batches of a loader; items that causes are measured on
    ],
    r"model_selection|random_split|KFold|ShuffleSplit|train_test_split|cross_val_": [
        "audit/checks/copies.py",
        "audit/estimators.py",
    ],
}
"""What is written once: a pattern, and the only modules that may hold it."""


@pytest.mark.parametrize("pattern", ONE_PLACE)
def test_what_is_written_once_is_in_one_place(pattern: str):
    found = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        if re.search(pattern, path.read_text(encoding="utf-8"))
    ]
    assert found == ONE_PLACE[pattern]


def test_what_to_touch_exists_and_is_shown_by_a_test():
    rows = ADD.findall(PAGE.read_text())
    assert len(rows) == 11
    tests = "\n".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    for what, files, call, shown_by in rows:
        named = re.findall(r"`([\w/]+(?:\.py|/))`", files)
        assert all((PACKAGE / file).exists() for file in named), what
        assert files.count(",") <= 1, f"{what}: more than two files"
        if call != "—":
            module, _, function = call.strip("`").rpartition(".")
            assert callable(getattr(import_module(f"headstart.{module}"), function)), what
        assert f"def {shown_by}(" in tests, what


def test_floors_agree_with_the_import_contract():
    import tomllib

    settings = tomllib.loads((PAGE.parent.parent / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    height = {
        room.strip(" ()").removeprefix("headstart."): len(layers) - i
        for i, layer in enumerate(layers)
        for room in layer.split("|")
    }
    floors = {room: int(floor) for floor, room, _ in ROW.findall(PAGE.read_text())}
    assert floors.keys() <= height.keys()
    for one in floors:
        for other in floors:
            if floors[one] < floors[other]:
                assert height[one] < height[other], (one, other)
