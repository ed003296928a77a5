"""Pixels that a TIFF calls no data are black, in any type and layout."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from headstart.data.content import UndecodableError
from headstart.data.remarks import listening
from headstart.data.samples import NO_DATA, shares

tifffile = pytest.importorskip("tifffile", reason="needs tifffile")

LAYOUTS: dict[str, dict[str, Any]] = {
    "separate": {"planarconfig": "separate"}, "tiles": {"planarconfig": "contig", "tile": (16, 16)},
    "one band": {},
}  # fmt: skip


def tiff(values: np.ndarray, no_data: str, **options: Any) -> bytes:
    file = io.BytesIO()
    tags = [(42113, 2, len(no_data) + 1, no_data, True)]
    tifffile.imwrite(file, values, photometric="minisblack", extratags=tags, **options)
    return file.getvalue()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kind", "said", "value", "white"), [
    ("uint16", "65535", 65535, 10_000), ("int16", "-32768 ", -32768, 10_000),
    ("float32", "-9999", -9999, 1.0), ("float32", "nan", np.nan, 1.0),
    ("float32", "-3.4028234663852886e+38", np.finfo("f4").min, 1.0),
])  # fmt: skip
def test_no_data_is_black(layout: str, kind: str, said: str, value: float, white: float) -> None:
    share = np.random.default_rng(0).random((13, 20, 24)) * 0.5 + 0.25
    values = (share * white).astype(kind)
    values[:, :5] = value
    if layout == "one band":
        values, share = values[0], share[:1]
    elif layout == "tiles":
        values = np.moveaxis(values, 0, 2)
    share[:, :5] = 0
    with listening() as heard:
        found = shares(tiff(values, said, **LAYOUTS[layout]), (0.0, white))
    bands = found[None] if found.ndim == 2 else np.moveaxis(found, 2, 0)
    np.testing.assert_allclose(bands, share, atol=1e-3)
    assert NO_DATA in heard


def test_the_range_that_is_asked_for_leaves_no_data_out() -> None:
    values = np.full((8, 8), 500, np.uint16)
    values[0] = 65535
    with pytest.raises(UndecodableError, match="from 500 to 500"):
        shares(tiff(values, "65535"))


def test_floats_from_0_to_1_beside_no_data_need_no_range() -> None:
    values = np.full((8, 8), 0.5, np.float32)
    values[0] = -9999
    assert set(np.unique(shares(tiff(values, "-9999")))) == {0.0, 0.5}


def test_an_image_of_no_data_alone_is_refused() -> None:
    with pytest.raises(UndecodableError, match="every pixel has its no-data value"):
        shares(tiff(np.full((8, 8), 7, np.uint16), "7"), (0, 100))


def test_a_value_that_is_no_number_or_does_not_occur_says_nothing() -> None:
    values = np.full((8, 8), 50, np.uint8)
    with listening() as heard:
        for said in ("none", "0", ""):
            assert set(np.unique(shares(tiff(values, said)))) == {np.float32(50 / 255)}
    assert NO_DATA not in heard
