"""Transforms of torchvision and Albumentations as numbered views.

A view draws its random numbers from a hash of (seed, view number, item id), as
:mod:`headstart.data.views` does it, so that its rows can be cached. The generators that a library
draws from are seeded for one item at a time and restored afterwards: those of a program do not
notice. What a transform does is described by its own settings, which become part of the key; one
that holds a function, or is a class of the user's own, says nothing of what it does and is refused
unless it has a method ``describe()``.
"""

from __future__ import annotations

import copy
import enum
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import ConfigError
from headstart.core.fingerprints import stable_integer
from headstart.data.arrays import image_content
from headstart.data.content import UndecodableError
from headstart.data.decoding import flat_rgb
from headstart.data.views import Preprocessing

RULES = 1
"""Version of how transforms are seeded and called; part of every description."""
_LIBRARIES = ("torchvision", "albumentations")
_ONE_AT_A_TIME = threading.Lock()
"""The generators of a process are shared by its threads."""


@dataclass(frozen=True, eq=False)
class TransformView:
    """One numbered augmentation of every item by a transform; see :func:`transform_views`.

    Attributes:
        number: from 1.
        seed: one seed makes one family of views.
        transform: takes a PIL image (torchvision) or ``image=`` an array (Albumentations).
        about: what the transform does, as plain values.
    """

    number: int
    seed: int
    transform: Callable[..., Any] = field(repr=False)
    about: Mapping[str, Any]

    def geometry(
        self, image: Image.Image, key: str, preprocessing: Preprocessing
    ) -> NDArray[np.uint8]:
        """Return this view of one item, ``(h, w, 3) uint8`` at the network's input size.

        What the transform leaves in another size is resized and cropped as an image without
        augmentation is.

        Raises:
            UndecodableError: the transform returns no image, such as normalised values.
        """
        start = stable_integer("\0".join(("transform", str(self.seed), str(self.number), key)))
        with _ONE_AT_A_TIME, _seeded(start):
            made = self._apply(flat_rgb(image), start)
        try:
            pixels = np.asarray(image_content(made), np.uint8)
        except UndecodableError as error:
            raise UndecodableError(f"the transform does not return an image: {error}") from error
        if pixels.shape[:2] == tuple(preprocessing.size):
            return pixels
        return preprocessing.geometry(Image.fromarray(pixels))

    def _apply(self, image: Image.Image, start: int) -> Any:
        if _library(self.transform) != "albumentations":
            return self.transform(image)
        transform: Any = self.transform
        transform.set_random_seed(start % 2**32)
        return transform(image=np.asarray(image))["image"]

    def describe(self) -> dict[str, Any]:
        """Return what decides the pixels, as plain JSON values."""
        return {
            "number": self.number,
            "seed": self.seed,
            "transform": dict(self.about),
            "rules": RULES,
        }


def transform_views(
    transform: Callable[..., Any], count: int, *, seed: int = 0
) -> tuple[TransformView, ...]:
    """Return the augmented views 1 .. ``count`` of one family.

    Args:
        transform: of torchvision (``torchvision.transforms.v2``, or the older ones) or of
            Albumentations, without normalisation, which the backbone brings; or any function of a
            PIL image with a method ``describe()`` that returns plain values.
        count: how many.
        seed: of the family.

    Raises:
        ConfigError: the transform does not say what it does.
    """
    if count < 1:
        raise ConfigError((f"count must be 1 or more, not {count}",))
    about = _described(transform)
    own = copy.deepcopy(transform)  # the user's object keeps its own random state
    return tuple(TransformView(number, seed, own, about) for number in range(1, count + 1))


@contextmanager
def _seeded(start: int) -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch (on the CPU), and restore them."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(start)
    np.random.seed(start % 2**32)
    # Not torch.manual_seed, which would seed every other device too.
    torch.default_generator.manual_seed(start % 2**63)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _described(transform: Any) -> dict[str, Any]:
    """Return what a transform does, with the version of its library."""
    library = _library(transform)
    if library in _LIBRARIES:
        version = {"library": library, "version": metadata.version(library)}
        if library == "torchvision":
            return {**version, **_plain(transform, type(transform).__name__)}
        try:
            found = transform.to_dict()
        except Exception as error:  # of whatever the library makes of a function
            raise _says_nothing(type(transform).__name__, str(error)) from error
        return {**version, "transform": _plain(found, type(transform).__name__)}
    own = getattr(transform, "describe", None)
    if not callable(transform) or own is None:
        raise _says_nothing(
            type(transform).__name__,
            "it is from neither torchvision nor Albumentations, and has no describe()",
        )
    name = f"{type(transform).__module__}.{type(transform).__qualname__}"
    return {"class": name, "transform": _plain(own(), name)}


def _plain(value: Any, where: str) -> Any:
    """Return a value of a transform as plain JSON values.

    Raises:
        ConfigError: it is a function, a tensor or an object that says nothing.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(each, where) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(each, f"{where}.{name}") for name, each in value.items()}
    if callable(getattr(value, "describe", None)):
        return {"class": type(value).__qualname__, **_plain(value.describe(), where)}
    if _library(value) == "torchvision":
        kept = {name: each for name, each in vars(value).items() if not name.startswith("_")}
        kept.pop("training", None)
        parts = dict(getattr(value, "_modules", {}))
        inner = {n: _plain(v, f"{where}.{n}") for n, v in {**kept, **parts}.items()}
        return {"class": type(value).__qualname__, **inner}
    raise _says_nothing(where, f"it holds a {type(value).__name__}")


def _says_nothing(where: str, why: str) -> ConfigError:
    return ConfigError(
        (f"the transform {where} does not say what it does, so its rows could not be identified:"
         f" {why}",),
        hint="use transforms of torchvision or Albumentations with plain settings, or give it a"
        " method describe() that returns them",
    )  # fmt: skip


__all__ = ["TransformView", "transform_views"]
