"""Sounds in memory: with their rate, exactly, under the id of a file of the same samples."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import DataError
from headstart.data import UndecodableError, load_data, load_items
from headstart.data.sound_arrays import is_sound_array, wav_of
from headstart.data.sound_files import read_sound
from tests.sound_models import tone

soundfile = pytest.importorskip("soundfile", reason="needs soundfile")

SOUND = tone(0.5)


def decoded(data: bytes) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return samples, rate


class Decoded:
    """As torchcodec's AudioSamples."""

    def __init__(self, data: Any, sample_rate: int) -> None:
        self.data, self.sample_rate = data, sample_rate


class Decoder:
    """As torchcodec's AudioDecoder, which datasets gives."""

    def get_all_samples(self) -> Decoded:
        import torch

        return Decoded(torch.from_numpy(SOUND)[None], 16_000)


FORMS: dict[str, Any] = {
    "pair": (SOUND, 16_000), "list": [SOUND, 16_000], "numpy rate": (SOUND, np.int64(16_000)),
    "mapping": {"array": SOUND, "sampling_rate": 16_000, "path": None}, "decoder": Decoder(),
    "samples": Decoded(SOUND[None], 16_000),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_samples_exactly(form: str) -> None:
    assert is_sound_array(FORMS[form])
    samples, rate = decoded(wav_of(FORMS[form]))
    np.testing.assert_array_equal(samples[:, 0], SOUND)
    assert rate == 16_000
    assert wav_of(FORMS[form]) == wav_of(FORMS["mapping"])  # so that ids are equal


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "float64", "float16"])
def test_whole_numbers_are_scaled_as_in_files(kind: str) -> None:
    scale = {"uint8": 127, "int16": 2**15 - 1, "int32": 2**31 - 1}.get(kind, 1)
    values = (SOUND * scale + (128 if kind == "uint8" else 0)).astype(kind)
    samples, _ = decoded(wav_of((values, 16_000)))
    np.testing.assert_allclose(samples[:, 0], SOUND, atol=1 / 64 if kind == "uint8" else 1e-3)
    if kind in ("int16", "int32"):
        file = io.BytesIO()
        soundfile.write(file, values, 16_000, format="WAV", subtype=f"PCM_{kind[3:]}")
        np.testing.assert_array_equal(samples, decoded(file.getvalue())[0])


@pytest.mark.parametrize("channels", [2, 8])
def test_channels_are_the_shorter_axis(channels: int) -> None:
    several = np.stack([SOUND * (i + 1) / channels for i in range(channels)], axis=1)
    for values in (several, several.T):
        np.testing.assert_array_equal(decoded(wav_of((values, 8_000)))[0], several)


BAD: dict[str, tuple[Any, str]] = {
    "no rate": ((SOUND, 0), "0 samples per second"),
    "no samples": ((SOUND[:0], 16_000), "it has no samples"),
    "square": ((np.zeros((8, 8)), 16_000), "which axis holds the channels"),
    "wide": ((np.zeros((100, 90)), 16_000), "which axis holds the channels"),
    "int64": ((np.zeros(9, np.int64), 16_000), "samples of type int64"),
    "complex": ((np.zeros(9, complex), 16_000), "samples of type complex128"),
    "half a rate": ({"array": SOUND, "sampling_rate": 0.5}, "expected a whole number"),
    "no number": ({"array": SOUND, "sampling_rate": None}, "expected a whole number"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_sound_says_why(case: str) -> None:
    value, said = BAD[case]
    with pytest.raises(UndecodableError, match=said):
        wav_of(value)


@pytest.mark.parametrize("samples", [np.zeros(900, "f4"), np.full(900, np.nan, "f4")])
def test_silence_and_nan_are_refused_as_in_files(samples: np.ndarray) -> None:
    with pytest.raises(UndecodableError, match=r"nothing but silence|not finite"):
        read_sound(wav_of((samples, 16_000)), 16_000, 1.0)


def test_lists_with_labels_are_data() -> None:
    sounds = [(tone(0.2, seed=i), 16_000 if i % 2 else 8_000) for i in range(12)]
    data = load_data((sounds, ["a", "b"] * 6), kind="audio")
    assert data.train.items.kind == "audio"
    assert len(data.train) + len(data.test) == 12
    again = pickle.loads(pickle.dumps(data.train.items))
    assert again.digest(0) == data.train.items.digest(0)
    with pytest.raises(DataError, match="12 sounds but 3 labels"):
        load_data((sounds, ["a"] * 3), kind="audio")


def test_lists_and_one_alone_are_what_predict_takes(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(wav_of((SOUND, 16_000)))
    one = load_items((SOUND, 16_000), kind="audio")
    several = load_items([(SOUND, 16_000), file, {"array": SOUND, "sampling_rate": 16_000}],
                         kind="audio")  # fmt: skip
    assert set(one.ids) | set(several.ids) == set(load_items([file], kind="audio").ids)


def test_an_array_alone_says_no_rate() -> None:
    with pytest.raises(DataError, match=r"with its sampling rate: \(samples, rate\)"):
        load_items([SOUND, SOUND], kind="audio")
