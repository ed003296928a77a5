"""A real extraction in a process that the attacks kill: python worker.py ROOT COUNT [--claims].

A small torch network turns items into rows, in batches of ``BATCH`` items, one shard a batch.
Each computed item is logged before its row is published, so that rework can be counted.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import numpy as np
import torch

from headstart.store import Space, Store

BATCH = 32
DESCRIPTION = {"backbone": "attacked", "layer": "pool"}


def item_ids(count: int) -> list[str]:
    return [hashlib.md5(str(i).encode()).hexdigest() for i in range(count)]


def network() -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 32))
    for parameter in layers.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return layers.eval()


def features(ids: list[str], layers: torch.nn.Module) -> np.ndarray:
    """(m, 32) float32; one item at a time, so that rows do not depend on the batch."""
    items = torch.tensor([list(bytes.fromhex(i)) for i in ids], dtype=torch.float32) / 255
    with torch.inference_mode():
        return torch.cat([layers(item[None]) for item in items]).numpy()


def extract(space: Space, ids: list[str], log: Path, *, claims: bool) -> None:
    layers = network()
    with log.open("a") as written:
        while True:
            if claims:
                batch = space.claim(ids, limit=BATCH)
            else:
                batch = space.missing(ids)[:BATCH]
            if not batch:
                if not space.missing(ids):
                    return
                time.sleep(0.01)  # others work on the rest
                continue
            rows = features(batch, layers)
            written.write("".join(f"{i}\n" for i in batch))
            written.flush()
            space.append(batch, {"features": rows})


def main() -> None:
    torch.set_num_threads(1)
    root, count = Path(sys.argv[1]), int(sys.argv[2])
    log = root.parent / "computed.log"
    print("ready", flush=True)
    space = Store(root).space(DESCRIPTION)
    extract(space, item_ids(count), log, claims="--claims" in sys.argv)


if __name__ == "__main__":
    main()
