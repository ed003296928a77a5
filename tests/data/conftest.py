"""A dozen small images of two classes, as files' bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@dataclass(frozen=True)
class Pictures:
    """Names ("cat/0.png"), file bytes and classes, in the order of a sorted folder."""

    names: tuple[str, ...]
    data: tuple[bytes, ...]
    labels: tuple[str, ...]

    def write(self, root: Path) -> Path:
        for name, data in zip(self.names, self.data, strict=True):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        return root

    def images(self) -> list[Image.Image]:
        return [Image.open(io.BytesIO(data)).convert("RGB") for data in self.data]

    def pixels(self) -> np.ndarray:
        return np.stack([np.asarray(image) for image in self.images()])


def encoded(array: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    rng = np.random.default_rng(7)
    names, data, labels = [], [], []
    for label in ("cat", "ünï dög"):
        for i in range(6):
            names.append(f"{label}/{i}.png")
            data.append(encoded(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)))
            labels.append(label)
    return Pictures(tuple(names), tuple(data), tuple(labels))
