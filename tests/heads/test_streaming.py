"""Features on disk: the same heads as from an array, and never the whole matrix in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from headstart.core.errors import HeadError
from headstart.heads import (
    StreamedFeatures,
    choose_linear,
    fit_lda,
    fit_logistic,
    fit_logistic_path,
    fit_logistic_paths,
    fit_mlp,
    fit_neighbours,
    fit_prototype,
    fit_ridge,
    load_head,
    sweep,
)
from headstart.heads.features import as_rows
from headstart.store import Store

Fit = Callable[[object, np.ndarray], np.ndarray]

FITS: dict[str, Fit] = {
    "logistic": lambda x, y: fit_logistic(x, y, 10)[0].predict_proba(x),
    "ridge": lambda x, y: fit_ridge(x, y, 10).head.predict_proba(x),
    "lda": lambda x, y: fit_lda(x, y, 10)[0].predict_proba(x),
    "prototype": lambda x, y: fit_prototype(x, y, 10).predict_proba(x),
    "mlp": lambda x, y: fit_mlp(x, y, 10, hidden=(16,), epochs=2).head.predict_proba(x),
    "neighbours": lambda x, y: fit_neighbours(x, y, 10, k=5).predict_proba(x),
    "neighbours, euclidean": lambda x, y: fit_neighbours(
        x, y, 10, k=5, metric="euclidean"
    ).predict_proba(x),
}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x[:600].astype(np.float32), y[:600].astype(np.int64)


@pytest.fixture(params=["mapped file", "shards of a store"])
def on_disk(
    request: pytest.FixtureRequest,
    digits: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> object:
    """The rows on disk, of which 70 are read at a time, and 16 multiplied."""
    x = digits[0]
    monkeypatch.setattr("headstart.heads.logistic.path.block_rows", lambda *_: 16)
    monkeypatch.setattr("headstart.heads.source._BLOCK_BYTES", 70 * 64 * 4)
    if request.param == "mapped file":
        np.save(tmp_path / "x.npy", x)
        return np.load(tmp_path / "x.npy", mmap_mode="r")
    space = Store(tmp_path).space({"kind": "test"})
    ids = [f"{i:032x}" for i in range(len(x))]
    for part in np.array_split(np.random.default_rng(0).permutation(len(x)), 3):
        space.append([ids[i] for i in part], {"features": x[part]})
    return space.read(ids)


@pytest.mark.parametrize("fit", list(FITS))
def test_heads_equal_those_of_an_array(
    fit: str, on_disk: object, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = digits
    streamed = FITS[fit](StreamedFeatures(on_disk), y)
    np.testing.assert_allclose(streamed, FITS[fit](x, y), atol=1e-6)


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_path_equals_that_of_an_array(
    precision: str, on_disk: object, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    # Neither the order of the passes nor the blocks are the same, hence only nearly equal.
    x, y = digits
    folds = np.random.default_rng(0).permutation(len(y)) % 3
    options = {"grid": [1e-3, 1e-2, 1e-1], "precision": precision, "drop_hopeless": False}
    expected = fit_logistic_path(x, y, 10, folds, **options)
    found = fit_logistic_path(StreamedFeatures(on_disk), y, 10, folds, **options)
    assert (found.gradient <= found.tolerance).all()
    np.testing.assert_allclose(found.log_loss, expected.log_loss, rtol=2e-3)
    np.testing.assert_allclose(found.accuracy, expected.accuracy, atol=0.006)
    np.testing.assert_allclose(found.held_out_decision(1), expected.held_out_decision(1), atol=0.03)


def test_bfloat16_without_room_for_its_copy(
    on_disk: object, digits: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, y = digits
    folds = np.arange(len(y)) % 3
    options = {"grid": [1e-2], "precision": "bfloat16"}
    packed = fit_logistic_path(StreamedFeatures(on_disk), y, 10, folds, **options)
    monkeypatch.setattr("headstart.heads.source._SHARE", 0.0)
    read = fit_logistic_path(StreamedFeatures(on_disk), y, 10, folds, **options)
    np.testing.assert_allclose(read.log_loss, packed.log_loss, rtol=1e-6)


def test_more_features_than_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 300)), np.arange(60) % 3
    np.save(tmp_path / "x.npy", x)
    streamed = StreamedFeatures(np.load(tmp_path / "x.npy", mmap_mode="r"))
    folds = rng.permutation(60) % 3
    options = {"grid": [1e-2, 1.0], "drop_hopeless": False, "tolerance": 1e-6}
    np.testing.assert_allclose(
        fit_logistic_path(streamed, y, 3, folds, **options).log_loss,
        fit_logistic_path(x, y, 3, folds, **options).log_loss,
        rtol=1e-3,
    )
    np.testing.assert_allclose(
        fit_ridge(streamed, y, 3).head.weight, fit_ridge(x, y, 3).head.weight, rtol=1e-9
    )


def test_what_fits_is_read_and_what_does_not_is_streamed(
    on_disk: object, digits: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits
    assert isinstance(as_rows(on_disk), np.ndarray)
    monkeypatch.setattr("headstart.heads.features.memory_share", lambda: x.nbytes)
    assert isinstance(as_rows(on_disk), np.ndarray)
    assert isinstance(as_rows(on_disk, together=2), StreamedFeatures)
    assert isinstance(as_rows(x, together=2), np.ndarray)
    monkeypatch.setattr("headstart.heads.features.memory_share", lambda: x.nbytes - 1)
    streamed = as_rows(on_disk)
    assert isinstance(streamed, StreamedFeatures)
    rows = np.array([5, 2, 599])
    np.testing.assert_array_equal(streamed[rows], x[rows])
    np.testing.assert_array_equal(streamed.take(np.arange(10, 20))[3:5], x[13:15])
    np.testing.assert_array_equal(np.asarray(streamed), x)
    chosen = choose_linear(on_disk, y, 10, grid=[1e-2, 1e-1])
    assert any("read from disk in blocks" in note for note in chosen.notes)
    plain = choose_linear(x, y, 10, grid=[1e-2, 1e-1])
    assert chosen.chosen == plain.chosen
    np.testing.assert_allclose(chosen.head.weight, plain.head.weight, atol=1e-5)
    assert not any("disk" in note for note in plain.notes)


def test_sweep_streams(
    on_disk: object, digits: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits
    options = {"grid": [1e-2, 1e-1], "folds": 3, "standardise": (True, False)}
    expected = sweep({"a": x}, y, 10, **options)
    monkeypatch.setattr("headstart.heads.source._SHARE", 0.0)
    found = sweep({"a": on_disk}, y, 10, **options)
    scores = {(c.head, tuple(c.options.items())): c.accuracy.value for c in found.candidates}
    for c in expected.candidates:
        assert scores[c.head, tuple(c.options.items())] == pytest.approx(c.accuracy.value, abs=4e-3)
    assert any("read from disk" in note for note in found.notes)


def test_streamed_neighbours_are_saved_whole(
    on_disk: object, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    x, y = digits
    fit_neighbours(StreamedFeatures(on_disk), y, 10).save(tmp_path / "head")
    expected = fit_neighbours(x, y, 10).predict_proba(x[:50])
    np.testing.assert_allclose(load_head(tmp_path / "head").predict_proba(x[:50]), expected)


def test_bad_rows_on_disk_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((500, 4), dtype=np.float16)
    x[123, 1], x[407, 0] = np.nan, np.inf
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr("headstart.heads.source._BLOCK_BYTES", 1024)
    message = r"NaN or infinity in 2 of 500 rows \(row 123, 407\)"
    with pytest.raises(HeadError, match=message):
        fit_lda(StreamedFeatures(mapped), np.arange(500) % 2, 2)
    with pytest.raises(HeadError, match=message):
        fit_lda(mapped, np.arange(500) % 2, 2)
    with pytest.raises(HeadError, match="numeric type"):
        as_rows(StreamedFeatures(np.array([["a"]])))
    with pytest.raises(HeadError, match="shape"):
        as_rows(np.load(tmp_path / "x.npy", mmap_mode="r")[0])


def test_both_standardisations_together_equal_each_alone(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    x, y = digits
    folds = np.arange(len(y)) % 3
    options = {"grid": [1e-4, 1e-3, 1e-2], "tolerance": 1e-5, "drop_hopeless": False}
    for scaled, path in zip(
        (True, False), fit_logistic_paths(x, y, 10, folds, **options), strict=True
    ):
        alone = fit_logistic_path(x, y, 10, folds, standardise=scaled, **options)
        np.testing.assert_allclose(path.log_loss, alone.log_loss, rtol=1e-3)
        np.testing.assert_allclose(path.start(1), alone.start(1), atol=1e-3)
        # A model of the curvature in the wrong scale would show here.
        assert path.passes.sum() < 1.2 * alone.passes.sum()


_BOUNDED = """
import resource, sys
import numpy as np, torch
from headstart.heads import fit_lda, fit_prototype, fit_ridge, source
from headstart.heads import choose_linear

torch.set_num_threads(1)
x = np.load(sys.argv[1], mmap_mode="r")
y = (np.arange(len(x)) * 7) % 3
fit_ridge(np.random.default_rng(0).normal(size=(50, 8)), y[:50], 3)  # what libraries load late
source._SHARE, source._BLOCK_BYTES = 0.0, 4 << 20
status = open("/proc/self/status").read()
data = next(int(line.split()[1]) * 1024 for line in status.splitlines() if "VmData" in line)
limit = data + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones(x.shape, x.dtype)
except MemoryError:
    print("the whole does not fit")
chosen = choose_linear(x, y, 3, folds=2, grid=[1e-4, 1e-3])
assert any("read from disk" in note for note in chosen.notes)
heads = [chosen.head, fit_ridge(x, y, 3).head, fit_lda(x, y, 3)[0], fit_prototype(x, y, 3)]
print([round(float((head.predict(x) == y).mean()), 2) for head in heads])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits private memory as Linux does")
def test_memory_is_bounded_by_blocks(tmp_path: Path) -> None:
    """123 MB of features, with 100 MB allowed for all that is not the mapped file."""
    n, d = 120_000, 256
    rng = np.random.default_rng(0)
    centres = 0.2 * rng.normal(size=(3, d)).astype(np.float32)
    file = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(n, d))
    for start in range(0, n, 20_000):
        labels = (np.arange(start, start + 20_000) * 7) % 3
        file[start : start + 20_000] = centres[labels] + rng.normal(size=(20_000, d))
    file.flush()
    del file
    done = subprocess.run(
        [sys.executable, "-c", _BOUNDED, str(tmp_path / "x.npy"), str(100 << 20)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said, accuracies = done.stdout.splitlines()
    assert said == "the whole does not fit"
    assert min(eval(accuracies)) > 0.9


@pytest.mark.parametrize(
    "rows", [[0, 0, 2], [4, 4, 4], [2, 0, 1], [3, 1, 2, 0], [5], [], [0, 1, 2], [-1]], ids=str
)
def test_rows_at_any_indices(rows: list[int], on_disk: object) -> None:
    streamed = StreamedFeatures(on_disk)
    expected = np.asarray(streamed)[np.array(rows, dtype=np.int64)]
    wanted = np.array(rows, dtype=np.int64)
    if -1 not in rows or isinstance(on_disk, np.ndarray):  # a store knows no rows from the end
        np.testing.assert_array_equal(streamed[wanted], expected)
        np.testing.assert_array_equal(np.asarray(streamed.take(wanted)), expected)
    below = streamed.take(np.arange(10, 40, 2))
    expected = np.asarray(streamed)[np.arange(10, 40, 2)[wanted]]
    np.testing.assert_array_equal(below.take(wanted)[0 : len(rows)], expected)
    np.testing.assert_array_equal(below[wanted], expected)


def test_a_reversed_file_is_read(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0].astype(np.float64), digits[1]
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r+")[::-1]
    expected = fit_logistic(x[::-1].copy(), y[::-1], 10)[0].predict_proba(x)
    for given in (mapped, StreamedFeatures(mapped)):
        found = fit_logistic(given, y[::-1], 10)[0].predict_proba(x)
        np.testing.assert_allclose(found, expected, atol=1e-6)
