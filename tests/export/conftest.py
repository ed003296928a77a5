"""A small run of pictures, written as a user's files are, and one in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.core.progress import SilentReporter

QUIET = SilentReporter()
GLYPHS = "headstart/glyphs"


def pictures(folder: Path, count: int = 24) -> Path:
    """Write two classes of pictures of many sizes, some turned, some with transparency."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light <b>|`x`", 170)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = rng.integers(20, 90, 2)
            noise = rng.normal(level, 30, (height, width, 3)).clip(0, 255).astype(np.uint8)
            image = Image.fromarray(noise)
            if number % 4 == 0:
                exif = Image.Exif()
                exif[0x0112] = 6
                image.save(folder / name / f"{number}.jpg", exif=exif, quality=95)
            elif number % 4 == 1:
                image.putalpha(200)
                image.save(folder / name / f"{number}.png")
            else:
                image.convert("L" if number % 4 == 2 else "RGB").save(
                    folder / name / f"{number}.png"
                )
    return folder


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data``, the run ``run`` that was made with it, and ``cache``."""
    place = tmp_path_factory.mktemp("handing-on")
    headstart.fit(
        str(pictures(place / "data")),
        GLYPHS,
        head="linear",
        out=place / "run",
        cache=place / "cache",
        reporter=QUIET,
    )
    return place
