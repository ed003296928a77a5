"""What importing headstart costs beside importing torch: seconds of the processor, and memory.

Each is a process of its own, in turn; the difference is taken within pairs.

    python benchmarks/imports.py --pairs 7
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

MEASURE = """
import resource
{}
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""
CASES = {
    "torch": "import torch",
    "headstart.fit": "import headstart; headstart.fit",
    "headstart.load_data": "import headstart; headstart.load_data",
}


def measure(code: str) -> tuple[float, float]:
    """Return seconds of the processor and the largest resident memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(code)], capture_output=True, text=True, check=True
    )
    seconds, mebibytes = map(float, done.stdout.split())
    return seconds, mebibytes


def spread(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    pairs = parser.parse_args().pairs
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for _ in range(pairs):
        for name, code in CASES.items():
            found[name].append(measure(code))
    for name, values in found.items():
        beyond = [
            (mine[0] - base[0], mine[1] - base[1])
            for mine, base in zip(values, found["torch"], strict=True)
        ]
        print(
            f"{name:20} {spread([v[0] for v in values], 2)} s, {spread([v[1] for v in values], 0)}"
            f" MiB; beyond torch {spread([b[0] for b in beyond], 2)} s,"
            f" {spread([b[1] for b in beyond], 0)} MiB"
        )


if __name__ == "__main__":
    main()
