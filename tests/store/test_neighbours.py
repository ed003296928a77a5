"""Similar rows: exact whatever the blocks, in bounded memory, and never the query itself."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import StoreError
from headstart.core.nearest import nearest_rows
from headstart.store import SearchIndex, Store
from headstart.store.layout import pack_ids

N, D = 700, 12


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    generator = np.random.default_rng(0)
    made = (generator.normal(size=(N, D)) + 3).astype(np.float32)
    made[40] = made[10]
    return made


def key(i: int) -> str:
    return f"{10 if i == 40 else i:032x}"  # 40 is a copy of 10


def expected(rows: np.ndarray, query: np.ndarray, metric: str, centre: bool) -> np.ndarray:
    moved = rows.astype(np.float64) - (rows.mean(axis=0, dtype=np.float64) if centre else 0)
    asked = query.astype(np.float64) - (rows.mean(axis=0, dtype=np.float64) if centre else 0)
    if metric == "euclidean":
        return -((moved - asked) ** 2).sum(axis=1)
    return moved @ asked / np.linalg.norm(moved, axis=1) / np.linalg.norm(asked)


@pytest.fixture(scope="module")
def features(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory):
    space = Store(tmp_path_factory.mktemp("store")).space({"test": "neighbours"})
    ids = [key(i) for i in range(N)]
    for start in range(0, N, 100):
        part = [i for i in range(start, start + 100) if i != 40]
        space.append([ids[i] for i in part], {"features": rows[part]})
    return space.read(ids)


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [1, 7, 100, N, 5 * N])
def test_blocks_do_not_change_what_is_found(rows, metric, centre, block) -> None:
    query = rows[3] + np.float32(0.1)
    middle = rows.mean(axis=0, dtype=np.float64) if centre else None
    values, where = nearest_rows(query[None], rows, 5, metric, block=block, centre=middle)
    similarity = expected(rows, query, metric, centre)
    order = np.argsort(-similarity, kind="stable")[:5]
    assert where[0].tolist() == order.tolist()
    np.testing.assert_allclose(values[0], similarity[order], atol=2e-4)


def test_a_set_finds_neighbours_of_rows_and_of_its_own_items(features, rows) -> None:
    found = features.neighbours(rows[3], 4)
    assert found.rows[0, 0] == 3
    assert found.similarity[0, 0] == pytest.approx(1, abs=1e-6)
    own = features.neighbours([key(3), key(10)], 4, centre=True)
    assert 3 not in own.rows[0]
    assert not {10, 40} & set(own.rows[1].tolist())  # nor its copy, which has its id
    assert own.ids[0] == tuple(key(i) for i in own.rows[0])
    assert features.neighbours(key(3), 4).rows.shape == (1, 4)


def test_fewer_rows_than_are_asked_for(features) -> None:
    found = features.neighbours(key(10), N)
    assert (found.rows[0] == -1).sum() == 2  # itself and its copy
    assert np.isneginf(found.similarity[0, -1])
    assert len(found.ids[0]) == N - 2


@pytest.mark.parametrize(
    ("queries", "more", "message"),
    [
        ("f" * 32, {}, "1 id not among the 700 rows"),
        (["xyz"], {}, "id"),
        (np.zeros((2, D + 1)), {}, "shape"),
        (np.full(D, np.nan), {}, "finite"),
        (np.zeros(D), {"k": 0}, "at least 1"),
        (np.zeros(D), {"metric": "manhattan"}, "no metric"),
        (np.array(["a"] * D), {}, "expected queries"),
    ],
)
def test_what_cannot_be_asked(features, queries, more, message) -> None:
    with pytest.raises(StoreError, match=message):
        features.neighbours(queries, **more)


def test_memory_is_that_of_a_block(tmp_path: Path) -> None:
    n, d = 120_000, 256
    space = Store(tmp_path).space({"test": "large"})
    generator = np.random.default_rng(0)
    for start in range(0, n, 5000):
        ids = [f"{i:032x}" for i in range(start, start + 5000)]
        part = generator.standard_normal((5000, d), dtype=np.float32)
        space.append(ids, {"features": part})
    features = space.read([f"{i:032x}" for i in range(n)])
    features.neighbours(features[0], 3)
    tracemalloc.start()
    features.neighbours(features[:64], 10, centre=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * features.nbytes  # blocks of 8 MB and what is made of them


def test_an_index_states_its_recall_and_finds_the_same(features, rows, tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    path = tmp_path / "rows.usearch"
    packed = pack_ids([key(i) for i in range(N)])
    made = SearchIndex.of(path, features, packed, centre=True)
    assert made.built
    assert made.recall > 0.9
    again = SearchIndex.of(path, features, packed, centre=True)
    assert not again.built
    assert again.recall == made.recall
    exact = features.neighbours([key(i) for i in range(50)], 5, centre=True)
    found = features.neighbours([key(i) for i in range(50)], 5, centre=True, index=again)
    assert found.recall == made.recall
    assert exact.recall is None
    assert (found.rows == exact.rows).mean() > 0.9
    same = found.rows == exact.rows
    np.testing.assert_allclose(found.similarity[same], exact.similarity[same], atol=1e-5)


def test_an_index_of_other_rows_is_built_again_and_other_files_are_left(
    features, rows, tmp_path: Path
) -> None:
    pytest.importorskip("usearch")
    path = tmp_path / "rows.usearch"
    packed = pack_ids([key(i) for i in range(N)])
    SearchIndex.of(path, features, packed)
    assert SearchIndex.of(path, rows[:600], packed[:600]).built
    path.write_bytes(path.read_bytes()[:1000])  # torn
    assert SearchIndex.of(path, rows[:600], packed[:600]).built
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(StoreError, match="not a headstart index"):
        SearchIndex.of(notes, features, packed)
    assert notes.read_text() == "mine"
