"""How the index of a space and the claims on it grow: time, bytes and memory by number of rows.

Rows are synthetic: ids at random, in shards of 4,096, registered as a commit does. No vectors are
written. ``python benchmarks/index_growth.py --rows 1e7`` takes minutes; memory stays bounded.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from headstart.core.fingerprints import fingerprint
from headstart.store.claims import Claims
from headstart.store.index import Index, ShardEntry
from headstart.store.layout import Layout

SHARD, ASKED = 4096, 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--seconds", type=float, default=600.0, help="stop after this time")
    given = parser.parse_args()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder), fingerprint("growth"))
        layout.folder.mkdir()
        index = Index(layout.index)
        index.create(layout.key)
        begun, rows, next_, step = time.monotonic(), 0, 1e5, time.monotonic()
        known = random.integers(0, 2**64, (ASKED, 2), dtype=np.uint64)
        print("rows        rows/s    index    bytes/row  locate 4,096  claim 4,096  peak memory")
        since = 0
        while rows < given.rows and time.monotonic() - begun < given.seconds:
            ids = random.integers(0, 2**64, (SHARD, 2), dtype=np.uint64)
            known[rows // SHARD % ASKED] = ids[0]
            entry = ShardEntry(0, f"{rows:032x}", SHARD, SHARD * 2048, (), time.time())
            with index.transaction() as connection:
                index.register(connection, entry, ids, 0)
            rows += SHARD
            if rows < next_ and rows < given.rows:
                continue
            rate = (rows - since) / (time.monotonic() - step)
            started = time.perf_counter()
            index.locate(known, 0)
            located = time.perf_counter() - started
            claims = Claims(layout, index)
            started = time.perf_counter()
            claims.take(random.integers(0, 2**64, (ASKED, 2), dtype=np.uint64), 0, None)
            claimed = time.perf_counter() - started
            claims.release()
            size = layout.index.stat().st_size
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{rows:<11,} {rate:8,.0f} {size / 2**20:7,.0f} MB {size / rows:8.1f}"
                f" {1000 * located:12.1f} ms {1000 * claimed:9.1f} ms {peak:9,.0f} MB",
                flush=True,
            )
            next_, since, step = next_ * 10**0.5, rows, time.monotonic()
        index.close()


if __name__ == "__main__":
    main()
