"""Signals and kills while features are computed: little is lost, the exit says what happened."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import headstart
from headstart.cache import Block, Filling, fill
from headstart.cache.fill import COMMIT_SECONDS
from headstart.commands.signals import EndedBySignal, end_on_signals
from headstart.extraction import Extraction, Extractor, replica
from headstart.store import Space, Store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

IDS = [hashlib.md5(str(i).encode()).hexdigest() for i in range(2000)]
TOP = Path(__file__).parents[2]

# What a command does around a fill, with a computation of 0.02 s an item in batches of 16.
FILLER = """
import sys, time
import numpy as np
from headstart.cache import Block, fill
from headstart.commands import cli
from headstart.store import Store
from tests.attacks.test_signals import IDS

def compute(keys):
    for start in range(0, len(keys), 16):
        part = keys[start : start + 16]
        time.sleep(0.02 * len(part))
        print(len(part), flush=True)
        yield Block(part, [{"x": np.ones((len(part), 4), np.float32)}])

def work():
    space = Store(sys.argv[1]).space({"n": 1})
    fill([space], IDS, compute, task="compute", unit="items", batch_size=16)

cli.app = work
cli.main()
"""


def start(code: str, *arguments: object, before: Callable[[], Any] | None = None) -> Any:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=before,
    )


def run_for(process: Any, seconds: float) -> int:
    """Let it compute for a while; return how many items it said that it had computed."""
    computed, begun = int(process.stdout.readline()), time.monotonic()
    while time.monotonic() - begun < seconds:
        computed += int(process.stdout.readline())
    return computed


def ended(process: Any) -> tuple[int, int, list[str]]:
    """Return what else it computed, its exit status, and its lines on standard error."""
    out, err = process.communicate(timeout=60)
    return sum(map(int, out.split())), process.returncode, err.splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_signal_ends_a_command_in_order(
    tmp_path: Path, number: signal.Signals, seconds: float
) -> None:
    process = start(FILLER, tmp_path, before=lambda: signal.signal(number, signal.SIG_DFL))
    computed = run_for(process, seconds)
    process.send_signal(number)
    process.send_signal(number)  # as by a scheduler and by its launcher
    more, status, lines = ended(process)
    assert status == 128 + number
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "features that were computed are kept" in lines[0]
    if number != signal.SIGINT:
        assert number.name in lines[0]
    computed += more
    kept = len(Store(tmp_path).space({"n": 1}))
    assert computed - 16 <= kept <= computed  # at most the batch under way
    assert Store(tmp_path).verify().faults == ()
    space = Store(tmp_path).space({"n": 1})
    assert len(space.claim(IDS)) == len(IDS) - kept  # nothing is claimed any more


def test_a_kill_loses_no_more_than_a_few_seconds(tmp_path: Path) -> None:
    process = start(FILLER, tmp_path)
    computed = run_for(process, 2 * COMMIT_SECONDS + 1)
    process.kill()
    more, _, _ = ended(process)
    kept = len(Store(tmp_path).space({"n": 1}))
    assert kept > 0
    lost = (computed + more - kept) * 0.02
    # What was computed since the last commit, and the batch that made it due.
    assert lost <= COMMIT_SECONDS + 2 * 16 * 0.02


def test_what_is_ignored_stays_ignored(tmp_path: Path) -> None:
    process = start(FILLER, tmp_path, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    run_for(process, 0.0)
    process.send_signal(signal.SIGHUP)
    run_for(process, 0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process)[1] == 143


def test_handlers_of_a_program_stay_its_own(tmp_path: Path) -> None:
    """The library sets none, and the command line replaces none."""
    seen: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda n, _: seen.append(n)) for number in numbers]
    mine = [signal.getsignal(number) for number in numbers]
    try:
        space = Store(tmp_path).space({"n": 1})

        def compute(keys: list[str]) -> Iterator[Block]:
            os.kill(os.getpid(), signal.SIGTERM)
            yield Block(keys, [{"x": np.ones((len(keys), 4), np.float32)}])

        fill([space], IDS[:8], compute, task="compute", unit="items")
        end_on_signals()
        assert [signal.getsignal(number) for number in numbers] == mine
        assert seen == [signal.SIGTERM]
        assert len(space) == 8
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_other_threads_set_no_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            end_on_signals()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (errors, signal.getsignal(signal.SIGTERM)) == ([], before)


FORKER = """
import os, signal, sys, time
from headstart.commands.signals import end_on_signals
end_on_signals()
child = os.fork()
if child == 0:
    try:
        time.sleep(60)
    finally:
        print("a worker must not act for its parent", flush=True)
time.sleep(0.3)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_forked_worker_ends_as_ever() -> None:
    out, err = start(FORKER).communicate(timeout=60)
    assert (out, err) == (f"{-signal.SIGTERM}\n", "")


@pytest.mark.parametrize("error", [EndedBySignal(signal.SIGTERM), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_in_the_middle_of_a_commit_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, when: str
) -> None:
    spaces = [Store(tmp_path).space({"n": n}) for n in range(2)]
    real, calls = Space.append, [0]

    def append(self: Space, *arguments: Any, **options: Any) -> int:
        calls[0] += 1
        interrupted = calls[0] == 2
        if interrupted and when == "before":
            raise error
        count = real(self, *arguments, **options)
        if interrupted:
            raise error
        return count

    monkeypatch.setattr(Space, "append", append)
    rows = np.ones((8, 4), np.float32)

    def compute(keys: list[str]) -> Iterator[Block]:
        for start in range(0, len(keys), 8):
            yield Block(keys[start : start + 8], [{"x": rows}, {"x": rows}])

    with pytest.raises(type(error)):
        fill(spaces, IDS[:8], compute, task="compute", unit="items", batch_size=2)
    assert [len(space) for space in spaces] == [8, 8]


def test_rows_that_cannot_be_stored_are_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]

    def append(*_: Any, **__: Any) -> int:
        calls[0] += 1
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Space, "append", append)
    with pytest.raises(OSError, match="No space"), Filling([Store(tmp_path).space({})]) as filling:
        rows = np.ones((4, 2), np.float32)
        filling.fill(IDS[:4], lambda keys: [Block(keys, [{"x": rows}])])
        filling.commit()
    assert calls == [1]


NETWORK = """
import time
import torch

class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3)

    def forward(self, images):
        time.sleep(0.03 * len(images))
        return self.convolution(images).mean((2, 3))

def make():
    torch.manual_seed(0)
    return Slow()
"""


@pytest.mark.slow
def test_a_real_command_resumes_where_it_was_ended(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(150):
            image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            image.save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "net.py").write_text(NETWORK)
    words = ["fit", tmp_path / "data", "--backbone", f"{tmp_path / 'net.py'}:make", "--size", "32"]
    words += ["--mean", "0.5", "--std", "0.5", "--batch-size", "16", "--out", tmp_path / "run"]
    words += ["--cache", tmp_path / "cache"]
    code = "from headstart.commands.cli import main; main()"
    process = start(code, *words)
    rows, begun = 0, time.monotonic()
    while not rows and time.monotonic() - begun < 60:
        time.sleep(0.1)
        rows = sum(info.rows for info in Store(tmp_path / "cache").spaces())
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: ended by SIGTERM")
    (info,) = Store(tmp_path / "cache").spaces()
    assert 16 <= info.rows < 300
    process = start(code, *words)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert f"{info.rows:,} feature rows came from the cache" in err


class _Seen(list[int]):
    """Shared by copies of the network: engines run one of their own."""

    def __deepcopy__(self, _memo: object) -> _Seen:
        return self


class _Sleeper(torch.nn.Module):
    """Takes a time for each item, and notes how many it is given."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.seen = seconds, _Seen()
        self.convolution = torch.nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(images))
        time.sleep(self.seconds * len(images))
        return self.convolution(images).mean((2, 3))


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_a_slow_network_is_run_in_small_steps(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 images at 0.25 s each were one batch of 16 s; here the bounds are a twentieth."""
    monkeypatch.setattr(replica, "_SLOW_SECONDS", 0.6)
    monkeypatch.setattr(replica, "_STEP_SECONDS", 0.35)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)
    split = headstart.load_data((images, np.zeros(100, int)), test_fraction=0.1).train
    module = _Sleeper(seconds)
    backbone = headstart.load_backbone(module, size=8, mean=(0.5,), std=(0.5,))
    with Extractor((backbone,), Extraction(batch_size=64)) as extractor:
        module.seen.clear()
        parts = list(extractor.rows(split))
    sizes = [len(part.indices) for part in parts]
    assert sum(sizes) == len(split)
    if seconds:
        assert max(sizes) <= 16
        assert len(set(module.seen[-len(sizes) :])) == 1  # all of one shape
    else:
        assert max(sizes) == 64
    assert [i for part in parts for i in part.indices] == list(range(len(split)))
    rows = np.concatenate([part.features[0] for part in parts])
    module.seconds = 0.0
    with Extractor((backbone,), Extraction(batch_size=64)) as extractor:
        again = np.concatenate([part.features[0] for part in extractor.rows(split)])
    np.testing.assert_allclose(rows, again, rtol=1e-4, atol=1e-5)
