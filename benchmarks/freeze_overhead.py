"""What the freeze contract costs: a paired comparison of training steps, and the price of proof.

One ResNet-50 with a linear head takes steps on the same batch, in pairs: one under the contract,
one with the same state set by hand before the step (``requires_grad`` off, ``train()``, then
``eval()`` on the backbone). Both run on the same tensors, since copies differ by where they lie in
memory. The order within a pair alternates, and the ratio of a pair is one observation. Times are
CPU seconds of the process, so that other work on the machine weighs less; run with one thread.

    OMP_NUM_THREADS=1 python benchmarks/freeze_overhead.py --pairs 60
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn

from headstart.freezing import FreezeHandle, digests, freeze, guard, reestimate


def train_by_hand(model: nn.Module) -> None:
    """Set the state of a frozen backbone without a contract, as users write it."""
    model.train()
    for name, child in model.named_children():
        if name != "fc":
            child.eval()


def cpu_seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def bootstrap(values: list[float], draws: int = 2000) -> tuple[float, float]:
    """The 95 % interval of the median."""
    generator = torch.Generator().manual_seed(0)
    data = torch.tensor(values)
    picks = torch.randint(len(values), (draws, len(values)), generator=generator)
    medians = data[picks].median(1).values.sort().values
    return float(medians[int(0.025 * draws)]), float(medians[int(0.975 * draws)])


def typical(work: Callable[[], object], repeats: int = 7) -> float:
    return statistics.median(cpu_seconds(work) for _ in range(repeats))


def pairs(
    model: nn.Module, images: Tensor, labels: Tensor, count: int
) -> list[tuple[float, float]]:
    """Return CPU seconds of steps (under the contract, by hand), pair after pair."""
    parts = {name: "frozen" for name, _ in model.named_children() if name != "fc"}
    optimizer = torch.optim.SGD(model.get_submodule("fc").parameters(), lr=0.01)

    def step(mode: Callable[[], object]) -> None:
        mode()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def held() -> float:
        handle = freeze(model, {**parts, "fc": "trainable"})
        took = cpu_seconds(lambda: step(model.train))
        handle.release()
        return took

    def plain() -> float:
        model.requires_grad_(False)
        model.get_submodule("fc").requires_grad_(True)
        return cpu_seconds(lambda: step(lambda: train_by_hand(model)))

    held(), plain()
    found = []
    for index in range(count):
        if index % 2:
            first = held()
            found.append((first, plain()))
        else:
            first = plain()
            found.append((held(), first))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pixels", type=int, default=128)
    options = parser.parse_args()

    torch.manual_seed(0)
    model = timm.create_model("resnet50", num_classes=10)
    images = torch.randn(options.batch, 3, options.pixels, options.pixels)
    labels = torch.arange(options.batch) % 10
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values()) / 2**20
    print(f"model: ResNet-50, {size:.0f} MiB; {torch.get_num_threads()} threads")

    found = pairs(model, images, labels, options.pairs)
    ratios = [held / plain for held, plain in found]
    low, high = bootstrap(ratios)
    print(f"step by hand: {statistics.median(p for _, p in found) * 1e3:.0f} ms of CPU")
    print(
        f"contract over by hand: {statistics.median(ratios) - 1:+.2%} (95 % interval of the"
        f" median {low - 1:+.2%} to {high - 1:+.2%}, {options.pairs} pairs)"
    )

    by_hand = typical(lambda: train_by_hand(model), 50)
    parts = {name: "frozen" for name, _ in model.named_children() if name != "fc"}
    freezing = typical(lambda: freeze(model, {**parts, "fc": "trainable"}))
    handle = FreezeHandle.of(model)
    print(
        f"train(): contract {typical(model.train, 50) * 1e6:.0f} µs, by hand {by_hand * 1e6:.0f} µs"
    )
    print(
        f"freeze: {freezing * 1e3:.0f} ms; verify: {typical(handle.verify) * 1e3:.0f} ms;"
        f" digests: {typical(lambda: digests(model)) * 1e3:.0f} ms"
    )
    optimizer = torch.optim.SGD(model.get_submodule("fc").parameters(), lr=0.0)
    with guard(model):
        guarded = typical(optimizer.step)
    print(f"guard: {guarded * 1e3:.0f} ms a step")

    handle.release()
    batches = list(torch.randn(8, options.batch, 3, 64, 64))
    for name, arguments in (
        ("one pass", {"method": "one_pass"}),
        ("layer by layer in memory", {"in_memory": True}),
        ("layer by layer, 53 passes cut off", {"in_memory": False}),
    ):
        took = cpu_seconds(lambda arguments=arguments: reestimate(model, batches, **arguments))
        print(f"re-estimation of 53 layers on {8 * options.batch} images, {name}: {took:.1f} s")


if __name__ == "__main__":
    main()
