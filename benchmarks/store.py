"""The store against a raw numpy memmap, paired in one run; and a space of a million rows.

Every repeat times the memmap, the store, and the memmap again, in alternating order, and yields one
ratio; the median of the ratios is printed with their range. The second memmap timing against the
first is the noise of the machine. Ratios above 1 mean the store is faster.

Run: ``python benchmarks/store.py [--repeats 7] [--rows 1000000] [--folder DIR]``
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from headstart.store import FeatureSet, Store

CASES = {
    "50,000 × 512 float32": (50_000, (512,), "float32"),
    "4,000 × 256×14×14 float16": (4_000, (256, 14, 14), "float16"),
}
BARS = {"write": 0.5, "sequential": 0.9, "random": 0.5}


def item_ids(count: int, salt: str = "") -> list[str]:
    return [hashlib.md5(f"{salt}{i}".encode()).hexdigest() for i in range(count)]


def write_memmap(path: Path, rows: np.ndarray, step: int) -> None:
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=rows.dtype, shape=rows.shape)
    for start in range(0, len(rows), step):
        mapped[start : start + step] = rows[start : start + step]
    mapped.flush()
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_store(root: Path, ids: list[str], rows: np.ndarray, step: int) -> None:
    space = Store(root).space({"benchmark": "store"})
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        space.append(ids[part], {"features": rows[part]})


def read_in_order(rows: np.ndarray | FeatureSet, size: int, buffer: np.ndarray) -> None:
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        np.copyto(buffer[: len(batch)], batch)


def read_at_random(rows: np.ndarray | FeatureSet, order: np.ndarray, size: int) -> None:
    for start in range(0, len(order), size):
        torch.from_numpy(np.asarray(rows[order[start : start + size]]))


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def paired(
    raw: Callable[[], object], ours: Callable[[], object], repeats: int
) -> tuple[list[float], list[float]]:
    """Return the ratios raw/ours and raw/raw of each repeat."""
    ratios, noise = [], []
    for repeat in range(repeats):
        if repeat % 2:
            store, first, second = seconds(ours), seconds(raw), seconds(raw)
        else:
            first, store, second = seconds(raw), seconds(ours), seconds(raw)
        ratios.append((first + second) / 2 / store)
        noise.append(first / second)
    return ratios, noise


def report(name: str, bar: float, ratios: list[float], noise: list[float]) -> None:
    print(
        f"  {name:<11} {statistics.median(ratios):5.2f}   ({min(ratios):.2f}–{max(ratios):.2f};"
        f" memmap against itself {min(noise):.2f}–{max(noise):.2f}; wanted ≥ {bar})",
        flush=True,
    )


def verify_first(root: Path, ids: list[str], buffer: np.ndarray) -> None:
    """Time the first reading in a fresh process, digests included, with a warm page cache."""
    command = [sys.executable, __file__, "--folder", str(root), "--first", str(len(ids))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    nbytes = len(ids) * buffer[0].nbytes
    took = float(done.stdout)
    print(
        f"  first read of a process, digests checked: {took:.3f} s, {nbytes / took / 1e9:.1f} GB/s"
    )


def read_first(root: Path, count: int) -> None:
    space = Store(root).space({"benchmark": "store"})
    ids = item_ids(count)
    begun = time.perf_counter()
    features = space.read(ids)
    buffer = np.empty((256, *next(iter(features.columns.values())).shape), features[0].dtype)
    read_in_order(features, 256, buffer)
    print(time.perf_counter() - begun)


def compare_case(name: str, folder: Path, repeats: int) -> None:
    count, shape, dtype = CASES[name]
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, *shape), dtype=np.float32).astype(dtype)
    ids = item_ids(count)
    # Rows a shard: 32 MiB, and a power of two, so that no batch of 256 lies in two shards.
    step = 1 << (min(8192, 32 * 2**20 // rows[0].nbytes).bit_length() - 1)
    print(f"{name}, {rows.nbytes / 1e6:.0f} MB, {-(-count // step)} shards")
    raw_path, root = folder / "raw.npy", folder / "store"

    def write_raw() -> None:
        raw_path.unlink(missing_ok=True)
        write_memmap(raw_path, rows, step)

    def write_ours() -> None:
        shutil.rmtree(root, ignore_errors=True)
        write_store(root, ids, rows, step)

    report("write", BARS["write"], *paired(write_raw, write_ours, repeats))
    mapped = np.load(raw_path, mmap_mode="r")
    features = Store(root).space({"benchmark": "store"}).read(ids)
    order = rng.permutation(count)
    assert (features[order[:512]] == rows[order[:512]]).all()
    buffer = np.empty((256, *shape), dtype)
    verify_first(root, ids, buffer)
    # Once untimed, so that neither side pays for the pages of a fresh mapping.
    read_in_order(mapped, 256, buffer)
    read_in_order(features, 256, buffer)
    result = paired(
        lambda: read_in_order(mapped, 256, buffer),
        lambda: read_in_order(features, 256, buffer),
        repeats,
    )
    report("sequential", BARS["sequential"], *result)
    result = paired(
        lambda: read_at_random(mapped, order, 256),
        lambda: read_at_random(features, order, 256),
        repeats,
    )
    report("random", BARS["random"], *result)


def peak_memory(*, reset: bool = False) -> int:
    """Return the peak of resident memory in KiB; Linux can set it back to what is in use now."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def ask_missing(root: Path, rows: int) -> None:
    """Open the space and ask for 100,000 ids, half of them there; a process of its own."""
    known, strange = item_ids(min(50_000, rows)), item_ids(50_000, "strange")
    before = peak_memory(reset=True)
    begun = time.perf_counter()
    space = Store(root).space({"benchmark": "many rows", "rows": rows})
    missing = space.missing(known + strange)
    took = time.perf_counter() - begun
    grown = (peak_memory() - before) / 1024
    assert missing == strange
    print(f"  {rows:>9,} rows: {took:.2f} s (wanted ≤ 1), peak memory +{grown:.0f} MiB", flush=True)


def many_rows(folder: Path, rows: int) -> None:
    print("open a space and ask which of 100,000 ids are missing")
    for count in (rows // 10, rows):
        space = Store(folder).space({"benchmark": "many rows", "rows": count})
        ids = item_ids(count)
        values = np.arange(count, dtype=np.float32)[:, None]
        for start in range(0, count, 16_384):
            part = slice(start, start + 16_384)
            space.append(ids[part], {"features": values[part]})
        subprocess.run(
            [sys.executable, __file__, "--folder", str(folder), "--ask", str(count)], check=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--ask", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        ask_missing(options.folder, options.ask)
        return
    if options.first:
        read_first(options.folder, options.first)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        for name in CASES:
            compare_case(name, Path(temporary), options.repeats)
            shutil.rmtree(Path(temporary) / "store")
        many_rows(Path(temporary), options.rows)


if __name__ == "__main__":
    main()
