"""What a worker has in flight is little, and one that ends holds up no other."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headstart.backbones import load_backbone
from headstart.cache import FeatureCache
from headstart.core.progress import SilentReporter
from headstart.data import Items, Split
from headstart.extraction import Extraction
from headstart.runners import Job, Ran, share
from headstart.runners.processes import _Crew


class Pictures(Items):
    """Pictures of random colours."""

    verify, kind = False, "image"

    def content(self, i: int) -> np.ndarray:
        """Return one."""
        return np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)

    def origin(self, i: int) -> str:
        """Return its number."""
        return f"picture {i}"

    def _compute_digest(self, i: int) -> str:
        return f"{i:032x}"


def test_rows_are_committed_in_the_middle_of_a_portion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert share._COMMIT_SECONDS < share.TOGETHER_SECONDS / 2
    monkeypatch.setattr(share, "_COMMIT_SECONDS", 0.0)
    count = 64
    split = Split(Pictures(count), np.arange(count), np.full(count, -1))
    settings = Extraction(batch_size=8, engine="eager", precision="float32", workers=1)
    job = Job((load_backbone("headstart/glyphs"),), (split,), settings, str(tmp_path))
    space = FeatureCache(str(tmp_path)).space(job.cuts[0], settings, None)
    seen: list[int] = []

    def told(done: int, shares: str) -> None:
        if seen:  # the commit of the batch before goes on beside this one
            deadline = time.monotonic() + 60
            while not len(space) and time.monotonic() < deadline:
                time.sleep(0.01)
        seen.append(len(space))

    with share.Share(job, 0, 1, told) as worker:
        worker.fill(range(worker.count))
    assert seen[1]
    assert seen[1] < count
    assert len(space) == count


class Member:
    """A worker whose process takes its time to end."""

    def __init__(self, index: int, log: list[Any], *said: Any) -> None:
        self.index, self.began = index, False
        self.connection, theirs = multiprocessing.Pipe(duplex=False)
        self.process = SimpleNamespace(
            exitcode=0, join=lambda *_: log.append(f"join {index}"), is_alive=lambda: False
        )
        for message in said:
            theirs.send(message)


def test_a_worker_that_is_done_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[Any] = []
    ran = [Ran(index, 5, 1.0) for index in range(2)]
    progress = SimpleNamespace(advance=log.append, tell=lambda _: None)
    crew = _Crew(tmp_path, 2, progress, SilentReporter())  # type: ignore[arg-type]
    said = {0: [("ran", ran[0])], 1: [("told", 5, ""), ("ran", ran[1])]}

    def start(index: int) -> None:
        member: Any = Member(index, log, *said[index])
        crew._members[member.connection] = member

    monkeypatch.setattr(crew, "_start", start)
    assert crew.run() == ran
    assert log == [5, "join 0", "join 1"]
