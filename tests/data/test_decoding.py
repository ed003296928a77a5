"""Every kind of image file decodes by the rules, or is refused with a reason."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from headstart.data import formats
from headstart.data.content import UndecodableError
from headstart.data.decoding import decode
from headstart.data.formats import MAX_PIXELS, SUFFIXES
from tests.data.conftest import encoded

RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF", "JPEG2000", "DIB"])
def test_lossless_formats_by_content(format: str) -> None:
    np.testing.assert_array_equal(decoded(encoded(RGB, format)), RGB)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "GIF"])
def test_lossy_formats_decode_like_pillow(format: str) -> None:
    Image.init()
    if format not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {format}")
    data = encoded(RGB, format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decoded(data), expected)


def test_grey_palette_and_bilevel() -> None:
    np.testing.assert_array_equal(decoded(encoded(GREY)), np.stack([GREY] * 3, 2))
    palette = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(decoded(saved(palette)), np.asarray(palette.convert("RGB")))
    bits = GREY > 127
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(bits)))[..., 1], bits * 255)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_high_byte(format: str) -> None:
    values = np.array([[0, 255, 256, 300], [4660, 32768, 65279, 65535]], np.uint16)
    expected = np.array([[0, 0, 1, 1], [18, 128, 254, 255]])
    np.testing.assert_array_equal(decoded(encoded(values, format))[..., 0], expected)


def test_sixteen_bit_colour_keeps_its_high_byte() -> None:
    """Written by hand: Pillow cannot write 16-bit colour."""
    values = RNG.integers(0, 65536, (3, 4, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decoded(png), values >> 8)


def test_floats_in_the_unit_interval() -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    np.testing.assert_array_equal(decoded(encoded(values, "TIFF"))[0, :, 0], [0, 128, 255])
    with pytest.raises(UndecodableError, match=r"from 0 to 2 lie outside \[0, 1\]"):
        decode(encoded(values * 2, "TIFF"))
    with pytest.raises(UndecodableError, match="outside"):
        decode(encoded(values * np.nan, "TIFF"))


def test_integers_beyond_sixteen_bits_are_refused() -> None:
    with pytest.raises(UndecodableError, match="exceed 16 bits"):
        decode(encoded(np.array([[0, 70000]], np.int32), "TIFF"))


def test_transparency_is_composited_on_white() -> None:
    rgba = np.dstack([RGB, np.full(GREY.shape, 0, np.uint8)])
    rgba[0, 0, 3] = 255
    pixels = decoded(encoded(rgba))
    np.testing.assert_array_equal(pixels[0, 0], RGB[0, 0])
    assert (pixels[1:] == 255).all()
    half = decoded(saved(Image.merge("LA", [Image.new("L", (2, 2), v) for v in (0, 128)])))
    assert half[0, 0, 0] == 127


def test_transparent_palette_entries_are_white() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_index = decoded(saved(image, transparency=1))
        by_bytes = decoded(saved(image, transparency=bytes([255, 0, 255])))
    for pixels in (by_index, by_bytes):
        assert pixels[0].tolist() == [[10, 20, 30], [255] * 3, [70, 80, 90]]


def test_cmyk() -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    np.testing.assert_array_equal(decoded(saved(cmyk, "TIFF")), RGB)
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert abs(decoded(saved(red, "JPEG"))[4, 4].astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(RGB, format, exif=exif, **options)
    undo = {1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1]}
    turned = RGB.transpose(1, 0, 2)
    undo |= {5: turned, 6: turned[:, ::-1], 7: turned[::-1, ::-1], 8: turned[::-1]}
    np.testing.assert_array_equal(decoded(data), undo[orientation])


def test_damaged_exif_does_not_condemn_the_image() -> None:
    data = encoded(RGB, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(decoded(data), RGB)


@pytest.mark.parametrize("format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_the_first_frame_counts(format: str) -> None:
    frames = [Image.new("RGB", (6, 6), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert decoded(data)[3, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"plain text", "not an image in a known format"),
        (b"\0" * 5000, "nothing but zero bytes"),
        (b"<!DOCTYPE html><html>", "a web page instead of an image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<svg xmlns='...'></svg>", "vector graphic"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript, not a pixel image"),
        (b"%PDF-1.7\n", "not an image in a known format"),
        (b"\x89PNG\r\n\x1a\n", "damaged image"),
        (encoded(RGB, "JPEG")[:60], "damaged image"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableError, match=reason):
        decode(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_files_are_refused(format: str) -> None:
    data = encoded(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), format)
    with pytest.raises(UndecodableError, match="damaged image: "):
        decode(data[: len(data) // 2])


def test_gigantic_images_are_refused_without_a_warning() -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = (
        struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    )
    rest = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UndecodableError, match=f"more than the limit of {MAX_PIXELS:,}"):
            decode(b"\x89PNG\r\n\x1a\n" + chunk + rest)


def test_noise_never_raises_anything_else() -> None:
    """Bytes flipped at random in sound files: an image or a reason, nothing else."""
    rng = np.random.default_rng(0)
    sound = [encoded(RGB, format) for format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow remarks on odd metadata
        for trial in range(400):
            data = bytearray(sound[trial % len(sound)])
            for place in rng.integers(0, len(data), 4):
                data[place] = rng.integers(0, 256)
            try:
                assert decode(bytes(data)).mode == "RGB"
            except UndecodableError:
                refused += 1
    assert 0 < refused < 400


def test_suffixes_are_those_of_decodable_formats() -> None:
    Image.init()
    known = {suffix for suffix, format in Image.EXTENSION.items() if format in Image.OPEN}
    assert SUFFIXES - {".j2k"} <= known | {".avif"}


def test_heic_photos_are_read_with_the_extra() -> None:
    heif = pytest.importorskip("pillow_heif")
    smooth = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[:, None, None], (1, 48, 3))
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(smooth)).save(buffer, quality=95)
    pixels = decoded(buffer.getvalue())
    assert pixels.shape == smooth.shape
    assert abs(pixels.astype(int) - smooth).mean() < 4
    assert "HEIF" not in Image.OPEN  # Pillow's own table stays as it was
    with pytest.raises(UndecodableError, match="damaged image"):
        decode(buffer.getvalue()[:200])


def test_heic_without_the_extra_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    formats._openers.cache_clear()
    monkeypatch.setattr(formats, "HEIF_INSTALLED", False)
    try:
        with pytest.raises(UndecodableError, match=r"pip install 'headstart\[heif\]'"):
            decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 200)
    finally:
        formats._openers.cache_clear()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\x0a" + b"x" * 50, "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + b"x" * 50, "JPEG XL"),
        (b"\0" * 128 + b"DICM" + b"x" * 50, "DICOM"),
    ],
)
def test_other_formats_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableError, match=reason):
        decode(data)


def test_endings_that_are_not_read_are_explained() -> None:
    hints = formats.suffix_hint(["a/1.jxl", "b.DCM", "c", "d.nef", "e.mp4", "f.svg"])
    assert ("DICOM" in hints) == (not formats.DICOM_INSTALLED)
    for part in ("JPEG XL", "without an extension", "camera raw", "videos", "vector"):
        assert part in hints
    assert formats.suffix_hint(["a.txt"]) == ""


@pytest.mark.parametrize("data", [b"x", b"no", b"abc", b"\xff\xd8", b"GIF8", b"RIFF"])
def test_a_file_of_a_few_bytes_is_no_image(data: bytes) -> None:
    with pytest.raises(UndecodableError, match=r"^not an image in a known format$"):
        decode(data)


@pytest.mark.parametrize("data", [b"BM", b"II*\0", b"\x28\0"])
def test_an_image_of_a_few_bytes_ends_too_early(data: bytes) -> None:
    with pytest.raises(UndecodableError, match=r"^damaged image: it ends too early$"):
        decode(data)
