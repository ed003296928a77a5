"""Images as sequences of patches of any length, for networks that take every aspect ratio.

timm's NaFlexViT is given the patches of an image, where each of them is, and which of them only pad
the sequence to the longest of its batch (Dehghani et al. 2023, "Patch n' Pack"). An image keeps its
aspect ratio: it is resized to as many patches as there may be, and is not cropped.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from headstart.core.arguments import Arguments
from headstart.core.errors import ConfigError
from headstart.core.records import Excerpt
from headstart.core.stages import stage
from headstart.data import decoding, pictures
from headstart.data.content import Content, UndecodableError
from headstart.data.geometry import Interpolation, pair
from headstart.data.inputs import Inputs, NumberedView, check_fields, register_inputs
from headstart.data.items import Items
from headstart.data.preprocessing import Preprocessing, short, unstated
from headstart.data.resampling import resize
from headstart.data.views import View, numbered_views

if TYPE_CHECKING:
    from headstart.data.dataset import Split

_EXAMPLES = ((96, 64), (64, 64), (48, 112))
"""Height and width of the images that a network is tried on."""


@register_inputs
@dataclass(frozen=True)
class Patches(Inputs):
    """From an image to a sequence of patches.

    The image is resized to the largest multiple of a patch at which it has at most ``max_length``
    patches, as timm's ``ResizeToSequence`` does, pixel for pixel; then multiplied by ``scale``,
    reduced by ``mean`` and divided by ``std``.

    Attributes:
        patch: (height, width) of a patch in pixels; an int means a square.
        max_length: patches of an image, at most.
        mean, std: per channel, on scaled samples; one number means all three channels.
        scale: factor on the 0..255 samples.
        interpolation: the resampling filter.
        channels_last: whether the values of a patch are ordered pixel by pixel, not plane by plane.
        length: patches to which every image is padded; 0: to the longest of its batch.

    Raises:
        ConfigError: naming every value that cannot be.
    """

    kind: ClassVar[str] = "patches"
    unit: ClassVar[str] = "images"

    patch: tuple[int, int]
    max_length: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1.0 / 255.0
    interpolation: Interpolation = "bicubic"
    channels_last: bool = True
    length: int = 0

    def __post_init__(self) -> None:
        patch: Any = self.patch
        sides: tuple[Any, ...] = pair(patch)
        object.__setattr__(self, "patch", sides)
        faults = []
        if len(sides) != 2 or not all(isinstance(s, int) and s > 0 for s in sides):
            faults.append(f"patch must be one or two positive numbers of pixels, not {patch!r}")
        if not isinstance(self.max_length, int) or self.max_length < 1:
            faults.append(f"max_length must be 1 or more patches, not {self.max_length!r}")
        elif not (isinstance(self.length, int) and 0 <= self.length <= self.max_length):
            faults.append(f"length must lie between 0 and {self.max_length}, not {self.length!r}")
        if faults:
            raise ConfigError(tuple(faults))
        # What is checked of the colours of images is checked of those of patches.
        like = Preprocessing(
            (16, 16), self.mean, self.std, scale=self.scale, interpolation=self.interpolation
        )
        object.__setattr__(self, "mean", like.mean)
        object.__setattr__(self, "std", like.std)

    def sample(
        self, content: Content, view: NumberedView | None = None, key: str = ""
    ) -> NDArray[np.uint8]:
        """Decode and resize one image; returns ``(h, w, 3) uint8``, whole patches a side."""
        with decoding.opened(content) as image, stage("resize"):
            if view is None:
                return np.ascontiguousarray(self.geometry(image))
            if not isinstance(view, View):
                raise UndecodableError(
                    "patches, for which only headstart's own views are available"
                )
            return np.ascontiguousarray(view.geometry(image, key, self))

    def geometry(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize one image; returns ``(h, w, 3) uint8``."""
        return np.asarray(self.filled(image))

    def filled(self, image: Image.Image) -> Image.Image:
        """Resize a whole image to the largest size that has not too many patches.

        Raises:
            UndecodableError: it is so small or so thin that no size has.
        """
        from timm.data.naflex_transforms import get_image_size_for_seq

        width, height = image.size
        try:
            _, (new_height, new_width) = get_image_size_for_seq(
                (height, width), self.patch, self.max_length
            )
        except ValueError:
            raise UndecodableError(
                f"{width}×{height} pixels, of which no size has up to {self.max_length} patches"
            ) from None
        return resize(image, (new_width, new_height), self.interpolation)

    def collate(self, samples: Sequence[NDArray[np.uint8]]) -> Arguments:
        """Cut samples into patches, padded to the longest.

        Returns:
            ``(n, patches, values) uint8``; ``patch_coord`` ``(n, patches, 2) int64``, row and
            column; ``patch_valid`` ``(n, patches) bool``, which is the mask.
        """
        height, width = self.patch
        grids = [(len(s) // height, s.shape[1] // width) for s in samples]
        longest = max((self.length, *(rows * columns for rows, columns in grids)))
        n = len(samples)
        patches = np.zeros((n, longest, 3 * height * width), np.uint8)
        places = np.zeros((n, longest, 2), np.int64)
        valid = np.zeros((n, longest), bool)
        order = (0, 2, 1, 3, 4) if self.channels_last else (0, 2, 4, 1, 3)
        for i, (sample, (rows, columns)) in enumerate(zip(samples, grids, strict=True)):
            cut = sample.reshape(rows, height, columns, width, 3).transpose(order)
            size = rows * columns
            patches[i, :size] = cut.reshape(size, -1)
            places[i, :size] = np.indices((rows, columns)).reshape(2, -1).T
            valid[i, :size] = True
        mask = torch.from_numpy(valid)
        named = {"patch_coord": torch.from_numpy(places), "patch_valid": mask}
        return Arguments((torch.from_numpy(patches),), named, mask)

    def finish(self, batch: Arguments) -> Arguments:
        """Normalise; padding stays zero."""
        patches, mask = batch.args[0], batch.kwargs["patch_valid"]
        n, longest, size = patches.shape
        shape = (n, longest, size // 3, 3) if self.channels_last else (n, longest, 3, size // 3)
        one = (1, 1, 1, 3) if self.channels_last else (1, 1, 3, 1)
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=patches.device).view(one)
            for values in (self.mean, self.std)
        )
        x = patches.to(torch.float32, copy=True).mul_(self.scale).view(shape)
        x = x.sub_(mean).div_(std).view(n, longest, size)
        return Arguments((x * mask.unsqueeze(-1),), batch.kwargs, batch.mask)

    def example(self, count: int) -> Arguments:
        """Return random pixels in several shapes, always the same."""
        rng = np.random.default_rng(0)
        images = (
            Image.fromarray(rng.integers(0, 256, (*_EXAMPLES[i % len(_EXAMPLES)], 3), np.uint8))
            for i in range(count)
        )
        return self.finish(self.collate([self.geometry(image) for image in images]))

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the patches, as plain JSON values, for cache keys."""
        values = {n: list(v) if isinstance(v, tuple) else v for n, v in self.values().items()}
        return {"kind": self.kind, **values, "decoder": decoding.describe_decoder()}

    def one_shape(self, splits: Sequence[Split]) -> Self:  # noqa: ARG002
        """Return inputs that pad every image to as many patches as there may be."""
        return self.changed(length=self.max_length)

    @property
    def ragged(self) -> bool:
        """Whether images are padded to the longest of their batch."""
        return self.length == 0

    @property
    def extent(self) -> str:
        """What the network is given, in words."""
        return f"images of up to {self.max_length:,} patches"

    @property
    def decoding(self) -> Hashable:
        """What decides the samples before they are cut and normalised."""
        return (self.kind, self.patch, self.max_length, self.interpolation)

    @classmethod
    def check_items(cls, items: Items) -> None:
        """Refuse texts.

        Raises:
            DataError: the items are texts.
        """
        Preprocessing.check_items(items)

    def excerpt(self, *contents: Content) -> Excerpt:
        """Return the images side by side, as thumbnails."""
        return Excerpt(picture=pictures.thumbnail(*map(decoding.image_of, contents)))

    def numbered_views(self, count: int, *, seed: int = 0) -> tuple[View, ...]:
        """Return the augmented views 1 .. ``count``: parts of the image, mirrored or not."""
        return numbered_views(count, seed=seed)

    def code(self) -> tuple[str, ...]:
        """Return lines of Python that make the arguments of an image."""
        height, width = self.patch
        return (
            "from timm.data.naflex_transforms import Patchify, ResizeToSequence",
            f"image = ResizeToSequence(({height}, {width}), {self.max_length})(image)",
            f"image = (image * {self.scale:.8g} - mean) / std  # mean {list(self.mean)},"
            f" std {list(self.std)}",
            f"patches, patch_coord, patch_valid = Patchify(({height}, {width}))(image)",
        )

    @classmethod
    def resolve(
        cls, who: str, known: Mapping[str, Any], given: Mapping[str, Any]
    ) -> tuple[Self, tuple[str, ...]]:
        """Combine what the weights say with what the user says.

        Raises:
            BackboneError: mean or std is known from neither.
        """
        check_fields(cls, given)
        values = {**known, **given}
        missing = [name for name in ("mean", "std") if name not in values]
        if missing:
            raise unstated(who, missing)
        return cls(**values), ()

    def __str__(self) -> str:
        height, width = self.patch
        scale = "/255" if math.isclose(self.scale, 1 / 255) else f"×{self.scale:g}"
        return (
            f"aspect ratio kept, up to {self.max_length:,} patches of {height}×{width}"
            f" ({self.interpolation}), RGB {scale}, mean {short(self.mean)}, std {short(self.std)}"
        )


__all__ = ["Patches"]
