"""One contract for every source: the same images give the same pixels, labels and ids."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_digits

from headstart.core.errors import DataError
from headstart.data import Dataset, load_data, load_items, load_test_data
from headstart.data.decoding import image_of
from tests.data.conftest import Pictures

Build = Callable[[Pictures, Path], Any]
SOURCES: dict[str, tuple[Build, bool]] = {}  # name → (builder, whether the files' bytes are kept)


def source(keeps_bytes: bool) -> Callable[[Build], Build]:
    def register(build: Build) -> Build:
        SOURCES[build.__name__] = (build, keeps_bytes)
        return build

    return register


@source(keeps_bytes=True)
def folder(pictures: Pictures, tmp: Path) -> Any:
    return str(pictures.write(tmp / "pets"))


@source(keeps_bytes=True)
def csv_of_paths(pictures: Pictures, tmp: Path) -> Any:
    pictures.write(tmp)
    with (tmp / "pets.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("path", "label"), *zip(pictures.names, pictures.labels, strict=True)]
        )
    return tmp / "pets.csv"


@source(keeps_bytes=True)
def tsv_of_paths(pictures: Pictures, tmp: Path) -> Any:
    pictures.write(tmp)
    rows = [f"{n}\t{c}\t0.5" for n, c in zip(pictures.names, pictures.labels, strict=True)]
    (tmp / "pets.tsv").write_text("\n".join(["file\tspecies\tscore", *rows]), encoding="utf-8")
    return tmp / "pets.tsv"


@source(keeps_bytes=True)
def parquet_of_bytes(pictures: Pictures, tmp: Path) -> Any:
    table = pa.table({"img": list(pictures.data), "category": list(pictures.labels)})
    pq.write_table(table, tmp / "pets.parquet", row_group_size=5)
    return tmp / "pets.parquet"


@source(keeps_bytes=True)
def parquet_of_structs(pictures: Pictures, tmp: Path) -> Any:
    """As the hub writes them; every other row has a path instead of bytes."""
    pictures.write(tmp)
    structs = [
        {"bytes": d, "path": n} if i % 2 else {"bytes": None, "path": n}
        for i, (d, n) in enumerate(zip(pictures.data, pictures.names, strict=True))
    ]
    table = pa.table({"image": structs, "label": pa.array(pictures.labels).dictionary_encode()})
    pq.write_table(table, tmp / "pets.parquet")
    return tmp / "pets.parquet"


@source(keeps_bytes=True)
def pandas_frame(pictures: Pictures, tmp: Path) -> Any:
    paths = [str(pictures.write(tmp) / name) for name in pictures.names]
    return pd.DataFrame({"path": paths, "y": pictures.labels})


@source(keeps_bytes=True)
def polars_frame(pictures: Pictures, tmp: Path) -> Any:
    return pl.DataFrame({"image": list(pictures.data), "label": list(pictures.labels)})


@source(keeps_bytes=True)
def hub_dataset(pictures: Pictures, tmp: Path) -> Any:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "ünï dög"])}
    )
    rows = {"image": [{"bytes": d, "path": None} for d in pictures.data]}
    rows["label"] = [["cat", "ünï dög"].index(c) for c in pictures.labels]
    return datasets.Dataset.from_dict(rows, features=features)


@source(keeps_bytes=True)
def hub_selection(pictures: Pictures, tmp: Path) -> Any:
    """A selection on top of a table, which must not show through."""
    backwards = hub_dataset(pictures, tmp).select(range(len(pictures.data) - 1, -1, -1))
    return backwards.select(range(len(pictures.data) - 1, -1, -1))


@source(keeps_bytes=True)
def hub_saved(pictures: Pictures, tmp: Path) -> Any:
    hub_dataset(pictures, tmp).save_to_disk(tmp / "pets")
    return tmp / "pets"


@source(keeps_bytes=False)
def arrays(pictures: Pictures, tmp: Path) -> Any:
    return pictures.pixels(), np.array(pictures.labels)


@source(keeps_bytes=False)
def tensors_channels_first(pictures: Pictures, tmp: Path) -> Any:
    floats = torch.from_numpy(pictures.pixels()).permute(0, 3, 1, 2) / 255
    return floats, list(pictures.labels)


@source(keeps_bytes=False)
def npz(pictures: Pictures, tmp: Path) -> Any:
    np.savez(tmp / "pets.npz", x=pictures.pixels(), y=np.array(pictures.labels))
    return tmp / "pets.npz"


@source(keeps_bytes=False)
def torch_dataset(pictures: Pictures, tmp: Path) -> Any:
    return list_dataset(pictures.images(), list(pictures.labels))


@source(keeps_bytes=False)
def torchvision_folder(pictures: Pictures, tmp: Path) -> Any:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    return ImageFolder(str(pictures.write(tmp / "pets")), transform=ToTensor())


def list_dataset(images: list[Any], labels: list[Any]) -> torch.utils.data.Dataset[Any]:
    class Pets(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, i: int) -> Any:
            return images[i], labels[i]

    return Pets()


def by_origin(dataset: Dataset, expected: int) -> list[tuple[np.ndarray, str, str]]:
    """Return (pixels, class, id) of all items of the source in its own order."""
    joined = []
    for split in dataset.splits.values():
        for i, row in enumerate(split.rows.tolist()):
            name = dataset.classes[split.labels[i]]
            joined.append((row, np.asarray(image_of(split.content(i))), name, split.ids[i]))
    joined.sort(key=lambda item: item[0])
    assert [item[0] for item in joined] == list(range(expected))
    return [item[1:] for item in joined]


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same_items(name: str, pictures: Pictures, tmp_path: Path) -> None:
    build, keeps_bytes = SOURCES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        dataset = load_data(build(pictures, tmp_path))
        items = by_origin(dataset, len(pictures.names))
    reference = by_origin(load_data(folder(pictures, tmp_path / "reference")), len(items))
    assert dataset.classes == ("cat", "ünï dög")
    for (pixels, label, key), expected, (_, _, expected_key), expected_label in zip(
        items, pictures.pixels(), reference, pictures.labels, strict=True
    ):
        np.testing.assert_array_equal(pixels, expected)
        assert label == expected_label
        assert (key == expected_key) == keeps_bytes
    assert (len(dataset.train), len(dataset.test)) == (10, 2)
    assert any("no test split" in note for note in dataset.notes)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_serves_prediction_and_evaluation(
    name: str, pictures: Pictures, tmp_path: Path
) -> None:
    given = SOURCES[name][0](pictures, tmp_path)
    items = load_items(given)
    np.testing.assert_array_equal(
        [np.asarray(image_of(items.content(i))) for i in range(12)], pictures.pixels()
    )
    whole = load_test_data(given)
    assert set(whole.splits) == {"test"}
    assert [whole.classes[i] for i in whole.test.labels] == list(pictures.labels)


def test_arrays_and_decoded_objects_share_ids(pictures: Pictures, tmp_path: Path) -> None:
    """Equal samples are equal content, whichever object brought them."""
    ids = [
        {key for split in load_data(build(pictures, tmp_path)).splits.values() for key in split.ids}
        for build in (arrays, tensors_channels_first, npz, torch_dataset)
    ]
    assert ids[0] == ids[1] == ids[2] == ids[3]


def test_the_split_depends_on_content_not_on_order_or_names(
    pictures: Pictures, tmp_path: Path
) -> None:
    renamed = Pictures(
        tuple(name.replace("/", "/renamed-") for name in pictures.names[::-1]),
        pictures.data[::-1],
        pictures.labels[::-1],
    )
    first = load_data(folder(pictures, tmp_path / "a"))
    second = load_data(parquet_of_bytes(renamed, tmp_path))
    assert set(first.test.ids) == set(second.test.ids)
    assert set(first.test.ids) != set(load_data(tmp_path / "a" / "pets", seed=1).test.ids)


def test_identical_items_never_straddle_the_split(pictures: Pictures) -> None:
    pixels = np.concatenate([pictures.pixels()] * 3)
    for seed in range(5):
        dataset = load_data((pixels, list(pictures.labels) * 3), test_fraction=0.4, seed=seed)
        assert not set(dataset.train.ids) & set(dataset.test.ids)
        assert not dataset.leaks()
        assert any("24 items repeat" in note for note in dataset.notes)


def test_official_splits_are_kept_and_leaks_found(pictures: Pictures) -> None:
    pixels, labels = pictures.pixels(), list(pictures.labels)
    dataset = load_data({"train": (pixels[:8], labels[:8]), "test": (pixels[6:], labels[6:])})
    assert (len(dataset.train), len(dataset.test)) == (8, 6)
    assert not dataset.test_drawn
    assert load_data((pixels, labels)).test_drawn
    assert dataset.leaks() == (("test item 0", "train item 6"), ("test item 1", "train item 7"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "val", "test"), {"train", "validation", "test"}),
        (("train", "valid"), {"train", "test"}),
        (("Training", "Testing"), {"train", "test"}),
        (("train", "validation"), {"train", "test"}),
    ],
)
def test_split_folders(
    names: tuple[str, ...], expected: set[str], pictures: Pictures, tmp_path: Path
) -> None:
    for name in names:
        pictures.write(tmp_path / name)
    dataset = load_data(tmp_path)
    assert set(dataset.splits) == expected
    assert {len(split) for split in dataset.splits.values()} == {12}
    said = any("validation split serves" in note for note in dataset.notes)
    assert said == ("test" not in "".join(names).lower())


def test_unusual_split_names_are_given(pictures: Pictures, tmp_path: Path) -> None:
    pictures.write(tmp_path / "year1")
    pictures.write(tmp_path / "year2")
    dataset = load_data(tmp_path, train="year1", test="year2")
    assert dataset.test.origins[0] == "year2/cat/0.png"
    with pytest.raises(DataError, match=r"no folder 'year3'.*did you mean 'year"):
        load_data(tmp_path, train="year1", test="year3")


def test_a_class_called_train_is_a_class(pictures: Pictures, tmp_path: Path) -> None:
    names = ("train/1.png", "train/2.png", "car/1.png", "car/2.png")
    for name, data in zip(names, pictures.data[:4], strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert load_data(tmp_path).classes == ("car", "train")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_folder_of_tables(suffix: str, pictures: Pictures, tmp_path: Path) -> None:
    pictures.write(tmp_path / "images")
    for stem, rows in (
        ("train-0-of-2", range(4)),
        ("train-1-of-2", range(4, 9)),
        ("test", range(9, 12)),
    ):
        frame = pd.DataFrame(
            {
                "path": [f"images/{pictures.names[i]}" for i in rows],
                "label": [pictures.labels[i] for i in rows],
            }
        )
        path = tmp_path / f"{stem}.{suffix}"
        frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    # the images' own folder must not make this a folder of classes
    (tmp_path / "tables").mkdir()
    for path in tmp_path.glob(f"*.{suffix}"):
        path.rename(tmp_path / "tables" / path.name)
    (tmp_path / "images").rename(tmp_path / "tables" / "images")
    dataset = load_data(tmp_path / "tables")
    assert [dataset.train.origins[i] for i in (0, 8)] == [
        "images/cat/0.png",
        "images/ünï dög/2.png",
    ]
    assert len(dataset.test) == 3
    np.testing.assert_array_equal(
        np.asarray(image_of(dataset.test.content(2))), pictures.pixels()[11]
    )


def test_a_split_column_divides_a_table(pictures: Pictures, tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": list(pictures.data), "label": list(pictures.labels)})
    frame["split"] = (["train"] * 4 + ["test"] * 2) * 2
    frame.to_parquet(tmp_path / "t.parquet")
    for source in (frame, tmp_path / "t.parquet"):
        for options in ({}, {"image_column": "image", "label_column": "label"}):
            dataset = load_data(source, **options)
            assert (len(dataset.train), len(dataset.test)) == (8, 4)
            assert any("column 'split'" in note for note in dataset.notes)


def test_a_second_table_is_the_test_split(pictures: Pictures, tmp_path: Path) -> None:
    first = csv_of_paths(pictures, tmp_path)
    (tmp_path / "held-out.csv").write_text("path,label\ncat/0.png,cat\n")
    assert len(load_data(first, test="held-out.csv").test) == 1


def test_hub_dictionaries_keep_validation_apart(pictures: Pictures, tmp_path: Path) -> None:
    part = hub_dataset(pictures, tmp_path)
    source = datasets.DatasetDict(train=part, validation=part, test=part)
    assert set(load_data(source).splits) == {"train", "validation", "test"}
    unlabelled = part.map(lambda row: {"label": -1})
    dataset = load_data(datasets.DatasetDict(train=part, validation=part, test=unlabelled))
    assert set(dataset.splits) == {"train", "test"}
    assert any("has no labels, so it is ignored" in note for note in dataset.notes)


def test_torch_subset_keeps_targets_and_classes(pictures: Pictures, tmp_path: Path) -> None:
    whole = torchvision_folder(pictures, tmp_path)
    subset = torch.utils.data.Subset(whole, [0, 1, 2, 6, 7, 8])
    dataset = load_test_data(subset)
    assert [dataset.classes[i] for i in dataset.test.labels] == ["cat"] * 3 + ["ünï dög"] * 3
    np.testing.assert_array_equal(
        np.asarray(image_of(dataset.test.content(3))), pictures.pixels()[6]
    )


def test_random_transforms_are_refused(pictures: Pictures) -> None:
    from torchvision.transforms import RandomErasing, ToTensor

    class Noisy(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 12

        def __getitem__(self, i: int) -> Any:
            return RandomErasing(p=1.0)(ToTensor()(pictures.images()[i])), 0

    with pytest.raises(DataError, match="changes from one read to the next"):
        load_data(Noisy())


def test_normalised_tensors_are_refused(pictures: Pictures) -> None:
    x = torch.from_numpy(pictures.pixels()).permute(0, 3, 1, 2) / 127.5 - 1
    with pytest.raises(DataError, match=r"not image samples; .*undo any normalisation"):
        load_data((x, list(pictures.labels)))


def test_keras_style_archives(pictures: Pictures, tmp_path: Path) -> None:
    grey = pictures.pixels()[..., 0]
    y = np.repeat([0, 1], 6)
    np.savez(tmp_path / "m.npz", x_train=grey, y_train=y[:, None], x_test=grey[:3], y_test=y[:3])
    dataset = load_data(tmp_path / "m.npz")
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (12, 3, ("0", "1"))
    np.testing.assert_array_equal(np.asarray(image_of(dataset.test.content(1)))[..., 2], grey[1])


def test_no_pickle_is_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([{"a": 1}], dtype=object), y=np.array([1]))
    with pytest.raises(DataError, match="objects are refused"):
        load_data(tmp_path / "x.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x00" * 64])
def test_a_broken_archive_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a numpy archive"):
        load_data(tmp_path / "x.npz")


def test_digits() -> None:
    dataset = load_data("digits")
    assert dataset.classes == tuple("0123456789")
    assert (len(dataset.train), len(dataset.test)) == (1438, 359)
    original = load_digits()
    for i in (0, 100):
        expected = np.rint(original.images[dataset.test.rows[i]] / 16 * 255)
        image = np.asarray(image_of(dataset.test.content(i)))
        np.testing.assert_array_equal(image, np.stack([expected] * 3, axis=2))
        assert dataset.test.labels[i] == original.target[dataset.test.rows[i]]
    assert load_data("digits").test.ids == dataset.test.ids


def test_one_hot_labels(pictures: Pictures) -> None:
    dataset = load_data((pictures.pixels(), np.eye(2)[np.repeat([0, 1], 6)]))
    assert dataset.classes == ("0", "1")
    assert any("one-hot" in note for note in dataset.notes)


def test_aligning_labels_with_a_head(pictures: Pictures) -> None:
    whole = load_test_data((pictures.pixels(), list(pictures.labels))).test
    aligned = whole.aligned_to(("ünï dög", "bird", "cat"))
    assert aligned.labels.tolist() == [2] * 6 + [0] * 6
    with pytest.raises(DataError, match="also holds 'ünï dög'"):
        whole.aligned_to(("cat", "bird"))
    assert whole.take([0, 1]).aligned_to(("cat", "bird")).labels.tolist() == [0, 0]


def test_digests_are_remembered(pictures: Pictures, tmp_path: Path) -> None:
    class Memo:
        def __init__(self) -> None:
            self.known: dict[Path, str] = {}
            self.found = 0

        def lookup(self, path: Path) -> str | None:
            self.found += path in self.known
            return self.known.get(path)

        def remember(self, path: Path, digest: str) -> None:
            self.known[path] = digest

    memo = Memo()
    first = load_items(folder(pictures, tmp_path), digest_memo=memo).ids
    assert (memo.found, len(memo.known)) == (0, 12)
    assert load_items(tmp_path / "pets", digest_memo=memo).ids == first
    assert memo.found == 12
