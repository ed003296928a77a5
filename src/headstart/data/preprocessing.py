"""Images as inputs of a backbone: decode, resize, crop, normalise, as one describable value.

A :class:`Preprocessing` travels with the weights and says everything that changes the pixels, so
that a cache key built from :meth:`Preprocessing.describe` never confuses two of them. The work is
divided in two: :meth:`Preprocessing.geometry` runs per image in threads on the CPU and yields
bytes; :meth:`Preprocessing.normalise` runs per batch on the device.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError, ConfigError, DataError
from headstart.core.records import Excerpt
from headstart.core.stages import stage
from headstart.data import decoding, device_jpeg, pictures
from headstart.data.content import Content
from headstart.data.geometry import (
    CropOffset,
    Interpolation,
    Resize,
    box_of,
    geometry_faults,
    how_placed,
    pair,
    place,
)
from headstart.data.image_variants import enlargement_of, usual_mistakes, usual_variants
from headstart.data.inputs import (
    Enlargement,
    Inputs,
    NumberedView,
    PlainRows,
    Variant,
    check_fields,
    inputs_kind,
    register_inputs,
)
from headstart.data.items import Items
from headstart.data.resampling import resize
from headstart.data.views import ImageView, View, numbered_views

if TYPE_CHECKING:
    from headstart.data.dataset import Split


Channels = Literal["RGB", "BGR"]
Decoder = Literal["pillow", "nvjpeg"]


@register_inputs
@dataclass(frozen=True)
class Preprocessing(Inputs):
    """From an image to the input of a network.

    The image is resized to a box of ``size / crop_fraction`` pixels, cropped to ``size`` from the
    centre, multiplied by ``scale`` (samples are 0..255), reduced by ``mean`` and divided by
    ``std``. Resizing is Pillow's, with antialiasing; the arithmetic of sizes is that of timm's
    and torchvision's evaluation transforms, pixel for pixel.

    Attributes:
        size: (height, width) of the network's input; an int means a square.
        mean, std: per channel, in the network's channel order, on scaled samples; one number
            means all three channels.
        scale: factor on the 0..255 samples before normalising; 1/255 by default, 1 for networks
            that take raw samples.
        crop_fraction: the part of the resized box that the crop keeps, in (0, 1]; 224/256 is
            0.875. 1.0 crops only what exceeds the aspect ratio.
        resize: ``shortest`` keeps the aspect ratio and fills the box with the shorter side;
            ``squash`` resizes both sides to the box and may distort.
        interpolation: the resampling filter.
        channels: the channel order the network was trained with.
        crop_offset: where a centre crop begins when half a pixel is left over: ``round`` to the
            nearest, as timm and torchvision do; ``floor``, as the processors of transformers do.
        decoder: ``pillow``; or ``nvjpeg``, which decodes and resizes JPEGs on a CUDA device, to
            slightly other pixels (:mod:`headstart.data.device_jpeg`).

    Raises:
        ConfigError: naming every value that cannot be.
    """

    kind: ClassVar[str] = "image"
    unit: ClassVar[str] = "images"

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1.0 / 255.0
    crop_fraction: float = 1.0
    resize: Resize = "shortest"
    interpolation: Interpolation = "bicubic"
    channels: Channels = "RGB"
    crop_offset: CropOffset = "round"
    decoder: Decoder = "pillow"

    def __post_init__(self) -> None:
        size: Any = self.size
        object.__setattr__(self, "size", pair(size))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _triple(getattr(self, name)))
        faults = _faults(self)
        if faults:
            raise ConfigError(tuple(faults))

    def sample(self, content: Content, view: NumberedView | None = None, key: str = "") -> Any:
        """Decode, resize and crop one image; returns ``(3, h, w) uint8``, RGB.

        It is an array, or a tensor where a device has decoded it. Views are made on the CPU.
        """
        waiting = self.encoded(content) if view is None else None
        if waiting is None:
            return self._sample(content, view, key)
        (found,) = self.decoded([waiting])
        if isinstance(found, Exception):
            raise found
        return found

    def _sample(
        self, content: Content, view: NumberedView | None = None, key: str = ""
    ) -> NDArray[np.uint8]:
        with decoding.opened(content) as image, stage("resize"):
            if view is None:
                pixels = self.geometry(image)
            else:
                pixels = cast(ImageView, view).geometry(image, key, self)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def check_ready(self) -> None:
        """Refuse a decoder that is not there."""
        if self.decoder == device_jpeg.NVJPEG:
            device_jpeg.check_present()

    def encoded(self, content: Content) -> device_jpeg.Encoded | None:
        """Return a file for the device; None: it is decoded on the CPU."""
        return device_jpeg.encoded(content, self) if self.decoder == device_jpeg.NVJPEG else None

    def decoded(self, waiting: Sequence[device_jpeg.Encoded]) -> Sequence[Any]:
        """Decode and resize files on the device; returns ``(3, h, w) uint8`` of each."""
        return device_jpeg.decoded(waiting, self.interpolation, self._sample)

    def collate(self, samples: Sequence[Any]) -> Arguments:
        """Stack samples into ``(n, 3, h, w) uint8``, RGB, on a device if one of them is there."""
        if self.decoder == device_jpeg.NVJPEG:
            return Arguments((device_jpeg.joined(samples),))
        return Arguments((torch.from_numpy(np.stack(samples)),))

    def finish(self, batch: Arguments) -> Arguments:
        """Normalise; see :meth:`normalise`."""
        return Arguments((self.normalise(batch.args[0]),))

    def example(self, count: int) -> Arguments:
        """Return random pixels, always the same, normalised."""
        generator = torch.Generator().manual_seed(0)
        shape = (count, 3, *self.size)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return self.finish(Arguments((pixels,)))

    def geometry(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one image.

        Args:
            image: upright, any size; mode ``RGB``, or any that files come in.

        Returns:
            ``(h, w, 3) uint8`` in RGB order, whatever ``channels`` is.
        """
        target, part = place(image.size, self)
        return np.asarray(resize(image, target, self.interpolation, part))

    def filled(self, image: Image.Image) -> Image.Image:
        """Resize a whole image to the size of the input."""
        height, width = self.size
        return resize(image, (width, height), self.interpolation)

    def tensor_geometry(self, images: torch.Tensor) -> torch.Tensor:
        """Resize and crop images of one size that are tensors, as :meth:`geometry` does.

        Pillow does it, on the CPU: it rounds between its two passes, which no resizing of tensors
        does.

        Args:
            images: ``(n, 3, h, w) uint8``, RGB, decoded and upright.

        Returns:
            ``(n, 3, *size) uint8``, on the same device.
        """
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        found = [self.geometry(Image.fromarray(np.ascontiguousarray(each))) for each in pixels]
        stacked = np.stack(found) if found else np.empty((0, *self.size, 3), np.uint8)
        return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous().to(images.device)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn bytes into the network's input, on the device where they are.

        Args:
            pixels: ``(n, 3, h, w) uint8``, RGB.

        Returns:
            ``(n, 3, h, w) float32``, in the network's channel order, newly allocated.
        """
        if self.channels == "BGR":
            pixels = pixels.flip(1)
        mean = torch.tensor(self.mean, dtype=torch.float32, device=pixels.device)
        std = torch.tensor(self.std, dtype=torch.float32, device=pixels.device)
        x = pixels.to(torch.float32, copy=True).mul_(self.scale)
        return x.sub_(mean.view(1, 3, 1, 1)).div_(std.view(1, 3, 1, 1))

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the pixels, as plain JSON values, for cache keys."""
        return {
            "size": list(self.size),
            "mean": list(self.mean),
            "std": list(self.std),
            "scale": self.scale,
            "crop_fraction": self.crop_fraction,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "channels": self.channels,
            "decoder": device_jpeg.describe()
            if self.decoder == device_jpeg.NVJPEG
            else decoding.describe_decoder(),
            **({} if self.crop_offset == "round" else {"crop_offset": self.crop_offset}),
        }

    @property
    def extent(self) -> str:
        """What the network is given, in words."""
        return f"images of {self.size[0]}×{self.size[1]}"

    @property
    def decoding(self) -> Hashable:
        """What decides the pixels before they are normalised."""
        crop = (self.crop_fraction, self.crop_offset)
        return (self.size, crop, self.resize, self.interpolation, self.decoder)

    @classmethod
    def check_items(cls, items: Items) -> None:
        """Refuse texts and sounds.

        Raises:
            DataError: the items are texts or sounds.
        """
        if items.kind == "audio":
            raise DataError(
                "the data are sounds, and this backbone takes images",
                hint="choose a backbone for sounds, such as"
                " backbone='hf/MIT/ast-finetuned-audioset-10-10-0.4593'; or name the image"
                " column with image_column=NAME",
            )
        if items.kind == "text":
            raise DataError(
                "the data are texts, and this backbone takes images",
                hint="choose a backbone for texts, such as"
                " backbone='hf/sentence-transformers/all-MiniLM-L6-v2'; or name the image"
                " column with image_column=NAME",
            )

    def excerpt(self, *contents: Content) -> Excerpt:
        """Return the images side by side, as thumbnails."""
        return Excerpt(picture=pictures.thumbnail(*map(decoding.image_of, contents)))

    def numbered_views(self, count: int, *, seed: int = 0) -> tuple[View, ...]:
        """Return the augmented views 1 .. ``count``: parts of the image, mirrored or not."""
        return numbered_views(count, seed=seed)

    def variants(self) -> tuple[Variant, ...]:
        """Return other usual normalisations and orders of the channels."""
        return usual_variants(self)

    def mistakes(self) -> Mapping[str, Preprocessing]:
        """Return wrong scales, normalisations and orders of the channels, by name."""
        return usual_mistakes(self)

    def enlargement(self, contents: Sequence[Content]) -> Enlargement:
        """Return by how much some images are enlarged."""
        return enlargement_of(self, contents)

    def plain_rows(self, train: Split, test: Split) -> PlainRows | None:  # noqa: ARG002
        """Return raw pixels, at most 32×32, where the test images are small; else None."""
        side = pictures.small_side(test)
        if side is None:
            return None
        small = Preprocessing(
            (side, side), (0.0,) * 3, (1.0,) * 3, resize="squash", interpolation="bilinear"
        )
        return PlainRows("raw pixels", f"{side}×{side} pixels", partial(pictures.raw_pixels, small))

    def code(self) -> tuple[str, ...]:
        """Return lines of Python that normalise ``images``."""
        flip = "[:, [2, 1, 0]]" if self.channels == "BGR" else ""
        return (
            f"mean, std = torch.tensor({list(self.mean)}), torch.tensor({list(self.std)})",
            f"images = images{flip} * {self.scale:.8g}  # images: RGB, 0..255, (n, 3, h, w)",
            "images = (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)",
        )

    @classmethod
    def suited(cls, values: Mapping[str, Any]) -> type[Inputs]:
        """Return :class:`~headstart.data.bands.Bands` where bands or channels are named."""
        return inputs_kind("bands") if {"bands", "in_channels"} & set(values) else cls

    @classmethod
    def resolve(
        cls, who: str, known: Mapping[str, Any], given: Mapping[str, Any]
    ) -> tuple[Self, tuple[str, ...]]:
        """Combine what the weights say with what the user says; nothing is guessed.

        A crop fraction belongs to the size it was chosen for (0.875 is 224 of 256 pixels). At
        another size that the user names, the whole image is kept unless the user names a crop as
        well.

        Raises:
            BackboneError: mean, std or size is known from neither; the message lists them.
        """
        check_fields(cls, given)
        values = {**known, **given}
        notes: tuple[str, ...] = ()
        cropped = known.get("crop_fraction", 1.0) < 1.0 and "crop_fraction" not in given
        if cropped and "size" in given and pair(given["size"]) != pair(known.get("size", ())):
            values["crop_fraction"] = 1.0
            notes = (
                "the whole image is kept at the size you gave; the weights' own would be "
                f"crop_fraction={known['crop_fraction']:g}",
            )
        missing = [name for name in ("mean", "std", "size") if name not in values]
        if missing:
            raise unstated(who, missing)
        return cls(**values), notes

    def __str__(self) -> str:
        scale = "/255" if math.isclose(self.scale, 1 / 255) else f"×{self.scale:g}"
        return (
            f"{how_placed(self)}, {self.channels} {scale}, mean {short(self.mean)},"
            f" std {short(self.std)}"
            + (f", decoded by {self.decoder}" if self.decoder == device_jpeg.NVJPEG else "")
        )

    @property
    def box(self) -> tuple[int, int]:
        """(height, width) that the image is resized to fill."""
        return box_of(self.size, self.crop_fraction)


def unstated(who: str, missing: Sequence[str]) -> BackboneError:
    """Return the error for values that neither the weights nor the user state."""
    options = ", ".join(f"{name}=VALUE" for name in missing)
    return BackboneError(
        f"the preprocessing of {who} is not known: its weights do not state their"
        f" {', '.join(missing)}",
        hint=f"give {options} as in pre-training (for inputs RGB/127.5 − 1: "
        "mean=0.5, std=0.5; for ImageNet's usual statistics: "
        "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))",
    )


def _triple(values: Any) -> tuple[Any, ...]:
    if isinstance(values, int | float):
        return (float(values),) * 3
    numbers = tuple(float(value) for value in values)
    return numbers * 3 if len(numbers) == 1 else numbers


def _faults(p: Preprocessing) -> list[str]:
    faults = geometry_faults(p)
    for name, values in (("mean", p.mean), ("std", p.std)):
        if len(values) != 3 or not all(math.isfinite(v) for v in values):
            faults.append(f"{name} must be one or three finite numbers, not {values}")
    if any(v <= 0 for v in p.std):
        faults.append(f"std must be positive, not {p.std}")
    if not (math.isfinite(p.scale) and p.scale > 0):
        faults.append(f"scale must be positive, not {p.scale}")
    if p.decoder not in get_args(Decoder):
        faults.append(f"decoder must be one of {', '.join(get_args(Decoder))}, not {p.decoder!r}")
    elif p.decoder == device_jpeg.NVJPEG:
        faults += device_jpeg.faults(p)
    if p.channels not in get_args(Channels):
        faults.append(
            f"channels must be one of {', '.join(get_args(Channels))}, not {p.channels!r}"
        )
    return faults


def short(values: tuple[float, ...]) -> str:
    """Return numbers of channels in words: one where they are equal."""
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
