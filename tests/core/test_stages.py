"""Where time goes: stages of many threads, one within another, and the verdict in words."""

from __future__ import annotations

import threading
import time

import pytest

from headstart.core.stages import Stages, Throughput, stage


def work(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_threads_add_up_and_a_stage_within_another_counts_for_itself() -> None:
    stages = Stages()

    def decode() -> None:
        with stages.collecting(), stages("decode"):
            work(0.02)
            with stage("resize"):
                work(0.04)

    threads = [threading.Thread(target=decode) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stages.needed("resize") >= 0.12
    assert 0.06 <= stages.needed("decode") < stages.needed("resize")
    assert list(stages.seconds()) == ["decode", "resize"]
    assert stages.seconds()["resize"] >= 0.12


def test_a_stage_that_waits_needs_its_wall_time() -> None:
    stages = Stages()
    with stages("read"):
        time.sleep(0.05)
    assert stages.needed("read") >= 0.05
    assert stages.needed("write") == 0


def test_nobody_collects() -> None:
    with stage("decode"):
        pass
    stages = Stages()
    with pytest.raises(KeyError), stages.collecting(), stage("decode"):
        raise KeyError
    assert "decode" in stages.seconds()  # what failed took its time, too
    with stage("resize"):
        pass
    assert "resize" not in stages.seconds()
    assert stages.shares() in ("", "decode 100 %")


@pytest.mark.parametrize(
    ("rates", "workers", "verdict"),
    [
        (
            {"reading": 9000.0, "decoding": 412.3, "model": 1894.0, "writing": 5e5},
            2,
            "decoding-bound: 2 threads decode 410 images/s, the model could take 1,900",
        ),
        (
            {"reading": 9000.0, "decoding": 812.0, "model": 39.6, "writing": 5e5},
            2,
            "model-bound: the model takes 40 images/s, 2 threads could decode 810",
        ),
        (
            {"reading": 31.0, "decoding": 812.0, "model": 396.0, "writing": 5e5},
            1,
            "reading-bound: 1 thread reads 31 images/s, the model could take 400",
        ),
        (
            {"decoding": 812.0, "model": 396.0, "writing": 3.25},
            1,
            "writing-bound: 3.2 images/s are written, the model could take 400",
        ),
        ({"model": 396.0}, 1, "model-bound: the model takes 400 images/s"),
        ({}, 1, ""),
    ],
)
def test_the_verdict_names_what_binds(rates: dict[str, float], workers: int, verdict: str) -> None:
    found = Throughput(100, workers, {}, rates)
    assert found.verdict("images") == verdict
    assert found.describe("images")["verdict"] == verdict


def test_rates_are_those_of_each_stage_alone() -> None:
    stages = Stages()
    with stages("decode"):
        work(0.04)
    with stages("model"):
        work(0.02)
    found = Throughput.of(stages, 40, 2)
    assert found.rates["decoding"] == pytest.approx(2 * 40 / stages.needed("decode"))
    assert found.rates["model"] == pytest.approx(40 / stages.needed("model"))
    assert set(found.rates) == {"decoding", "model"}
