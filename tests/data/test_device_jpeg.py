"""JPEGs decoded on a device: which ones, to which pixels, under which key, and where it is refused.

Without a GPU torchcodec decodes on the CPU in its place, which is all of the way but nvJPEG itself.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.core.errors import ConfigError, MissingExtraError
from headstart.core.stages import Stages
from headstart.data import Preprocessing, device_jpeg, load_items, read_batches
from headstart.data.content import UndecodableError
from headstart.data.decoding import image_of
from headstart.data.jpeg import is_damaged_inside

PILLOW = Preprocessing(size=64, mean=0.5, std=0.5, crop_fraction=0.875)
NVJPEG = PILLOW.changed(decoder="nvjpeg")


def picture(width: int = 150, height: int = 120, seed: int = 0) -> Image.Image:
    """Return something smooth with edges."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchcodec decode on the CPU in the place of nvJPEG."""
    pytest.importorskip("torchcodec", exc_type=ImportError)
    monkeypatch.setattr(device_jpeg, "_DEVICE", "cpu")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(picture(), exif=exif)


def damaged() -> bytes:
    """Return a JPEG of which a part was overwritten, and that decodes to noise all the same."""
    random = np.random.default_rng(4)
    while True:
        data = bytearray(jpeg(Image.fromarray(random.integers(0, 256, (96, 96, 3), np.uint8))))
        data[2000:4048] = random.bytes(2048)
        with contextlib.suppress(UndecodableError):
            if is_damaged_inside(bytes(data)) and image_of(bytes(data)):
                return bytes(data)


def odd_files() -> dict[str, bytes]:
    """Return images that the device leaves to the ordinary decoder."""
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    return {
        "png": buffer.getvalue(),
        "cmyk": jpeg(picture().convert("CMYK")),
        "turned": turned(),
        "damaged": damaged(),
        "thin": jpeg(picture(2000, 2).resize((60_000, 1))),
    }


def plain_files() -> dict[str, bytes]:
    return {
        "rgb": jpeg(picture()),
        "grey": jpeg(picture().convert("L")),
        "progressive": jpeg(picture(seed=1), progressive=True),
        "tall": jpeg(picture(70, 300)),
        "small": jpeg(picture(20, 16)),
        "upright": jpeg(picture(), exif=Image.Exif()),
    }


@pytest.mark.parametrize("name", plain_files())
@pytest.mark.parametrize("interpolation", device_jpeg.FILTERS)
@pytest.mark.usefixtures("on_cpu")
def test_pixels_are_those_of_pillow_but_for_rounding(name: str, interpolation: Any) -> None:
    data = plain_files()[name]
    found = NVJPEG.changed(interpolation=interpolation).sample(data)
    expected = PILLOW.changed(interpolation=interpolation).sample(data)
    assert isinstance(found, torch.Tensor)  # it went through the device
    assert found.dtype == torch.uint8
    off = np.abs(found.numpy().astype(int) - expected)
    assert off.max() <= 3
    assert off.mean() < 0.6


@pytest.mark.parametrize("name", odd_files())
@pytest.mark.usefixtures("on_cpu")
def test_what_the_device_is_not_given_is_decoded_as_usual(name: str) -> None:
    data = odd_files()[name]
    assert NVJPEG.encoded(data) is None
    np.testing.assert_array_equal(NVJPEG.sample(data), PILLOW.sample(data))


@pytest.mark.usefixtures("on_cpu")
def test_a_batch_of_everything_comes_in_order_and_bad_ones_are_named(tmp_path: Path) -> None:
    files = {**plain_files(), **odd_files(), "cut": jpeg(picture())[:700], "no": b"\xff\xd8nothing"}
    for number, (name, data) in enumerate(files.items()):
        (tmp_path / f"{number:02}-{name}.jpg").write_bytes(data)
    split, stages = load_items(tmp_path), Stages()
    reader = read_batches(split, None, NVJPEG, batch_size=5, on_bad="skip", stages=stages)
    read = [(batch.indices, batch.collated.args[0]) for batch in reader]
    indices = np.concatenate([where for where, _ in read])
    pixels = torch.cat([some for _, some in read])
    assert pixels.shape[1:] == (3, 64, 64)
    names = [split.items.origin(int(split.rows[i])) for i in indices]
    assert [name.split("-")[1] for name in names] == [f"{name}.jpg" for name in list(files)[:-2]]
    assert [bad.origin.split("-")[1] for bad in reader.bad] == ["cut.jpg", "no.jpg"]
    for row, data in zip(pixels, files.values(), strict=False):
        assert np.abs(row.numpy().astype(int) - PILLOW.sample(data)).max() <= 3
    assert stages.seconds()["decode"] > 0


@pytest.mark.usefixtures("on_cpu")
def test_one_file_that_the_device_cannot_read_costs_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused, calls = jpeg(picture(seed=5)), []
    decode = device_jpeg._decode

    def picky(files: list[bytes], device: torch.device) -> Any:
        calls.append(len(files))
        if refused in files:
            raise RuntimeError("nvjpegDecodeJpeg failed: 5")
        return decode(files, device)

    monkeypatch.setattr(device_jpeg, "_decode", picky)
    files = [jpeg(picture(seed=1)), refused, jpeg(picture(seed=2))]
    found = NVJPEG.decoded([NVJPEG.encoded(data) for data in files])
    assert calls == [3, 1, 1, 1]
    np.testing.assert_array_equal(found[1], PILLOW.sample(refused))
    for place in (0, 2):
        np.testing.assert_array_equal(found[place], NVJPEG.sample(files[place]))


@pytest.mark.usefixtures("on_cpu")
def test_a_device_without_memory_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(files: list[bytes], device: torch.device) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device_jpeg, "_decode", full)
    with pytest.raises(torch.OutOfMemoryError):
        NVJPEG.decoded([NVJPEG.encoded(jpeg(picture()))])


# -- keys, and where it is not there --------------------------------------------------------------


def test_its_rows_have_a_key_of_their_own() -> None:
    assert NVJPEG.describe() != PILLOW.describe()
    assert NVJPEG.describe()["decoder"]["library"] == "nvjpeg"
    assert PILLOW.describe() == PILLOW.changed(decoder="pillow").describe()
    assert NVJPEG.decoding != PILLOW.decoding
    assert "decoded by nvjpeg" in str(NVJPEG)


def test_nothing_chooses_it_unasked() -> None:
    assert Preprocessing(size=8, mean=0.5, std=0.5).decoder == "pillow"


def test_other_filters_are_refused_with_the_other_faults() -> None:
    with pytest.raises(ConfigError) as caught:
        PILLOW.changed(decoder="nvjpeg", interpolation="lanczos", scale=-1.0)
    assert "decoder='nvjpeg' resizes by bilinear or bicubic, not by 'lanczos'" in str(caught.value)
    assert "scale must be positive" in str(caught.value)
    with pytest.raises(ConfigError, match="decoder must be one of pillow, nvjpeg, not 'turbo'"):
        PILLOW.changed(decoder="turbo")


def test_without_a_gpu_it_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture()))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="decoder='nvjpeg' needs a CUDA device"):
        read_batches(load_items(tmp_path), None, NVJPEG, batch_size=4)


def test_without_torchcodec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[nvjpeg\]'"):
        NVJPEG.check_ready()


# -- GPUs -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", plain_files())
def test_nvjpeg_gives_nearly_the_pixels_of_pillow(name: str) -> None:
    pytest.importorskip("torchcodec", exc_type=ImportError)
    data = plain_files()[name]
    found = NVJPEG.sample(data)
    assert found.is_cuda
    off = np.abs(found.cpu().numpy().astype(int) - PILLOW.sample(data))
    assert off.max() <= 24
    assert off.mean() < 2.0
