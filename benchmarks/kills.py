"""Kill what computes, again and again, and count: rows that are missing, double, computed twice.

``python benchmarks/kills.py worker --kills 20`` kills actors of Ray; ``raylet`` kills nodes of a
cluster of three raylets on this machine, each replaced by a new one; ``driver`` kills the process
that hands out the shards, which is started again; ``processes`` kills workers of that runner. Every
reading of an item and every portion of shards that a worker begins is written to a file, so that
rework is counted and not estimated, and stands beside what was in flight: after each kill, what the
dead workers had begun is held against what the store has by then.
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
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from headstart.backbones import load_backbone
from headstart.core.progress import SilentReporter
from headstart.data import Items, Split
from headstart.extraction import Extraction
from headstart.runners import Crew, Job
from headstart.runners.plan import shard_size
from headstart.runners.share import Share
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
            log.write(f"{i} {os.getpid()}\n")
        return self.picture(i)

    def __setstate__(self, state: dict[str, object]) -> None:
        """Arrive in a worker: it notes from now on which shards it begins."""
        self.__dict__.update(state)
        note_portions(self._log.with_name("given"))

    def picture(self, i: int) -> np.ndarray:
        """Return random colours."""
        return np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)

    def origin(self, i: int) -> str:
        """Return its number."""
        return f"picture {i}"

    def _compute_digest(self, i: int) -> str:
        return f"{i:032x}"


def note_portions(log: Path) -> None:
    """Let the share of this process write down the shards that it begins, before it does."""
    fill = Share.fill

    def noted(share: Share, numbers: Sequence[int], **more: bool) -> float:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {' '.join(map(str, numbers))}\n")
        return fill(share, numbers, **more)

    Share.fill = noted  # type: ignore[method-assign]


@dataclass(frozen=True)
class Flight:
    """What was in flight at a kill.

    Attributes:
        shards: that the dead workers had begun and of which the store lacked rows.
        items: of those shards that the store lacked.
        read: items that the dead workers had read and the store lacked.
    """

    shards: int
    items: int
    read: int


def in_flight(given: argparse.Namespace, place: Path, dead: Collection[int]) -> Flight:
    """Return what workers had in flight, now that they are dead."""
    there = stored(place)
    size = shard_size(given.items, BATCH)
    begun = set()
    for line in text(place / "given").splitlines():
        pid, *numbers = map(int, line.split())
        begun.update(numbers if pid in dead else ())
    lacking = {n: set(range(n * size, min((n + 1) * size, given.items))) - there for n in begun}
    read = {
        int(i) for i, pid in map(str.split, text(place / "log").splitlines()) if int(pid) in dead
    }
    return Flight(
        sum(1 for items in lacking.values() if items),
        sum(map(len, lacking.values())),
        len(read - there),
    )


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def stored(place: Path) -> set[int]:
    """Return the items whose rows the store has."""
    store = Store(place / "cache")
    return {
        int(key, 16)
        for info in store.spaces()
        for _, rows in store.find(info.key).all_rows()
        for key in rows.ids
    }


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


NAMES = {"processes": "spawn_main"}


def kill_one(given: argparse.Namespace, root: psutil.Process, turn: int) -> list[psutil.Process]:
    found = children(root, NAMES.get(given.kind, "ray::_Worker"))
    for victim in found[turn % len(found) :][:1] if found else ():
        victim.send_signal(signal.SIGKILL)
        return [victim]
    return []


def rounds(given: argparse.Namespace, place: Path) -> tuple[list[Flight], int]:
    """Kill; return what was in flight at each kill, and how often the driver was started."""
    address, cluster = None, None
    if given.kind in ("raylet", "driver"):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": 150 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        node = {"num_cpus": 1, "object_store_memory": 150 * 2**20}
        nodes = [cluster.add_node(**node) for _ in range(WORKERS)]
        address = cluster.address
    driver, starts, seen = start(given, place, address), 1, 0
    flights: list[Flight] = []
    early: dict[int, Flight] = {}
    here = psutil.Process()
    try:
        while driver.poll() is None:
            time.sleep(0.05)
            if len(flights) >= given.kills or lines(place) < seen + given.apart:
                continue
            if given.kind == "driver":
                dying = children(here, NAMES.get(given.kind, "ray::_Worker"))
                driver.kill()
                driver.wait()
            elif cluster is not None:
                victim = nodes.pop(0)
                before = children(here, "ray::_Worker")
                # Others take over the shards while the actors of a dead node are still ending.
                early = {one.pid: in_flight(given, place, {one.pid}) for one in before}
                cluster.remove_node(victim, allow_graceful=False)
                dying = psutil.wait_procs(before, timeout=2)[0]
            else:
                dying = kill_one(given, psutil.Process(driver.pid), len(flights))
            if not dying and given.kind in NAMES | {"worker": ""}:
                continue
            psutil.wait_procs(dying, timeout=20)
            found = in_flight(given, place, {one.pid for one in dying})
            known = [early[one.pid] for one in dying if one.pid in early]
            flights.append(max([found, *known], key=lambda one: one.items))
            if given.kind == "driver":
                driver, starts = start(given, place, address), starts + 1
            elif cluster is not None:
                nodes.append(cluster.add_node(**node))
            seen = lines(place)
        said = (place / "said").read_text()
        print("the last driver:", said.strip().rpartition("\n")[2], "status", driver.returncode)
    finally:
        if driver.poll() is None:
            driver.kill()
        if cluster is not None:
            cluster.shutdown()
    return flights, starts


def count(given: argparse.Namespace, place: Path, flights: Sequence[Flight], starts: int) -> bool:
    """Print what there is; return whether none is missing or double, or reworked needlessly."""
    store = Store(place / "cache")
    (info,) = store.spaces()
    space = store.find(info.key)
    ids = Counter(key for _, rows in space.all_rows() for key in rows.ids)
    wanted = {f"{i:032x}" for i in range(given.items)}
    read = Counter(line.split()[0] for line in text(place / "log").splitlines())
    rework = sum(read.values()) - len(read)
    size = shard_size(given.items, BATCH)
    double = sum(n - 1 for n in ids.values())
    faults = [fault for fault in store.verify().faults if fault.kind != "foreign"]
    # A kill between renaming a shard and registering it leaves a file that nobody reads.
    orphans = [fault for fault in faults if fault.kind == "orphan"]
    sound = len(faults) == len(orphans)
    for fault in faults[:5]:
        print("verify:", fault)
    kills, items = len(flights), sum(one.items for one in flights)
    print(
        f"{given.kind}: {kills} kills, {starts} starts of the driver, {given.items:,} rows:"
        f" {len(wanted - set(ids))} missing, {double} double, {len(orphans)} files never"
        f" registered, {len(faults) - len(orphans)} other faults"
    )
    print(
        f"rework: {rework:,} items read twice, {rework / max(1, kills):.1f} a kill; in flight at"
        f" the kills: {items:,} items in {sum(one.shards for one in flights)} shards of {size},"
        f" of which {sum(one.read for one in flights):,} had been read"
    )
    for turn, one in enumerate(flights, 1):
        print(f"  kill {turn}: {one.shards} shards, {one.items} items, {one.read} read")
    return sound and not double and wanted == set(ids) and rework <= items


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
        flights, starts = rounds(given, place)
        if not count(given, place, flights, starts):
            sys.exit(1)


if __name__ == "__main__":
    sys.modules["kills"] = sys.modules["__main__"]
    Logged.__module__ = "kills"  # the actors import this file by its name
    main()
