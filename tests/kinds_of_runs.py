"""Small runs of every kind of items and every task, for tests that walk all of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import headstart
from headstart.core.progress import SilentReporter
from tests import sound_models, text_models

QUIET = SilentReporter()
KINDS = ("image", "bands", "patches", "audio", "text")
TASKS: Mapping[str, str] = {
    "classification": "class", "multi-label": "tags", "regression": "level,slope",
}  # fmt: skip
"""By task the columns of its labels."""
COUNT, TRAINED = 66, 54


def save_table(kind: str, folder: Path) -> Path:
    """Write items of a kind, and a table with labels for every task; return the table."""
    rng = np.random.default_rng(0)
    texts, _ = text_models.questions(COUNT)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["item", "split", "class", "tags", "level", "slope"])
        for i in range(COUNT):
            level, slope = float(rng.uniform(0, 1)), float(rng.uniform(-1, 1))
            bright, tilted = level > 0.5, slope > 0
            item = texts[i] if kind == "text" else save_item(kind, folder, i, level, slope)
            if kind == "text":
                bright, level = i % 2 > 0, float(len(item.split()))
            tags = [name for name, on in (("bright", bright), ("tilted", tilted)) if on]
            split = "train" if i < TRAINED else "test"
            name = "bright" if bright else "dark"
            rows.writerow([item, split, name, "|".join(tags), round(level, 4), round(slope, 4)])
    return folder / "items.csv"


def save_item(kind: str, folder: Path, i: int, level: float, slope: float) -> str:
    """Write one item whose level and slope can be seen or heard; return its name."""
    rng = np.random.default_rng(i)
    if kind == "audio":
        pitch = 200 + 1_000 * level
        wave = sound_models.tone((0.3, 0.4)[i % 2], pitch, seed=i) * (0.6 + 0.3 * slope)
        (folder / f"{i}.wav").write_bytes(sound_models.encoded(wave.astype(np.float32)))
        return f"{i}.wav"
    height, width = ((24, 24), (24, 40), (40, 24))[i % 3]
    ramp = np.linspace(-40 * slope, 40 * slope, width)[None, :, None]
    bands = 5 if kind == "bands" else 3
    pixels = 40 + 140 * level + ramp + rng.normal(0, 6, (height, width, bands))
    values = pixels.clip(0, 255).astype(np.uint8)
    if kind == "bands":
        np.save(folder / f"{i}.npy", values)
        return f"{i}.npy"
    Image.fromarray(values).save(folder / f"{i}.png")
    return f"{i}.png"


def network(kind: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of a small network that takes items of a kind, and how it is opened."""
    if kind == "image":
        return "headstart/glyphs", {"layer": "stage1.0"}
    if kind == "audio":
        return f"hf/{sound_models.save_model(folder / 'net')}", {}
    if kind == "text":
        return f"hf/{text_models.save_model(folder / 'net')}", {}
    if kind == "bands":
        name, args = "mobilenetv3_small_050", {"in_chans": 5}
        more: dict[str, Any] = {"size": 32, "mean": "train", "std": "train", "layer": "blocks.2"}
    else:
        name = "naflexvit_base_patch16_gap"
        args = {"embed_dim": 32, "depth": 2, "num_heads": 2, "pos_embed_grid_size": (4, 4)}
        more = {"mean": 0.5, "std": 0.5, "max_length": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=0, **args)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "net.safetensors"
    save_file({n: t.contiguous() for n, t in module.state_dict().items()}, str(file))
    return f"timm/{name}", {"weights": str(file), "model_args": args, **more}


class Runs:
    """Runs below a folder, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        self._made: dict[str, Path] = {}
        self._sources: dict[str, tuple[Path, str, dict[str, Any]]] = {}

    def source(self, kind: str) -> tuple[Path, str, dict[str, Any]]:
        """Return the table of a kind, its network, and how that is opened."""
        if kind not in self._sources:
            table = save_table(kind, self.folder / kind)
            self._sources[kind] = (table, *network(kind, self.folder / f"{kind}-net"))
        return self._sources[kind]

    def run(self, kind: str, task: str, **options: Any) -> Path:
        """Return the folder of a run."""
        name = "-".join([kind, task, *(f"{k}-{v}" for k, v in sorted(options.items()))])
        if name not in self._made:
            table, backbone, how = self.source(kind)
            out = self.folder / f"run{len(self._made)}"
            columns = {
                {"text": "text_column", "audio": "audio_column"}.get(kind, "image_column"): "item"
            }
            headstart.fit(
                str(table), backbone, task=task, label_column=TASKS[task], out=out,
                cache=self.cache, reporter=QUIET, baselines=False,
                **{"precision": "float32", **columns, **how, **options},
            )  # fmt: skip
            self._made[name] = out
        return self._made[name]

    def items(self, kind: str, count: int = 8) -> list[Any]:
        """Return contents of tested items, as requests bring them."""
        table, _, _ = self.source(kind)
        with table.open(newline="", encoding="utf-8") as file:
            names = [row["item"] for row in csv.DictReader(file)][-count:]
        return names if kind == "text" else [(table.parent / name).read_bytes() for name in names]
