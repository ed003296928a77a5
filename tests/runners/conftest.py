"""Pictures that every runner embeds, and the rows that a plain run gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.commands.extract.job import Extracted, extract_features
from headstart.core.progress import SilentReporter
from headstart.store import Store

COUNT = 220
SETTINGS = {"batch_size": 8, "engine": "eager", "precision": "float32", "on_bad": "skip"}
"""An engine by name: ``auto`` is a trial in each process, and rows differ by its rounding."""


def rows_of(root: Path | str, **remote: object) -> dict[str, bytes]:
    """Return the bytes of every row of the only space of a store, by its id."""
    store = Store(root, **remote)  # type: ignore[arg-type]
    (info,) = store.spaces()
    space = store.find(info.key)
    found: dict[str, bytes] = {}
    count = 0
    for _, rows in space.all_rows():
        array = np.asarray(rows.array())
        count += len(array)
        found.update(zip(rows.ids, (row.tobytes() for row in array), strict=True))
    assert count == len(found) == len(space)  # nothing twice
    return found


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, two of them unreadable and two of them equal."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for i in range(COUNT):
        pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04}.png")
    (folder / "copy.png").write_bytes((folder / "0000.png").read_bytes())
    (folder / "0000a.png").write_bytes(b"not a picture")
    (folder / "zzz.png").write_bytes(b"nor this")
    return folder


Embed = Callable[..., Extracted]


@pytest.fixture(scope="session")
def embed(pictures: Path) -> Embed:
    """Embed the pictures into a cache."""

    def run(cache: Path | str, **overrides: object) -> Extracted:
        given = {**SETTINGS, "reporter": SilentReporter(), "cache": cache, **overrides}
        return extract_features(pictures, "headstart/glyphs", **given)

    return run


@pytest.fixture(scope="session")
def plain(embed: Embed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The rows of the plain run."""
    place = tmp_path_factory.mktemp("plain")
    embed(place)
    return rows_of(place)
