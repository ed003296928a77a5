"""Kill what computes, again and again, and count: rows that are missing, double, computed twice.

``python benchmarks/kills.py worker --kills 20`` kills actors of Ray; ``raylet`` kills nodes of a
cluster of three raylets on this machine, each replaced by a new one; ``driver`` kills the process
that hands out the shards, which is started again; ``processes`` kills workers of that runner. Every
reading of an item is written to a file, so that rework is counted and not estimated.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

from headstart.backbones import load_backbone
from headstart.core.progress import SilentReporter
from headstart.data import Items, Split
from headstart.extraction import Extraction
from headstart.runners import Crew, Job
from headstart.store import Store

BATCH, SIDE, WORKERS = 8, 16, 2


class Logged(Items):
    """Synthetic pictures; each reading of one is a line of a file."""

    verify, kind = False, "image"

    def __init__(self, count: int, log: Path) -> None:
        super().__init__(count)
        self._log = log

    def content(self, i: int) -> np.ndarray:
        """Return a picture, and note that it was read."""
        with self._log.open("a") as log:  # short appends are whole, whoever makes them
            log.write(f"{i}\n")
        return self.picture(i)

    def picture(self, i: int) -> np.ndarray:
        """Return random colours."""
        return np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)

    def origin(self, i: int) -> str:
        """Return its number."""
        return f"picture {i}"

    def _compute_digest(self, i: int) -> str:
        return f"{i:032x}"


def drive(given: argparse.Namespace) -> None:
    """Be the driver."""
    place = Path(given.place)
    items = Logged(given.items, place / "log")
    split = Split(items, np.arange(given.items), np.full(given.items, -1))
    settings = Extraction(batch_size=BATCH, engine="eager", precision="float32", workers=1)
    job = Job((load_backbone("headstart/glyphs"),), (split,), settings, str(place / "cache"))
    _ = split.ids
    runner = "processes" if given.kind == "processes" else "ray"
    started = time.perf_counter()
    ran = Crew(runner, workers=WORKERS, address=given.address).run(job, SilentReporter())
    seconds = time.perf_counter() - started
    print(json.dumps({"done": sum(one.done for one in ran), "seconds": round(seconds, 1)}))


def start(given: argparse.Namespace, place: Path, address: str | None) -> subprocess.Popen[str]:
    words = [sys.executable, __file__, given.kind, "--drive", "--place", str(place)]
    words += ["--items", str(given.items)] + (["--address", address] if address else [])
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    said = (place / "said").open("w")  # a pipe that nobody reads would stop it
    return subprocess.Popen(
        words,
        env={**os.environ, "PYTHONPATH": path},
        stdout=said,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def lines(place: Path) -> int:
    log = place / "log"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def children(root: psutil.Process, name: str) -> list[psutil.Process]:
    found = []
    for child in root.children(recursive=True):
        try:
            if any(name in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return sorted(found, key=lambda one: one.pid)


def kill_one(names: tuple[str, ...], root: psutil.Process, turn: int) -> bool:
    for name in names:
        found = children(root, name)
        if found:
            victim = found[turn % len(found)]
            victim.send_signal(signal.SIGKILL)
            return True
    return False


def rounds(given: argparse.Namespace, place: Path) -> tuple[int, int]:
    """Kill; return how many kills there were, and how many starts of the driver."""
    address, cluster = None, None
    if given.kind in ("raylet", "driver"):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": 150 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        node = {"num_cpus": 1, "object_store_memory": 150 * 2**20}
        nodes = [cluster.add_node(**node) for _ in range(WORKERS)]
        address = cluster.address
    driver, starts, kills, seen = start(given, place, address), 1, 0, 0
    try:
        while driver.poll() is None:
            time.sleep(0.05)
            if kills >= given.kills or lines(place) < seen + given.apart:
                continue
            if given.kind == "driver":
                driver.kill()
                driver.wait()
                driver, starts, done = start(given, place, address), starts + 1, True
            elif cluster is not None:
                victim = nodes.pop(0)
                cluster.remove_node(victim, allow_graceful=False)
                nodes.append(cluster.add_node(**node))
                done = True
            else:
                names = ("ray::_Worker",) if given.kind == "worker" else ("spawn_main",)
                done = kill_one(names, psutil.Process(driver.pid), kills)
            if done:
                kills, seen = kills + 1, lines(place)
        said = (place / "said").read_text()
        print("the last driver:", said.strip().rpartition("\n")[2], "status", driver.returncode)
    finally:
        if driver.poll() is None:
            driver.kill()
        if cluster is not None:
            cluster.shutdown()
    return kills, starts


def count(given: argparse.Namespace, place: Path, kills: int, starts: int) -> bool:
    """Print what there is; return whether nothing is missing or double."""
    store = Store(place / "cache")
    (info,) = store.spaces()
    space = store.find(info.key)
    ids = Counter(key for _, rows in space.all_rows() for key in rows.ids)
    wanted = {f"{i:032x}" for i in range(given.items)}
    read = Counter((place / "log").read_text().split())
    rework = sum(read.values()) - len(read)
    from headstart.runners.plan import shard_size

    size = shard_size(given.items, BATCH)
    double = sum(n - 1 for n in ids.values())
    faults = [fault for fault in store.verify().faults if fault.kind != "foreign"]
    # A kill between renaming a shard and registering it leaves a file that nobody reads.
    orphans = [fault for fault in faults if fault.kind == "orphan"]
    sound = len(faults) == len(orphans)
    for fault in faults[:5]:
        print("verify:", fault)
    print(
        f"{given.kind}: {kills} kills, {starts} starts of the driver, {given.items:,} rows:"
        f" {len(wanted - set(ids))} missing, {double} double, {len(orphans)} files never"
        f" registered, {len(faults) - len(orphans)} other faults; {rework:,} items read twice,"
        f" {rework / max(1, kills):.1f} a kill; a shard is {size} items, and each of {WORKERS}"
        " workers has the shards of a second in flight"
    )
    return sound and not double and wanted == set(ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["worker", "raylet", "driver", "processes"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--apart", type=int, default=400, help="items between two kills")
    parser.add_argument("--place", default=None)
    parser.add_argument("--address", default=None)
    parser.add_argument("--drive", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        drive(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        kills, starts = rounds(given, place)
        if not count(given, place, kills, starts):
            sys.exit(1)


if __name__ == "__main__":
    sys.modules["kills"] = sys.modules["__main__"]
    Logged.__module__ = "kills"  # the actors import this file by its name
    main()
