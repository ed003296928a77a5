r"""Two data sets that are no classifications, made of pictures that are.

``pages``: pages of one to four handwritten characters each, labelled with all that are on them. The
drawings come from an archive of Omniglot (Lake, Salakhutdinov and Tenenbaum 2015; MIT licence):

    python made_tasks.py pages images_background_small1.zip pages
    headstart fit pages/pages.csv -b headstart/glyphs --size 64 --layer stage2.0

``turned``: photographs that lie askew on a grey table; the angle is to be told:

    python made_tasks.py turned PHOTOGRAPHS turned
    headstart fit turned/turned.csv -b headstart/photos --size 128 --layer blocks.2 \
        --label-column angle

Both write ``train`` and ``test`` into a column ``split``: people who drew on a page of the test
split drew on no page of the training split, and no photograph is in both.
"""

from __future__ import annotations

import argparse
import csv
import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 224
CHARACTERS = 8
DRAWERS = 15
"""Of the 20 people who drew every character, those whose drawings train."""
DEGREES = 30.0
"""The largest angle to either side."""


def make_pages(archive: Path, folder: Path, train: int = 400, test: int = 150) -> Path:
    """Write pages of characters and ``pages.csv``; returns its path.

    Args:
        archive: of Omniglot, with ``ALPHABET/characterNN/NNNN_MM.png`` in it.
        folder: is made.
        train, test: number of pages.
    """
    drawings = _drawings(archive)
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(train + test):
        split = "train" if number < train else "test"
        names = rng.choice(sorted(drawings), rng.integers(1, 5), replace=False)
        places = rng.permutation(4)[: len(names)]
        page = Image.new("L", (SIDE, SIDE), 255)
        for name, place in zip(names, places, strict=True):
            drawer = rng.integers(DRAWERS) if split == "train" else rng.integers(DRAWERS, 20)
            row, column = divmod(int(place), 2)
            page.paste(drawings[str(name)][int(drawer)], (column * SIDE // 2, row * SIDE // 2))
        page.save(folder / f"page{number:04}.png")
        rows.append((f"page{number:04}.png", "|".join(sorted(map(str, names))), split))
    return _table(folder / "pages.csv", ("path", "characters", "split"), rows)


def _drawings(archive: Path) -> dict[str, list[Image.Image]]:
    """Return the drawings of the first characters of the first alphabet, by name."""
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.endswith(".png"))
        found: dict[str, list[Image.Image]] = {}
        for name in names:
            character = name.split("/")[-2]
            if character not in found and len(found) == CHARACTERS:
                break
            image = Image.open(io.BytesIO(file.read(name))).convert("L")
            half = image.resize((SIDE // 2, SIDE // 2), Image.Resampling.BILINEAR)
            found.setdefault(character, []).append(half)
    return found


def make_turned(photographs: Sequence[Path], folder: Path, share: float = 0.25) -> Path:
    """Write turned photographs and ``turned.csv``; returns its path.

    Args:
        photographs: of any size; each is turned once.
        folder: is made.
        share: of them that tests.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    angles = rng.uniform(-DEGREES, DEGREES, len(photographs))
    rows = []
    for number, (path, angle) in enumerate(zip(photographs, angles, strict=True)):
        turned(Image.open(path).convert("RGB"), float(angle)).save(folder / f"{number:04}.png")
        split = "test" if number < share * len(photographs) else "train"
        rows.append((f"{number:04}.png", f"{angle:.3f}", split))
    return _table(folder / "turned.csv", ("path", "angle", "split"), rows)


def turned(photograph: Image.Image, angle: float) -> Image.Image:
    """Return a photograph that lies askew on a grey table, turned to the left by an angle."""
    side = SIDE * 5 // 8  # any turn of a square leaves it inside the table
    print_ = photograph.resize((side, side)).convert("RGBA")
    askew = print_.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    table = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    table.paste(askew, ((SIDE - askew.width) // 2, (SIDE - askew.height) // 2), askew)
    return table


def _table(path: Path, names: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)
    return path


def main() -> None:
    """Make one of the two, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("pages", "turned"))
    parser.add_argument("source", type=Path, help="an archive of Omniglot; a folder of photographs")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.kind == "pages":
        print(make_pages(given.source, given.folder))
        return
    found = [p for p in sorted(given.source.rglob("*")) if p.suffix in (".jpg", ".jpeg", ".png")]
    order = np.random.default_rng(1).permutation(len(found))
    print(make_turned([found[i] for i in order], given.folder))


if __name__ == "__main__":
    main()
