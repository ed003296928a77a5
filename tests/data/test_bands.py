"""Images of other bands and depths than 8-bit RGB: nothing is rounded, and nothing is guessed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.core.errors import BackboneError, ConfigError, DataError
from headstart.core.progress import SilentReporter
from headstart.data import Bands, Preprocessing, Split, UndecodableError, load_data, load_items
from headstart.data.items import ObjectItems
from headstart.data.remarks import listening
from headstart.data.samples import samples_of, shares

tifffile = pytest.importorskip("tifffile")
pydicom = pytest.importorskip("pydicom")

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (20, 24, 13), dtype=np.uint16)
"""A picture of 13 bands with all values of 16 bits."""


def whole(k: int, **values: Any) -> Bands:
    """Return inputs that leave an image of 20×24 as it is."""
    return Bands(**{"size": (20, 24), "mean": 0.0, "std": 1.0, "in_channels": k, **values})


def saved(values: np.ndarray, ending: str, **options: Any) -> bytes:
    file = io.BytesIO()
    if ending == "npy":
        np.save(file, values)
    elif ending == "npz":
        np.savez_compressed(file, values)
    elif ending == "tif":
        tifffile.imwrite(file, values, **options)
    else:
        Image.fromarray(values).save(file, ending)
    return file.getvalue()


WAYS: Mapping[str, bytes] = {
    "npy, bands last": saved(DEEP, "npy"),
    "npy, bands first": saved(np.ascontiguousarray(DEEP.transpose(2, 0, 1)), "npy"),
    "npz": saved(DEEP, "npz"),
    "TIFF, samples of a pixel": saved(DEEP, "tif", photometric="minisblack", planarconfig="contig"),
    "TIFF, planes": saved(
        DEEP.transpose(2, 0, 1), "tif", photometric="minisblack", planarconfig="separate"
    ),
    "TIFF, pages": saved(DEEP.transpose(2, 0, 1), "tif", photometric="minisblack"),
    "TIFF, deflated": saved(DEEP, "tif", photometric="minisblack", compression="zlib"),
    "TIFF, LZW": saved(DEEP, "tif", photometric="minisblack", compression="lzw"),
    "BigTIFF": saved(DEEP, "tif", photometric="minisblack", bigtiff=True),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_every_file_of_13_bands_gives_its_samples_without_loss(way: str) -> None:
    sample = whole(13).sample(shares(WAYS[way], (0, 65535)))
    assert sample.shape == (13, 20, 24)
    assert np.array_equal(np.rint(sample * 65535).astype(np.uint16), DEEP.transpose(2, 0, 1))


@pytest.mark.parametrize("way", sorted(WAYS))
def test_16_bits_of_no_stated_range_are_asked_about(way: str) -> None:
    with pytest.raises(
        UndecodableError, match=r"it is not known which .* value_range=\(0, 65535\)"
    ):
        whole(13).sample(WAYS[way])


def test_samples_reach_the_network_as_they_are_resized_and_normalised() -> None:
    inputs = whole(3, bands=(5, 1, 1), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    batch = inputs.finish(inputs.collate([inputs.sample(shares(DEEP, (0, 10000)))]))
    exact = np.clip(DEEP[:, :, [4, 0, 0]] / 10000, 0, 1)
    exact = (exact - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]
    assert np.abs(batch.args[0][0].numpy().transpose(1, 2, 0) - exact).max() < 1e-6
    small = whole(13, size=(10, 12), interpolation="box").sample(shares(DEEP, (0, 65535)))
    means = DEEP.reshape(10, 2, 12, 2, 13).mean((1, 3)) / 65535
    assert np.abs(small.transpose(1, 2, 0) - means).max() < 1e-6


def test_8_bits_are_the_same_as_through_8_bit_rgb() -> None:
    colours = RNG.integers(0, 256, (37, 53, 3), dtype=np.uint8)
    values: dict[str, Any] = {"size": (20, 20), "mean": 0.5, "std": 0.25, "crop_fraction": 0.8}
    values["interpolation"] = "bilinear"  # a sharp filter is cut at black and white between passes
    rgb, bands = Preprocessing(**values), Bands(**values, in_channels=3, bands=(1, 2, 3))
    for content in (colours, saved(colours, "png"), saved(colours, "tif", photometric="rgb")):
        one, other = (
            each.finish(each.collate([each.sample(content)])).args[0] for each in (rgb, bands)
        )
        assert float((one - other).abs().max()) <= 4 / 255 + 1e-6  # two roundings of 8 bits / 0.25


@pytest.mark.parametrize(
    ("values", "ending", "white"),
    [
        (RNG.integers(0, 65536, (20, 24), dtype=np.uint16), "png", 65535),
        (RNG.integers(0, 256, (20, 24), dtype=np.uint8), "png", 255),
        (RNG.integers(0, 256, (20, 24, 4), dtype=np.uint8), "png", 255),
        (RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8), "bmp", 255),
        (RNG.random((20, 24), dtype=np.float32), "tif", 1),
        (RNG.random((20, 24, 4)), "npy", 1),
        (RNG.random((20, 24)) > 0.5, "npy", 1),
    ],
)
def test_what_a_file_or_a_type_says_is_taken(values: np.ndarray, ending: str, white: int) -> None:
    k = 1 if values.ndim == 2 else values.shape[2]
    found = whole(k).sample(saved(values, ending))
    wanted = values.reshape(20, 24, k).transpose(2, 0, 1) / white
    assert np.abs(found - wanted).max() < 1e-6


def test_the_colours_of_a_16_bit_png_keep_all_their_bits() -> None:
    from torchvision.io import decode_png

    data = _png_16(DEEP[:, :, :3])
    assert decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8)).dtype == torch.uint16
    found = whole(3).sample(data)
    assert np.array_equal(
        np.rint(found * 65535).astype(np.uint16), DEEP[:, :, :3].transpose(2, 0, 1)
    )


def _png_16(values: np.ndarray) -> bytes:
    """Write a PNG of 16-bit colours, which Pillow does not write."""
    import struct
    import zlib

    height, width, _ = values.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ]
    made = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        made += struct.pack(">I", len(data)) + name + data
        made += struct.pack(">I", zlib.crc32(name + data))
    return made


# -- DICOM ---------------------------------------------------------------------------------------


def dicom(values: np.ndarray, **tags: Any) -> bytes:
    """Return a DICOM file of 12 bits."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = CTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.SOPClassUID = CTImageStorage
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID
    file.Rows, file.Columns = values.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = values.astype(np.uint16).tobytes()
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()


TWELVE = RNG.integers(0, 4096, (20, 24), dtype=np.uint16)


def test_dicom_without_a_window_reaches_from_0_to_the_largest_of_its_bits() -> None:
    with listening() as said:
        found = whole(1).sample(dicom(TWELVE))
    assert np.abs(found[0] - TWELVE / 4095).max() < 1e-6
    assert said == [
        "DICOM values without a window, read from 0 to the largest value of their bit depth"
    ]


def test_dicom_is_rescaled_and_shown_by_its_window_which_is_said() -> None:
    file = dicom(
        TWELVE, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[40, 500], WindowWidth=[400, 9]
    )
    with listening() as said:
        found = whole(1).sample(file)
    # DICOM PS3.3 C.11.2.1.2.1: linear from c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2
    wanted = np.clip((TWELVE * 2.0 - 1000 - (40 - 0.5)) / 399 + 0.5, 0, 1)
    assert np.abs(found[0] - wanted).max() < 1e-6
    assert "window" in said[0]
    mine = shares(file, (-1000, 1000))
    assert np.abs(mine - np.clip((TWELVE * 2.0) / 2000, 0, 1)).max() < 1e-6


def test_hounsfield_units_without_a_window_are_asked_about() -> None:
    file = dicom(TWELVE, RescaleSlope=1, RescaleIntercept=-1024)
    with pytest.raises(UndecodableError, match="value_range"):
        whole(1).sample(file)


def test_monochrome1_is_inverted_and_said() -> None:
    with listening() as said:
        found = whole(1).sample(dicom(TWELVE, PhotometricInterpretation="MONOCHROME1"))
    assert np.abs(found[0] - (1 - TWELVE / 4095)).max() < 1e-6
    assert any("MONOCHROME1" in each for each in said)


def test_dicom_is_an_8_bit_picture_for_other_networks() -> None:
    small = Preprocessing(size=(20, 24), mean=0.0, std=1.0)
    found = small.sample(dicom(TWELVE))
    assert np.array_equal(found[0], np.rint(TWELVE / 4095 * 255))
    assert np.array_equal(found[0], found[2])


# -- what cannot be known --------------------------------------------------------------------------


def test_other_bands_than_the_network_takes_are_refused_with_the_ways() -> None:
    with pytest.raises(UndecodableError) as found:
        whole(3).sample(shares(DEEP, (0, 65535)))
    assert "13 bands, and the network takes 3 channels" in str(found.value)
    assert "bands=(3, 2, 1)" in str(found.value)
    assert "in_chans" in str(found.value)
    with pytest.raises(UndecodableError, match=r"bands=\(1, 1, 1\)"):
        whole(3).sample(TWELVE.astype(np.uint8))
    with pytest.raises(UndecodableError, match="names band 14"):
        whole(1, bands=(14,)).sample(shares(DEEP, (0, 65535)))


def test_an_axis_of_bands_that_nothing_names_is_refused() -> None:
    with pytest.raises(UndecodableError, match="which axis"):
        whole(1, bands=(2,)).sample(np.zeros((9, 9, 200), np.uint8))
    assert whole(200).sample(np.zeros((9, 9, 200), np.uint8)).shape == (200, 20, 24)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.full((4, 4), np.nan, np.float32), "NaN"),
        (np.full((4, 4), 7.0), "value_range"),
        (np.zeros((4, 4), complex), "complex"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        ("a text", "text, not an image"),
        (saved(DEEP, "npy")[:500], "damaged NumPy file"),
        (WAYS["TIFF, planes"][:900], "damaged TIFF"),
        (WAYS["npz"][:900], "damaged NumPy file"),
        (dicom(TWELVE)[:700], "DICOM"),
    ],
)
def test_what_is_no_image_is_said(content: Any, said: str) -> None:
    with pytest.raises(UndecodableError, match=said):
        whole(1).sample(content)


def test_an_array_of_objects_is_not_opened() -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(UndecodableError, match="damaged NumPy file"):
        samples_of(file.getvalue())


def test_wrong_values_are_reported_together() -> None:
    with pytest.raises(ConfigError) as found:
        Bands(size=0, mean=(1.0, 2.0), std=0.0, in_channels=3, bands=(0, 1, 2))
    assert len(found.value.faults) == 4


def test_what_weights_say_of_colours_holds_for_three_bands_alone() -> None:
    known = {"mean": (123.0, 117.0, 104.0), "std": (1.0,) * 3, "scale": 1.0, "size": (32, 32)}
    inputs, _ = Bands.resolve("net", known, {"bands": (4, 3, 2)})
    assert np.allclose(inputs.mean, np.array((123.0, 117.0, 104.0)) / 255)
    assert np.allclose(inputs.std, 1 / 255)
    with pytest.raises(BackboneError, match=r"bands=\(1, 2\) are 2 bands, and net takes 3"):
        Bands.resolve("net", {**known, "in_channels": 3}, {"bands": (1, 2)})
    with pytest.raises(BackboneError) as found:
        Bands.resolve("net", {"size": (32, 32), "in_channels": 13}, {})
    assert "mean, std" in str(found.value)
    assert "mean='train'" in str(found.value.hint)


# -- data ------------------------------------------------------------------------------------------


def test_arrays_of_13_bands_keep_their_values() -> None:
    x = RNG.integers(0, 10000, (6, 20, 24, 13), dtype=np.uint16)
    split = load_items(x, kind="bands", value_range=(0, 10000))
    assert np.allclose(split.content(3), x[3] / 10000)
    with pytest.raises(DataError, match="value_range"):
        load_items(x, kind="bands")
    with pytest.raises(DataError, match="13 bands") as found:
        load_items(x, kind="image")
    assert "bands=(3, 2, 1)" in str(found.value.hint)


def test_ids_and_statistics_are_those_of_the_values(tmp_path: Path) -> None:
    for name in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / name / label
            folder.mkdir(parents=True)
            for i in range(3):
                values = RNG.integers(0, 10000, (20, 24, 13), dtype=np.uint16)
                np.save(folder / f"{i}.npy", values)
    found = load_data(tmp_path, kind="bands", value_range=(0, 10000))
    other = load_data(tmp_path, kind="bands", value_range=(0, 5000))
    assert not set(found.train.ids) & set(other.train.ids)
    inputs, said = whole(13, mean="train", std="train").settled(found.train, SilentReporter())
    stack = np.stack([found.train.content(i) for i in range(6)])
    assert np.allclose(inputs.mean, stack.mean((0, 1, 2)), atol=1e-6)
    assert np.allclose(inputs.std, stack.std((0, 1, 2)), atol=1e-6)
    assert "6 training images" in said[0]
    with pytest.raises(ConfigError, match="training split"):
        whole(13, mean="train").describe()


def test_views_of_all_bands_are_the_same_part() -> None:
    inputs = whole(13, size=(16, 16))
    same = np.repeat(DEEP[:, :, :1], 13, axis=2)
    for view in inputs.numbered_views(4, seed=1):
        found = inputs.sample(shares(same, (0, 65535)), view, "key")
        assert found.shape == (13, 16, 16)
        assert all(np.array_equal(found[0], plane) for plane in found)


def test_thumbnails_show_what_they_say() -> None:
    inputs = whole(13)
    picture = Image.open(io.BytesIO(inputs.excerpt(shares(DEEP, (0, 65535))).picture))
    assert picture.mode == "RGB"
    assert "the first three channels as red, green and blue" in str(inputs)
    grey = np.asarray(Image.open(io.BytesIO(whole(1).excerpt(TWELVE.astype(np.uint8)).picture)))
    assert np.array_equal(grey[..., 0], grey[..., 2])


def _split(images: list[np.ndarray]) -> Split:
    return Split(ObjectItems(len(images), images.__getitem__, "images"), np.arange(len(images)),
                 np.full(len(images), -1))  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "trained", "given", "refused"),
    [
        ((4, 3, 2), 4, 13, True),
        ((4, 3, 2), 13, 4, True),
        ((), 4, 13, True),
        ((1, 1, 1), 1, 3, True),
        ((1, 2, 3), 3, 13, True),
        ((1, 2, 3), 3, 4, False),  # transparency behind the colours
        ((1, 2, 3), 4, 3, False),
        ((1, 1, 1), 1, 2, False),
        ((4, 3, 2), 4, 4, False),
        ((), 4, 4, False),
    ],
)
def test_images_of_other_bands_than_the_training_images_are_refused(
    chosen: tuple[int, ...], trained: int, given: int, refused: bool
) -> None:
    def image(bands: int) -> np.ndarray:
        return np.random.default_rng(bands).integers(0, 255, (20, 24, bands), np.uint8)

    plain = Bands(8, 0.5, 0.5, len(chosen) or trained, chosen)
    known, _ = plain.settled(_split([image(trained)] * 3), SilentReporter())
    assert known.of_bands == trained
    same_key = known.describe() == plain.describe()
    assert same_key is not bool(chosen), "rows of images with other bands are not taken for these"
    known.sample(image(trained))
    if not refused:
        known.sample(image(given))
        return
    with pytest.raises(UndecodableError, match=f"{given} bands?, and the training images have"):
        known.sample(image(given))


def test_training_images_of_several_numbers_of_bands_fix_none() -> None:
    images = [np.zeros((9, 9, bands), np.uint8) for bands in (5, 6)]
    known, _ = Bands(8, 0.5, 0.5, 3, (3, 2, 1)).settled(_split(images), SilentReporter())
    assert known.of_bands is None
