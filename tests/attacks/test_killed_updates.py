"""SIGKILL at moments all over an update: the run folder is the old run or the new one, whole."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from headstart import fit, open_run, predict, update
from headstart.core.progress import SilentReporter

QUIET = SilentReporter()
CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def digits(rows: slice) -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return np.rint(data.images[rows] / 16 * 255).astype(np.uint8), data.target[rows]


OLD, NEW, TEST = slice(0, 200), slice(200, 210), slice(1600, 1700)


def updated(folder: Path, cache: Path) -> None:
    update(digits(NEW), folder, cache=cache, reporter=QUIET)


def changes_or_kill(step: int, folder: Path, cache: Path) -> tuple[bool, int]:
    """Update a run in a process that is killed before its ``step``-th change of the disk.

    Returns:
        Whether it was killed; else how many changes there were.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        seen = [0]

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
            if event in CHANGES or opened:
                seen[0] += 1
                if seen[0] == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            torch.set_num_threads(1)  # threads do not live on in a child
            sys.addaudithook(hook)
            updated(folder, cache)
            os.write(writing, str(seen[0]).encode())
            os._exit(0)
        except BaseException:
            os._exit(9)
    os.close(writing)
    status = os.waitpid(child, 0)[1]
    said = os.read(reading, 32)
    os.close(reading)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True, 0
    assert os.WEXITSTATUS(status) == 0
    return False, int(said)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_update_leaves_the_old_run_or_the_new_one(tmp_path: Path) -> None:
    first, images = tmp_path / "first", digits(TEST)[0]
    data = {"train": digits(OLD), "test": digits(TEST)}
    given: dict[str, Any] = {"cache": tmp_path / "cache", "reporter": QUIET}
    fit(data, "headstart/glyphs", head="ridge", out=first, baselines=False, **given)

    def fresh(step: int) -> tuple[Path, Path]:
        place = tmp_path / f"{step}"
        shutil.copytree(first, place / "run")
        return place / "run", place / "cache"

    run, cache = fresh(0)
    updated(run, cache)  # whatever is imported late is there for the children
    shutil.rmtree(run.parent)
    run, cache = fresh(0)
    killed, steps = changes_or_kill(10**9, run, cache)
    assert not killed
    assert steps > 20
    expected = {
        200: predict(images, first, **given).probabilities,
        210: predict(images, run, **given).probabilities,
    }
    some = random.Random(0).sample(range(1, steps - 12), 5)
    found = []
    for step in sorted({1, *some, *range(steps - 12, steps + 1, 3)}):
        folder, place = fresh(step)
        assert changes_or_kill(step, folder, place)[0]
        saved = open_run(folder)
        assert saved.trained_on is not None
        size = len(saved.trained_on["train"])
        found.append(size)
        likely = predict(images, folder, **given).probabilities
        np.testing.assert_allclose(likely, expected[size], atol=1e-6)
        if size == 200:  # whatever was left behind, the same update goes through
            updated(folder, place)
        assert len(open_run(folder).trained_on["train"]) == 210  # type: ignore[index]
        shutil.rmtree(folder.parent)
    assert found == sorted(found)
    assert set(found) == {200, 210}
