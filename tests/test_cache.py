"""The cache: what is computed, what is found, and that a row is a function of its key."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.backbones import load_backbone
from headstart.cache import FeatureCache, default_location, describe_space
from headstart.core.errors import BadFilesError
from headstart.data import Flip, View, load_data, load_items
from headstart.extraction import Extraction, extract


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images in two classes."""
    generator = np.random.default_rng(0)
    root = tmp_path / "images"
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for i in range(6):
            pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    return root


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


@pytest.fixture(scope="module")
def glyphs():
    return load_backbone("headstart/glyphs")


class Counting(nn.Module):
    """Counts the images that pass through it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_rows_equal_plain_extraction(cache, glyphs, folder):
    split = load_items(folder)
    found = cache.features(glyphs, split)
    np.testing.assert_array_equal(found.rows, extract(glyphs, split).features[0])
    assert (found.use.hits, found.use.misses) == (0, 12)


def test_a_second_run_computes_nothing(cache, glyphs, folder):
    first = cache.features(glyphs, load_items(folder))
    second = cache.features(glyphs, load_items(folder))
    assert (second.use.hits, second.use.misses) == (12, 0)
    np.testing.assert_array_equal(first.rows, second.rows)


def test_only_new_content_is_computed(cache, glyphs, folder, tmp_path):
    first = cache.features(glyphs, load_items(folder))
    moved = tmp_path / "renamed"
    shutil.move(folder, moved)
    (moved / "dog" / "5.png").rename(moved / "dog" / "00.png")
    shutil.copy(moved / "cat" / "0.png", moved / "cat" / "copy.png")
    Image.new("RGB", (9, 9), "red").save(moved / "cat" / "new.png")
    split = load_items(moved)
    again = cache.features(glyphs, split)
    assert (again.use.hits, again.use.misses) == (12, 1)
    rows = dict(zip(split.origins, again.rows, strict=True))
    np.testing.assert_array_equal(rows["cat/copy.png"], first.rows[0])
    np.testing.assert_array_equal(rows["dog/00.png"], first.rows[11])


def test_rows_follow_the_order_asked_for(cache, glyphs, folder):
    split = load_items(folder)
    rows = cache.features(glyphs, split).rows
    order = [3, 3, 11, 0]
    np.testing.assert_array_equal(cache.features(glyphs, split.take(order)).rows, rows[order])


def test_every_part_of_the_function_is_in_the_key(glyphs):
    keys = {
        "whole": describe_space(glyphs),
        "layer": describe_space(glyphs.at("stage2.0"), "float32"),
        "pooling": describe_space(glyphs.at("stage2.0", "gem"), "float32"),
        "precision": describe_space(glyphs, "bfloat16"),
        "size": describe_space(load_backbone("headstart/glyphs", size=48), "float32"),
        "mean": describe_space(load_backbone("headstart/glyphs", mean=0.4), "float32"),
        "channels": describe_space(load_backbone("headstart/glyphs", channels="BGR"), "float32"),
        "view": describe_space(glyphs, "float32", View(1, seed=0, recipe=(Flip(),))),
        "view seed": describe_space(glyphs, "float32", View(1, seed=1, recipe=(Flip(),))),
    }
    texts = {name: str(value) for name, value in keys.items()}
    assert len(set(texts.values())) == len(texts)
    two = describe_space(glyphs, "float32", View(2, seed=0, recipe=(Flip(),)))
    assert two == keys["view"]


@pytest.mark.parametrize("what", ["weight", "buffer"])
def test_changing_one_number_computes_everything_anew(cache, folder, what):
    backbone = load_backbone("headstart/glyphs")
    split = load_items(folder)
    cache.features(backbone, split)
    stem = backbone.module.stem.conv
    with torch.no_grad():
        tensor = stem.conv.weight if what == "weight" else stem.norm.running_mean
        tensor.view(-1)[0] += 1e-3
    changed = load_backbone(backbone.module, inputs=backbone.inputs)
    assert cache.features(changed, split).use.misses == 12


def test_several_layers_in_one_pass(cache, glyphs, folder):
    cuts = (glyphs, glyphs.at("stage1"), glyphs.at("stage3.0", "gem"))
    split = load_items(folder)
    found = cache.features(cuts, split)
    for cut, features in zip(cuts, found.sets, strict=True):
        np.testing.assert_array_equal(features.array(), extract(cut, split).features[0])
    assert cache.features(cuts[1], split).use.misses == 0


def test_numbered_views_are_rows_of_their_own(cache, glyphs, folder):
    split = load_items(folder)
    plain = cache.features(glyphs, split).rows
    views = [View(k, seed=0, recipe=(Flip(probability=1.0),)) for k in (1, 2)]
    one = cache.features(glyphs, split, view=views[0])
    assert one.use.misses == 12
    assert not np.allclose(one.rows, plain)
    assert cache.features(glyphs, split, view=views[0]).use.hits == 12
    assert cache.features(glyphs, split, view=views[1]).use.misses == 12


def test_bad_files_cost_only_themselves(cache, glyphs, folder):
    (folder / "dog" / "2.png").write_bytes(b"")
    split = load_items(folder)
    with pytest.raises(BadFilesError, match=r"2\.png"):
        cache.features(glyphs, split)
    kept = cache.features(glyphs, split, on_bad="skip")
    assert kept.use.misses == 0
    assert kept.use.hits == 11
    assert len(kept.rows) == 11
    assert 8 not in kept.kept.tolist()


class Interrupted(Exception):
    pass


def test_an_interruption_keeps_what_was_computed(cache, folder):
    backbone = load_backbone("headstart/glyphs")
    calls = []

    def stop(*_: object) -> None:
        calls.append(1)
        # One call asks for the shape, four are the purity check, the sixth is the first batch.
        if len(calls) == 8:
            raise Interrupted

    handle = backbone.module.stem.register_forward_hook(stop)
    with pytest.raises(Interrupted):
        cache.features(backbone, load_items(folder), settings=Extraction(batch_size=2))
    handle.remove()
    again = cache.features(backbone, load_items(folder), settings=Extraction(batch_size=2))
    assert (again.use.hits, again.use.misses) == (4, 8)


def _fill(cache_folder: str, images: str, results: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    backbone = load_backbone("headstart/glyphs")
    found = FeatureCache(cache_folder).features(
        backbone, load_items(images), settings=Extraction(batch_size=4)
    )
    results.put((found.use.misses, float(found.rows.sum())))


@pytest.mark.slow
def test_processes_share_the_work(tmp_path, glyphs):
    generator = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(120):
        pixels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (str(tmp_path / "cache"), str(folder), results)
    workers = [context.Process(target=_fill, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    sums = {results.get(timeout=120)[1] for _ in workers}
    for worker in workers:
        worker.join()
    assert len(sums) == 1
    cache = FeatureCache(tmp_path / "cache")
    split = load_items(folder)
    assert cache.features(glyphs, split).use.misses == 0
    assert len(cache.space(glyphs)) == 120


def test_train_and_test_share_a_space(cache, glyphs, folder):
    dataset = load_data(folder)
    cache.features(glyphs, dataset.train)
    cache.features(glyphs, dataset.test)
    assert len(cache.store.spaces()) == 1
    assert len(cache.space(glyphs)) == 12


def test_the_location(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    assert default_location() == tmp_path
    monkeypatch.delenv("HEADSTART_CACHE")
    assert default_location().name == "headstart"
