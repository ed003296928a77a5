"""What an audit costs: the same training with and without it, in turns, in one process.

Every network trains for blocks of steps. Blocks with and without an observer alternate, so that
whatever else the machine does falls on both; the figure is the median over pairs of blocks. The
observer's first 64 steps, which are observed closely, are not counted. Memory is that of the
process's tensors and records at its peak, in processes of their own.

    python benchmarks/audit.py
    python benchmarks/audit.py --json results.json
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from headstart.audit.checks import all_checks
from headstart.audit.observer import Observer

WARM, BLOCKS = 64, 12


def mlp() -> tuple[nn.Module, tuple[int, ...], int]:
    """Return a small head on cached features."""
    net = nn.Sequential(nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 10))
    return net, (256, 512), 40


def resnet18() -> tuple[nn.Module, tuple[int, ...], int]:
    """Return full fine-tuning of a ResNet-18."""
    from torchvision.models import resnet18 as build

    return build(num_classes=10), (16, 3, 64, 64), 4


def frozen_resnet18() -> tuple[nn.Module, tuple[int, ...], int]:
    """Return a frozen ResNet-18 with a new last layer."""
    from torchvision.models import resnet18 as build

    net = build().requires_grad_(False)
    net.fc = nn.Linear(512, 10)
    return net.eval(), (16, 3, 64, 64), 4


def vit() -> tuple[nn.Module, tuple[int, ...], int]:
    """Return full fine-tuning of a small vision transformer."""
    import timm

    return timm.create_model("test_vit", num_classes=10), (16, 3, 160, 160), 6


CASES: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...], int]]] = {
    "MLP on cached features": mlp,
    "ResNet-18, 64 px, all layers": resnet18,
    "ResNet-18, 64 px, frozen": frozen_resnet18,
    "small ViT, 160 px": vit,
}


class Training:
    """A loop as users write it, to be run in blocks."""

    def __init__(self, net: nn.Module, shape: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        self.net = net
        self.x = torch.randn(shape)
        self.y = torch.randint(0, 10, shape[:1])
        trained = [p for p in net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def steps(self, n: int) -> float:
        """Train for some steps; return the seconds of one."""
        begun = time.perf_counter()
        for _ in range(n):
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.net(self.x), self.y)
            loss.backward()
            self.optimizer.step()
        return (time.perf_counter() - begun) / n


def paired(name: str) -> dict[str, float]:
    """Return seconds a step without the audit, and what the audit adds, as a share."""
    net, shape, n = CASES[name]()
    training = Training(net, shape)
    observer = Observer(all_checks())
    observer.install()
    training.steps(WARM)
    observer.remove()
    training.steps(2)
    plain, seen = [], []
    for _ in range(BLOCKS):
        plain.append(training.steps(n))
        observer.install()
        seen.append(training.steps(n))
        observer.remove()
    ratios = [b / a for a, b in zip(plain, seen, strict=True)]
    return {"milliseconds": 1000 * statistics.median(plain), "added": statistics.median(ratios) - 1}


def peak(name: str, audited: bool) -> int:
    """Return the peak of a process that trains, in bytes."""
    net, shape, _ = CASES[name]()
    training = Training(net, shape)
    observer = Observer(all_checks())
    if audited:
        observer.install()
    training.steps(24)
    if audited:
        observer.remove()
        observer.findings()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory(name: str) -> Iterator[int]:
    """Yield the peak without and with the audit, each in a process of its own."""
    for audited in ("", "audited"):
        command = [sys.executable, __file__, "--peak", name, audited]
        yield int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print one line for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.peak:
        print(peak(given.peak[0], bool(given.peak[1])))
        return
    results = {}
    print(f"{'':32}{'a step':>10}{'audit adds':>12}{'memory':>10}")
    for name in CASES:
        found = paired(name)
        plain, audited = memory(name)
        results[name] = {**found, "memory": audited / plain}
        print(
            f"{name:32}{found['milliseconds']:7.2f} ms{100 * found['added']:10.1f} %"
            f"{audited / plain:9.2f}×",
            flush=True,
        )
    if given.json is not None:
        given.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
