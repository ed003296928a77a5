"""Kept results come back bit by bit, or not at all."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from headstart.core.errors import HeadstartError, StoreError
from headstart.store import Result, Results, Store, result_key

KEY, OTHER = "a" * 32, "b" * 32
ARRAYS = {
    "rows": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1],
    "empty": np.empty((0, 3), np.int64),
    "scalar": np.array(2.5),
    "mask": np.array([True, False]),
    "half": np.ones(3, np.float16),
}
VALUES = {"text": "ä", "list": [1, 2.5, None], "nested": {"b": 1, "a": True}}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Store(tmp_path / "store").results("heads")


def test_what_was_kept_comes_back(results: Results) -> None:
    assert results.get(KEY) is None
    assert not results.folder.exists()
    results.put(KEY, ARRAYS, {**VALUES, "nan": math.nan})
    found = Results(results.folder).get(KEY)
    assert found is not None
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array, strict=True)
    assert math.isnan(found.values["nan"])
    assert {k: v for k, v in found.values.items() if k != "nan"} == VALUES
    results.put(OTHER)
    assert (results.get(OTHER).arrays, results.get(OTHER).values) == ({}, {})


def test_any_safetensors_reader_opens_it(results: Results) -> None:
    results.put(KEY, ARRAYS, VALUES)
    (info,) = results
    rows = safetensors.numpy.load_file(info.path)["rows"]
    np.testing.assert_array_equal(rows, ARRAYS["rows"])


def test_every_damage_counts_as_absence(results: Results) -> None:
    results.put(KEY, {"rows": np.arange(40, dtype=np.float32)}, VALUES)
    (info,) = results
    good = info.path.read_bytes()
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 4
        info.path.write_bytes(bad)
        found = results.get(KEY)
        # A flipped bit in the white space that pads the header changes nothing.
        assert found is None or chr(good[place]) == " ", place
    for length in (0, 7, 100, len(good) - 1):
        info.path.write_bytes(good[:length])
        assert results.get(KEY) is None
    info.path.write_bytes(good)
    assert results.get(KEY) is not None


def test_an_edited_value_or_a_swapped_file_counts_as_absence(results: Results) -> None:
    results.put(KEY, values={"C": 1.25})
    (info,) = results
    content = info.path.read_bytes()
    assert b"1.25" in content
    info.path.write_bytes(content.replace(b"1.25", b"1.26"))
    assert results.get(KEY) is None
    info.path.with_name(f"{OTHER}.safetensors").write_bytes(content)
    assert results.get(OTHER) is None


def test_keys_are_no_paths(results: Results) -> None:
    for key in ("../up", "", "A" * 32, "a" * 31):
        with pytest.raises(StoreError, match="key of a result"):
            results.put(key)


def test_the_list_names_results_alone(results: Results) -> None:
    assert list(results) == []
    results.put(OTHER, ARRAYS)
    results.put(KEY)
    (results.folder / "notes.safetensors").touch()
    (results.folder / f"{'c' * 32}.safetensors").mkdir()
    assert [info.key for info in results] == [KEY, OTHER]
    assert all(info.nbytes == info.path.stat().st_size for info in results)
    results.remove(KEY)
    results.remove(KEY)
    assert [info.key for info in results] == [OTHER]


def test_the_store_lists_the_results_of_all_kinds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.kept() == []
    store.results("heads").put(OTHER)
    store.results("study").put(KEY)
    assert [(kind, info.key) for kind, info in store.kept()] == [("heads", OTHER), ("study", KEY)]
    assert store.spaces() == []


def test_reading_counts_as_a_use(results: Results) -> None:
    import os

    results.put(KEY)
    (info,) = results
    os.utime(info.path, (0, 0))
    assert next(iter(results)).last_used == 0
    results.get(KEY)
    assert next(iter(results)).last_used > 0


def test_a_result_is_computed_once(results: Results) -> None:
    made: list[int] = []

    def compute() -> int:
        made.append(1)
        return 7

    def ask() -> tuple[int, bool]:
        return results.once(
            KEY, compute, lambda n: Result(values={"n": n}), lambda r: int(r.values["n"])
        )

    assert [ask(), ask()] == [(7, False), (7, True)]
    results.put(KEY, values={"of": "another version"})
    assert [ask(), ask()] == [(7, False), (7, True)]
    assert len(made) == 2

    def refuse(_: Result) -> int:
        raise HeadstartError("not of this version")

    assert results.once(KEY, compute, lambda n: Result(), refuse) == (7, False)


def test_what_cannot_be_kept_is_returned_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where the folder should be")
    results = Store(tmp_path).results("heads")
    with pytest.raises(StoreError, match="cannot store a result"):
        results.put(KEY)
    assert results.once(KEY, lambda: 7, lambda n: Result(), lambda r: 0) == (7, False)


def test_several_writers_of_one_key_leave_a_sound_file(results: Results) -> None:
    rows = np.arange(100_000, dtype=np.float32)

    def work() -> None:
        for _ in range(5):
            results.put(KEY, {"rows": rows})
            found = results.get(KEY)
            assert found is not None
            np.testing.assert_array_equal(found.arrays["rows"], rows)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in results.folder.iterdir()] == [f"{KEY}.safetensors"]


def test_keys_tell_everything_apart() -> None:
    row = np.arange(3000)
    other = row.copy()
    other[1500] = 7  # where the text of an array has dots
    kinds = [row, other, row.astype(np.int32), row.reshape(2, -1), row.tolist(), "row", None]
    assert len({result_key({"rows": kind}) for kind in kinds}) == len(kinds)
    assert result_key({"a": 1, "b": np.float64(2)}) == result_key({"b": 2.0, "a": 1})
    with pytest.raises(TypeError, match="plain values and arrays"):
        result_key({"path": Path("x")})
