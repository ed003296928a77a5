"""Omniglot drawings as tensors, and the augmentation that pre-training draws them with.

Everything is batched tensor arithmetic on the CPU; the only source of chance is the generator that
the caller hands in.
"""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

ARCHIVES = ("images_background_small1.zip", "images_background_small2.zip")
SIDE = 105  # pixels of an Omniglot drawing
CANVAS = 48  # pixels of the working canvas on which strokes are bent and thickened
INPUT_SIZE = (32, 32)
MEAN, STD = 0.5, 0.5  # symmetric, because ink may be the darker or the lighter colour


@dataclass(frozen=True)
class Drawings:
    """Ink maps of one part of Omniglot.

    Attributes:
        ink: ``(n, 1, 105, 105) uint8``, 255 where the pen went, lightly smoothed.
        frame: ``(n, 3) float32``: centre x, centre y and half extent of the ink, in the units of
            ``affine_grid`` (the image spans −1 to 1).
        character: ``(n,) int64``.
    """

    ink: Tensor
    frame: Tensor
    character: Tensor

    def __len__(self) -> int:
        return len(self.character)


def read_omniglot(folder: Path, training_drawers: int) -> tuple[Drawings, Drawings]:
    """Read both archives; return the training and the validation drawings.

    Args:
        folder: where the two archives are; they are read in place.
        training_drawers: drawings of each character, from the first, that train; the rest validate.
    """
    names: dict[str, int] = {}
    images: dict[tuple[str, int], np.ndarray] = {}
    for archive in ARCHIVES:
        with zipfile.ZipFile(folder / archive) as file:
            for member in sorted(file.namelist()):
                if not member.endswith(".png"):
                    continue
                _, alphabet, character, drawing = member.split("/")
                name = f"{alphabet}/{character}"
                key = (name, int(Path(drawing).stem.split("_")[1]))
                if key in images:
                    continue  # Greek and Latin stand in both archives
                names.setdefault(name, len(names))
                with Image.open(io.BytesIO(file.read(member))) as image:
                    images[key] = np.asarray(image.convert("L")) < 128
    training = [key for key in images if key[1] <= training_drawers]
    validation = [key for key in images if key[1] > training_drawers]
    return _drawings(training, images, names), _drawings(validation, images, names)


def _drawings(
    keys: list[tuple[str, int]], images: dict[tuple[str, int], np.ndarray], names: dict[str, int]
) -> Drawings:
    ink = torch.from_numpy(np.stack([images[key] for key in keys]))[:, None].float()
    frames = []
    for (drawing,) in ink:
        rows, columns = drawing.any(1).nonzero(), drawing.any(0).nonzero()
        top, bottom = rows[0].item(), rows[-1].item() + 1
        left, right = columns[0].item(), columns[-1].item() + 1
        half = max(bottom - top, right - left) / SIDE
        frames.append(((left + right) / SIDE - 1, (top + bottom) / SIDE - 1, half))
    # The smoothing is what keeps thin strokes whole when the canvas samples every second pixel.
    smooth = F.avg_pool2d(ink, 3, 1, 1)
    return Drawings(
        ink=(smooth * 255).round().to(torch.uint8),
        frame=torch.tensor(frames, dtype=torch.float32),
        character=torch.tensor([names[name] for name, _ in keys]),
    )


class Augmenter:
    """Turns drawings and rotations into images ``(n, 3, 32, 32) float32``, normalised.

    Args:
        generator: the source of chance; nothing else is random.
        strength: 1 for training, 0 for the plain rendering that validation uses.
    """

    KERNELS = (1, 3, 5, 7)
    RESOLUTIONS = (8, 12, 16, 24, 32)

    def __init__(self, generator: torch.Generator, strength: float = 1.0) -> None:
        self.generator = generator
        self.strength = strength

    def __call__(self, drawings: Drawings, rows: Tensor, rotation: Tensor) -> Tensor:
        """Draw the given rows, rotated by ``rotation`` quarter turns (both ``(n,) int64``)."""
        ink = drawings.ink[rows].float() / 255
        grid = self._grid(drawings.frame[rows], rotation)
        canvas = F.grid_sample(ink, grid, mode="bilinear", align_corners=False)
        canvas = self._thicken(canvas)
        return self._colour(self._rescan(canvas))

    def _uniform(self, n: int, low: float, high: float) -> Tensor:
        return torch.rand(n, generator=self.generator) * (high - low) + low

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _choice(self, options: tuple[int, ...]) -> int:
        return options[int(torch.randint(len(options), (1,), generator=self.generator))]

    def _grid(self, frame: Tensor, rotation: Tensor) -> Tensor:
        """Where on the drawing each canvas pixel looks: ``(n, 48, 48, 2)``."""
        n, s = len(rotation), self.strength
        angle = rotation * (math.pi / 2) + s * self._normal(n) * math.radians(8)
        cos, sin = angle.cos(), angle.sin()
        turn = torch.stack([cos, -sin, sin, cos], 1).view(n, 2, 2)
        shear = torch.eye(2).repeat(n, 1, 1)
        shear[:, 0, 1] = s * self._normal(n) * 0.2
        size = torch.stack([(s * self._normal(n) * 0.15).exp() for _ in range(2)], 1)
        # A fifth keep their place on the sheet; the others are framed by their own ink.
        framed = (self._uniform(n, 0, 1) >= 0.2 * s)[:, None]
        half = torch.where(framed, frame[:, 2:] * 1.15, torch.ones(n, 1))
        centre = torch.where(framed, frame[:, :2], torch.zeros(n, 2))
        centre = centre + s * self._normal(n, 2) * 0.08 * half
        matrix = turn @ shear @ torch.diag_embed(size) * half[:, :, None]
        theta = torch.cat([matrix, centre[:, :, None]], 2)
        grid = F.affine_grid(theta, [n, 1, CANVAS, CANVAS], align_corners=False)
        bend = self._normal(n, 2, 4, 4) * 0.06 * s * half[:, :, None, None]
        bend = F.interpolate(bend, (CANVAS, CANVAS), mode="bicubic", align_corners=True)
        return grid + bend.permute(0, 2, 3, 1)

    def _thicken(self, canvas: Tensor) -> Tensor:
        """Widen the strokes by up to a sixth of the canvas, or not at all."""
        kernel = self._choice(self.KERNELS) if self.strength else 3
        if kernel == 1:
            return canvas
        wide = F.max_pool2d(canvas, (kernel, 1), 1, (kernel // 2, 0))
        return F.max_pool2d(wide, (1, kernel), 1, (0, kernel // 2))

    def _rescan(self, canvas: Tensor) -> Tensor:
        """Scan at a low resolution with uneven ink, then enlarge to the input size."""
        n = len(canvas)
        resolution = self._choice(self.RESOLUTIONS) if self.strength else 16
        ink = F.interpolate(
            canvas, (resolution, resolution), mode="bilinear", align_corners=False, antialias=True
        )
        gain = self._uniform(n, 1.0, 1.0 + self.strength).view(n, 1, 1, 1)
        noise = self._normal(*ink.shape) * self._uniform(n, 0, 0.06 * self.strength).view(
            n, 1, 1, 1
        )
        ink = (ink * gain + noise).clamp(0, 1)
        return F.interpolate(ink, INPUT_SIZE, mode="bilinear", align_corners=False)

    def _colour(self, ink: Tensor) -> Tensor:
        """Give ink and paper a colour each, one dark and one light, and normalise."""
        n, s = len(ink), self.strength
        plain = self._uniform(n, 0, 1).view(n, 1) < 0.5
        spread = torch.where(plain, 0.0, s) * self._uniform(n * 2, 0, 0.3).view(n, 2)
        tint = torch.where(plain, 0.0, s)[:, :, None] * self._uniform(n * 6, 0, 0.1).view(n, 2, 3)
        offset = spread[:, :, None] + tint
        dark, light = offset[:, 0], 1 - offset[:, 1]
        inverted = (self._uniform(n, 0, 1) < 0.5)[:, None]
        paper = torch.where(inverted, dark, light)[:, :, None, None]
        pen = torch.where(inverted, light, dark)[:, :, None, None]
        return (paper + (pen - paper) * ink - MEAN) / STD
