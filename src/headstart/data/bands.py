"""Images of any number of bands and any depth as inputs of a backbone.

:class:`~headstart.data.preprocessing.Preprocessing` gives a network 8-bit RGB. :class:`Bands` give
it chosen bands of an image, or all of them, as floats: nothing is rounded to 8 bits, and nothing is
taken for red, green and blue. Resizing is Pillow's, band by band, with the same sizes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError, ConfigError
from headstart.core.kinds import MEASURED
from headstart.core.progress import Reporter
from headstart.core.records import Excerpt
from headstart.core.stages import stage
from headstart.core.wording import count
from headstart.data import band_values, pictures, samples
from headstart.data.band_pictures import rendered, rendering
from headstart.data.band_values import (
    measured_statistics,
    per_channel,
    stated_by_rgb,
    value_faults,
    ways_to,
)
from headstart.data.content import Content, UndecodableError
from headstart.data.decoding import describe_decoder
from headstart.data.geometry import (
    CropOffset,
    Interpolation,
    Resize,
    geometry_faults,
    how_placed,
    pair,
    place,
)
from headstart.data.image_variants import IMAGENET_MEAN, IMAGENET_STD
from headstart.data.inputs import (
    Inputs,
    NumberedView,
    PlainRows,
    Variant,
    check_fields,
    register_inputs,
)
from headstart.data.items import Items
from headstart.data.preprocessing import Preprocessing, short
from headstart.data.resampling import resize
from headstart.data.views import View, numbered_views

if TYPE_CHECKING:
    from headstart.data.dataset import Split


@register_inputs
@dataclass(frozen=True)
class Bands(Inputs):
    """From an image of any bands to the input of a network.

    The samples become shares from 0 (black) to 1 (white), by the type or the file where these say
    it, else by ``value_range`` of the data; see :mod:`headstart.data.samples`. The chosen bands are
    resized, cropped, reduced by ``mean`` and divided by ``std``.

    Attributes:
        size: (height, width) of the network's input; an int means a square.
        mean, std: per channel of the network, on shares from 0 to 1; one number means all
            channels, and ``"train"`` that they are measured on the training split.
        in_channels: of the network.
        bands: which bands of an image, counted from 1, in the order of the network's channels; a
            band may come several times: ``(1, 1, 1)`` gives a grey image to a network of three.
            Empty: all bands, of which an image must have as many as the network has channels.
        crop_fraction, resize, interpolation, crop_offset: as in
            :class:`~headstart.data.preprocessing.Preprocessing`.
        of_bands: how many bands the training images have, so that others are refused; None: not
            known, or not all the same. Part of keys where ``bands`` chooses some of them.

    Raises:
        ConfigError: naming every value that cannot be.
    """

    kind: ClassVar[str] = "bands"
    unit: ClassVar[str] = "images"

    size: tuple[int, int]
    mean: tuple[float, ...] | str
    std: tuple[float, ...] | str
    in_channels: int
    bands: tuple[int, ...] = ()
    crop_fraction: float = 1.0
    resize: Resize = "shortest"
    interpolation: Interpolation = "bicubic"
    crop_offset: CropOffset = "round"
    of_bands: int | None = None

    def __post_init__(self) -> None:
        size: Any = self.size
        object.__setattr__(self, "size", pair(size))
        object.__setattr__(self, "bands", tuple(self.bands))
        for name in ("mean", "std"):
            object.__setattr__(self, name, per_channel(getattr(self, name), self.in_channels))
        faults = [
            *geometry_faults(self),
            *value_faults(self.in_channels, self.bands, mean=self.mean, std=self.std),
        ]
        if faults:
            raise ConfigError(tuple(faults))

    def sample(
        self, content: Content, view: NumberedView | None = None, key: str = ""
    ) -> NDArray[np.float32]:
        """Decode, choose, resize and crop one image; returns ``(c, h, w) float32``, 0 to 1."""
        whole = samples.shares(content)
        planes = self.chosen(whole)
        with stage("resize"):
            made = [self._plane(np.ascontiguousarray(plane), view, key) for plane in planes]
        return np.stack(made)

    def _plane(
        self, plane: NDArray[np.float32], view: NumberedView | None, key: str
    ) -> NDArray[np.float32]:
        image = Image.fromarray(plane)
        if view is None:
            return self.geometry(image)
        if not isinstance(view, View):
            raise UndecodableError("bands, for which only headstart's own views are available")
        return np.asarray(view.geometry(image, key, self), dtype=np.float32)

    def chosen(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the bands that the network sees, each ``(h, w)``.

        Args:
            image: ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)``.

        Raises:
            UndecodableError: it has other bands, than the training images have among others, or
                nothing says which axis they are.
        """
        planes = np.moveaxis(self._bands_last(image), 2, 0)
        band_values.refuse_others(len(planes), self.of_bands, self.bands)
        if not self.bands:
            if len(planes) != self.in_channels:
                ways = ways_to(len(planes), self.in_channels)
                raise UndecodableError(
                    f"{count(len(planes), 'band')}, and the network takes"
                    f" {count(self.in_channels, 'channel')}: {ways}"
                )
            return list(planes)
        if max(self.bands) > len(planes):
            raise UndecodableError(
                f"{count(len(planes), 'band')}, and bands={self.bands} names band {max(self.bands)}"
            )
        return [planes[band - 1] for band in self.bands]

    def _bands_last(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        return band_values.bands_last(image, None if self.bands else self.in_channels)

    def geometry(self, image: Image.Image) -> NDArray[np.float32]:
        """Resize and crop one band.

        Args:
            image: mode ``F``, any size.

        Returns:
            ``(h, w) float32``.
        """
        target, part = place(image.size, self)
        return _within(resize(image, target, self.interpolation, part, samples=True))

    def filled(self, image: Image.Image) -> Image.Image:
        """Resize a whole band to the size of the input."""
        height, width = self.size
        made = resize(image, (width, height), self.interpolation, samples=True)
        return Image.fromarray(_within(made))

    def collate(self, samples: Sequence[NDArray[np.float32]]) -> Arguments:
        """Stack samples into ``(n, c, h, w) float32``, from 0 to 1."""
        return Arguments((torch.from_numpy(np.stack(samples)),))

    def finish(self, batch: Arguments) -> Arguments:
        """Normalise: ``(n, c, h, w) float32``, newly allocated."""
        x = batch.args[0]
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=x.device).view(1, -1, 1, 1)
            for values in self._normalisation()
        )
        return Arguments(((x - mean) / std,))

    def _normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation; 0 and 1 where they are still to be measured."""
        k = self.in_channels
        mean = (0.0,) * k if isinstance(self.mean, str) else self.mean
        return mean, (1.0,) * k if isinstance(self.std, str) else self.std

    def example(self, count: int) -> Arguments:
        """Return random values, always the same, normalised."""
        generator = torch.Generator().manual_seed(0)
        return self.finish(
            Arguments((torch.rand((count, self.in_channels, *self.size), generator=generator),))
        )

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the values, as plain JSON values, for cache keys.

        Raises:
            ConfigError: mean or std is still to be measured.
        """
        if MEASURED in (self.mean, self.std):
            raise ConfigError(
                ("mean='train' and std='train' are measured on a training split, and there is"
                 " none",),
                hint="give numbers, such as those that a run has measured",
            )  # fmt: skip
        values = {n: list(v) if isinstance(v, tuple) else v for n, v in self.values().items()}
        if not self.bands or self.of_bands is None:
            # Else it is part: rows of images with other bands must not be found in the cache.
            del values["of_bands"]
        return {
            "kind": self.kind, **values, "decoder": describe_decoder(), "samples": samples.RULES,
        }  # fmt: skip

    @property
    def extent(self) -> str:
        """What the network is given, in words."""
        height, width = self.size
        return f"images of {count(self.in_channels, 'channel')} and {height}×{width}"

    @property
    def decoding(self) -> Hashable:
        """What decides the samples before they are normalised."""
        crop = (self.crop_fraction, self.crop_offset)
        return (self.size, crop, self.resize, self.interpolation, self.bands, self.in_channels)

    @classmethod
    def check_items(cls, items: Items) -> None:
        """Refuse texts.

        Raises:
            DataError: the items are texts.
        """
        Preprocessing.check_items(items)

    def excerpt(self, *contents: Content) -> Excerpt:
        """Return the images side by side, rendered as :func:`rendering` says."""
        shown = [rendered(self.chosen(samples.shares(content))) for content in contents]
        return Excerpt(picture=pictures.thumbnail(*shown))

    def numbered_views(self, count: int, *, seed: int = 0) -> tuple[View, ...]:
        """Return the augmented views 1 .. ``count``: parts of the image, mirrored or not."""
        return numbered_views(count, seed=seed)

    def settled(self, train: Split, reporter: Reporter) -> tuple[Self, tuple[str, ...]]:
        """Return inputs that know the number of bands, with mean and std as measured."""
        found = band_values.bands_of(self._bands_last, train) if self.of_bands is None else None
        fits = found is not None and (bool(self.bands) or found == self.in_channels)
        return (self.changed(of_bands=found) if fits else self)._measured(train, reporter)

    def _measured(self, train: Split, reporter: Reporter) -> tuple[Self, tuple[str, ...]]:
        """Return inputs with mean and std as measured, where ``train`` stands for them."""
        if MEASURED not in (self.mean, self.std):
            return self, ()
        mean, std, n = measured_statistics(self, self.in_channels, train, reporter)
        known = {"mean": mean, "std": std}
        values = {name: v for name, v in known.items() if getattr(self, name) == MEASURED}
        said = ", ".join(f"{name} {short(value)}" for name, value in values.items())
        note = f"normalisation measured on {count(n, 'training image')}: {said}"
        return self.changed(**values), (note,)

    def variants(self) -> tuple[Variant, ...]:
        """Return other usual normalisations, and the reverse order of the bands."""
        named = self.bands or tuple(range(1, self.in_channels + 1))
        found = [
            Variant("without mean and standard deviation", self.changed(mean=0.0, std=1.0),
                    "normalisation"),
            Variant("with mean 0.5 and standard deviation 0.5", self.changed(mean=0.5, std=0.5),
                    "normalisation"),
        ]  # fmt: skip
        if self.in_channels == 3:
            changed = self.changed(mean=IMAGENET_MEAN, std=IMAGENET_STD)
            name = "with ImageNet's mean and standard deviation"
            found.append(Variant(name, changed, "normalisation"))
        if len(set(named)) > 1:
            reversed_ = self.changed(bands=tuple(reversed(named)))
            found.append(Variant("with the bands in reverse order", reversed_, "channels"))
        return tuple(each for each in found if each.inputs != self)

    def mistakes(self) -> Mapping[str, Inputs]:
        """Return what goes wrong with bands in practice, by name.

        ``unscaled``: 0 to 255, no mean, no standard deviation. ``unnormalised``: 0 to 1, likewise.
        ``swapped-channels``: the bands in reverse order.
        """
        named = self.bands or tuple(range(1, self.in_channels + 1))
        return {
            "unscaled": self.changed(mean=0.0, std=1 / 255),
            "unnormalised": self.changed(mean=0.0, std=1.0),
            "swapped-channels": self.changed(bands=tuple(reversed(named))),
        }

    def plain_rows(self, train: Split, test: Split) -> PlainRows | None:  # noqa: ARG002
        """Return raw values, at most 32×32 pixels, where the test images are small; else None."""
        places = np.linspace(0, len(test) - 1, num=min(16, len(test)), dtype=np.int64)
        sides = list(_sides(test.content(int(i)) for i in places))
        if not sides or max(sides) > pictures.SMALL_SIDE:
            return None
        side = min(max(sides), pictures.PIXEL_SIDE)
        small = self.changed(
            size=side, mean=0.0, std=1.0, crop_fraction=1.0, resize="squash",
            interpolation="bilinear",
        )  # fmt: skip
        about = f"{side}×{side} pixels of {count(self.in_channels, 'channel')}"
        return PlainRows("raw pixels", about, partial(pictures.raw_pixels, small))

    def code(self) -> tuple[str, ...]:
        """Return lines of Python that normalise ``images``."""
        mean, std = self._normalisation()
        return (
            f"mean, std = torch.tensor({list(mean)}), torch.tensor({list(std)})",
            f"images = (images - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)"
            f"  # images: 0..1, (n, {self.in_channels}, h, w)",
        )

    @classmethod
    def resolve(
        cls, who: str, known: Mapping[str, Any], given: Mapping[str, Any]
    ) -> tuple[Self, tuple[str, ...]]:
        """Combine what the weights say with what the user says; nothing is guessed.

        What weights say of RGB holds for three chosen bands, in the network's order.

        Raises:
            BackboneError: mean, std or size is known from neither, or the bands are others than
                the network's channels.
        """
        check_fields(cls, given)
        stated, notes = stated_by_rgb(cls.field_names(), known)
        values = {**stated, **given}
        channels = values.get("in_channels")
        bands = tuple(values.get("bands", ()))
        if channels is None:
            channels = values["in_channels"] = len(bands)
        if bands and len(bands) != channels:
            raise BackboneError(
                f"bands={bands} are {count(len(bands), 'band')}, and {who} takes"
                f" {count(channels, 'channel')}",
                hint=ways_to(len(bands), channels),
            )
        cropped = stated.get("crop_fraction", 1.0) < 1.0 and "crop_fraction" not in given
        if cropped and "size" in given and pair(given["size"]) != pair(stated.get("size", ())):
            values["crop_fraction"] = 1.0
            notes += ("the whole image is kept at the size you gave",)
        missing = [name for name in ("mean", "std", "size") if name not in values]
        if missing:
            raise BackboneError(
                f"the preprocessing of {who} with {count(channels, 'channel')} is not known: its"
                f" weights do not state their {', '.join(missing)}",
                hint=f"give {', '.join(f'{name}=VALUE' for name in missing)} on values from 0 to 1,"
                " one number or one for each channel; mean='train' and std='train' measure them on"
                " the training split",
            )
        return cls(**values), notes

    def __str__(self) -> str:
        which = (
            f"bands {', '.join(map(str, self.bands))}"
            if self.bands
            else f"all {count(self.in_channels, 'band')}"
        )
        mean, std = (v if isinstance(v, str) else short(v) for v in (self.mean, self.std))
        return (
            f"{how_placed(self)}, {which} from 0 (black) to 1 (white) in 32-bit floats,"
            f" mean {mean}, std {std}; thumbnails show {rendering(self.in_channels)}"
        )


def _sides(contents: Iterator[Content]) -> Iterator[int]:
    for content in contents:
        shape = sorted(samples.shares(content).shape)
        yield shape[-1]


def _within(band: Image.Image) -> NDArray[np.float32]:
    """Return a band that a sharp filter took beyond black or white, as 8 bits would be."""
    return np.clip(np.asarray(band, dtype=np.float32), 0.0, 1.0)


__all__ = ["Bands"]
