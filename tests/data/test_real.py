"""The real data: photographs of many sizes with a GIF among them, and CIFAR-10 in Parquet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.data import Preprocessing, load_data, load_items, load_test_data, read_batches
from headstart.data.decoding import image_of

pytestmark = pytest.mark.real


def test_ants_and_bees(shared_data: Path) -> None:
    dataset = load_data(shared_data / "hymenoptera")
    assert dataset.classes == ("ants", "bees")
    assert (len(dataset.train), len(dataset.test)) == (245, 153)
    assert dataset.notes == (
        "The validation split serves as the test split, because there is no other.",
    )
    names = [dataset.classes[i] for i in dataset.test.labels]
    assert all(o.startswith(f"val/{n}/") for o, n in zip(dataset.test.origins, names, strict=True))
    preprocessing = Preprocessing(64, 0.5, 0.5, crop_fraction=0.875)
    batches = list(read_batches(dataset.test, None, preprocessing, batch_size=32))
    assert sum(map(len, batches)) == 153
    gif = next(i for i in range(245) if dataset.train.items.content(i)[:3] == b"GIF")  # type: ignore[comparison-overlap]
    assert preprocessing.geometry(image_of(dataset.train.content(gif))).shape == (64, 64, 3)


def test_cifar10(shared_data: Path) -> None:
    dataset = load_data(shared_data / "cifar10")
    assert (len(dataset.train), len(dataset.test), len(dataset.classes)) == (50_000, 10_000, 10)
    assert set(Counter(dataset.train.labels.tolist()).values()) == {5000}
    assert dataset.train.origins[49_999] == "train.parquet row 49999"
    split = dataset.test
    index = np.random.default_rng(0).choice(10_000, 500, replace=False)
    preprocessing = Preprocessing(32, 0.5, 0.5)
    pixels = torch.cat(
        [b.collated.args[0] for b in read_batches(split, index, preprocessing, batch_size=64)]
    )
    for place in (0, 250, 499):
        image = np.asarray(image_of(split.content(int(index[place]))))
        np.testing.assert_array_equal(pixels[place].permute(1, 2, 0).numpy(), image)


def test_a_row_of_parquet_and_its_file_are_one_item(shared_data: Path, tmp_path: Path) -> None:
    split = load_test_data(shared_data / "cifar10").test.take(range(3))
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(split.items.content(i))  # type: ignore[arg-type]
    assert load_items(tmp_path).ids == split.ids
