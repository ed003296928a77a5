"""One pass over several devices: the rows of one, in order, whatever each of them does.

Most tests run copies on the CPU, several times the same device: all but the copying to a device and
back is what several GPUs do. Those that need GPUs are skipped without them.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.backbones import Backbone, features_of, load_backbone
from headstart.cache import FeatureCache
from headstart.core.errors import BackboneError, ConfigError, HeadstartError
from headstart.data import Preprocessing, Split, load_items
from headstart.extraction import Engine, Extraction, Extractor, extract
from headstart.extraction.engines import table
from headstart.modules.digests import digest

SIZE = 16
INPUTS = Preprocessing(size=(SIZE, SIZE), mean=(0.5,) * 3, std=(0.25,) * 3)
MANY = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")

Before = Callable[["Net", torch.Tensor], None]


class Net(nn.Module):
    """A small network that does something before each of its passes, and knows its copies."""

    def __init__(self, before: Before = lambda *_: None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.before = [before]
        self.copies: list[Net] = [self]  # shared by all of them

    def __deepcopy__(self, memo: dict[int, Any]) -> Net:
        twin = Net(self.before[0])
        twin.load_state_dict(copy.deepcopy(self.state_dict(), memo))
        twin.train(self.training)
        twin.copies = self.copies
        twin.copies.append(twin)
        return twin

    def __headstart_identity__(self) -> str:  # what it does before a pass is no part of it
        return "a network of these tests"

    @property
    def is_first(self) -> bool:
        """Whether it is the user's own."""
        return self.copies[0] is self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.before[0](self, x)
        return self.layers(x).mean((2, 3))


def backbone_of(net: nn.Module) -> Backbone:
    return load_backbone(net, inputs=INPUTS)


def split_of(count: int) -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return load_items((pixels, np.zeros(count, int)))


def settings(device: str, **more: Any) -> Extraction:
    return Extraction(**{"batch_size": 16, "device": device, "engine": "eager", **more})


@contextlib.contextmanager
def as_it_is(cuts: Sequence[Backbone], precision: str, device: torch.device) -> Iterator[Any]:
    yield lambda inputs: features_of(cuts, inputs)


@pytest.fixture(autouse=True)
def _plain_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter an engine that makes no copy of its own: the only copies are those for devices."""
    plain = Engine("plain", "as it is", as_it_is)
    monkeypatch.setattr(table, "_ENGINES", {**table._ENGINES, "plain": plain})


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    def own() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("headstart-")]

    before = own()
    yield
    assert own() == before


# -- the same rows --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.parametrize("devices", ["cpu,cpu", "cpu, cpu, cpu"])
def test_rows_of_several_devices_are_those_of_one_bit_by_bit(devices: str, engine: str) -> None:
    split = split_of(150)
    expected = extract(backbone_of(Net()), split, settings=settings("cpu", engine=engine))
    found = extract(backbone_of(Net()), split, settings=settings(devices, engine=engine))
    assert np.array_equal(found.indices, expected.indices)
    assert np.array_equal(found.features[0], expected.features[0])


def test_rows_come_in_order_where_one_device_is_slower() -> None:
    used: dict[int, int] = {}

    def slow_copy(net: Net, x: torch.Tensor) -> None:
        used[id(net)] = used.get(id(net), 0) + 1
        if not net.is_first:
            time.sleep(0.05)

    split, net = split_of(320), Net(slow_copy)
    order = np.random.default_rng(1).permutation(320)
    with Extractor([backbone_of(net)], settings("cpu,cpu", engine="plain")) as extractor:
        parts = list(extractor.rows(split, order))
    assert np.array_equal(np.concatenate([part.indices for part in parts]), order)
    rows = np.concatenate([part.features[0] for part in parts])
    given = settings("cpu", engine="plain")
    expected = extract(backbone_of(Net()), split, settings=given).features[0]
    assert np.array_equal(rows, expected[order])
    assert len(used) > 1  # both have worked
    assert extractor.done == 320


def test_several_layers_come_from_one_pass_on_every_device() -> None:
    split, backbone = split_of(100), backbone_of(Net())
    cuts = [backbone.at(layer) for layer in ("layers.0", None)]
    one = extract(cuts, split, settings=settings("cpu"))
    two = extract(cuts, split, settings=settings("cpu,cpu"))
    for left, right in zip(one.features, two.features, strict=True):
        assert np.array_equal(left, right)


@pytest.mark.parametrize("training", [True, False])
def test_the_users_module_stays_as_it_is(training: bool) -> None:
    net = Net().train(training)
    before = digest(net)
    extract(backbone_of(net), split_of(100), settings=settings("cpu,cpu"))
    assert digest(net) == before
    assert all(part.training == training for part in net.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_the_cache_cannot_tell_how_many_devices_there_were(tmp_path: Path) -> None:
    split, backbone = split_of(130), backbone_of(Net())
    plain = FeatureCache(tmp_path / "one").features(backbone, split, settings=settings("cpu"))
    shared = FeatureCache(tmp_path / "two").features(backbone, split, settings=settings("cpu,cpu"))
    assert np.array_equal(shared.rows, plain.rows)
    again = FeatureCache(tmp_path / "two").features(backbone, split, settings=settings("cpu"))
    assert (again.use.hits, again.use.misses) == (130, 0)


def test_an_extractor_of_several_devices_serves_several_splits() -> None:
    net = Net()
    with Extractor([backbone_of(net)], settings("cpu,cpu", engine="plain")) as extractor:
        for count in (40, 100, 1):
            parts = list(extractor.rows(split_of(count)))
            assert sum(len(part.indices) for part in parts) == count
    assert len(net.copies) == 2  # not one for each split


# -- what goes wrong ------------------------------------------------------------------------------


def test_unreadable_items_in_the_middle_cost_no_other(tmp_path: Path) -> None:
    for i in range(60):
        Image.new("RGB", (20, 20), (i, 2 * i, 3 * i)).save(tmp_path / f"{i:02}.png")
    (tmp_path / "17.png").write_bytes(b"not an image")
    (tmp_path / "44.png").write_bytes((tmp_path / "44.png").read_bytes()[:40])
    split = load_items(tmp_path)
    given = {"on_bad": "skip"}
    one = extract(backbone_of(Net()), split, settings=settings("cpu", batch_size=8), **given)
    two = extract(backbone_of(Net()), split, settings=settings("cpu,cpu", batch_size=8), **given)
    assert len(two.indices) == 58
    assert np.array_equal(one.indices, two.indices)
    assert np.array_equal(one.features[0], two.features[0])


def test_a_device_that_fails_is_named_and_what_came_before_is_kept(tmp_path: Path) -> None:
    passes = []

    def fails(net: Net, x: torch.Tensor) -> None:
        if net.is_first:
            time.sleep(0.02)
            return
        passes.append(len(x))
        if len(passes) > 3:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    split, cache = split_of(400), FeatureCache(tmp_path)
    with pytest.raises(HeadstartError) as caught:
        cache.features(backbone_of(Net(fails)), split, settings=settings("cpu,cpu", engine="plain"))
    said = str(caught.value)
    assert "cpu (2) failed: CUDA error: an illegal memory access was encountered;" in said
    assert "device='cpu'" in said
    assert "\n" not in said
    given = settings("cpu", engine="plain")
    rest = cache.features(backbone_of(Net()), split, settings=given)
    assert rest.use.hits > 0
    plain = extract(backbone_of(Net()), split, settings=given).features[0]
    assert np.array_equal(rest.rows, plain)


def test_an_error_of_the_network_is_raised_as_it_is() -> None:
    def fails(net: Net, x: torch.Tensor) -> None:
        if not net.is_first:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        extract(
            backbone_of(Net(fails)), split_of(100), settings=settings("cpu,cpu", engine="plain")
        )


def test_a_device_without_room_halves_its_own_batches() -> None:
    sizes: dict[bool, set[int]] = {True: set(), False: set()}

    def small(net: Net, x: torch.Tensor) -> None:
        if not net.is_first and len(x) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        sizes[net.is_first].add(len(x))
        time.sleep(0.01)

    split = split_of(400)
    with Extractor([backbone_of(Net(small))], settings("cpu,cpu", engine="plain")) as extractor:
        parts = list(extractor.rows(split))
    rows = np.concatenate([part.features[0] for part in parts])
    expected = extract(backbone_of(Net()), split, settings=settings("cpu")).features[0]
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    (note,) = [note for note in extractor.notes if "at a time" in note]
    assert note.startswith("cpu (2) cannot hold 16 images at a time")
    assert max(sizes[True]) == 16
    assert max(sizes[False]) == 8


def test_a_device_that_computes_other_features_is_refused() -> None:
    def wrong(net: Net, x: torch.Tensor) -> None:
        if not net.is_first:
            with torch.no_grad():
                net.layers[0].weight.mul_(1.5)  # type: ignore[operator]

    with pytest.raises(BackboneError, match=r"cpu \(2\) gives different features from cpu \(1\)"):
        extract(
            backbone_of(Net(wrong)), split_of(100), settings=settings("cpu,cpu", engine="plain")
        )


class Uncopied(Net):
    """A network that holds what cannot be copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Net:
        raise TypeError("cannot pickle '_thread.lock' object")


def test_a_network_that_cannot_be_copied_says_so() -> None:
    with pytest.raises(BackboneError, match=r"cannot be copied to cpu \(2\) \(TypeError\)"):
        extract(backbone_of(Uncopied()), split_of(100), settings=settings("cpu,cpu"))


def test_an_early_end_leaves_nothing_behind() -> None:
    with Extractor([backbone_of(Net())], settings("cpu,cpu")) as extractor:
        rows = extractor.rows(split_of(500))
        next(rows)
        next(rows)
        rows.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [200, 800])
def test_batches_in_memory_are_bounded_whatever_their_number(count: int) -> None:
    alive, most, lock = [0], [0], threading.Lock()

    def slow(net: Net, x: torch.Tensor) -> None:
        time.sleep(0.002)

    class Watched(Preprocessing):
        """Counts the batches that are joined and not computed yet."""

        def collate(self, samples: Any) -> Any:
            with lock:
                alive[0] += 1
                most[0] = max(most[0], alive[0])
            return super().collate(samples)

    watched = Watched(**INPUTS.values())
    backbone = load_backbone(Net(slow), inputs=watched)
    with Extractor([backbone], settings("cpu,cpu", batch_size=8)) as extractor:
        for _ in extractor.rows(split_of(count)):
            with lock:
                alive[0] -= 1
    # Two wait in the feed and one is being joined; one on each device, one more behind them, and
    # the one that is handed out.
    assert most[0] <= 3 + 2 + 2


# -- which devices --------------------------------------------------------------------------------


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.extraction import settings as module

    monkeypatch.setattr(module, "_usable", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)

    def names(device: str) -> list[str]:
        return [str(each) for each in Extraction(device=device).resolve_devices()]

    assert names("cuda:all") == ["cuda:0", "cuda:1", "cuda:2"]
    assert names("cuda:0,cuda:2") == ["cuda:0", "cuda:2"]
    assert names("cuda") == ["cuda"]
    assert names("mps") == ["mps"]
    assert str(Extraction(device="cuda:1,cuda:0").resolve_device()) == "cuda:1"
    with pytest.raises(ConfigError, match="device names cuda:1 twice"):
        names("cuda:1,cuda:1")


@pytest.mark.parametrize("device", ["quark", "cpu,quark", "cpu,,cpu", ","])
def test_a_device_that_is_none_is_named(device: str) -> None:
    with pytest.raises(
        ConfigError, match=r"device '(quark|)' cannot be used: torch does not know it"
    ):
        Extraction(device=device).resolve_devices()


@pytest.mark.parametrize("device", ["cuda", "cuda:all", "cuda:0,cuda:1", "mps", "cpu,mps"])
def test_a_device_that_is_not_there_is_refused_in_one_line(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(module, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"torch finds no (CUDA|MPS) device here") as caught:
        Extraction(device=device).resolve_devices()
    assert len(str(caught.value)) < 120


# -- GPUs -----------------------------------------------------------------------------------------


@MANY
def test_rows_of_two_gpus_are_those_of_one() -> None:
    split, net = split_of(500), Net()
    one = extract(backbone_of(net), split, settings=settings("cuda:0"))
    two = extract(backbone_of(net), split, settings=settings("cuda:all"))
    assert np.array_equal(one.features[0], two.features[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_of_a_gpu_and_a_cpu_together_are_equal_to_rounding() -> None:
    split = split_of(200)
    both = extract(backbone_of(Net()), split, settings=settings("cuda,cpu"))
    plain = extract(backbone_of(Net()), split, settings=settings("cpu"))
    np.testing.assert_allclose(both.features[0], plain.features[0], atol=1e-3)
