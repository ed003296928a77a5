"""A simulation of the index, the claims and the log of an object store under many workers.

It runs the protocol of :mod:`headstart.store.remote` event by event: a worker computes a shard,
lists the log, reads the records that it does not know, registers them in its mirror, and puts its
own under the next number; whoever comes second at a number begins again with the listing. Times and
sizes are arguments: measure yours. It is a model, not a measurement: bandwidth is shared evenly, no
request fails, and no worker dies.

``python benchmarks/scale_model.py --rows 1e9 --workers 10000``
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass

SHARD, IDS_BYTES, LISTED = 4096, 32, 1000


@dataclass
class Times:
    """Seconds of one request, rows a second, bytes a second."""

    latency: float
    rate: float
    bandwidth: float
    register: float


@dataclass
class Seen:
    """What a run of the model came to."""

    seconds: float
    commits: int
    conflicts: int
    requests: float
    record_bytes: float
    waited: float


def commit_seconds(times: Times, log: int, unknown: int) -> tuple[float, float, float]:
    """Return seconds, requests and bytes of one attempt to put a record.

    Args:
        times: of the parts.
        log: records that there are.
        unknown: records that this worker has not read.
    """
    listing = 1 + log // LISTED
    record = SHARD * IDS_BYTES + 500
    moved = unknown * record
    rounds = -(-unknown // 128)  # records are read so many at a time
    seconds = (listing + rounds + 1) * times.latency + moved / times.bandwidth
    seconds += unknown * SHARD / times.register
    return seconds, listing + unknown + 1, moved


def simulate(rows: float, workers: int, times: Times, most: int) -> Seen:
    """Run a job, or the first ``most`` commits of it."""
    shards = int(rows // SHARD)
    busy = SHARD / times.rate
    # all begin together, with as much jitter as batches have
    events = [(busy * (1 + 0.2 * ((i * 2654435761) % 1000) / 1000), i, -1) for i in range(workers)]
    heapq.heapify(events)
    known, log, conflicts, requests, moved, waited = [0] * workers, 0, 0, 0.0, 0.0, 0.0
    left, now = shards, 0.0
    while events and log < min(shards, most):
        now, worker, expected = heapq.heappop(events)
        if expected == log:  # nobody was faster: the record is there
            log, known[worker] = log + 1, log + 1
            left -= 1
            if left >= len(events) + 1:
                heapq.heappush(events, (now + busy, worker, -1))
            continue
        conflicts += expected >= 0
        seconds, asked, size = commit_seconds(times, log, log - known[worker])
        known[worker], requests, moved = log, requests + asked, moved + size
        waited += seconds
        heapq.heappush(events, (now + seconds, worker, log))
    return Seen(now, log, conflicts, requests, moved, waited)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--workers", type=int, default=0, help="0: a table of several")
    parser.add_argument("--rate", type=float, default=500, help="rows a second and worker")
    parser.add_argument("--latency", type=float, default=0.03, help="of a request, in seconds")
    parser.add_argument("--bandwidth", type=float, default=1e8, help="bytes a second and worker")
    parser.add_argument("--register", type=float, default=22_000, help="rows a second of a mirror")
    parser.add_argument("--most", type=int, default=20_000, help="commits to simulate")
    given = parser.parse_args()
    times = Times(given.latency, given.rate, given.bandwidth, given.register)
    print("workers  commits  ideal/s  commits/s  conflicts/commit  requests/commit  read/commit")
    for workers in [given.workers] if given.workers else [1, 10, 100, 1000, 10_000]:
        seen = simulate(given.rows, workers, times, given.most)
        ideal = workers * given.rate / SHARD
        print(
            f"{workers:7,} {seen.commits:8,} {ideal:8,.1f} {seen.commits / seen.seconds:10,.1f}"
            f" {seen.conflicts / seen.commits:17,.1f} {seen.requests / seen.commits:16,.0f}"
            f" {seen.record_bytes / seen.commits / 2**20:9,.1f} MB"
        )


if __name__ == "__main__":
    main()
