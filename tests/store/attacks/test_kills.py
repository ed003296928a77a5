"""SIGKILL at random moments of a real extraction by one and by four processes, then a resume."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headstart.store import Store
from tests.store.attacks import worker

COUNT = 24 * worker.BATCH
REPOSITORY = Path(__file__).resolve().parents[3]

# A worker that imports torch once and forks for each run: killing it costs nothing to start anew.
NURSERY = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.store.attacks import worker
from headstart.store import Store
for line in sys.stdin:
    root, count, claims = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            log = Path(root).parent / "computed.log"
            space = Store(root).space(worker.DESCRIPTION)
            worker.extract(space, worker.item_ids(int(count)), log, claims=claims == "1")
            code = 0
        finally:
            os._exit(code)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Nursery:
    """Starts workers that can be killed, several at a time."""

    def __init__(self, size: int) -> None:
        self.mothers = [
            subprocess.Popen(
                [sys.executable, "-c", NURSERY],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(size)
        ]

    def start(self, root: Path, *, claims: bool) -> list[int]:
        children = []
        for mother in self.mothers:
            mother.stdin.write(f"{root}\t{COUNT}\t{int(claims)}\n")
            mother.stdin.flush()
        for mother in self.mothers:
            children.append(int(mother.stdout.readline()))
        return children

    def wait(self) -> list[int]:
        return [int(mother.stdout.readline()) for mother in self.mothers]

    def close(self) -> None:
        for mother in self.mothers:
            mother.stdin.close()
            mother.wait(timeout=60)
            mother.stdout.close()


@pytest.fixture(params=[1, 4])
def nursery(request: pytest.FixtureRequest) -> Iterator[Nursery]:
    made = Nursery(request.param)
    yield made
    made.close()


def kill_and_resume(nursery: Nursery, folder: Path, kills: int, seed: int) -> None:
    """Kill all workers at once, ``kills`` times, over as many extractions as that takes."""
    rng = random.Random(seed)
    ids = worker.item_ids(COUNT)
    expected = worker.features(ids, worker.network())
    root, log = folder / "store", folder / "computed.log"
    many = len(nursery.mothers) > 1
    done = 0
    while done < kills:
        shutil.rmtree(root, ignore_errors=True)
        log.unlink(missing_ok=True)
        killed = 0
        while True:
            children = nursery.start(root, claims=many)
            if done < kills:
                time.sleep(rng.uniform(0.0, 0.25))
                for child in children:
                    _kill(child)
            codes = nursery.wait()
            assert set(codes) <= {0, -signal.SIGKILL}, codes
            killed += codes.count(-signal.SIGKILL)
            done += -signal.SIGKILL in codes
            if 0 in codes and not Store(root).space(worker.DESCRIPTION).missing(ids):
                break
        space = Store(root).space(worker.DESCRIPTION)
        np.testing.assert_array_equal(space.read(ids).array(), expected, strict=True)
        assert len(space) == COUNT
        computed = Counter(log.read_text().split())
        rework = sum(computed.values()) - COUNT
        assert rework <= killed * worker.BATCH, f"{rework} items again after {killed} kills"
        assert Store(root).verify(repair=True).ok
        assert Store(root).verify().faults == ()
        assert list((space.folder / "tmp").iterdir()) == []
        np.testing.assert_array_equal(space.read(ids).array(), expected, strict=True)


def _kill(child: int) -> None:
    # The mother reaps a finished child at once; its number is not used again that soon.
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="uses fork")
def test_at_least_ten_kills(nursery: Nursery, tmp_path: Path) -> None:
    processes = len(nursery.mothers)
    kill_and_resume(nursery, tmp_path, kills=10 if processes == 1 else 3, seed=processes)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="uses fork")
def test_two_hundred_kills(nursery: Nursery, tmp_path: Path) -> None:
    kill_and_resume(nursery, tmp_path, kills=200, seed=100 + len(nursery.mothers))
