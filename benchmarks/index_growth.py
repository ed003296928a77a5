"""How the index of a space and the claims on it grow: time, bytes and memory by number of rows.

Rows are synthetic: ids at random, in shards of 4,096, registered as a commit does. No vectors are
written. ``python benchmarks/index_growth.py --rows 1e6`` registers all of them. With ``--built`` an
index of that size is first written in the order of the ids, which takes minutes instead of days,
and then asked and added to as any other: ``--built 1e8`` needs 4 GB of disk.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from headstart.core.fingerprints import fingerprint
from headstart.store.claims import Claims
from headstart.store.index import Index, ShardEntry
from headstart.store.layout import Layout

SHARD, ASKED, BUCKETS, TRIES = 4096, 4096, 4096, 5
HEAD = "rows          rows/s    index    bytes/row  locate 4,096  claim 4,096  peak memory"
_FILL = (
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)"
    " INSERT INTO rows SELECT substr(?2, 1 + 16 * i, 16), 0, 1 + (?3 + i * 7919) % ?4, i % 4096"
    " FROM n"
)


def fresh(random: np.random.Generator, count: int) -> np.ndarray:
    """Return random ids, ``(count, 2) uint64``."""
    return random.integers(0, 2**64, (count, 2), dtype=np.uint64)


def build(index: Index, rows: int, random: np.random.Generator) -> np.ndarray:
    """Write an index in the order of the ids; return some of them."""
    shards, each, known = rows // SHARD, rows // BUCKETS, []
    with index.transaction() as connection:
        connection.executemany(
            "INSERT INTO shards VALUES (?, ?, ?, ?, '[]', 0, 1)",
            ((i + 1, f"{i:032x}", SHARD, SHARD * 2048) for i in range(shards)),
        )
    for start in range(0, BUCKETS, 64):
        with index.transaction() as connection:
            for bucket in range(start, start + 64):
                ids = fresh(random, each)
                words = ids.view(np.uint8).reshape(-1, 16)
                # the first 12 bits of an id are the number of its bucket
                words[:, 0] = bucket >> 4
                words[:, 1] = (bucket & 15) << 4 | (words[:, 1] & 15)
                order = np.lexsort(ids.view(">u8").T[::-1])
                known.append(ids[order[0]].copy())
                connection.execute(_FILL, (each, ids[order].tobytes(), bucket * each, shards))
    return np.stack(known)


def ask(index: Index, layout: Layout, known: np.ndarray, random: np.random.Generator) -> str:
    """Time the questions of a worker: where rows are, and which are free."""
    located, claimed = [], []
    for _ in range(TRIES):
        started = time.perf_counter()
        assert (index.locate(known, 0).shard >= 0).all()
        located.append(time.perf_counter() - started)
        claims = Claims(layout, index)
        started = time.perf_counter()
        claims.take(fresh(random, ASKED), 0, None)
        claimed.append(time.perf_counter() - started)
        claims.release()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{1000 * np.median(located):12.1f} ms {1000 * np.median(claimed):9.1f} ms {peak:9,.0f} MB"
    )


def register(index: Index, random: np.random.Generator) -> np.ndarray:
    """Commit one shard; return its ids."""
    ids = fresh(random, SHARD)
    entry = ShardEntry(0, random.bytes(16).hex(), SHARD, SHARD * 2048, (), time.time())
    with index.transaction() as connection:
        index.register(connection, entry, ids, 0)
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=0)
    parser.add_argument("--built", type=float, default=0)
    parser.add_argument("--seconds", type=float, default=600.0, help="stop registering after this")
    parser.add_argument("--place", default=None, help="a folder that keeps what was built")
    given = parser.parse_args()
    random = np.random.default_rng(0)
    with contextlib.ExitStack() as stack:
        folder = given.place or stack.enter_context(tempfile.TemporaryDirectory())
        layout, kept = Layout(Path(folder), fingerprint("growth")), Path(folder) / "known.npy"
        layout.folder.mkdir(exist_ok=True, parents=True)
        index = Index(layout.index)
        index.create(layout.key)
        rows, begun, known = int(given.built), time.monotonic(), fresh(random, ASKED)
        if rows:
            if not kept.exists():
                np.save(kept, build(index, rows, random))
                print(f"built in {time.monotonic() - begun:,.0f} s", flush=True)
            known = np.load(kept)
            given.rows = rows + 16 * SHARD
            random = np.random.default_rng()  # a second call adds other rows
        print(HEAD)
        since, step, next_ = rows, time.monotonic(), rows + 16 * SHARD if rows else 1e5
        while rows < given.rows and time.monotonic() - begun < given.seconds + bool(since) * 1e4:
            ids = register(index, random)
            if not given.built:
                known[rows // SHARD % ASKED] = ids[0]
            rows += SHARD
            if rows < next_ and rows < given.rows:
                continue
            rate = (rows - since) / (time.monotonic() - step)
            size = layout.index.stat().st_size
            there = known if given.built else known[: min(ASKED, rows // SHARD)]
            print(
                f"{rows:<13,} {rate:8,.0f} {size / 2**20:7,.0f} MB {size / rows:8.1f}"
                f" {ask(index, layout, np.resize(there, (ASKED, 2)), random)}",
                flush=True,
            )
            next_, since, step = next_ * 10**0.5, rows, time.monotonic()
        index.close()


if __name__ == "__main__":
    main()
