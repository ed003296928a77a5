from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from headstart.core.errors import StoreError
from headstart.store import Space
from tests.store.conftest import make_ids, make_rows


@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        np.int64(45),
        slice(None),
        slice(10, 20),
        slice(25, 65),
        slice(80, 10),
        slice(90, 10, -7),
        slice(-5, None),
        np.array([], np.int64),
        [3],
        [99, 0, 0, 31, -100],
        np.arange(100)[::-1],
        np.arange(100) % 3 == 0,
    ],
    ids=str,
)
def test_indexing_equals_numpy(filled, key: object) -> None:
    space, ids, rows = filled(100, 30)
    np.testing.assert_array_equal(space.read(ids)[key], rows[key], strict=True)


def test_tensors_and_empty_lists_choose_rows(filled) -> None:
    space, ids, rows = filled(100, 30)
    np.testing.assert_array_equal(space.read(ids)[torch.tensor([5, 50])], rows[[5, 50]])
    assert space.read(ids)[[]].shape == (0, 16)
    assert space.read(ids)[100:].shape == (0, 16)
    assert space.read([]).array().shape == (0, 16)
    assert space.read([]).tensor().shape == (0, 16)


@pytest.mark.parametrize("key", [100, -101, [0, 100]])
def test_a_row_out_of_range_is_an_index_error(filled, key: object) -> None:
    space, ids, _ = filled(100, 30)
    with pytest.raises(IndexError):
        space.read(ids)[key]


@pytest.mark.parametrize("key", [1.5, [0.5], [[0]], np.zeros(3, bool), "x"])
def test_other_keys_are_refused(filled, key: object) -> None:
    space, ids, _ = filled(100, 30)
    with pytest.raises(StoreError):
        space.read(ids)[key]


def test_iteration_ends(filled) -> None:
    space, ids, rows = filled(7, 3)
    np.testing.assert_array_equal(np.stack(list(space.read(ids))), rows)


def test_a_slice_in_one_shard_is_a_view_that_cannot_be_written_to(filled) -> None:
    space, ids, _ = filled(100, 50)
    features = space.read(ids)
    a, b = features[10:20], features[12:22]
    assert np.shares_memory(a, b)
    with pytest.raises(ValueError, match="read-only"):
        a[0] = 1
    assert not np.shares_memory(features[40:60], features[40:60])


def test_a_tensor_is_writable_without_harm(filled) -> None:
    space, ids, rows = filled(50, 50)
    features = space.read(ids)
    tensor = features.tensor()
    tensor.zero_()
    np.testing.assert_array_equal(features.array(), rows)
    np.testing.assert_array_equal(features.tensor().numpy(), rows)
    assert space.read(ids[10:20]).tensor().shape == (10, 16)
    np.testing.assert_array_equal(space.read(ids[::-1]).tensor().numpy(), rows[::-1])


def test_several_layers_at_once(space: Space) -> None:
    ids = make_ids(20)
    pool, mask = make_rows(ids, 4), np.arange(20) % 2 == 0
    grid = make_rows(ids, 12, "float16").reshape(20, 3, 4)
    for part in (slice(0, 8), slice(8, 20)):
        space.append(ids[part], {"pool": pool[part], "grid": grid[part], "mask": mask[part]})
    features = space.read(ids)
    assert list(features.columns) == ["pool", "grid", "mask"]
    assert features.nbytes == pool.nbytes + grid.nbytes + mask.nbytes
    batch = features[[19, 0]]
    np.testing.assert_array_equal(batch["grid"], grid[[19, 0]], strict=True)
    np.testing.assert_array_equal(batch["mask"], mask[[19, 0]], strict=True)
    assert features[3]["pool"].shape == (4,)
    np.testing.assert_array_equal(features.array("pool"), pool)
    np.testing.assert_array_equal(features.select("grid").array(), grid)
    with pytest.raises(StoreError, match="must be named; these rows have 'pool', 'grid', 'mask'"):
        features.array()
    with pytest.raises(StoreError, match="there is no column 'pol'"):
        features.array("pol")
    with pytest.raises(StoreError, match="no column 'x'"):
        features.select("x")


def test_take_keeps_ids_and_rows_together(filled) -> None:
    space, ids, rows = filled(40, 11)
    subset = space.read(ids).take([30, 2, 2]).take([1, 0])
    assert subset.ids == (ids[2], ids[30])
    np.testing.assert_array_equal(subset.array(), rows[[2, 30]])
    assert len(space.read(ids).take(np.zeros(40, bool))) == 0


def test_batches_cover_all_rows_in_order(filled) -> None:
    space, ids, rows = filled(50, 20)
    batches = list(space.read(ids).batches(16))
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    np.testing.assert_array_equal(np.concatenate(batches), rows)
    with pytest.raises(StoreError, match="at least one row"):
        list(space.read(ids).batches(0))


@pytest.mark.parametrize("window_bytes", [1, 2000, 10**9])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_loader_yields_every_row_once_an_epoch(
    filled, window_bytes: int, drop_last: bool
) -> None:
    space, ids, rows = filled(203, 50)
    loader = space.read(ids).loader(
        16, seed=3, block_rows=8, window_bytes=window_bytes, drop_last=drop_last
    )
    epochs = []
    for _ in range(2):
        seen = []
        batches = list(loader)
        assert len(batches) == len(loader) == (12 if drop_last else 13)
        for indices, batch in batches:
            np.testing.assert_array_equal(batch, rows[indices])
            seen += indices.tolist()
        assert len(set(seen)) == len(seen) == (192 if drop_last else 203)
        epochs.append(seen)
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_the_order_is_a_function_of_seed_and_epoch(filled) -> None:
    space, ids, _ = filled(100, 30)

    def order(seed: int, epoch: int) -> list[int]:
        loader = space.read(ids).loader(10, seed=seed, epoch=epoch, block_rows=4)
        return np.concatenate([indices for indices, _ in loader]).tolist()

    first = space.read(ids).loader(10, seed=1, block_rows=4)
    list(first)
    assert np.concatenate([i for i, _ in first]).tolist() == order(1, 1)
    assert order(1, 0) == order(1, 0) != order(2, 0)


def test_blocks_mix_well_when_they_fit_the_window(filled) -> None:
    space, ids, _ = filled(1000, 250)
    order = np.concatenate([i for i, _ in space.read(ids).loader(50, seed=0)])
    # A uniform permutation has no correlation between place and row: |r| < 4 / sqrt(n).
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 4 / np.sqrt(1000)


def test_without_shuffling_the_order_is_kept(filled) -> None:
    space, ids, rows = filled(25, 10)
    batches = list(space.read(ids[::-1]).loader(10, shuffle=False))
    assert np.concatenate([i for i, _ in batches]).tolist() == list(range(25))
    np.testing.assert_array_equal(np.concatenate([x for _, x in batches]), rows[::-1])


def test_the_loader_leaves_global_random_state_alone(filled) -> None:
    space, ids, _ = filled(25, 10)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    list(space.read(ids).loader(4))
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_the_torch_dataset_feeds_a_data_loader(filled, workers: int) -> None:
    space, ids, rows = filled(60, 25)
    dataset = space.read(ids).torch_dataset(labels=np.arange(60))
    generator = torch.Generator().manual_seed(0)
    seen = []
    for x, y in DataLoader(
        dataset, batch_size=16, shuffle=True, generator=generator, num_workers=workers
    ):
        np.testing.assert_array_equal(x.numpy(), rows[y.numpy()])
        seen += y.tolist()
    assert sorted(seen) == list(range(60))
    assert dataset[3][0].shape == (16,)


def test_labels_must_fit(filled) -> None:
    space, ids, _ = filled(6, 3)
    with pytest.raises(StoreError, match="5 labels do not fit 6 rows"):
        space.read(ids).torch_dataset(labels=[0] * 5)
