"""The pipeline: stages that overlap, bounded memory, faults in every stage, too little memory."""

from __future__ import annotations

import gc
import io
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.backbones import Backbone, load_backbone
from headstart.cache import FeatureCache
from headstart.core.arguments import Arguments
from headstart.core.errors import BadFilesError, DataError, StoreError
from headstart.data import Preprocessing, Split, load_items
from headstart.extraction import Extraction, Extractor, extract
from headstart.store import Space

FILLING = sys.modules["headstart.cache.fill"]
REPLICA = sys.modules["headstart.extraction.replica"]
SIZE = 16
INPUTS = Preprocessing(size=(SIZE, SIZE), mean=(0.5,) * 3, std=(0.25,) * 3)


class Net(nn.Module):
    """A small network that does something before each of its passes."""

    def __init__(self, before: Callable[[torch.Tensor], None] = lambda _: None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.before = [before]

    def __headstart_identity__(self) -> str:  # what it does before a pass is no part of it
        return "a network of these tests"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.before[0](x)
        return self.layers(x).mean((2, 3))


def backbone_of(net: Net) -> Backbone:
    return load_backbone(net, inputs=INPUTS)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def split_of(count: int) -> Split:
    return load_items((images(count), np.zeros(count, int)))


def own_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("headstart-")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = own_threads()
    yield
    assert own_threads() == before


# -- the same rows --------------------------------------------------------------------------------


def test_rows_are_bit_identical_whatever_the_workers_and_the_order() -> None:
    split, backbone = split_of(150), backbone_of(Net())
    expected = extract(backbone, split, settings=Extraction(batch_size=16)).features[0]
    for workers in (1, 3, 8):
        settings = Extraction(batch_size=16, workers=workers)
        assert np.array_equal(extract(backbone, split, settings=settings).features[0], expected)
    order = np.random.default_rng(1).permutation(150)
    shuffled = extract(backbone, split.take(order), settings=Extraction(batch_size=16))
    assert np.array_equal(shuffled.features[0], expected[order])


def test_rows_are_equal_to_rounding_whatever_the_batch_size() -> None:
    split, backbone = split_of(70), backbone_of(Net())
    expected = extract(backbone, split, settings=Extraction(batch_size=1)).features[0]
    for size in (2, 7, 64, 500):
        rows = extract(backbone, split, settings=Extraction(batch_size=size)).features[0]
        np.testing.assert_allclose(rows, expected, atol=1e-6)


@pytest.mark.parametrize("engine", ["eager", "openvino"])
@pytest.mark.parametrize(("fitting", "most"), [(10**9, 24), (8, 8), (7, 6), (5, 5), (0, 1)])
def test_a_pass_has_as_many_images_as_a_cpu_caches(
    monkeypatch: pytest.MonkeyPatch, engine: str, fitting: int, most: int
) -> None:
    """Passes are of one size, so that no engine needs a second program; rows are the same."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    sizes: list[int] = []
    backbone = backbone_of(Net(lambda x: sizes.append(len(x))))
    split = split_of(70)
    whole = extract(backbone, split, settings=Extraction(batch_size=24)).features[0]
    values = fitting * 3 * SIZE * SIZE // torch.get_num_threads()
    monkeypatch.setattr(REPLICA, "_FITTING", values + 1)
    sizes.clear()
    with Extractor([backbone], Extraction(batch_size=24, engine=engine)) as extractor:  # type: ignore[arg-type]
        rows = np.concatenate([part.features[0] for part in extractor.rows(split)])
        assert extractor.plan is not None
        assert extractor.plan.batch_size == most
    np.testing.assert_allclose(rows, whole, atol=1e-5)
    if engine == "eager":
        assert set(sizes[-3:]) == {most}  # the last is filled up


def test_normalising_leaves_the_processors_to_decoders_and_engines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Torch's other threads spin when they have nothing to do.
    seen: dict[str, set[int]] = {"finish": set(), "network": set()}
    finish = Preprocessing.finish

    def watched(self: Preprocessing, batch: Arguments) -> Arguments:
        if len(batch) == 8:  # not an example of the inputs
            seen["finish"].add(torch.get_num_threads())
        return finish(self, batch)

    net = Net(lambda _: seen["network"].add(torch.get_num_threads()))
    backbone, split = backbone_of(net), split_of(40)
    _ = backbone.layout
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Extractor([backbone], Extraction(batch_size=8, engine="eager")) as extractor:
            rows = extractor.rows(split)
            seen["network"].clear()
            monkeypatch.setattr(Preprocessing, "finish", watched)
            for _ in rows:
                assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {"finish": {1}, "network": {2}}


# -- bounded memory -------------------------------------------------------------------------------


class Counting:
    """Items of a user's own that are counted as long as their samples live."""

    def __init__(self, count: int) -> None:
        self.count, self.alive, self.most = count, 0, 0
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return images(1, i)[0], 0


def _counted(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Preprocessing.sample

    def gone() -> None:
        with counting.lock:
            counting.alive -= 1

    def counted(self: Preprocessing, *args: Any, **more: Any) -> Any:
        made = sample(self, *args, **more)
        with counting.lock:
            counting.alive += 1
            counting.most = max(counting.most, counting.alive)
        weakref.finalize(made, gone)
        return made

    monkeypatch.setattr(Preprocessing, "sample", counted)


@pytest.mark.parametrize("count", [200, 800])
def test_decoded_items_in_memory_are_bounded_whatever_their_number(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, running = Counting(count), threading.Event()
    _counted(counting, monkeypatch)
    split = load_items(counting)
    _ = split.ids

    def slowly(_: torch.Tensor) -> None:
        running.wait(0.01)  # the decoders are far ahead, if they can be

    rows = extract(backbone_of(Net(slowly)), split, settings=Extraction(batch_size=8, workers=2))
    assert len(rows.indices) == count
    # What is being decoded and waits for its batch: 2 batches, and 2 chunks of 16 a thread.
    # What is being joined and was handed on: 2 batches more.
    assert counting.most <= 8 * (2 + 2) + 16 * (2 * 2 + 2)
    gc.collect()
    assert counting.alive == 0


def test_an_early_end_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(400)
    _counted(counting, monkeypatch)
    split = load_items(counting)
    with Extractor([backbone_of(Net())], Extraction(batch_size=8)) as extractor:
        rows = extractor.rows(split)
        next(rows)
        rows.close()
    gc.collect()
    assert counting.alive == 0
    assert not own_threads()


def test_a_huge_image_among_small_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(
            tmp_path / f"{i:02}.png"
        )
    Image.new("RGB", (6000, 5000), (200, 30, 30)).save(tmp_path / "17.png")
    split = load_items(tmp_path)
    rows = extract(backbone_of(Net()), split, settings=Extraction(batch_size=8, workers=4))
    assert rows.indices.tolist() == list(range(40))
    alone = extract(backbone_of(Net()), split.take([17])).features[0]
    np.testing.assert_allclose(rows.features[0][17:18], alone, atol=1e-6)


# -- stages run at the same time ------------------------------------------------------------------


def test_a_slow_disk_does_not_stall_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, held = threading.Semaphore(0), threading.Event()
    append, overlapped = Space.append, []

    def slow(self: Space, *args: Any, **more: Any) -> int:
        if not held.is_set():  # the first commit takes until three more passes have ended
            held.set()
            while passes.acquire(blocking=False):
                pass
            overlapped.extend(passes.acquire(timeout=30) for _ in range(3))
        return append(self, *args, **more)

    monkeypatch.setattr(Space, "append", slow)
    monkeypatch.setattr(FILLING, "COMMIT_SECONDS", 0.0)
    net = Net(lambda _: passes.release())
    found = FeatureCache(tmp_path).features(
        backbone_of(net), split_of(400), settings=Extraction(batch_size=4)
    )
    assert found.use.misses == 400
    assert overlapped == [True] * 3


def test_rows_that_wait_for_a_slow_disk_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, sizes = Space.append, []

    def counted(self: Space, ids: Any, *args: Any, **more: Any) -> int:
        sizes.append(len(ids))
        threading.Event().wait(0.05)
        return append(self, ids, *args, **more)

    monkeypatch.setattr(Space, "append", counted)
    monkeypatch.setattr(FILLING, "COMMIT_BYTES", 10 * 8 * 4)  # ten rows
    found = FeatureCache(tmp_path).features(
        backbone_of(Net()), split_of(300), settings=Extraction(batch_size=5)
    )
    assert found.use.misses == 300
    assert sum(sizes) == 300
    assert max(sizes) <= 10 + 5


def test_what_is_spent_on_stages_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, pixels in enumerate(images(30)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    with Extractor([backbone_of(Net())], Extraction(batch_size=8)) as extractor:
        FeatureCache(tmp_path / "cache").features(extractor, load_items(folder))
        found = extractor.throughput()
    assert found.items == 30
    assert {"read", "decode", "resize", "model", "write", "waiting"} <= set(found.seconds)
    assert set(found.rates) == {"reading", "decoding", "model", "writing"}
    assert found.verdict("images").startswith(f"{found.binds}-bound: ")


# -- faults in every stage ------------------------------------------------------------------------


def stored(cache: FeatureCache, net: Net, split: Split) -> int:
    return len(split) - len(cache.space(backbone_of(net)).missing(split.ids))


def test_an_error_of_the_network_is_raised_and_what_came_before_is_kept(tmp_path: Path) -> None:
    passes: list[int] = []

    def fails(x: torch.Tensor) -> None:
        passes.append(len(x))
        if sum(n == 8 for n in passes) == 9:
            raise ValueError("the weights are cursed")

    net = Net()
    backbone, cache, split = backbone_of(net), FeatureCache(tmp_path), split_of(100)
    net.before[0] = fails
    with pytest.raises(ValueError, match="the weights are cursed"):
        cache.features(backbone, split, settings=Extraction(batch_size=8))
    net.before[0] = lambda _: None
    assert 0 < stored(cache, net, split) < 100
    again = cache.features(backbone, split, settings=Extraction(batch_size=8))
    assert again.use.hits + again.use.misses == 100
    assert 0 < again.use.misses < 100


@pytest.mark.parametrize("step", ["collate", "finish"])
def test_an_error_in_joining_a_batch_is_raised(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, split, calls = Net(), split_of(100), []
    backbone, work = backbone_of(net), getattr(Preprocessing, step)

    def fails(self: Preprocessing, given: Any) -> Arguments:
        if len(given) == 8:
            calls.append(step)
            if len(calls) == 4:
                raise ZeroDivisionError("no such batch")
        return work(self, given)

    monkeypatch.setattr(Preprocessing, step, fails)
    cache = FeatureCache(tmp_path)
    with pytest.raises(ZeroDivisionError, match="no such batch"):
        cache.features(backbone, split, settings=Extraction(batch_size=8))
    assert stored(cache, net, split) == 24


def test_an_error_of_the_disk_is_raised_and_what_was_committed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = Space.append, []

    def full(self: Space, *args: Any, **more: Any) -> int:
        calls.append(len(args[0]))
        if len(calls) > 2:
            raise StoreError("the disk is full")
        return append(self, *args, **more)

    monkeypatch.setattr(FILLING, "COMMIT_SECONDS", 0.0)
    net, split, cache = Net(), split_of(200), FeatureCache(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Space, "append", full)
        with pytest.raises(StoreError, match="the disk is full"):
            cache.features(backbone_of(net), split, settings=Extraction(batch_size=8))
    assert stored(cache, net, split) == sum(calls[:2])


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_keeps_every_row_that_was_computed(
    error: type[BaseException], tmp_path: Path
) -> None:
    passes: list[int] = []

    def interrupted(x: torch.Tensor) -> None:
        passes.append(len(x))
        if sum(n == 8 for n in passes) == 9:
            raise error

    net = Net()
    backbone, split, cache = backbone_of(net), split_of(100), FeatureCache(tmp_path)
    net.before[0] = interrupted
    with pytest.raises(error):
        cache.features(backbone, split, settings=Extraction(batch_size=8, engine="eager"))
    net.before[0] = lambda _: None
    done = stored(cache, net, split)
    assert done % 8 == 0
    assert 0 < done < 100


def test_one_bad_item_costs_no_other(tmp_path: Path) -> None:
    for i, pixels in enumerate(images(20)):
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    (tmp_path / "05.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    split = load_items(tmp_path)
    rows = extract(backbone_of(Net()), split, settings=Extraction(batch_size=4), on_bad="skip")
    assert rows.indices.tolist() == [i for i in range(20) if i != 5]


@pytest.mark.parametrize("on_bad", ["skip", "raise"])
def test_all_items_bad(tmp_path: Path, on_bad: Any) -> None:
    for i in range(30):
        (tmp_path / f"{i:02}.jpg").write_bytes(b"\xff\xd8 nothing")
    split = load_items(tmp_path)
    with pytest.raises(DataError if on_bad == "skip" else BadFilesError):
        extract(backbone_of(Net()), split, settings=Extraction(batch_size=4), on_bad=on_bad)


def test_no_items_at_all() -> None:
    with Extractor([backbone_of(Net())]) as extractor:
        assert list(extractor.rows(split_of(5), np.empty(0, np.int64))) == []
        assert extractor.throughput().verdict("images") in ("", "model-bound")


def test_items_of_ones_own_are_fetched_one_at_a_time() -> None:
    class Touchy(Counting):
        inside = 0

        def __getitem__(self, i: int) -> tuple[Image.Image, int]:
            self.inside += 1
            assert self.inside == 1, "two threads at once"
            threading.Event().wait(0.001)
            self.inside -= 1
            return Image.fromarray(images(1, i)[0]), 0

    rows = extract(backbone_of(Net()), load_items(Touchy(60)), settings=Extraction(workers=4))
    assert len(rows.indices) == 60


# -- too little memory ----------------------------------------------------------------------------


def _exhausted(most: int, error: Callable[[], Exception]) -> Callable[[torch.Tensor], None]:
    def before(x: torch.Tensor) -> None:
        if len(x) > most:
            raise error()

    return before


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        lambda: RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"),
    ],
    ids=["cuda", "mps", "cpu"],
)
def test_a_batch_that_the_memory_does_not_hold_is_halved(error: Callable[[], Exception]) -> None:
    split, net = split_of(100), Net()
    expected = extract(backbone_of(Net()), split).features[0]
    backbone = backbone_of(net)
    net.before[0] = _exhausted(10, error)
    with Extractor([backbone], Extraction(batch_size=64)) as extractor:
        parts = list(extractor.rows(split))
        notes = list(extractor.notes)
    assert [i for part in parts for i in part.indices.tolist()] == list(range(100))
    np.testing.assert_allclose(
        np.concatenate([part.features[0] for part in parts]), expected, atol=1e-6
    )
    assert any("batch_size=8" in note for note in notes), notes


def test_an_item_that_the_memory_does_not_hold_alone_is_an_error() -> None:
    net = Net()
    backbone = backbone_of(net)
    net.before[0] = _exhausted(0, lambda: torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        extract(backbone, split_of(20), settings=Extraction(batch_size=8))


def test_another_error_is_not_taken_for_too_little_memory() -> None:
    net = Net()
    backbone, calls = backbone_of(net), []

    def fails(x: torch.Tensor) -> None:
        calls.append(len(x))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    net.before[0] = fails
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        extract(backbone, split_of(20), settings=Extraction(batch_size=8))
    assert len(calls) == 1


def test_resizing_has_a_time_of_its_own() -> None:
    """The time of decoding excludes that of resizing, which it contains."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(buffer, "JPEG")
    from headstart.core.stages import Stages

    stages = Stages()
    with stages.collecting(), stages("decode"):
        INPUTS.sample(buffer.getvalue())
    assert list(stages.seconds()) == ["decode", "resize"]
