"""What runners cost: images a second once started, plain, by processes and by actors of Ray.

``python benchmarks/runners.py DATA --items 20000`` runs each in turn, several times, one thread a
worker, and compares the rates between a tenth and the whole of the job, as the driver hears of
rows: starting processes, importing and loading are not in it, and are shown apart. The processor
time of all processes for a thousand rows says the same on a machine that others use.

``--one-core`` binds each worker, with its threads, to a processor of its own: a worker then uses
one core, and no more. ``--weights FILE --side 96`` takes MobileNetV1 up to ``blocks.4.0``, whose
network binds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import psutil

from headstart.backbones import Backbone, load_backbone
from headstart.cache import FeatureCache
from headstart.core.progress import SilentReporter
from headstart.data import load_items
from headstart.extraction import Extraction
from headstart.runners import Crew
from headstart.runners.help import crew_of

KINDS = ("plain", "processes 1", "processes 2", "ray 1", "ray 2")


class Heard(SilentReporter):
    """Remembers when rows were done, and the processor time of all processes by then."""

    def __init__(self, total: int) -> None:
        self.times: list[tuple[float, int]] = []
        self.done, self.total = 0, total
        self.spent: list[tuple[float, int]] = []
        self._listens = False

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Heard]:  # noqa: ARG002
        """Begin to listen, where rows are extracted."""
        self._listens = name.startswith("extract")
        yield self
        self._listens = False

    def advance(self, count: int = 1) -> None:
        """Hear of some rows."""
        if not self._listens or not count:
            return
        self.done += count
        self.times.append((time.perf_counter(), self.done))
        if len(self.spent) < 1 + (self.done >= 0.97 * self.total) and self.done >= self.total / 10:
            self.spent.append((processor_seconds(), self.done))

    def rate(self) -> float:
        """Return rows a second between a tenth and the last of them."""
        start = next((t, n) for t, n in self.times if n >= self.done / 10)
        end = self.times[-1]
        return (end[1] - start[1]) / (end[0] - start[0])

    def cost(self) -> float:
        """Return the processor seconds of all processes for a thousand rows."""
        (begin, first), (end, last) = self.spent[0], self.spent[-1]
        return 1000 * (end - begin) / max(1, last - first)


def processor_seconds() -> float:
    """Return what this process and all below it have spent."""
    own, total = psutil.Process(), 0.0
    for process in [own, *own.children(recursive=True)]:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
            if process == own:  # and those that have ended
                total += times.children_user + times.children_system
    return total


class Binding(threading.Thread):
    """Binds the threads of each worker to a processor, as long as the context lasts."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._cores: dict[int, int] = {}

    def __enter__(self) -> Binding:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        """Look for workers, and for threads that they have started."""
        while not self._done.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error, OSError):
                    if process.pid not in self._cores:
                        words = " ".join(process.cmdline())
                        if "spawn_main" not in words and "ray::_Worker" not in words:
                            continue
                        self._cores[process.pid] = len(self._cores) % (os.cpu_count() or 1)
                    for thread in process.threads():
                        os.sched_setaffinity(thread.id, {self._cores[process.pid]})


def network_of(given: argparse.Namespace) -> Backbone:
    """Return the backbone: MobileNetV1 where its weights are given."""
    if given.weights is None:
        return load_backbone(given.backbone)
    return load_backbone(
        "timm/mobilenetv1_100",
        weights=given.weights,
        layer="blocks.4.0",
        model_args={"pad_type": "same", "bn_eps": 1e-3},
        size=given.side,
        mean=0.5,
        std=0.5,
    )


def once(kind: str, given: argparse.Namespace) -> tuple[float, float, float]:
    """Return the rate, the cost, and the seconds until the first rows."""
    name, _, workers = kind.partition(" ")
    settings = Extraction(
        batch_size=given.batch, engine=given.engine, precision="float32", workers=1, device="cpu"
    )
    network = network_of(given)
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder))
        split = load_items(given.data)
        split = split.take(range(min(given.items, len(split))))
        _ = split.ids
        if name != "plain":
            cache.crew = crew_of(Crew(name, int(workers)))
        heard, begun = Heard(len(split)), time.perf_counter()
        with Binding() if given.one_core and name != "plain" else nullcontext():
            cache.features(network, split, settings=settings, reporter=heard)
        return heard.rate(), heard.cost(), heard.times[0][0] - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--backbone", default="headstart/glyphs")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--weights", default=None, help="of MobileNetV1, as safetensors")
    parser.add_argument("--side", type=int, default=96, help="of the images of MobileNetV1")
    parser.add_argument("--engine", default="eager")
    parser.add_argument("--one-core", action="store_true", help="a worker has one processor")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in given.kinds}
    for turn in range(given.turns):
        for kind in given.kinds:
            found[kind].append(once(kind, given))
            rate, cost, start = found[kind][-1]
            print(
                f"turn {turn}  {kind:12} {rate:8,.0f}/s, {cost:.2f} s of processor for 1,000,"
                f" first rows after {start:.1f} s",
                flush=True,
            )
    for kind, runs in found.items():
        rates, costs, _ = zip(*runs, strict=True)
        print(
            f"{kind:12} median {statistics.median(rates):8,.0f}/s {sorted(map(round, rates))},"
            f" {statistics.median(costs):.2f} s of processor for 1,000"
        )


if __name__ == "__main__":
    main()
