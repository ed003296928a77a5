"""The plan of shards: every item once, the same for every worker, whatever their number."""

from __future__ import annotations

import pytest
import torch

from headstart.core.errors import ConfigError
from headstart.extraction import Extraction
from headstart.runners.array import member
from headstart.runners.job import Job
from headstart.runners.on_machine import devices_of, on_own_device, settings_of
from headstart.runners.plan import MOST, shard_size, shards_of, turns


@pytest.mark.parametrize("count", [0, 1, 7, 64, 65, 1000, 20_001])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_every_item_is_in_one_shard(count: int, batch: int) -> None:
    ids = [f"{i:032x}" for i in range(count)]
    found = shards_of([ids[: count // 2], [*ids, *ids[:5]]], batch)
    assert sorted(key for shard in found for key in shard.ids) == ids
    assert all(shard.ids for shard in found)


def test_the_size_of_a_shard_does_not_depend_on_the_workers() -> None:
    assert [shard_size(n, 64) for n in (1, 300, 20_000, 1_000_000, 10**9)] == [
        64,
        64,
        128,
        3968,
        MOST,
    ]
    assert shard_size(10**9, 5000) == 5000


@pytest.mark.parametrize("of", [1, 2, 3, 8, 50])
def test_the_workers_divide_the_shards_and_look_at_all(of: int) -> None:
    own = []
    for index in range(of):
        mine, others = turns(37, index, of)
        assert sorted([*mine, *others]) == list(range(37))
        own += mine
    assert sorted(own) == list(range(37))


def test_variables_of_a_scheduler_say_it_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLURM_ARRAY_TASK_ID": "7",
        "SLURM_ARRAY_TASK_COUNT": "4",
        "SLURM_ARRAY_TASK_MIN": "1",
        "SLURM_ARRAY_TASK_STEP": "2",
        "JOB_COMPLETION_INDEX": "2",
        "RANK": "1",
        "WORLD_SIZE": "3",
    }.items():
        monkeypatch.setenv(name, value)
    assert member("slurm", None) == (3, 4)
    assert member("kubernetes", 5) == (2, 5)
    assert member("torchrun", None) == (1, 3)
    assert member("0", 2) == (0, 2)
    with pytest.raises(ConfigError, match="which member of how many"):
        member(None, None)
    with pytest.raises(ConfigError, match="which member of how many"):
        member("kubernetes", None)
    for wrong in ("2", "-1", "x", "1.0", "٣"):
        with pytest.raises(ConfigError, match="from 0 to 1"):
            member(wrong, 2)
    monkeypatch.delenv("RANK")
    with pytest.raises(ConfigError, match="needs the variable RANK"):
        member("torchrun", None)


def job_on(device: str) -> Job:
    return Job((), (), Extraction(device=device), "")


def test_workers_of_a_machine_share_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.extraction.settings._usable", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)

    def devices(device: str, count: int = 4) -> list[str]:
        return [settings_of(job_on(device), i, count).settings.device for i in range(count)]

    assert devices("auto") == devices("cuda") == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert devices("cuda:all") == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert devices("cuda:2,cuda:0", 3) == ["cuda:2", "cuda:0", "cuda:2"]
    assert devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert devices("cpu", 2) == ["cpu", "cpu"]
    assert len(devices_of(Extraction(device="cuda:all"))) == 3
    assert devices_of(Extraction(device="cpu")) == []
    # An actor of Ray sees its own GPUs only, counted from 0.
    for device in ("cuda:1", "cuda:all", "cuda:0,cuda:2"):
        assert on_own_device(job_on(device)).settings.device == "cuda"
    assert on_own_device(job_on("cpu")).settings.device == "cpu"
