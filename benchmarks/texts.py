"""Embeddings of texts: headstart against sentence-transformers, on the same folder, in pairs.

In every round both embed the same texts, one after the other, and who begins alternates; the ratio
of their rates in a round is one observation. Both run in float32 on the processor, eagerly, with
the same batch size; ``--engine auto`` adds headstart's own choice. Reported are the median rates,
the median ratio, its smallest and largest value, and the largest difference of a row.

    python benchmarks/texts.py FOLDER TEXTS.csv --rounds 7

``FOLDER`` is a sentence-transformers folder, ``TEXTS.csv`` a table with a column ``text``. On a
machine that others use, ``OMP_NUM_THREADS=1`` and ``--clock cpu`` count seconds of the processor.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from headstart.backbones import load_backbone
from headstart.data import Split
from headstart.data.items import TextItems
from headstart.extraction import Extraction, Extractor

warnings.filterwarnings("ignore")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Pass = Callable[[], np.ndarray]


def theirs(folder: str, texts: list[str], batch: int) -> Pass:
    """``SentenceTransformer.encode``."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    return lambda: model.encode(texts, batch_size=batch, show_progress_bar=False)


def ours(folder: str, texts: list[str], batch: int, engine: str) -> Pass:
    """``Extractor``, opened once as their model is."""
    count = len(texts)
    split = Split(TextItems(texts, "text"), np.arange(count), np.full(count, -1))
    settings = Extraction(batch, engine=engine)
    extractor = Extractor([load_backbone(f"hf/{folder}")], settings)

    def run() -> np.ndarray:
        rows = np.empty((count, extractor.cuts[0].feature_shape()[0]), np.float32)
        for found in extractor.rows(split):
            rows[found.indices] = found.features[0]
        return rows

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--engine", default="eager")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    chosen = parser.parse_args()
    with chosen.texts.open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)][: chosen.count]
    runs = {
        "sentence-transformers": theirs(chosen.folder, texts, chosen.batch),
        f"headstart, {chosen.engine}": ours(chosen.folder, texts, chosen.batch, chosen.engine),
    }
    clock = CLOCKS[chosen.clock]
    rows = {name: run() for name, run in runs.items()}  # once, to warm up
    first, second = rows.values()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(chosen.rounds):
        order = list(runs) if number % 2 else list(runs)[::-1]
        for name in order:
            begun = clock()
            runs[name]()
            rates[name].append(len(texts) / (clock() - begun))
    versions = (f"{name} {metadata.version(name)}" for name in ("torch", "sentence-transformers"))
    print(f"{', '.join(versions)}; {torch.get_num_threads()} threads, {chosen.clock} clock")
    print(f"{len(texts):,} texts, batches of {chosen.batch}, {chosen.rounds} rounds")
    for name, found in rates.items():
        print(f"{name:24} {statistics.median(found):8,.0f} texts/s")
    base, other = rates.values()
    ratios = [b / a for a, b in zip(base, other, strict=True)]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"largest difference of a row: {np.abs(first - second).max():.1e}")


if __name__ == "__main__":
    main()
