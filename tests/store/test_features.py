from __future__ import annotations

import numpy as np
import pytest
import torch

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
    with pytest.raises(StoreError, match="must be named; these rows have 'pool', 'grid', 'mask'"):
        features.array()
    with pytest.raises(StoreError, match="there is no column 'pol'"):
        features.array("pol")
