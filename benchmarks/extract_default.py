"""Extraction by default, without a flag, against a script with bfloat16 and ``torch.compile``.

Both read the tables of a data set with images as encoded bytes, run a MobileNetV1 at 96 px over all
of them and fit a logistic regression; they run in turn, each in a process of its own, headstart
with an empty cache. What is compared is the seconds of extraction, compilation and trials included,
and the accuracy on the test split. The script resizes the whole image as headstart does.

    python benchmarks/extract_default.py DATA WEIGHTS --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SCRIPT = """
import io, json, sys, time
import numpy as np, pandas as pd, timm, torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset

data, weights, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
tables = [pd.read_parquet(f"{data}/{name}.parquet") for name in ("train", "test")]

class Images(Dataset):
    def __init__(self, cells): self.cells = cells
    def __len__(self): return len(self.cells)
    def __getitem__(self, i):
        image = Image.open(io.BytesIO(self.cells[i]["bytes"])).convert("RGB")
        array = np.asarray(image.resize((size, size), Image.BICUBIC))
        return torch.from_numpy(array.copy()).permute(2, 0, 1)

model = timm.create_model("mobilenetv1_100", pad_type="same", bn_eps=1e-3)
model.load_state_dict(load_file(weights), strict=False)
model.blocks[4] = model.blocks[4][:1]
def features(x): return model.blocks(model.bn1(model.conv_stem(x))).mean((2, 3))
model.eval().to(memory_format=torch.channels_last)
begun = time.perf_counter()
compiled, rows = torch.compile(features), []
with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
    for table in tables:
        found = []
        for batch in DataLoader(Images(list(table["image"])), batch_size=100, num_workers=WORKERS):
            x = (batch.float() / 127.5 - 1).to(memory_format=torch.channels_last)
            found.append(compiled(x).float().numpy())
        rows.append(np.concatenate(found))
seconds = time.perf_counter() - begun
from sklearn.linear_model import LogisticRegression
mean, std = rows[0].mean(0), rows[0].std(0) + 1e-6
head = LogisticRegression(C=0.01, max_iter=200).fit((rows[0] - mean) / std, tables[0]["label"])
accuracy = head.score((rows[1] - mean) / std, tables[1]["label"])
print(json.dumps({"extraction": seconds, "accuracy": accuracy}))
"""


def plain(args: argparse.Namespace, workers: int) -> dict[str, float]:
    """Run the plain script."""
    source = SCRIPT.replace("WORKERS", str(workers))
    command = [sys.executable, "-c", source, args.data, args.weights, str(args.size)]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(made.stdout.strip().splitlines()[-1]))


def by_default(args: argparse.Namespace, more: list[str]) -> dict[str, Any]:
    """Run ``headstart fit`` with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        words = f"fit {args.data} -b timm/mobilenetv1_100 --weights {args.weights} --seed 0"
        words += f" --layer blocks.4.0 --size {args.size} --mean 0.5 --std 0.5 --head linear"
        words += f" --out {folder}/run --cache {folder}/cache"
        model = ["--model-args", '{"pad_type":"same","bn_eps":0.001}']
        command = [sys.executable, "-m", "headstart", *words.split(), *model, *more]
        made = subprocess.run(command, check=True, capture_output=True, text=True)
        metrics = json.loads(Path(folder, "run", "metrics.json").read_text())
    begin = ("engine", "precision", "extract")
    said = [line for line in made.stderr.splitlines() if line.startswith(begin)]
    return {"metrics": metrics, "said": said}


def main() -> None:
    """Read the command line, run both in turn, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a folder with train.parquet and test.parquet")
    parser.add_argument("weights", help="of MobileNetV1, as safetensors")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("more", nargs="*", help="further words for headstart fit, after --")
    args = parser.parse_args()
    ratios = []
    for _ in range(args.rounds):
        scripts = [plain(args, workers) for workers in args.workers]
        best = min(scripts, key=lambda each: each["extraction"])
        own = by_default(args, args.more)
        seconds = own["metrics"]["seconds"]["extract"]
        accuracy = own["metrics"]["accuracy"]
        ratios.append(best["extraction"] / seconds)
        each = ", ".join(f"{script['extraction']:.1f}" for script in scripts)
        print(
            f"plain script {each} s with {args.workers} workers, accuracy {best['accuracy']:.4f};"
            f"  headstart {seconds:.1f} s, accuracy {accuracy:.4f};  {ratios[-1]:.2f} × as fast"
        )
        print(*own["said"], sep="\n")
    print(f"median {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")


if __name__ == "__main__":
    main()
