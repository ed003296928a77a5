"""Whatever a run folder holds, opening and using it gives a result or one line."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.commands.saved_run import open_run
from headstart.core.errors import HeadstartError
from headstart.core.fingerprints import sha256_of_file
from headstart.core.progress import SilentReporter

QUIET = SilentReporter()
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", " ", "x", "\0", "\ud800", "\x1b[31m", "../..", "/etc/passwd", "NaN", "a" * 10_000,
    [], [[]], [None], [1, "x"], ["a", "a"], {}, {"": {}}, {"x": [1]}, [[[[[[]]]]]],
)  # fmt: skip
TEXTS = (
    "", " ", "{", "[]", "null", "0", '"x"', "NaN", "{}", "{}{}", "\ufeff{}", "[" * 100_000,
    '{"a":' * 100_000, '{"format": 1e999}', '{"format": ' + "9" * 5000 + "}",
    '{"format": 3, "format": 2}', "\0" * 100, "\u2028",
)  # fmt: skip
FILES = ("run.json", "head.json", "training_items.json", "metrics.json")


def pictures(n: int) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(n).integers(0, 90, (n, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(n) % 2
    return noise + (labels * 120).astype(np.uint8)[:, None, None, None], labels


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    data = {"train": pictures(24), "test": pictures(12)}
    headstart.finetune(
        data, recipe="full", epochs=1, out=place / "run", cache=place / "cache",
        baselines=False, reporter=QUIET,
    )  # fmt: skip
    return place


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole / "run", tmp_path / "run")
    return tmp_path / "run"


def use(run: Path, whole: Path) -> str | None:
    """Do everything that is done with a run folder; return the line of the refusal, if any."""
    lines = []
    try:
        opened = open_run(run)
    except HeadstartError as error:
        lines.append(str(error))
    else:
        for do in (
            lambda: repr(opened),
            lambda: opened.accuracy,
            lambda: headstart.predict(pictures(2)[0], opened, cache=whole / "c", reporter=QUIET),
            lambda: headstart.evaluate(pictures(6), opened, cache=whole / "c", reporter=QUIET),
        ):
            try:
                do()
            except HeadstartError as error:
                lines.append(str(error))
    assert all("\n" not in line and len(line) < 2000 for line in lines), lines
    return lines[0] if lines else None


def retie(run: Path) -> None:
    """Write the digests anew: a stranger's run folder fits together."""
    path = run / "run.json"
    try:
        values = json.loads(path.read_text())
        for name in values["files"]:
            values["files"][name] = sha256_of_file(run / name)
        values["training_items"]["sha256"] = values["files"]["training_items.json"]
        path.write_text(json.dumps(values))
    except (ValueError, KeyError, TypeError, RecursionError, OSError):
        pass


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in nested values; of long lists only the first items."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value[:3]) if isinstance(value, list) else items
    for key, part in items:
        yield from places(part, (*path, key))


def changed(values: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    values = copy.deepcopy(values)
    at = values
    for key in path[:-1]:
        at = at[key]
    change(at, path[-1])
    return values


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", TEXTS, ids=[f"{i}" for i in range(len(TEXTS))])
@pytest.mark.parametrize("tied", [True, False])
def test_a_file_that_is_something_else(run, whole, name, text, tied):
    (run / name).write_text(text, encoding="utf-8")
    if tied:
        retie(run)
    assert use(run, whole) is not None


@pytest.mark.parametrize("name", [*FILES, "head.safetensors", "backbone.safetensors"])
@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "cut", "bytes", "fifo"])
def test_a_file_that_is_none(run, whole, name, kind):
    import os

    path = run / name
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_bytes(
            {"empty": b"", "cut": content[: len(content) // 2]}.get(kind, b"\xff" * 99)
        )
        retie(run)
    assert use(run, whole) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_value_missing_or_odd(run, whole, name):
    """Every key of every file, dropped and replaced; each time by other odd values."""
    original = json.loads((run / name).read_text())
    backup = {path.name: path.read_bytes() for path in run.iterdir()}
    rng = random.Random(0)
    for path in places(original):
        odd = rng.sample(ODD, 3)
        changes: list[Callable[[Any, Any], None]] = [lambda at, key: at.__delitem__(key)]
        changes += [lambda at, key, v=value: at.__setitem__(key, v) for value in odd]
        deep = path[0] in ("evaluation", "environment", "configuration", "ids", "baselines")
        for change in changes[: 1 if deep else 3]:
            (run / name).write_text(json.dumps(changed(original, path, change)))
            retie(run)
            use(run, whole)
            for file, content in backup.items():
                (run / file).write_bytes(content)


def test_flipped_bits_are_found(run, whole):
    rng = random.Random(0)
    for name in ("head.safetensors", "head.json", "training_items.json", "backbone.safetensors"):
        content = (run / name).read_bytes()
        for _ in range(5):
            at = rng.randrange(len(content))
            flipped = (
                content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
            )
            (run / name).write_bytes(flipped)
            assert use(run, whole) is not None
        (run / name).write_bytes(content)
    assert use(run, whole) is None


def test_a_run_of_a_later_version_is_not_called_damaged(run, whole):
    values = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**values, "format": values["format"] + 1}))
    line = use(run, whole)
    assert line is not None
    assert "later version of headstart" in line
    assert "damaged" not in line


def test_scores_that_are_missing_are_missing(run):
    (run / "metrics.json").unlink()
    with pytest.raises(HeadstartError, match=r"metrics\.json' is missing; restore it"):
        _ = open_run(run).evaluation
