"""Features of ``headstart/glyphs`` on the Omniglot drawings as they are in the archives.

    python benchmarks/glyphs_on_omniglot.py ../shared/data/omniglot

Each of the 242 characters is represented by the mean of its drawings 1 to 18; drawings 19 and 20,
by people whom the pre-training did not see, go to the nearest mean (cosine similarity of
standardised vectors). The characters themselves were seen in pre-training: this checks the road
from the file to the feature, and both polarities, not transfer.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from headstart.backbones.glyphs import glyphs_metadata, load_glyphs
from headstart.data.preprocessing import Preprocessing

ARCHIVES = ("images_background_small1.zip", "images_background_small2.zip")
TRAINING_DRAWERS = 18


def read(folder: Path, preprocessing: Preprocessing) -> tuple[Tensor, Tensor, Tensor]:
    """Return pixels ``(n, 3, 32, 32) uint8``, characters and drawers, both ``(n,) int64``."""
    pixels, characters, drawers = [], [], []
    index: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    for archive in ARCHIVES:
        with zipfile.ZipFile(folder / archive) as file:
            for member in sorted(name for name in file.namelist() if name.endswith(".png")):
                _, alphabet, character, drawing = member.split("/")
                name = f"{alphabet}/{character}"
                if (name, drawing) in seen:
                    continue  # Greek and Latin stand in both archives
                seen.add((name, drawing))
                with Image.open(io.BytesIO(file.read(member))) as image:
                    pixels.append(preprocessing.geometry(image.convert("RGB")))
                characters.append(index.setdefault(name, len(index)))
                drawers.append(int(Path(drawing).stem.split("_")[1]))
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    return stacked, torch.tensor(characters), torch.tensor(drawers)


def nearest_mean(rows: Tensor, characters: Tensor, training: Tensor) -> float:
    """Accuracy on the rows ``(n, d) float32`` that are not training rows."""
    mean, deviation = rows[training].mean(0), rows[training].std(0)
    rows = (rows - mean) / (deviation + 1e-6)
    count = int(characters.max()) + 1
    one_hot = F.one_hot(characters[training], count).float()
    centres = F.normalize(one_hot.T @ rows[training])
    nearest = (F.normalize(rows[~training]) @ centres.T).argmax(1)
    return float((nearest == characters[~training]).float().mean())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the two Omniglot archives")
    options = parser.parse_args()
    preprocessing, network = Preprocessing(**glyphs_metadata()["preprocessing"]), load_glyphs()
    pixels, characters, drawers = read(options.data, preprocessing)
    training = drawers <= TRAINING_DRAWERS
    for name, images in (("as stored", pixels), ("inverted", 255 - pixels)):
        x = preprocessing.normalise(images)
        features = torch.cat([network(part) for part in x.split(128)])
        ours = nearest_mean(features, characters, training)
        raw = nearest_mean(x[:, 0].flatten(1), characters, training)
        print(f"{name:10s} features {100 * ours:.1f} %   raw pixels {100 * raw:.1f} %")


if __name__ == "__main__":
    main()
