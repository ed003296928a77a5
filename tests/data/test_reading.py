"""Batches: order, completeness, bad items, and an end without loose threads."""

from __future__ import annotations

import gc
import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.core.errors import BadFilesError
from headstart.core.progress import SilentReporter
from headstart.data import Preprocessing, Split, load_items, load_test_data, read_batches
from headstart.data.decoding import image_of
from headstart.data.items import SampleItems
from headstart.data.jpeg import is_damaged_inside
from tests.data.conftest import Pictures, encoded

PREPROCESSING = Preprocessing((8, 10), 0.5, 0.5)


def samples(n: int) -> Split:
    """Items whose pixels tell which they are."""
    arrays = np.arange(n * 3, dtype=np.uint32).reshape(n, 1, 1, 3).astype(np.uint8)
    items = SampleItems(np.tile(arrays, (1, 8, 10, 1)), lambda x: x, "samples")
    return Split(items, np.arange(n), np.zeros(n, np.int64), ("a",))


def decoding_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("headstart-decode")]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
def test_batches_come_in_order_and_hold_their_own_items(workers: int, batch_size: int) -> None:
    split = samples(83)
    index = np.random.default_rng(0).integers(0, 83, 120)
    batches = list(
        read_batches(split, index, PREPROCESSING, batch_size=batch_size, workers=workers)
    )
    assert all(len(batch) == batch_size for batch in batches[:-1])
    np.testing.assert_array_equal(np.concatenate([b.indices for b in batches]), index)
    pixels = torch.cat([b.collated.args[0] for b in batches])
    assert pixels.dtype == torch.uint8
    assert batches[0].collated.args[0].is_contiguous()
    expected = (index[:, None] * 3 + np.arange(3)).astype(np.uint8)
    np.testing.assert_array_equal(pixels.numpy(), np.tile(expected[..., None, None], (8, 10)))


def test_pixels_do_not_depend_on_threads_or_batches(pictures: Pictures, tmp_path: Path) -> None:
    split = load_items(pictures.write(tmp_path))
    one, many = (
        torch.cat([b.collated.args[0] for b in read_batches(split, None, PREPROCESSING, **options)])
        for options in ({"batch_size": 12, "workers": 1}, {"batch_size": 5, "workers": 4})
    )
    assert torch.equal(one, many)
    expected = np.stack([PREPROCESSING.geometry(image_of(split.content(i))) for i in range(12)])
    np.testing.assert_array_equal(one.permute(0, 2, 3, 1).numpy(), expected)


@pytest.fixture
def spoilt(pictures: Pictures, tmp_path: Path) -> Split:
    root = pictures.write(tmp_path)
    (root / "cat" / "1.png").write_bytes(pictures.data[1][:100])
    (root / "cat" / "2.png").write_bytes(b"")
    (root / "cat" / "3.png").unlink()
    (root / "cat" / "3.png").symlink_to(root / "nowhere.png")
    return load_items(root)


def test_all_bad_items_are_told_after_everything_else(spoilt: Split) -> None:
    assert len(set(spoilt.ids)) == 12
    reader = read_batches(spoilt, None, PREPROCESSING, batch_size=2, workers=2)
    seen = []
    with pytest.raises(BadFilesError) as caught:
        for batch in reader:
            seen += batch.indices.tolist()
    assert seen == [0, 4, 5, 6, 7, 8, 9, 10, 11]
    assert [(where, why.split(":")[0]) for where, why in caught.value.files] == [
        ("cat/1.png", "damaged image"),
        ("cat/2.png", "the file is empty"),
        ("cat/3.png", "no such file"),
    ]
    assert "on_bad='skip'" in str(caught.value)
    assert [item.index for item in reader.bad] == [1, 2, 3]


def test_bad_items_are_skipped_aloud(spoilt: Split) -> None:
    class Listener:
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    listener = Listener()
    reader = read_batches(
        spoilt,
        None,
        PREPROCESSING,
        batch_size=5,
        on_bad="skip",
        reporter=listener,  # type: ignore[arg-type]
    )
    batches = list(reader)
    assert [len(batch) for batch in batches] == [2, 5, 2]
    assert [batch.collated.args[0].shape[0] for batch in batches] == [2, 5, 2]
    assert [item.origin for item in reader.bad] == ["cat/1.png", "cat/2.png", "cat/3.png"]
    assert listener.notes[0].startswith("3 items cannot be read and are skipped: 'cat/1.png (")


def test_a_file_that_changes_after_its_id_is_bad(pictures: Pictures, tmp_path: Path) -> None:
    split = load_items(pictures.write(tmp_path))
    assert split.ids
    (tmp_path / "cat" / "5.png").write_bytes(encoded(np.zeros((5, 5, 3), np.uint8)))
    with pytest.raises(BadFilesError, match=r"cat/5.png \(its content has changed since"):
        list(read_batches(split, None, PREPROCESSING, batch_size=4))


def test_reading_stays_a_bounded_way_ahead() -> None:
    started = []

    def convert(x: np.ndarray) -> np.ndarray:
        started.append(1)
        return x

    split = samples(3000)
    split.items._convert = convert  # type: ignore[attr-defined]
    reader = read_batches(split, None, PREPROCESSING, batch_size=10, workers=2)
    next(reader)
    for _ in range(100):
        before = len(started)
        time.sleep(0.01)
        if len(started) == before:
            break
    assert len(started) <= 10 * (1 + 2 + 2 * 2 * 16 // 10)
    reader.close()


def test_stopping_early_ends_the_threads() -> None:
    reader = read_batches(samples(2000), None, PREPROCESSING, batch_size=10, workers=3)
    next(reader)
    assert decoding_threads()
    reader.close()
    assert not decoding_threads()
    assert list(reader) == []
    dropped = read_batches(samples(2000), None, PREPROCESSING, batch_size=10, workers=3)
    next(dropped)
    del dropped
    gc.collect()
    assert not decoding_threads()


def test_nothing_to_read() -> None:
    assert list(read_batches(samples(3), [], PREPROCESSING, batch_size=4)) == []
    with pytest.raises(ValueError, match="batch_size"):
        read_batches(samples(3), None, PREPROCESSING, batch_size=0)


# Remarks: what can be decoded, and is odd


def jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"optimize": True}]
)
def test_overwritten_parts_of_a_jpeg_are_found(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(40):
        data = jpeg(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8), **options)
        assert not is_damaged_inside(data)
        assert not is_damaged_inside(data + b"trailing \xff\x01 bytes")
        broken = bytearray(data)
        place = int(rng.integers(len(data) // 3, len(data) - 2100))
        broken[place : place + 2048] = rng.bytes(2048)
        found += is_damaged_inside(bytes(broken))
        for cut in rng.integers(0, len(data), 5):
            is_damaged_inside(data[:cut])  # never raises
            is_damaged_inside(bytes(broken[:cut]))
    assert found >= 30  # a few overwrite nothing that matters, or hold no byte FF


def test_what_is_odd_is_said_once_for_all_items(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for i in range(3):
        data = jpeg(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))
        (tmp_path / "a" / f"{i}.jpg").write_bytes(data)
    at = len(data) // 2
    (tmp_path / "a" / "9.jpg").write_bytes(data[:at] + b"\xff\x01" * 20 + data[at + 40 :])
    frames = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(3)]
    for form, options in (("gif", {}), ("png", {}), ("tiff", {}), ("webp", {"lossless": True})):
        frames[0].save(
            tmp_path / "b" / f"moving.{form}", save_all=True, append_images=frames[1:], **options
        )
        frames[0].save(tmp_path / "b" / f"still.{form}", **options)
    notes: list[str] = []

    class Listener(SilentReporter):
        def note(self, text: str) -> None:
            notes.append(text)

    split = load_test_data(tmp_path).test
    reader = read_batches(split, None, PREPROCESSING, batch_size=5, reporter=Listener())
    assert sum(len(batch) for batch in reader) == len(split)
    assert reader.bad == []
    noise, several = sorted(notes)
    assert several.startswith(
        "Several frames or pages, of which only the first is read: 4 images, 'b/"
    )
    assert noise.startswith("Damaged data in the middle of a JPEG")
    assert "1 image, 'a/9.jpg'." in noise


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_vanishes_on_white_is_said(mode: str, tmp_path: Path) -> None:
    def ink(level: int, alpha: int) -> Image.Image:
        image = Image.new("LA", (16, 16), (255, alpha))
        image.paste((level, 255), (4, 4, 9, 9))
        if mode != "P":
            return image.convert(mode)
        flat = image.convert("L").convert("P")
        flat.info["transparency"] = 255
        return flat

    for name, image in (
        ("white on nothing", ink(255, 0)),
        ("black on nothing", ink(0, 0)),
        ("an empty sheet", ink(255, 255)),
    ):
        image.save(tmp_path / f"{name}.png", **image.info)
    if mode == "P":  # of one colour, whatever is transparent
        (tmp_path / "an empty sheet.png").unlink()
    notes: list[str] = []

    class Listener(SilentReporter):
        def note(self, text: str) -> None:
            notes.append(text)

    split = load_items(sorted(tmp_path.glob("*.png")))
    reader = read_batches(split, None, PREPROCESSING, batch_size=5, reporter=Listener())
    assert sum(len(batch) for batch in reader) == len(split)
    said = "Transparent images that are blank on the white background they are put on: 1 image, "
    assert notes == [f"{said}'{tmp_path / 'white on nothing.png'}'."]
