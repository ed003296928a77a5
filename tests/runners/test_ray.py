"""Ray: the rows of the plain run, an actor's death and a missing package."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

from headstart.core.errors import ConfigError, MissingExtraError
from headstart.store import Store
from tests.runners.conftest import COUNT, Embed, rows_of


def test_without_the_package_one_line_says_so(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[ray\]'"):
        embed(tmp_path, runner="ray")


class Killer(threading.Thread):
    """Kills one actor of this process's cluster, once there are rows."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root, self.killed = root, 0
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.killed and not self.stopped.wait(0.05):
            if not list(self.root.glob("*/shards/*")):
                continue
            for child in psutil.Process().children(recursive=True):
                try:
                    found = any(word.startswith("ray::_Worker") for word in child.cmdline())
                except psutil.Error:
                    continue
                if found:
                    os.kill(child.pid, signal.SIGKILL)
                    self.killed = child.pid
                    return


@pytest.mark.slow
def test_rows_are_those_of_the_plain_run_though_an_actor_is_killed(
    embed: Embed, plain: dict[str, bytes], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    killer = Killer(tmp_path)
    killer.start()
    made = embed(tmp_path, runner="ray", runner_workers=2)
    killer.stopped.set()
    assert killer.killed
    assert (made.use.misses, made.bad) == (COUNT, 2)
    assert rows_of(tmp_path) == plain
    assert Store(tmp_path).verify().ok
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGTERM) is handler


def test_the_stage_that_binds_is_said_by_node() -> None:
    from headstart.runners.cluster import binding

    shares = {0: "decode 62 %, model 30 %", 1: "model 80 %", 2: "model 55 %", 3: ""}
    assert binding(shares, dict.fromkeys(range(4), "one")) == (
        "actors 0: decode 62 %, 1: model 80 %, 2: model 55 %"
    )
    places = {0: "a", 1: "b", 2: "b", 3: "b"}
    assert binding(shares, places) == "nodes a: decode (1), b: model (2)"
    many = dict.fromkeys(range(6), "model 9 %")
    assert binding(many, {i: f"n{i}" for i in range(6)}).endswith(", 2 more")
    assert binding({}, {}) == ""


def test_an_address_where_no_cluster_is_gives_one_line(embed: Embed, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match="no Ray cluster at"):
        embed(tmp_path, runner="ray", address="127.0.0.1:1")
