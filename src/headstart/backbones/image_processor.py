"""An image processor of transformers as a :class:`Preprocessing`, found by its pixels.

What a processor's file says means different things in different classes. So what it says makes
candidates, and the one whose pixels are the processor's own, on images of several shapes, is taken.
A processor that no candidate reproduces is not guessed: the user states the preprocessing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.arguments import Arguments
from headstart.core.errors import ConfigError
from headstart.data.geometry import Interpolation
from headstart.data.preprocessing import Preprocessing

TOLERANCE = 1e-5
"""The largest difference of a normalised sample that is rounding alone."""

_SHAPES = ((67, 101), (120, 83), (64, 64), (311, 250))
"""Height and width of the images that are tried: odd, tall, wide, square, larger than the box."""
_FILTERS: tuple[Interpolation, ...] = (
    "nearest",
    "lanczos",
    "bilinear",
    "bicubic",
    "box",
    "hamming",
)
"""By Pillow's numbers."""
_FILES = ("preprocessor_config.json", "processor_config.json")


def has_processor(folder: Path) -> bool:
    """Return whether a folder says how its images are prepared."""
    return any((folder / name).is_file() for name in _FILES)


def read_processor(transformers: Any, folder: Path) -> Any:
    """Load the processor that computes with Pillow, which headstart's pixels are those of."""
    by_pillow = {"backend": "pil"} if hasattr(transformers, "PilBackend") else {"use_fast": False}
    if int(transformers.__version__.split(".")[0]) >= 5:
        by_pillow = {"backend": "pil"}
    return transformers.AutoImageProcessor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, **by_pillow
    )


def preprocessing_of(processor: Any) -> Preprocessing | None:
    """Return the preprocessing whose pixels are those of a processor; None: there is none."""
    rng = np.random.default_rng(0)
    images = [_picture(rng, *shape) for shape in _SHAPES]
    try:
        expected = [_run(processor, image) for image in images]
    except Exception:  # it takes more than an image
        return None
    if len({each.shape for each in expected}) != 1 or expected[0].ndim != 3:
        return None
    for candidate in _candidates(processor, expected[0].shape[1:]):
        found = (_ours(candidate, image) for image in images)
        if all(
            a.shape == b.shape and float(np.abs(a - b).max()) <= TOLERANCE
            for a, b in zip(found, expected, strict=True)
        ):
            return candidate
    return None


def _picture(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    coarse = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _run(processor: Any, image: Image.Image) -> NDArray[np.float32]:
    """Return the pixels of one image, ``(3, h, w)``."""
    found = processor(images=image, return_tensors="np")
    pixels: NDArray[np.float32] = np.asarray(found["pixel_values"], dtype=np.float32)[0]
    return pixels


def _ours(candidate: Preprocessing, image: Image.Image) -> NDArray[np.float32]:
    sample = candidate.sample(np.asarray(image))
    batch: Arguments = candidate.finish(candidate.collate([sample]))
    return np.asarray(batch.args[0][0].numpy())


def _candidates(processor: Any, size: Sequence[int]) -> Iterator[Preprocessing]:
    """Yield what a processor might mean, the most usual first."""
    says: Mapping[str, Any] = {**vars(type(processor)), **processor.to_dict()}
    height, width = (int(side) for side in size)
    boxes = {height: None, **dict.fromkeys(_boxes(says))}
    resample = says.get("resample", 2)
    filters = [_FILTERS[int(resample)]] if resample is not None else list(_FILTERS)
    for colours in _colours(processor, says):
        for box in boxes:
            for how in ("squash", "shortest"):
                for offset in (
                    ("round", "floor") if how == "squash" and box == height else ("floor",)
                ):
                    for interpolation in filters:
                        with contextlib.suppress(ConfigError):
                            yield Preprocessing(
                                size=(height, width), crop_fraction=height / box, resize=how,
                                interpolation=interpolation, crop_offset=offset, **colours,
                            )  # fmt: skip


def _boxes(says: Mapping[str, Any]) -> Iterator[int]:
    """Yield heights that an image may be resized to before it is cropped."""
    size = says.get("size")
    named = size.values() if isinstance(size, Mapping) else [size]
    stated = [int(each) for each in named if isinstance(each, int | float) and each]
    yield from stated
    crop = says.get("crop_pct")
    if isinstance(crop, float) and 0 < crop <= 1:
        yield from (int(each / crop) for each in stated)
    yield from (int(256 / 224 * each) for each in stated)


def _colours(processor: Any, says: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield scale, mean, standard deviation and order of the channels."""
    scale = float(says.get("rescale_factor") or 1 / 255) if says.get("do_rescale", True) else 1.0
    order = "BGR" if says.get("do_flip_channel_order") else "RGB"
    mean, std = says.get("image_mean"), says.get("image_std")
    if says.get("do_normalize", True) and mean is not None and std is not None:
        yield {"scale": scale, "mean": mean, "std": std, "channels": order}
    else:
        yield {"scale": scale, "mean": 0.0, "std": 1.0, "channels": order}
    black, white = (
        _run(processor, Image.new("RGB", (256, 256), (level,) * 3)).mean((1, 2)).astype(float)
        for level in (0, 255)
    )
    if (white > black).all():
        spread = 255 * scale / (white - black)
        yield {
            "scale": scale,
            "mean": tuple((-black * spread).round(7)),
            "std": tuple(spread.round(7)),
            "channels": order,
        }


__all__ = ["TOLERANCE", "has_processor", "preprocessing_of", "read_processor"]
