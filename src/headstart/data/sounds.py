"""Sounds as inputs of a backbone: decoded, resampled, cut, and given to its feature extractor.

A network of samples (wav2vec2, HuBERT, WavLM) takes a sound at its own length. Its rows change when
the sound is padded: the group norm of its first layer takes the mean over the padding, too. So
nothing is padded in a batch: a batch holds sounds of one length, and a row is what the network
gives for the sound alone. Networks of spectra (AST, CLAP, Whisper) take windows of one length,
which their extractor fills up in the way that they were trained with.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.core.arguments import Arguments
from headstart.core.errors import BadFilesError, ConfigError, DataError
from headstart.core.records import Excerpt
from headstart.core.wording import count
from headstart.data.content import Content, UndecodableError
from headstart.data.inputs import Inputs, NumberedView, PlainRows, register_inputs
from headstart.data.items import Items
from headstart.data.remarks import remark
from headstart.data.sound_extractors import features, library, longest, name_of, values_of
from headstart.data.sound_files import describe_decoder, duration, read_sound

if TYPE_CHECKING:
    from headstart.data.dataset import Split

Short = Literal["own", "silence", "repeat"]

_OF_SAMPLES = ("Wav2Vec2FeatureExtractor", "SeamlessM4TFeatureExtractor")
"""Extractors whose output is as long as the sound; the others fill up a window."""
_MOST_SECONDS = 3600.0
_PROBE_SECONDS = 1.0


class Windows(NamedTuple):
    """The sample of one sound.

    Attributes:
        values: ``(windows, ...) float32``, what the extractor made of each window.
        positions: ``(windows,) int64``, how many positions of the network's output hold sound.
    """

    values: NDArray[np.float32]
    positions: NDArray[np.int64]


@register_inputs
@dataclass(frozen=True)
class Sounds(Inputs):
    """From the bytes of a sound file to what a network takes.

    Attributes:
        extractor: the feature extractor as JSON text, which comes with the backbone; see
            :mod:`headstart.data.sound_extractors`.
        rate: samples a second that sounds are resampled to, once their channels are averaged.
        seconds: length of a window; of a longer sound the first one is read, and a note counts the
            sounds that this concerns.
        windows: of a longer sound, how many windows are spread evenly over it; a row is then the
            mean over their rows.
        short: what becomes of a sound that is shorter than a window. ``own``: it keeps its length,
            and a batch holds sounds of one length (networks of spectra fill up the window
            themselves). ``silence``: zeros are added behind it. ``repeat``: it is repeated.
        stride: samples for each position of the network's output, where windows are filled up and
            the filling is left out of means over positions (Whisper); 0: it is not.
        least: samples of the shortest sound that the network takes.
        length: samples that every sound of the data has, where training has found that out; rows
            are the same.

    Raises:
        ConfigError: naming every value that cannot be.
    """

    kind: ClassVar[str] = "audio"
    unit: ClassVar[str] = "sounds"

    extractor: str
    rate: int
    seconds: float
    windows: int = 1
    short: Short = "own"
    stride: int = 0
    least: int = 1
    length: int = 0

    def __post_init__(self) -> None:
        faults = _faults(self)
        if faults:
            raise ConfigError(tuple(faults))
        object.__setattr__(self, "seconds", float(self.seconds))
        most = longest(self.extractor)
        if most is not None and round(self.seconds * self.rate) > most:
            raise ConfigError(
                (
                    f"seconds must be at most {most / self.rate:g}, the window of the network, not"
                    f" {self.seconds:g}",
                ),
                hint="windows=… reads several windows of a longer sound",
            )
        if self.stride and most is None:
            raise ConfigError(("stride applies only to extractors that pad to a full window",))

    def sample(
        self,
        content: Content,
        view: NumberedView | None = None,  # noqa: ARG002
        key: str = "",  # noqa: ARG002
    ) -> Windows:
        """Decode one sound; what the extractor makes of each window."""
        sound = self.parts(content)
        made = [features(self.extractor, self._filled(part)) for part in sound]
        held = [-(-len(part) // self.stride) if self.stride else 0 for part in sound]
        return Windows(np.stack(made), np.array(held, dtype=np.int64))

    def parts(self, content: Content) -> list[NDArray[np.float32]]:
        """Return the windows of a sound as samples, before the extractor sees them."""
        sound = read_sound(content, self.rate, self.seconds, self.windows)
        shortest = min(map(len, sound.parts))
        if shortest < self.least:
            raise UndecodableError(
                f"{shortest / self.rate:.3g} s of sound are less than the"
                f" {self.least / self.rate:.3g} s that the network needs"
            )
        if sound.seconds > self.seconds:
            remark(self._cut)
        return sound.parts

    @property
    def _cut(self) -> str:
        if self.windows == 1:
            return f"Longer than {self.seconds:g} s; the rest is not read"
        return f"Longer than {self.seconds:g} s; {self.windows} evenly spaced windows are read"

    def _filled(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a window that is no shorter than it may be."""
        whole = round(self.seconds * self.rate)
        if self.short == "own" or len(part) >= whole:
            return part
        if self.short == "repeat":
            return np.tile(part, -(-whole // len(part)))[:whole]
        return np.pad(part, (0, whole - len(part)))

    def collate(self, samples: Sequence[Windows]) -> Arguments:
        """Stack sounds of one length: ``(n, ...) float32``, or ``(n, windows, ...)``.

        Raises:
            DataError: they differ in length, and the network takes no padding.
        """
        if len({sample.values.shape for sample in samples}) > 1:
            raise _unequal(self)
        values = np.stack([sample.values for sample in samples])
        values = values[:, 0] if self.windows == 1 else values
        given = torch.from_numpy(np.ascontiguousarray(values))
        if not self.stride:
            return Arguments((given,))
        held = np.stack([sample.positions for sample in samples])
        most = (longest(self.extractor) or 0) // self.stride
        mask = torch.from_numpy(np.arange(most) < held[:, :, None])
        return Arguments((given,), {"held": mask}, mask.flatten(1))

    def shape(self, sample: Windows) -> Hashable:
        """Return the shape of a sample: a batch holds sounds of one length."""
        return sample.values.shape

    @property
    def fixed(self) -> bool:
        """Whether every sound gives arguments of one shape."""
        filled = self.short != "own" or name_of(self.extractor) not in _OF_SAMPLES
        return filled or self.length > 0

    @property
    def ragged(self) -> bool:
        """Whether the shape of a batch depends on its sounds."""
        return not self.fixed

    def order(self, split: Split, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return sounds with the longest first, so that those of one length follow each other."""
        if self.fixed:
            return indices
        lengths = np.array(self._lengths(split.take(indices)), dtype=np.int64)
        return indices[np.argsort(-lengths, kind="stable")]

    def one_shape(self, splits: Sequence[Split]) -> Sounds:
        """Return the same inputs, and that all sounds have one length.

        Raises:
            DataError: they have not, and the network takes no padding.
        """
        if self.fixed:
            return self
        lengths = {n for split in splits for n in self._lengths(split) if n}
        if len(lengths) > 1:
            raise _unequal(self, lengths)
        return self.changed(length=lengths.pop()) if lengths else self

    def _lengths(self, split: Split) -> list[int]:
        """Return the samples that are read of each sound; 0 where it cannot be read."""
        found = [0] * len(split)
        most = round(self.seconds * self.rate)
        for i in range(len(split)):
            with contextlib.suppress(UndecodableError, BadFilesError):  # told when it is read
                samples, own = duration(split.content(i))
                found[i] = min(most, round(samples * self.rate / own))
        return found

    def remarks(self, split: Split) -> Mapping[str, Sequence[str]]:
        """Return the sounds that are longer than what is read of them, by their headers."""
        cut = []
        for i in range(len(split)):
            with contextlib.suppress(UndecodableError, BadFilesError):
                samples, own = duration(split.content(i))
                cut += [split.origins[i]] if samples > self.seconds * own else []
        return {self._cut: cut} if cut else {}

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the arguments, as plain JSON values, for cache keys."""
        values = self.values()
        for name in ("length", "least"):
            del values[name]
        values["extractor"] = values_of(self.extractor)
        return {
            "kind": self.kind, **values, **describe_decoder(), "library": library(self.extractor)
        }  # fmt: skip

    def example(self, count: int) -> Arguments:
        """Return tones in noise of one second, always the same."""
        size = max(self.least, round(min(_PROBE_SECONDS, self.seconds) * self.rate))
        size = self.length or size
        time = np.arange(size) / self.rate
        noise = np.random.default_rng(0).normal(0, 0.02, (count, self.windows, size))
        tones = 200.0 * (1 + np.arange(count * self.windows)).reshape(count, self.windows, 1)
        sounds = (noise + 0.3 * np.sin(2 * np.pi * tones * time)).astype(np.float32)
        held = -(-size // self.stride) if self.stride else 0
        made = [
            Windows(
                np.stack([features(self.extractor, self._filled(part)) for part in sound]),
                np.full(self.windows, held, dtype=np.int64),
            )
            for sound in sounds
        ]
        return self.collate(made)

    @property
    def extent(self) -> str:
        """What the network is given, in words."""
        return f"sounds of up to {self.seconds:g} s at {self.rate:,} samples a second"

    def excerpt(self, *contents: Content) -> Excerpt:
        """Return the spectrogram of each sound."""
        from headstart.data.sound_pictures import spectrograms

        return Excerpt(picture=spectrograms(contents, self.rate, self.seconds))

    def plain_rows(self, train: Split, test: Split) -> PlainRows:  # noqa: ARG002
        """Return mean and deviation of log-mel bands over time."""
        from headstart.data.sound_pictures import band_statistics

        return band_statistics(_Samples(**self.values()), self.rate)

    def mistakes(self) -> Mapping[str, Inputs]:
        """Return what goes wrong with sounds in practice, by name.

        ``truncated``: a tenth of the window is read. ``slowed``: resampled to twice the rate, as
        though sounds had been recorded at half of theirs. ``unstandardised``: without the mean 0
        and deviation 1 that the extractor gives every sound.
        """
        tenth = max(self.seconds / 10, self.least / self.rate)
        found: dict[str, Inputs] = {
            "truncated": self.changed(seconds=tenth, length=0),
            "slowed": self.changed(rate=2 * self.rate, seconds=self.seconds / 2, length=0),
        }
        values = values_of(self.extractor)
        if values.get("do_normalize"):
            bare = json.dumps({**values, "do_normalize": False}, sort_keys=True)
            found["unstandardised"] = self.changed(extractor=bare)
        return found

    def consequence(self, other: Inputs) -> str:
        """Return what other inputs mean for the sounds, as a clause."""
        if not isinstance(other, Sounds):
            return ""
        said = []
        if other.rate != self.rate:
            said.append(
                f"the network gets {other.rate / self.rate:g} times as many samples per second"
                " as it was trained with: every tone is that much too low"
            )
        if other.seconds < self.seconds:
            said.append(
                f"nothing is read of a sound behind {other.seconds:g} s, instead of"
                f" {self.seconds:g} s"
            )
        if self.short == "own" and other.short != "own":
            said.append(f"short sounds are padded with {_FILLING[other.short]}")
        if values_of(self.extractor).get("do_normalize") and not values_of(other.extractor).get(
            "do_normalize"
        ):
            said.append("loudness is not brought to that of pre-training")
        return " and ".join(said)

    @classmethod
    def check_items(cls, items: Items) -> None:
        """Refuse images and texts.

        Raises:
            DataError: the items are none of sounds.
        """
        other = {"image": "images", "text": "texts"}.get(items.kind)
        if other:
            raise DataError(
                f"the data are {other}, and this backbone takes sounds",
                hint=f"choose a backbone for {other}, or name the sound column with"
                " audio_column=NAME",
            )

    def __str__(self) -> str:
        said = [
            f"channels averaged, resampled to {self.rate:,} Hz (soxr)",
            f"the first {self.seconds:g} s"
            if self.windows == 1
            else f"{self.windows} windows of {self.seconds:g} s",
            name_of(self.extractor).removesuffix("FeatureExtractor") + " features",
        ]
        if self.short != "own":
            said.append(f"short sounds padded with {_FILLING[self.short]}")
        elif not self.fixed:
            said.append("batches of one length")
        return ", ".join(said)


class _Samples(Sounds):
    """The same sounds before the extractor sees them, for a baseline."""

    def sample(  # type: ignore[override]
        self,
        content: Content,
        view: NumberedView | None = None,  # noqa: ARG002
        key: str = "",  # noqa: ARG002
    ) -> list[NDArray[np.float32]]:
        return self.parts(content)

    def shape(self, sample: Any) -> Hashable:  # noqa: ARG002
        return None


_FILLING = {"silence": "silence", "repeat": "themselves"}


def _unequal(inputs: Sounds, lengths: set[int] | None = None) -> DataError:
    found = ""
    if lengths:
        low, high = min(lengths) / inputs.rate, max(lengths) / inputs.rate
        found = f" ({low:.3g} to {high:.3g} s, {count(len(lengths), 'length')})"
    return DataError(
        f"the sounds differ in length{found}, and a batch of this network holds sounds of one"
        " length: padding would change their rows",
        hint="bring them to one length: short='silence' or short='repeat', and seconds=… near"
        " the longest",
    )


def _faults(given: Sounds) -> list[str]:
    faults = []
    for name, least in (("rate", 1), ("windows", 1), ("stride", 0), ("least", 1), ("length", 0)):
        value = getattr(given, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            faults.append(f"{name} must be a whole number of at least {least}, not {value!r}")
    seconds: Any = given.seconds
    if not isinstance(seconds, int | float) or not (
        math.isfinite(seconds) and 0 < seconds <= _MOST_SECONDS
    ):
        faults.append(f"seconds must lie between 0 and {_MOST_SECONDS:g}, not {given.seconds!r}")
    if given.short not in get_args(Short):
        faults.append(f"short must be one of {', '.join(get_args(Short))}, not {given.short!r}")
    return faults


__all__ = ["Short", "Sounds", "Windows"]
