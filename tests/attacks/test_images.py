"""Images made to kill or flood a job: thin ones, bombs, pipes, devices, damage of every kind."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import BadFilesError
from headstart.core.progress import SilentReporter
from headstart.data import (
    Preprocessing,
    decoding,
    load_items,
    load_test_data,
    read_batches,
    resampling,
)
from headstart.data.content import UndecodableError
from headstart.data.dataset import Split
from headstart.data.item_files import MAX_FILE, read_file
from headstart.data.items import Items
from headstart.data.views import numbered_views
from tests.attacks.children import in_child, limit_descriptors

RNG = np.random.default_rng(11)
PLAIN = {"mean": 0.5, "std": 0.5}
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def reference(image: Image.Image, p: Preprocessing) -> np.ndarray:
    """Resize the whole image and crop it, as before; for images that allow it."""
    height, width = p.size
    w, h = image.size
    if p.resize == "squash":
        target = (width, height)
    elif h * width >= w * height:
        target = (width, max(height, int(width * h / w)))
    else:
        target = (max(width, int(height * w / h)), height)
    resized = image.resize(target, Image.Resampling[p.interpolation.upper()])
    left, top = round((target[0] - width) / 2), round((target[1] - height) / 2)
    part = resized.crop((left, top, left + width, top + height))
    return np.asarray(part).transpose(2, 0, 1)


# Ordinary images give what they gave


MODES: dict[str, Callable[[np.ndarray], Image.Image]] = {
    "RGB": Image.fromarray,
    "grey": lambda x: Image.fromarray(x[..., 0]),
    "palette": lambda x: Image.fromarray(x).quantize(31),
    "bilevel": lambda x: Image.fromarray(x[..., 0] > 127),
    "RGBA": lambda x: Image.fromarray(np.dstack([x, x[..., 0]])),
    "LA": lambda x: Image.fromarray(np.dstack([x, x[..., 1]])).convert("LA"),
    "16 bits": lambda x: Image.fromarray(x[..., 0].astype(np.uint16) * 256 + x[..., 1]),
}


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("mode", MODES)
def test_large_images_in_strips_are_equal_bit_by_bit(
    mode: str, interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, how in (((61, 90), "shortest"), ((90, 61), "squash"), ((24, 24), "shortest")):
        pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
        data = png(MODES[mode](pixels), **({"transparency": 3} if mode == "palette" else {}))
        p = Preprocessing(size=24, **PLAIN, interpolation=interpolation, resize=how)
        want = reference(decoding.decode(data), p)
        views = numbered_views(2)
        plain = [p.sample(data), *(p.sample(data, view, "key") for view in views)]
        np.testing.assert_array_equal(plain[0], want)
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "LARGE", 0)
            patch.setattr(resampling, "_STRIP", 500)
            strips = [p.sample(data), *(p.sample(data, view, "key") for view in views)]
        np.testing.assert_array_equal(strips, plain)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(1, 700), (700, 1), (3, 900), (2, 37), (40, 3000), (33, 1)])
def test_thin_images_from_source_coordinates_agree(
    size: tuple[int, int], interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
    p = Preprocessing(size=32, **PLAIN, interpolation=interpolation)
    want = reference(image, p).astype(int)
    monkeypatch.setattr(resampling, "MOST", 0)
    found = p.sample(png(image)).astype(int)
    # box coordinates are single precision in Pillow: a weight, or a nearest pixel, may round apart
    if interpolation in ("nearest", "box"):
        assert (found != want).mean() < 0.05
    else:
        assert abs(found - want).max() <= 1


# One image does not kill or flood the job


def peak(code: str) -> tuple[float, int]:
    """Return seconds and bytes that some code adds to a fresh process."""
    script = textwrap.dedent(
        """
        import io, resource, time
        import numpy as np
        from PIL import Image
        from headstart.data import Preprocessing
        p = Preprocessing(size=224, mean=0.5, std=0.5)
        def saved(image, **options):
            buffer = io.BytesIO(); image.save(buffer, "PNG", **options); return buffer.getvalue()
        """
    )
    measure = textwrap.dedent(
        """
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.perf_counter()
        assert p.sample(data).shape == (3, 224, 224)
        print(time.perf_counter() - begun,
              resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script + textwrap.dedent(code) + measure],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seconds, kilobytes = done.stdout.split()
    return float(seconds), 1024 * int(kilobytes)


@pytest.mark.parametrize(
    ("code", "most"),
    [
        ("data = saved(Image.new('RGB', (1, 5000), 'red'))", 100),
        ("data = saved(Image.new('RGB', (65500, 1), 'red'))", 100),
        ("data = saved(Image.new('L', (1, 65500)))", 100),
        ("data = saved(Image.new('RGB', (3, 60000), 'red'))", 100),
    ],
)
def test_thin_images_take_little_memory(code: str, most: int) -> None:
    assert peak(code)[1] < most * 1e6


def palette_bomb(side: int, transparent: bool) -> bytes:
    """Write a palette PNG of one colour, row by row: a few kB for any size."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (side + 1)) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", bytes([10, 20, 30] * 4))
        + (chunk(b"tRNS", b"\x80") if transparent else b"")
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


@pytest.mark.slow
@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_bomb_takes_a_byte_a_pixel(transparent: bool, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(palette_bomb(10_000, transparent))
    code = f"data = open({str(tmp_path / 'bomb.png')!r}, 'rb').read()"
    assert peak(code)[1] < 250e6  # 100 MB of palette entries; 1.6 GB as RGBA and its copies


def test_large_images_wait_for_each_other() -> None:
    """Threads hold no more than the limit together, and an image beyond it is decoded alone."""
    memory = decoding._Memory(100)
    held, most, lock = [0], [0], threading.Lock()

    def work(size: int) -> None:
        with memory.holding(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
                assert held[0] <= 100 or held[0] == size
            time.sleep(0.005)
            with lock:
                held[0] -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in [40, 60, 300, 10] * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert held == [0]
    assert most[0] <= 300
    with pytest.raises(ValueError), memory.holding(500):
        raise ValueError  # what fails gives back what it held
    with memory.holding(500):
        pass


# Files that are none


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        pixels = RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{i}.png").write_bytes(png(Image.fromarray(pixels)))
    return tmp_path


def test_pipes_sockets_and_devices_are_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "a" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder / "a")  # addresses of sockets are short
        try:
            listener.bind("socket.png")
        finally:
            os.chdir(here)
        (folder / "b" / "zero.png").symlink_to("/dev/zero")
        (folder / "b" / "pipe.png").symlink_to(folder / "a" / "pipe.png")
        dataset = load_test_data(folder)
        assert any("2 entries not read: a/pipe.png (a pipe" in note for note in dataset.notes)
        for name in ("a/pipe.png", "a/socket.png", "b/zero.png", "b/pipe.png"):
            with pytest.raises(UndecodableError):
                read_file(folder / name)
        reader = read_batches(
            dataset.test, None, Preprocessing(size=8, **PLAIN), batch_size=4, on_bad="skip"
        )
        assert sum(len(batch) for batch in reader) == 6
        assert {item.origin for item in reader.bad} == {"b/zero.png", "b/pipe.png"}
        assert all("a pipe, socket or device" in item.reason for item in reader.bad)
        assert len(load_items(folder)) == 8


def test_an_enormous_sparse_file_is_never_read(folder: Path) -> None:
    with (folder / "a" / "sparse.png").open("wb") as file:
        file.truncate(30 * 10**9)
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dataset = load_test_data(folder)
    _ = dataset.test.ids
    reader = read_batches(
        dataset.test, None, Preprocessing(size=8, **PLAIN), batch_size=4, on_bad="skip"
    )
    assert sum(len(batch) for batch in reader) == 6
    (bad,) = reader.bad
    assert "30 GB, more than the limit of 1.07 GB" in bad.reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun < 500_000
    assert MAX_FILE == 2**30


def test_a_shortage_of_descriptors_is_no_damage(folder: Path) -> None:
    """Reading waits until others have closed their files; no image is left out for it."""

    def work() -> str:
        split = load_test_data(folder).test
        limit_descriptors(40)
        held = []
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        threading.Timer(0.4, lambda: [os.close(handle) for handle in held]).start()
        reader = read_batches(
            split, None, Preprocessing(size=8, **PLAIN), batch_size=4, on_bad="skip", workers=2
        )
        return f"{sum(len(batch) for batch in reader)} read, {len(reader.bad)} bad"

    assert in_child(work) == "6 read, 0 bad"


# Whatever goes wrong with one item is one bad item


class Raising(Items):
    """Items whose content, digest or decoding raises what it is told to."""

    def __init__(self, errors: list[BaseException | None]) -> None:
        super().__init__(len(errors))
        self.errors = errors

    def content(self, i: int) -> Any:
        error = self.errors[i]
        if error is not None:
            raise error
        return np.full((9, 9, 3), i, np.uint8)

    def origin(self, i: int) -> str:
        return f"item {i}"


ERRORS: list[BaseException] = [
    UndecodableError("as foreseen"), ValueError("x"), TypeError("x"), KeyError("x"),
    IndexError("x"), OverflowError("x"), ZeroDivisionError("x"), struct.error("x"),
    MemoryError(), OSError(5, "Input/output error"), EOFError(), SyntaxError("x"),
    RuntimeError("x"), AttributeError("x"), AssertionError(),
    UnicodeDecodeError("utf8", b"", 0, 1, "x"), RecursionError("x"), NotImplementedError(),
    StopIteration(), zlib.error("x"),
    Image.DecompressionBombError("x"), Image.UnidentifiedImageError("x"), Warning("x"),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_error_of_one_item_is_one_bad_item(error: BaseException) -> None:
    items = Raising([None, error, None])
    split = Split(items, np.arange(3), np.zeros(3, np.int64), ("a",), SilentReporter())
    assert len(set(split.ids)) == 3
    p = Preprocessing(size=8, **PLAIN)
    reader = read_batches(split, None, p, batch_size=2, on_bad="skip")
    assert [i for batch in reader for i in batch.indices.tolist()] == [0, 2]
    (bad,) = reader.bad
    assert bad.origin == "item 1"
    assert bad.reason
    assert "\n" not in bad.reason
    with pytest.raises(BadFilesError, match="1 item cannot be read: item 1"):
        list(read_batches(split, None, p, batch_size=2))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_anywhere_in_a_file_is_an_image_or_a_reason() -> None:
    """Every length and every flipped byte of small files in every format."""
    pixels = RNG.integers(0, 256, (12, 14, 3), dtype=np.uint8)
    p = Preprocessing(size=8, **PLAIN)
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "JPEG2000"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, form)
        data = buffer.getvalue()
        places = range(0, len(data), max(1, len(data) // 150))
        torn = [data[:i] for i in places]
        flipped = [data[:i] + bytes([data[i] ^ 0xFF]) + data[i + 1 :] for i in places]
        for broken in torn + flipped:
            with contextlib.suppress(UndecodableError):
                assert p.sample(broken).shape == (3, 8, 8)
