"""Every runner leaves the rows of the plain run in the store, bit by bit."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from pathlib import Path

import psutil
import pytest

import headstart
from headstart.core.errors import BadFilesError, ConfigError
from headstart.store import Store
from tests.runners.conftest import COUNT, SETTINGS, Embed, rows_of

Rows = dict[str, bytes]


def test_a_plain_run_leaves_all_rows(plain: Rows) -> None:
    assert len(plain) == COUNT


def test_members_of_an_array_divide_the_work(embed: Embed, plain: Rows, tmp_path: Path) -> None:
    done: list[int] = []

    def run(index: int) -> None:
        made = embed(tmp_path, runner="array", index=str(index), of=3)
        done.append(made.items)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert done == [COUNT + 3] * 3
    assert rows_of(tmp_path) == plain


def test_one_member_alone_does_the_work_of_all(embed: Embed, plain: Rows, tmp_path: Path) -> None:
    made = embed(tmp_path, runner="array", index="1", of=4)
    assert (made.use.hits, made.use.misses, made.bad) == (0, COUNT, 2)
    assert rows_of(tmp_path) == plain
    again = embed(tmp_path, runner="array", index="0", of=4)
    assert (again.use.hits, again.use.misses, again.bad) == (COUNT, 0, 2)


def test_what_cannot_be_read_is_listed_by_every_runner(embed: Embed, tmp_path: Path) -> None:
    with pytest.raises(BadFilesError, match="2 items cannot be read"):
        embed(tmp_path, runner="array", index="0", of=2, on_bad="raise")
    assert len(rows_of(tmp_path)) == COUNT


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"index": "0", "of": 2}, "index is for a job array"),
        ({"patience": 3.0}, "patience is for a job array"),
        ({"runner": "array"}, "which member of how many"),
        ({"runner": "array", "index": "2", "of": 2}, "from 0 to 1"),
        ({"runner": "procesess"}, "did you mean 'processes'"),
        ({"runner_workers": 2}, "runner='processes'"),
        ({"address": "auto"}, "runner='ray'"),
        ({"actor_gpus": 0.5}, "actor_gpus is for a Ray cluster"),
        ({"runner": "ray", "actor_cpus": 0.0}, "above 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    embed: Embed, tmp_path: Path, given: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        embed(tmp_path, **given)
    assert not list(tmp_path.iterdir())


def test_an_array_is_for_extract_alone(pictures: Path, tmp_path: Path) -> None:
    items = {"a": [*pictures.glob("00*.png")], "b": [*pictures.glob("01*.png")]}
    for label, paths in items.items():
        (tmp_path / "data" / label).mkdir(parents=True)
        for path in paths[:30]:
            (tmp_path / "data" / label / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ConfigError, match="headstart extract first"):
        headstart.fit(
            tmp_path / "data",
            "headstart/glyphs",
            runner="array",
            cache=tmp_path / "c",
            write=False,
            **SETTINGS,
        )


@pytest.mark.parametrize("data", ["digits", "photographs"])
def test_data_in_memory_can_be_sent(data: str) -> None:
    from headstart.data import load_parts
    from headstart.data.content import digest

    for split in load_parts(data).values():
        items = pickle.loads(pickle.dumps(split.items))
        assert digest(items.content(3)) == digest(split.items.content(3))


def is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False


class Killer(threading.Thread):
    """Kills the newest worker of this process as often as it is told to, once there are rows."""

    def __init__(self, root: Path, times: int) -> None:
        super().__init__(daemon=True)
        self.root, self.times = root, times
        self.killed: set[int] = set()
        self.stopped = threading.Event()

    def run(self) -> None:
        seen = 0
        while len(self.killed) < self.times and not self.stopped.wait(0.1):
            alive = [child.pid for child in psutil.Process().children() if is_worker(child)]
            shards = len(list(self.root.glob("*/shards/*")))
            fresh = set(alive) - self.killed
            if shards > seen and fresh:  # rows since the last one
                seen = shards
                os.kill(min(fresh), signal.SIGKILL)
                self.killed.add(min(fresh))


@pytest.mark.slow
def test_processes_are_replaced_when_they_are_killed(
    embed: Embed, plain: Rows, tmp_path: Path
) -> None:
    killer = Killer(tmp_path, 3)
    killer.start()
    made = embed(tmp_path, runner="processes", runner_workers=2)
    killer.stopped.set()
    assert killer.killed
    assert (made.use.misses, made.bad) == (COUNT, 2)
    assert rows_of(tmp_path) == plain
    assert Store(tmp_path).verify().ok
