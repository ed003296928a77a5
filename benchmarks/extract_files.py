"""Features of image files, end to end: against decoding alone and the network alone; how it grows.

``stages`` runs three jobs in turn in every round, on the same files, threads and engine: decoding
and resizing alone, the network alone (on pixels in memory), and both with rows written to a new
cache. Where decoding and the network share processors, both together cannot be faster than
1 / (1 / decoding + 1 / network); where they have their own, than the slower of the two. The engine
is that of a long job, and open before the time begins.

``growth`` extracts the first N items of a data set, each N in a process of its own, and reports
the time to the first rows, seconds and processor seconds an image behind them, what the threads did
in that time, and the peak of the memory.

    python benchmarks/extract_files.py stages FOLDER --model resnet50 --size 224 --rounds 3
    python benchmarks/extract_files.py growth FOLDER --model mobilenetv1_100 --size 32
    python benchmarks/extract_files.py stages made --device cuda --decoder nvjpeg

``made`` in the place of a folder writes 512 JPEGs of 640×427, pieces of scikit-learn's photographs.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from headstart.backbones import Backbone, load_backbone
from headstart.cache import FeatureCache
from headstart.data import Preprocessing, Split, load_data, load_items, read_batches
from headstart.extraction import Extraction, Extractor

warnings.filterwarnings("ignore")


def backbone_of(model: str, size: int, decoder: Any = "pillow") -> Backbone:
    """Return a network of timm with random weights: its speed does not depend on them."""
    import timm

    torch.manual_seed(0)
    inputs = Preprocessing(
        size=size, mean=(0.5,) * 3, std=(0.5,) * 3, crop_fraction=0.875, decoder=decoder
    )
    return load_backbone(timm.create_model(model, num_classes=0), inputs=inputs)


DECODED = 8
"""Batches that may be decoded, and no row of them computed, when the first rows are there."""
LONG = 60_000
"""Items of the job that engines are weighed for."""


def items_of(data: str, count: int | None) -> Split:
    """Return items of the training split, repeated where there are too few, with their ids."""
    if data == "made":
        with tempfile.TemporaryDirectory() as folder:
            made_in(Path(folder))
            split = load_items([file.read_bytes() for file in sorted(Path(folder).glob("*"))])
    else:
        split = load_data(data).train
    split = split.take(np.arange(count or len(split)) % len(split))
    _ = split.ids
    return split


def made_in(folder: Path, count: int = 512) -> None:
    """Write JPEGs, pieces of two photographs, enlarged to an ordinary size."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(each) for each in load_sample_images().images]
    random = np.random.default_rng(0)
    for number in range(count):
        left, top = (int(v) for v in random.integers(0, (320, 213)))
        piece = photographs[number % 2].crop((left, top, left + 320, top + 213))
        piece.resize((640, 427), Image.Resampling.BICUBIC).save(
            folder / f"{number:04}.jpg", quality=90
        )


def decoding(split: Split, backbone: Backbone, settings: Extraction) -> float:
    """Return items a second of reading, decoding, resizing and joining."""
    begun = time.perf_counter()
    for batch in read_batches(
        split,
        None,
        backbone.inputs,
        batch_size=settings.batch_size,
        workers=settings.workers,
        on_bad="skip",
    ):
        _ = batch.collated
    return len(split) / (time.perf_counter() - begun)


def network(count: int, backbone: Backbone, settings: Extraction) -> float:
    """Return items a second of the network, on pixels in memory of the size that it takes."""
    side = backbone.inputs.values()["size"][0]
    some = np.random.default_rng(0).integers(0, 256, (256, side, side, 3), dtype=np.uint8)
    split = load_items((some, np.zeros(len(some), int)))
    split = split.take(np.arange(count) % len(some))
    inputs = backbone.inputs.changed(crop_fraction=1.0)
    whole = load_backbone(backbone.module, inputs=inputs.changed(decoder="pillow"))
    with Extractor([whole], settings) as extractor:
        extractor.ahead = LONG
        for _ in extractor.rows(split.take(range(settings.batch_size))):
            pass  # checks, and opens the engine
        begun = time.perf_counter()
        for _ in extractor.rows(split):
            pass
        return count / (time.perf_counter() - begun)


def end_to_end(split: Split, backbone: Backbone, settings: Extraction) -> tuple[float, str]:
    """Return items a second from files to rows in a new cache, and the verdict."""
    with tempfile.TemporaryDirectory() as folder, Extractor([backbone], settings) as extractor:
        extractor.ahead = LONG
        for _ in extractor.rows(split.take(range(min(len(split), settings.batch_size)))):
            pass
        known, begun = extractor.done, time.perf_counter()
        FeatureCache(folder).features(extractor, split, on_bad="skip")
        seconds = time.perf_counter() - begun
        done = extractor.done - known
        engine = "" if extractor.plan is None else f"engine '{extractor.plan.engine}'; "
        return done / seconds, engine + extractor.throughput().verdict("images")


def files_of(split: Split, folder: Path) -> Split:
    """Write the items of a split to files, each with an id of its own.

    A cache computes equal items once. Behind the end of a picture a few bytes change nothing.
    """
    for number, row in enumerate(split.rows.tolist()):
        content = split.items.content(row)
        assert isinstance(content, bytes)
        (folder / f"{number:06}").with_suffix(".jpg").write_bytes(content + b"%d" % number)
    made = load_items(folder)
    _ = made.ids
    return made


def stages(args: argparse.Namespace) -> None:
    """Run the three jobs in turn, and print medians."""
    with tempfile.TemporaryDirectory() as folder:
        in_turn(args, files_of(items_of(args.data, args.items), Path(folder)))


def in_turn(args: argparse.Namespace, split: Split) -> None:
    """Run the three jobs in turn, and print medians."""
    backbone = backbone_of(args.model, args.size, args.decoder)
    settings = Extraction(
        batch_size=args.batch_size,
        engine=args.engine,
        device=args.device,
        precision=args.precision,
    )
    found: dict[str, list[float]] = {"decoding": [], "network": [], "end to end": []}
    shares, bounds, verdict = [], [], ""
    for _ in range(args.rounds):
        decode = decoding(split, backbone, settings)
        model = network(len(split), backbone, settings)
        whole, verdict = end_to_end(split, backbone, settings)
        for name, rate in zip(found, (decode, model, whole), strict=True):
            found[name].append(rate)
        shares.append(whole / min(decode, model))
        bounds.append(whole * (1 / decode + 1 / model))
    print(f"{args.model} at {args.size} px, {len(split)} images, {args.rounds} rounds")
    for name, rates in found.items():
        print(
            f"{name:12} {statistics.median(rates):8.1f} images/s"
            f" ({min(rates):.1f}–{max(rates):.1f})"
        )
    print(f"of the slower of the two      {statistics.median(shares):.2f}")
    print(f"of what shared cores can do   {statistics.median(bounds):.2f}")
    print(verdict)


def child(args: argparse.Namespace) -> None:
    """Extract so many items, and print what it took as JSON."""
    backbone, split = backbone_of(args.model, args.size), items_of(args.data, args.child)
    settings = Extraction(batch_size=args.batch_size, engine=args.engine)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    marks: list[tuple[float, float, int, dict[str, float]]] = []
    with Extractor([backbone], settings) as extractor:
        for _ in extractor.rows(split):
            done, stages = extractor.done, dict(extractor.stages.seconds())
            marks.append((time.perf_counter(), time.process_time(), done, stages))
    # While the engine opens, images are decoded ahead; as many are left out at the end.
    (first, worked, known, spent), (last, at_last, done, stages) = marks[0], marks[-1 - DECODED]
    seconds, busy, rest = last - first, at_last - worked, done - known
    each = {name: 1000 * (stages[name] - spent.get(name, 0.0)) / rest for name in stages}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps({
            "first rows after, s": round(first - begun, 2),
            "milliseconds an image": round(1000 * seconds / rest, 3),
            "of the processor": round(1000 * busy / rest, 3),
            **{name: round(value, 3) for name, value in each.items()},
            "peak memory, MiB": peak // 1024,
            "of it extraction, MiB": (peak - loaded) // 1024,
        })
    )  # fmt: skip


def growth(args: argparse.Namespace) -> None:
    """Run every size in a process of its own."""
    for count in args.counts:
        command = [sys.executable, __file__, "growth", args.data, "--child", str(count)]
        more: list[Any] = ["--model", args.model, "--size", args.size, "--engine", args.engine]
        made = subprocess.run(
            [*command, *map(str, more)], check=True, capture_output=True, text=True
        )
        told = json.loads(made.stdout.strip().splitlines()[-1])
        print(f"{count:7,}  " + "   ".join(f"{name} {value}" for name, value in told.items()))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("stages", "growth"))
    parser.add_argument("data", help="what headstart reads: a folder of class folders, tables, …")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--decoder", default="pillow", help="or nvjpeg, on a CUDA device")
    parser.add_argument("--items", type=int, help="of the training split; more repeat it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 5_000, 20_000, 60_000])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        child(args)
    else:
        {"stages": stages, "growth": growth}[args.what](args)


if __name__ == "__main__":
    main()
