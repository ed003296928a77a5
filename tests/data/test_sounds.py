"""Sounds: decoded, averaged, resampled, cut; found in folders and tables; bad ones reported."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from headstart.backbones.choice import choose
from headstart.core.errors import BackboneError, DataError
from headstart.core.progress import SilentReporter
from headstart.data import UndecodableError, load_data, load_items, load_test_data
from headstart.data.remarks import listening
from headstart.data.sound_files import OPPOSED, SHORTER, is_sound, read_sound
from headstart.data.sound_pictures import log_mel
from tests.sound_models import RATE, chirp, encoded, noise, save_sounds, sounds, tone

QUIET = SilentReporter()


def read(data: Any, rate: int = RATE, seconds: float = 30.0) -> Any:
    return read_sound(data, rate, seconds).parts[0]


@pytest.mark.parametrize(
    ("format", "subtype", "error"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "FLOAT", 0.0),
        ("WAV", "ULAW", 3e-2),
        ("FLAC", "PCM_16", 1e-4),
        ("AIFF", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 5e-2),
        ("OGG", "OPUS", 5e-2),
        ("MP3", "MPEG_LAYER_III", 8e-2),
    ],
)
def test_usual_formats_are_read(format: str, subtype: str, error: float) -> None:
    wave = tone(1.0, 500)
    data = encoded(wave, format=format, subtype=subtype)
    assert is_sound(data)
    found = read(data)
    assert found.dtype == np.float32
    assert abs(len(found) - len(wave)) <= (2304 if format == "MP3" else 0)
    size = min(len(found), len(wave)) - 3000
    lag = max(range(0, 2400, 1), key=lambda k: float(found[k : k + size] @ wave[:size])) if (
        format == "MP3"
    ) else 0  # fmt: skip
    worst = np.abs(found[lag : lag + size] - wave[:size])[200:-200].max()
    assert worst <= error + 1e-7


def test_channels_are_averaged() -> None:
    left, right = tone(0.5, 300), tone(0.5, 900)
    found = read(encoded(np.stack([left, right], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(found, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_resampling_keeps_tones_and_leaves_no_aliases(rate: int) -> None:
    time = np.arange(rate) / rate
    low = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    found = read(encoded(low, rate, subtype="FLOAT"))
    assert len(found) == RATE
    expected = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    assert np.abs(found - expected)[800:-800].max() < 1e-3
    if rate > 2 * 9_000:
        high = np.sin(2 * np.pi * 8_500 * time).astype(np.float32)
        assert np.abs(read(encoded(high, rate, subtype="FLOAT")))[800:-800].max() < 1e-4


def test_a_window_is_read_and_several_are_spread_evenly() -> None:
    wave = np.arange(1, 4001, dtype=np.float32) / 4001
    data = encoded(wave, 1000, subtype="FLOAT")
    assert np.array_equal(read(data, 1000, 1.0), wave[:1000])
    parts = read_sound(data, 1000, 1.0, 3).parts
    assert [round(float(p[0]) * 4001) for p in parts] == [1, 1501, 3001]
    short = read_sound(data, 1000, 9.0, 3).parts
    assert len(short) == 3
    assert all(np.array_equal(part, wave) for part in short)


WAV = encoded(tone(0.5))
BAD: dict[str, tuple[bytes | Any, str]] = {
    "empty": (b"", "the file is empty"),
    "no samples": (encoded(np.zeros(0, np.float32)), "it has no samples"),
    "header alone": (WAV[:44], "damaged sound|no samples|before its first sample"),
    "half a header": (WAV[:20], "damaged sound"),
    "silence": (encoded(np.zeros(8000, np.float32)), "nothing but silence"),
    "direct current": (encoded(np.full(8000, 0.3, np.float32)), "nothing but silence"),
    "opposite channels": (
        encoded(np.stack([noise(0.5), -noise(0.5)], axis=1), subtype="FLOAT"),
        "channels cancel each other",
    ),
    "not a number": (
        encoded(np.array([0.1, np.nan] * 4000, np.float32), subtype="FLOAT"),
        "not finite",
    ),
    "text": (b"hello, this is no sound at all", "not a sound in a known format"),
    "one sample": (encoded(tone(0.5)[:1]), "only one sample"),
    "zeros": (bytes(5000), "nothing but zero bytes"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer instead"),
    "page": (b"<!DOCTYPE html><html></html>", "a web page instead of a sound"),
    "m4a": (b"\0\0\0\x20ftypM4A \0\0\0\0", "M4A file, which is not supported; convert it"),
    "array": (np.zeros(100, np.float32), "an array without a sampling rate"),
    "damaged flac": (
        encoded(noise(2.0), format="FLAC")[:2000] + bytes(range(256)) * 8,
        "damaged sound|before its first",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_say_why(case: str) -> None:
    data, words = BAD[case]
    with pytest.raises(UndecodableError, match=words):
        read(data)


def test_silence_says_how_much_was_looked_at() -> None:
    wave = np.concatenate([np.zeros(16_000, np.float32), noise(1.0)])
    with pytest.raises(UndecodableError, match=r"silence in the 0\.5 s that are read"):
        read(encoded(wave), seconds=0.5)
    assert len(read_sound(encoded(wave), RATE, 0.5, 2).parts) == 2


def test_a_low_rate_and_a_cut_file_are_told() -> None:
    with listening() as heard:
        read(encoded(tone(0.5, rate=8000), 8000))
    assert heard == [
        "Recorded at less than 16,000 samples per second, so high frequencies are missing"
    ]


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "W64", "RF64"])
def test_a_file_that_was_cut_off_is_told(format: str) -> None:
    whole = encoded(tone(0.5), format=format)
    for data, told in ((whole, []), (whole[: len(whole) // 2], [SHORTER]), (whole + b"end", [])):
        with listening() as heard:
            read(data)
        assert heard == told


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_file_that_was_written_to_a_pipe_is_whole(size: int) -> None:
    """Its header states as many bytes as it can, since the end was not known."""
    data = encoded(tone(0.5))
    at = data.index(b"data") + 4
    stated = size.to_bytes(4, "little")
    with listening() as heard:
        sound = read(data[:4] + stated + data[8:at] + stated + data[at + 4 :])
    assert heard == []
    assert len(sound) == 8000


def test_log_mel_bands_rise_with_the_pitch() -> None:
    peaks = [int(log_mel(tone(0.5, p), RATE).mean(1).argmax()) for p in (200, 1000, 4000, 7000)]
    assert peaks == sorted(set(peaks))
    assert log_mel(tone(0.01), RATE).shape == (64, 1)  # shorter than a frame


# Sources


def test_class_folders_with_and_without_splits(tmp_path: Path) -> None:
    save_sounds(tmp_path / "é", 12, 6)
    found = load_data(tmp_path / "é", reporter=QUIET)
    assert found.classes == ("chirp", "noise", "tone")
    assert (len(found.train), len(found.test)) == (12, 6)
    assert found.train.items.kind == "audio"
    assert len(load_test_data(tmp_path / "é", reporter=QUIET).test) == 6
    one = load_data(tmp_path / "é" / "train", test_fraction=0.25, reporter=QUIET)
    assert len(one.train) + len(one.test) == 12


def test_endings_in_any_case_and_what_is_left_out(tmp_path: Path) -> None:
    for name, data in sounds(6):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{len(list((tmp_path / name).iterdir()))}.WAV").write_bytes(data)
    (tmp_path / "tone" / "x.m4a").write_bytes(b"x")
    (tmp_path / "tone" / "notes.txt").write_text("x")
    (tmp_path / "readme.md").write_text("x")
    found = load_data(tmp_path, reporter=QUIET)
    assert sum(map(len, found.splits.values())) == 6
    said = " ".join(found.notes)
    assert "1 file not read (convert them to WAV or FLAC" in said
    assert "'tone/x.m4a'" in said
    assert "readme.md" in said


def test_one_file_and_a_flat_folder_to_predict_for(tmp_path: Path) -> None:
    for i, (_, data) in enumerate(sounds(3)):
        (tmp_path / f"{i}.wav").write_bytes(data)
    for source in (tmp_path, str(tmp_path)):
        assert load_items(source, kind="audio").origins == ("0.wav", "1.wav", "2.wav")
    one = load_items(tmp_path / "1.wav", kind="audio")
    assert one.origins == ("1.wav",)
    listed = load_items([str(tmp_path / "1.wav")], kind="audio")
    assert listed.ids == one.ids == load_items([sounds(3)[1][1]], kind="audio").ids


def test_sounds_that_are_not_read_are_named_as_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "x.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0")
    for source in (tmp_path, tmp_path / "a"):
        with pytest.raises(DataError, match="no sounds in a supported format") as caught:
            load_items(source, kind="audio")
        assert "ffmpeg" in str(caught.value.hint)
    with pytest.raises(UndecodableError, match="M4A file, which is not supported"):
        read(load_items(path, kind="audio").content(0))


def write_csv(folder: Path, rows: list[tuple[str, ...]], head: tuple[str, ...]) -> Path:
    with (folder / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return folder / "t.csv"


@pytest.mark.parametrize("kind", ["audio", None])
def test_a_table_of_paths(kind: str | None, tmp_path: Path) -> None:
    rows = []
    for i, (name, data) in enumerate(sounds(12)):
        (tmp_path / f"{i} ü.wav").write_bytes(data)
        rows.append((f"{i} ü.wav", name, str(i)))
    path = write_csv(tmp_path, rows, ("filename", "category", "fold"))
    found = load_data(path, kind=kind, reporter=QUIET)
    assert found.train.items.kind == "audio"
    assert found.classes == ("chirp", "noise", "tone")


@pytest.mark.parametrize("kind", ["audio", None])
def test_a_table_of_bytes(kind: str | None, tmp_path: Path) -> None:
    names, data = zip(*sounds(12), strict=True)
    pd.DataFrame({"audio": data, "label": names}).to_parquet(tmp_path / "t.parquet")
    found = load_data(tmp_path / "t.parquet", kind=kind, reporter=QUIET)
    assert found.train.items.kind == "audio"
    assert len(read(found.train.content(0))) == RATE
    hub = pd.DataFrame({"clip": [{"bytes": d, "path": "x.wav"} for d in data], "label": names})
    hub.to_parquet(tmp_path / "h.parquet")
    again = load_data(tmp_path / "h.parquet", kind=kind, reporter=QUIET)
    assert set(again.train.ids) == set(found.train.ids)


def test_a_data_set_of_the_hub(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    if find_spec("torchcodec") is None:
        pytest.skip("torchcodec, without which datasets takes no sounds, is not installed")
    names, data = zip(*sounds(12), strict=True)
    feature = datasets.Features({"audio": datasets.Audio(), "label": datasets.Value("string")})
    rows = {"audio": [{"bytes": d, "path": None} for d in data], "label": list(names)}
    table = datasets.Dataset.from_dict(rows, features=feature)
    for source in (table, table.shuffle(seed=0)):
        found = load_data(source, reporter=QUIET)
        assert found.train.items.kind in ("audio", "")
        assert len(read(found.train.content(0))) == RATE
    table.save_to_disk(tmp_path / "saved")
    assert load_data(tmp_path / "saved", reporter=QUIET).classes == ("chirp", "noise", "tone")


def test_two_columns_of_sounds_are_asked_for(tmp_path: Path) -> None:
    rows = [(f"a{i}.wav", f"b{i}.wav", "xy"[i % 2]) for i in range(4)]
    path = write_csv(tmp_path, rows, ("left", "right", "label"))
    with pytest.raises(DataError, match="several columns that could hold the sounds") as caught:
        load_data(path, kind="audio", reporter=QUIET)
    assert caught.value.hint == "choose one with audio_column=NAME"


def test_a_table_without_sounds(tmp_path: Path) -> None:
    path = write_csv(tmp_path, [("1", "x"), ("2", "y")], ("age", "label"))
    with pytest.raises(DataError, match=r"no sound column: .* end in \.wav, \.flac"):
        load_data(path, kind="audio", reporter=QUIET)


# No default


def test_no_network_is_chosen_for_sounds(tmp_path: Path) -> None:
    save_sounds(tmp_path / "d", 9, 3)
    found = load_data(tmp_path / "d", reporter=QUIET)
    with pytest.raises(BackboneError, match="the data are sounds") as caught:
        choose(found.train)
    assert "backbone='hf/facebook/wav2vec2-base-960h' for speech" in str(caught.value.hint)
    assert "\n" not in str(caught.value)


def test_a_backbone_of_images_or_texts_says_that_it_hears_nothing(tmp_path: Path) -> None:
    from headstart.data import Preprocessing, Texts

    save_sounds(tmp_path / "d", 6, 3)
    for kind, unit, inputs in (("image", "images", Preprocessing), ("text", "texts", Texts)):
        found = load_data(tmp_path / "d", kind=kind, reporter=QUIET)
        with pytest.raises(DataError, match=f"the data are sounds, and this backbone takes {unit}"):
            inputs.check_items(found.train.items)


@pytest.mark.parametrize(
    ("second", "told"),
    [(-1.0, True), (-0.95, True), (0.0, False), (1.0, False), (-0.5, False)],
)
@pytest.mark.parametrize("rate", [RATE, RATE // 2])
def test_channels_that_cancel_each_other_are_told(second: float, told: bool, rate: int) -> None:
    first = chirp(0.5, rate=rate)
    data = encoded(np.stack([first, second * first], axis=1), rate)
    with listening() as heard:
        read(data)
    assert (OPPOSED in heard) == told


def test_channels_of_which_nothing_is_left_are_refused_with_the_reason() -> None:
    first = chirp(0.5)
    data = encoded(np.stack([first, -first], axis=1), subtype="FLOAT")
    with pytest.raises(UndecodableError, match="its channels cancel each other"):
        read(data)
