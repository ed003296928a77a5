"""What values of arrays and files mean: one rule everywhere, and nothing by a guess."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from headstart.core.errors import ConfigError, DataError
from headstart.data import Split, load_data, load_items, load_test_data
from headstart.data.content import UndecodableError
from headstart.data.decoding import decode, image_of, ranged
from headstart.sklearn.extractor import FeatureExtractor
from tests.data.conftest import Pictures, encoded

RNG = np.random.default_rng(5)
BASE = RNG.integers(0, 256, (6, 9, 12, 3), dtype=np.uint8)
GREY = BASE[..., 0]
LABELS = ["a", "b"] * 3

ACCEPTED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "uint8": lambda x: x,
    "int64": lambda x: x.astype(np.int64),
    "uint16 of 8 bits": lambda x: x.astype(np.uint16),
    "floats to 1": lambda x: x / 255,
    "float16 to 1": lambda x: (x / 255).astype(np.float16),
}
RANGED: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[float, float]]] = {
    "10 bits": (lambda x: np.rint(x / 255 * 1023).astype(np.uint16), (0, 1023)),
    "12 bits": (lambda x: np.rint(x / 255 * 4095).astype(np.uint16), (0, 4095)),
    "14 bits": (lambda x: np.rint(x / 255 * 16383).astype(np.int32), (0, 16383)),
    "16 bits": (lambda x: x.astype(np.uint16) * 257, (0, 65535)),
    "floats to 255": (lambda x: x.astype(np.float32), (0, 255)),
    "floats from -1": (lambda x: x / 127.5 - 1, (-1, 1)),
    "signed": (lambda x: x.astype(np.int16) - 128, (-128, 127)),
}
LAYOUTS: dict[str, np.ndarray] = {
    "grey": GREY,
    "one channel": GREY[..., None],
    "channels last": BASE,
    "channels first": BASE.transpose(0, 3, 1, 2),
}


def pixels(split: Split) -> np.ndarray:
    return np.stack([np.asarray(image_of(split.content(i))) for i in range(len(split))])


def expected(layout: str) -> np.ndarray:
    return np.stack([GREY] * 3, 3) if layout in ("grey", "one channel") else BASE


def through(kind: str, x: np.ndarray, **options: Any) -> np.ndarray:
    """Read images by one of the ways in."""
    if kind == "arrays":
        return pixels(load_test_data((x, LABELS), **options).test)
    if kind == "tensors":
        return pixels(load_items(torch.from_numpy(np.ascontiguousarray(x)), **options))
    if kind == "torch data set":
        pairs = torch.utils.data.TensorDataset(
            torch.from_numpy(np.ascontiguousarray(x)), torch.arange(6) % 2
        )
        return pixels(load_test_data(pairs, **options).test)
    extractor = FeatureExtractor(value_range=options.get("value_range"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if kind == "estimator":
            return pixels(extractor._split(x, None, reset=True))
        return pixels(extractor._split(pd.Series(list(x)), None, reset=True))


WAYS = ("arrays", "tensors", "torch data set", "estimator", "estimator's column")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [*ACCEPTED, *RANGED])
def test_values_mean_the_same_on_every_way_in(kind: str, layout: str, way: str) -> None:
    x = LAYOUTS[layout]
    if kind in ACCEPTED:
        found = through(way, ACCEPTED[kind](x))
    else:
        convert, limits = RANGED[kind]
        with pytest.raises((DataError, ValueError), match=r"value_range|expected 0 to 1"):
            through(way, convert(x))
        found = through(way, convert(x), value_range=limits)
    np.testing.assert_array_equal(found, expected(layout))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(6, 9, 12, 4), (6, 4, 9, 12), (6, 9, 12, 2), (6, 2, 9, 12)])
def test_a_band_beyond_colour_is_not_alpha(shape: tuple[int, ...], way: str) -> None:
    x = RNG.integers(0, 256, shape, dtype=np.uint8)
    with pytest.raises((DataError, ValueError), match="channels, and nothing says whether"):
        through(way, x)


@pytest.mark.parametrize("shape", [(6, 9, 12, 5), (6, 7, 9, 12), (6, 3), (6, 2, 3, 4, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError):
        load_data((np.zeros(shape, np.uint8), LABELS))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(value: float) -> None:
    x = BASE / 255
    x[0, 0, 0, 0] = value
    with pytest.raises(DataError):
        load_data((x, LABELS))
    if np.isnan(value):
        with pytest.raises(DataError, match="NaN"):
            load_data((x, LABELS), value_range=(0, 1))


@pytest.mark.parametrize(
    "x",
    [
        GREY // 16,
        GREY.astype(np.int64) // 64,
        GREY / 255 / 16,
    ],
)
def test_a_near_black_array_says_so(x: np.ndarray) -> None:
    dataset = load_data((x, LABELS))
    (note,) = [note for note in dataset.notes if "nearly black" in note]
    assert f"value_range=(0, {x.max():g})" in note
    given = load_data((x, LABELS), value_range=(0, float(x.max())))
    assert not any("nearly black" in note for note in given.notes)
    with pytest.warns(UserWarning, match="nearly black"):
        FeatureExtractor().fit(x)


def test_what_lies_outside_the_range_is_said() -> None:
    dataset = load_data((GREY, LABELS), value_range=(0, 100))
    assert any("are outside value_range=(0, 100)" in note for note in dataset.notes)


@pytest.mark.parametrize("limits", [(1, 0), (0,), "ab", (0, np.inf), 5])
def test_ranges_that_are_none(limits: Any) -> None:
    with pytest.raises(DataError, match="value_range must be"):
        load_data((GREY, LABELS), value_range=limits)


def test_a_command_checks_the_range() -> None:
    from headstart.commands.settings import ReadOptions

    with pytest.raises(ConfigError, match="value_range must be two numbers"):
        ReadOptions(value_range=(3.0, 1.0))
    assert ReadOptions(value_range=(0, 4095)).value_range == (0, 4095)


# Files


def deep_png(values: np.ndarray, colour: int) -> bytes:
    """Write a PNG of 16 bits a sample; Pillow writes only grey ones."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = values.shape[:2]
    png = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    )
    return png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def twelve(x: np.ndarray) -> np.ndarray:
    return np.rint(x / 255 * 4095).astype(np.uint16)


FILES: dict[str, tuple[bytes, tuple[float, float], np.ndarray]] = {
    "grey PNG": (encoded(twelve(GREY[0])), (0, 4095), GREY[0]),
    "colour PNG": (deep_png(twelve(BASE[0]), 2), (0, 4095), BASE[0]),
    "grey TIFF": (encoded(twelve(GREY[0]), "TIFF"), (0, 4095), GREY[0]),
    "signed TIFF": (tiff(GREY[0].astype(np.int16) - 100), (-100, 155), GREY[0]),
    "32-bit TIFF": (tiff(GREY[0].astype(np.int32) * 1000), (0, 255_000), GREY[0]),
    "float TIFF": (tiff(GREY[0].astype(np.float32)), (0, 255), GREY[0]),
    "8-bit PNG": (encoded((GREY[0] // 17).astype(np.uint8)), (0, 15), GREY[0] // 17 * 17),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_range_scales_files(kind: str, tmp_path: Path) -> None:
    data, limits, grey = FILES[kind]
    found = ranged(data, limits)
    want = np.stack([grey] * 3, 2) if grey.ndim == 2 else grey
    np.testing.assert_array_equal(found, want)
    for name in ("x/1.tif", "x/2.tif", "y/3.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    split = load_test_data(tmp_path, value_range=limits).test
    np.testing.assert_array_equal(pixels(split)[0], want)
    assert split.ids[0] == split.ids[1] != load_test_data(tmp_path).test.ids[0]
    wider = load_test_data(tmp_path, value_range=(limits[0], limits[1] + 1)).test
    assert wider.ids[0] != split.ids[0]


def test_eight_bits_do_not_reach_a_wide_range() -> None:
    with pytest.raises(UndecodableError, match="8 bits per sample, too few for"):
        ranged(encoded(BASE[0]), (0, 4095))
    with pytest.raises(UndecodableError, match="colour TIFF with 16 bits"):
        ranged(tiff(twelve(BASE[0]), photometric="rgb"), (0, 4095))


def test_near_black_files_say_so(tmp_path: Path) -> None:
    for split in ("a", "b"):
        (tmp_path / split).mkdir()
        for i in range(3):
            (tmp_path / split / f"{i}.png").write_bytes(encoded(twelve(GREY[i])))
    (note,) = [n for n in load_test_data(tmp_path).notes if "nearly black" in n]
    assert "value_range=(0, 4095)" in note
    assert load_test_data(tmp_path, value_range=(0, 4095)).notes == ()
    (tmp_path / "b" / "9.png").write_bytes(encoded(GREY[0]))
    assert not any("nearly black" in note for note in load_test_data(tmp_path).notes)


def test_declared_bits_are_used() -> None:
    """A TIFF that says "12 bits" has its white at 4095; Pillow hands on 0 to 4095."""
    image = Image.fromarray(twelve(GREY[0]))
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    place = data.index(struct.pack("<HHI", 258, 3, 1)) + 8
    data[place : place + 2] = struct.pack("<H", 12)
    packed = b""
    flat = twelve(GREY[0]).astype(int)
    for row in flat:
        bits = "".join(f"{value:012b}" for value in row)
        bits += "0" * (-len(bits) % 8)
        packed += int(bits, 2).to_bytes(len(bits) // 8, "big")
    offset = data.index(struct.pack("<HHI", 273, 4, 1)) + 8
    (start,) = struct.unpack_from("<I", data, offset)
    data[start : start + len(packed)] = packed
    np.testing.assert_array_equal(np.asarray(decode(bytes(data)))[..., 0], flat >> 4)


UNDECLARED = [
    (bands, dtype, photometric, planes)
    for bands in (2, 3, 4, 5, 6, 8, 12)
    for dtype in (np.uint8, np.uint16, np.float32)
    for photometric in ("minisblack", "rgb")
    for planes in ("contig", "separate")
    if not (photometric == "rgb" and (bands < 3 or (bands < 5 and dtype == np.uint8)))
]


@pytest.mark.parametrize(("bands", "dtype", "photometric", "planes"), UNDECLARED)
def test_bands_of_a_tiff_are_never_guessed(
    bands: int, dtype: Any, photometric: str, planes: str, capfd: pytest.CaptureFixture[str]
) -> None:
    values = (RNG.random((8, 10, bands)) * 250).astype(dtype)
    if photometric == "rgb" and dtype == np.uint16 and planes == "contig" and bands in (3, 4):
        assert decode(tiff(values, photometric="rgb")).mode == "RGB"
        return
    values = values if planes == "contig" else np.moveaxis(values, 2, 0)
    with pytest.raises(UndecodableError, match=r"bands per pixel|bits per sample"):
        decode(tiff(values, photometric=photometric, planarconfig=planes))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("extra", [None, 0])
def test_a_fourth_band_without_a_declaration_is_refused(extra: int | None) -> None:
    values = RNG.integers(0, 256, (8, 10, 4), dtype=np.uint8)
    data = tiff(values, photometric="rgb", extrasamples=["unspecified"])
    if extra is None:  # the tag is renamed to one that nobody reads
        data = data.replace(struct.pack("<HH", 338, 3), struct.pack("<HH", 65000, 3))
    with pytest.raises(UndecodableError, match="4 bands per pixel, 1 more than its colours"):
        decode(data)
    alpha = tiff(values, photometric="rgb", extrasamples=["unassalpha"])
    whole = np.asarray(Image.open(io.BytesIO(alpha)))
    np.testing.assert_array_equal(whole, values)
    assert decode(alpha).mode == "RGB"


def test_integers_of_32_bits_do_not_say_what_white_is() -> None:
    with pytest.raises(UndecodableError, match=r"32 bits from 0 to 200.*value_range=\(0, 255\)"):
        decode(encoded(np.array([[0, 200]], np.int32), "TIFF"))
    with pytest.raises(UndecodableError, match="value_range"):
        decode(tiff(np.array([[-5, 200]], np.int16)))


def test_portable_greymaps_declare_their_white() -> None:
    data = b"P5 2 1 4095\n" + np.array([4095, 2048], ">u2").tobytes()
    assert np.asarray(decode(data))[0, :, 0].tolist() == [255, 128]


MODES = (
    "1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I;16", "F",
)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_pil_images_of_every_mode(mode: str, pictures: Pictures) -> None:
    base = pictures.images()[0]
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 5), 0x8000, np.uint16))
    elif mode == "F":
        image = Image.fromarray(np.full((4, 5), 0.5, np.float32))
    elif mode in ("PA", "RGBa"):
        image = base.convert("P" if mode == "PA" else "RGBA").convert(mode)
    else:
        image = base.convert(mode)
    found = pixels(FeatureExtractor()._split([image] * 2, None, reset=True))
    assert found.shape[-1] == 3
    if mode in ("I;16", "F"):
        assert (found == 128).all()
    elif mode in ("RGB", "RGBA", "RGBa"):
        np.testing.assert_array_equal(found[0], np.asarray(base))
