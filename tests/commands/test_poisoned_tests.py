"""The test split chooses nothing: with other test labels every job trains the same head."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.core.progress import SilentReporter

GLYPHS = "headstart/glyphs"
LABELS = {"classification": "digit", "multi-label": "tags", "regression": "ink"}

JOBS: dict[str, Callable[..., Any]] = {
    "fit": lambda data, **how: headstart.fit(data, GLYPHS, ood="knn", baselines=False, **how),
    "sweep": lambda data, **how: headstart.sweep(data, GLYPHS, layers=("stem", "stage2.0"), **how),
    "finetune": lambda data, **how: headstart.finetune(
        data, GLYPHS, "last-block", epochs=1, baselines=False, **how
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same drawings twice: with their labels, and with others in the test split."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("poison")
    digits, rng = load_digits(), np.random.default_rng(0)
    tables: dict[str, list[list[Any]]] = {"train": [], "test": []}
    for at, i in enumerate(np.flatnonzero(digits.target < 3)[:110].tolist()):
        tile = np.rint(digits.images[i] * rng.uniform(6, 15.9)).astype(np.uint8)
        Image.fromarray(tile).save(folder / f"{i}.png")
        tags = f"d{digits.target[i]}" + ("|dark" if tile.mean() > 50 else "")
        row = [f"../{i}.png", f"d{digits.target[i]}", tags, float(tile.mean()) + 0.003]
        tables["train" if at < 80 else "test"].append(row)
    for poisoned in ("right", "wrong"):
        (folder / poisoned).mkdir()
        for split, rows in tables.items():
            with (folder / poisoned / f"{split}.csv").open("w", newline="") as file:
                written = csv.writer(file)
                written.writerow(["path", "digit", "tags", "ink"])
                for at, row in enumerate(rows):
                    other = (poisoned, split) == ("wrong", "test")
                    poison = [row[0], "d0", "d0|dark", 999.5 + at]
                    written.writerow(poison if other else row)
    return folder


@pytest.mark.parametrize("task", LABELS)
@pytest.mark.parametrize(
    "job", ["fit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sweep", "finetune"))]
)
def test_other_test_labels_change_nothing_that_was_trained(
    job: str, task: str, place: Path
) -> None:
    files: list[dict[str, bytes]] = []
    for poisoned in ("right", "wrong"):
        out = place / f"{job}-{task}-{poisoned}"
        JOBS[job](
            place / poisoned, label_column=LABELS[task], task=task, out=out,
            cache=place / "cache", reporter=SilentReporter(),
        )  # fmt: skip
        kept = [path for path in out.iterdir() if path.suffix == ".safetensors"]
        kept.append(out / "head.json")
        files.append({p.name: p.read_bytes() for p in kept if p.name != "rows.safetensors"})
    assert files[0].keys() == files[1].keys()
    assert [name for name in files[0] if files[0][name] != files[1][name]] == []
