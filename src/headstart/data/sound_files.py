"""Sounds from the bytes of a file: decoded by libsndfile, one channel, resampled.

soundfile carries libsndfile in its wheels and reads WAV, FLAC, MP3, OGG (Vorbis and Opus), AIFF and
others without a further installation; torchcodec, the other kept library, needs FFmpeg on the
machine. soxr resamples: of a tone at 8.5 kHz, recorded at 44.1 kHz, −140 dB are left at 16 kHz
(SciPy's ``resample_poly``: −14 dB), in half the time.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import MissingExtraError
from headstart.core.wording import count
from headstart.data.content import Content, UndecodableError, stand_in
from headstart.data.remarks import remark

AUDIO_SUFFIXES = frozenset((
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".caf",
    ".w64", ".rf64",
))  # fmt: skip
"""File name endings (lower case) by which files count as sounds."""

UNREAD_SUFFIXES = frozenset((
    ".m4a", ".aac", ".wma", ".amr", ".mka", ".webm", ".mp4", ".mov", ".ape", ".wv", ".mid",
))  # fmt: skip
"""Endings of sounds that libsndfile does not read."""
CONVERT = "convert them to WAV or FLAC: ffmpeg -i FILE FILE.flac"

QUALITY = "HQ"
"""soxr's usual quality: 20 bits of accuracy, the filter passes 91 % of the lower rate's band."""
_HEADS = (b"fLaC", b"OggS", b"ID3", b".snd", b"caff")
_MOST_CHANNELS = 1024

SHORTER = "Shorter than the file's header says"
OPPOSED = "Channels that cancel each other where they are averaged, so that hardly anything is left"
CANCELLED = 0.01
"""The share of the power of all channels below which their mean is what is left of them."""


class Sound(NamedTuple):
    """What is read of one file.

    Attributes:
        parts: one or more windows, each ``(samples,) float32``, one channel, at the wanted rate.
        seconds: how long the whole file is.
        rate: the file's own, in samples a second.
    """

    parts: list[NDArray[np.float32]]
    seconds: float
    rate: int


def is_sound(data: bytes) -> bool:
    """Return whether bytes begin as a sound does, of the usual formats."""
    if data[:4] in (b"RIFF", b"RF64", b"FORM"):
        return data[8:12] in (b"WAVE", b"AIFF", b"AIFC")
    mpeg = len(data) > 2 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2  # a frame of layer III
    return data.startswith(_HEADS) or mpeg


def require_audio() -> None:
    """Refuse to go on without the libraries that decode and resample.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    _soundfile()
    _soxr()


def describe_decoder() -> dict[str, str]:
    """Return what decides the samples beside the file, for cache keys."""
    soundfile, soxr = _soundfile(), _soxr()
    return {
        "decoder": f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}",
        "channels": "mean",
        "resampler": f"soxr {soxr.__version__} {QUALITY}",
    }


def duration(content: Content) -> tuple[int, int]:
    """Return samples a channel and samples a second of a file, by its header.

    Raises:
        UndecodableError: it is no sound.
    """
    with _opened(content) as file:
        return int(file.frames), int(file.samplerate)


def read_sound(content: Content, rate: int, seconds: float, windows: int = 1) -> Sound:
    """Decode windows of a sound: the first, or several that are spread evenly over it.

    Args:
        content: the bytes of a file.
        rate: samples a second that are wanted.
        seconds: length of a window; a shorter sound is one window of its own length.
        windows: how many; of a sound that is no longer than a window, all of them are the same.

    Raises:
        UndecodableError: it is no sound, damaged, empty or silent.
    """
    with _opened(content) as file:
        total, own = int(file.frames), int(file.samplerate)
        if total <= 0:
            raise UndecodableError("it is empty: it has no samples")
        if total == 1:
            raise UndecodableError("it holds only one sample")
        if _says_more(str(file.extra_info)):
            remark(SHORTER)
        size = min(total, math.ceil(seconds * own))
        whole = size == total
        starts = [0] if windows == 1 or whole else np.linspace(0, total - size, windows).tolist()
        most = round(seconds * rate)
        parts = [_window(file, round(start), size, rate)[:most] for start in starts]
    if whole and windows > 1:
        parts = parts * windows
    _refuse_silence(parts, seconds, whole=whole)
    if own < rate:
        remark(
            f"Recorded at less than {rate:,} samples per second, so high frequencies are missing"
        )
    return Sound(parts, total / own, own)


_SIZES = re.compile(r": (\d+) \(should be (\d+)\)")
_STREAMED = 2**31 - 2**16  # about as many bytes as a header can state, where its end was not known


def _says_more(log: str) -> bool:
    """Return whether libsndfile's log has a header that states more bytes than there are."""
    sizes = ((int(stated), int(there)) for stated, there in _SIZES.findall(log))
    return any(there < stated < _STREAMED for stated, there in sizes)


def _window(file: Any, start: int, size: int, rate: int) -> NDArray[np.float32]:
    """Read, average the channels, and resample."""
    file.seek(start)
    read: NDArray[np.float32] = file.read(size, dtype="float32", always_2d=True)
    if not len(read):
        raise UndecodableError("damaged sound: it ends before its first sample")
    if len(read) < size:
        remark(SHORTER)
    if not np.isfinite(read).all():
        raise UndecodableError("it holds samples that are not finite (NaN or infinity)")
    mono = read.mean(axis=1) if read.shape[1] > 1 else read[:, 0]
    if read.shape[1] > 1 and _power(mono) < CANCELLED * _power(read):
        if not np.ptp(mono):
            raise UndecodableError("its channels cancel each other where they are averaged")
        remark(OPPOSED)
    if file.samplerate == rate:
        return np.ascontiguousarray(mono)
    found = _soxr().resample(mono, file.samplerate, rate, quality=QUALITY)
    return np.asarray(found, dtype=np.float32)


def _power(samples: NDArray[np.float32]) -> float:
    return float(np.mean(np.square(samples - samples.mean(axis=0), dtype=np.float64)))


def _refuse_silence(parts: list[NDArray[np.float32]], seconds: float, *, whole: bool) -> None:
    """Refuse what is one value from the beginning to the end."""
    if all(len(part) == 0 or float(np.ptp(part)) == 0.0 for part in parts):
        where = "" if whole else f" in the {seconds:g} s that are read of it"
        raise UndecodableError(f"nothing but silence{where}")


@contextmanager
def _opened(content: Content) -> Iterator[Any]:
    """Open a sound; whatever the library raises becomes a reason in plain words."""
    if not isinstance(content, bytes):
        kind = "a text" if isinstance(content, str) else "an array without a sampling rate"
        raise UndecodableError(f"{kind}, not the bytes of a sound file")
    if not content:
        raise UndecodableError("the file is empty")
    soundfile = _soundfile()
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if file.channels > _MOST_CHANNELS:
                raise UndecodableError(f"it has {count(file.channels, 'channel')}")
            yield file
    except soundfile.SoundFileError as error:
        if not is_sound(content):
            raise UndecodableError(_what_it_is(content)) from None
        text = " ".join(str(getattr(error, "error_string", error)).split())[:200].rstrip(".")
        raise UndecodableError(f"damaged sound: {text}") from None
    except MemoryError:
        raise UndecodableError("it needs more memory than is available") from None


def _what_it_is(data: bytes) -> str:
    """Return what a file is that is no sound in a known format."""
    if found := stand_in(data, "sound"):
        return found
    if data[4:8] == b"ftyp":
        return "a video or M4A file, which is not supported; convert it to WAV or FLAC"
    if data[:4] == b"\x1aE\xdf\xa3":
        return "WebM or Matroska, which is not supported; convert it to WAV or FLAC"
    return "not a sound in a known format"


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package without the library that it binds
        raise MissingExtraError("soundfile", "audio", "a backbone of sounds") from None
    return soundfile


def _soxr() -> Any:
    try:
        import soxr
    except ImportError:
        raise MissingExtraError("soxr", "audio", "a backbone of sounds") from None
    return soxr


__all__ = [
    "AUDIO_SUFFIXES", "CONVERT", "QUALITY", "UNREAD_SUFFIXES", "Sound", "describe_decoder",
    "duration", "is_sound", "read_sound", "require_audio",
]  # fmt: skip
