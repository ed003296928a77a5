"""What differs from device to device, with devices that are not here played by stand-ins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from headstart.core import devices
from headstart.core.arguments import Arguments
from headstart.extraction import Extraction
from headstart.extraction.engines.folding import _fold
from headstart.extraction.machine import describe_machine, half_types
from headstart.extraction.precision import autocast, row_errors
from headstart.freezing.moments import Moments
from headstart.prefix import checking, comparing

MPS = torch.device("mps")


class OnMps(torch.Tensor):
    """A tensor of the CPU that says it is on MPS, and like one there has no float64."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return MPS

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        found = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(found, cls) and found.dtype in (torch.float64, torch.complex128):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return found


def on_mps(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_subclass(OnMps)


def test_the_stand_in_has_no_float64() -> None:
    with pytest.raises(TypeError, match="MPS"):
        on_mps(torch.ones(2)).double()
    assert on_mps(torch.ones(2)).device.type == "mps"


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.complex64])
def test_doubling_where_there_is_no_float64(kind: torch.dtype) -> None:
    values = torch.randn(5).to(kind)
    wide = devices.doubled(on_mps(values))
    assert wide.device.type == "cpu"
    assert torch.equal(wide, devices.doubled(values))
    assert wide.dtype in (torch.float64, torch.complex128)
    assert devices.widest_float(MPS) == torch.float32
    assert devices.widest_float(torch.device("cpu")) == torch.float64


def test_measurements_of_tensors_on_mps_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    one, two = torch.randn(4, 6, 3, 3), torch.randn(4, 6, 3, 3)
    assert torch.equal(row_errors(on_mps(one), on_mps(two)), row_errors(one, two))
    assert torch.equal(Moments.of(on_mps(one)).mean, Moments.of(one).mean)
    near = one + 1e-9 * two
    assert comparing._close(on_mps(one), on_mps(near), 1e-3)
    assert not comparing._close(on_mps(one), on_mps(two), 1e-3)
    assert checking._distance([on_mps(one)], [on_mps(two)]) == checking._distance([one], [two])


def test_folding_reads_weights_that_are_on_mps() -> None:
    def pair() -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        torch.manual_seed(0)
        conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        assert norm.running_var is not None
        norm.running_var.uniform_(0.5, 2)
        return conv, norm

    plain, norm = pair()
    _fold(plain, norm)
    found, norm = pair()
    for name in ("running_mean", "running_var"):
        setattr(norm, name, on_mps(norm.get_buffer(name)))
    _fold(found, norm)
    assert torch.equal(plain.weight, found.weight)
    assert plain.bias is not None
    assert found.bias is not None
    assert torch.equal(plain.bias, found.bias)


class Calls(list[str]):
    """Notes which functions were called."""

    def of(self, name: str) -> Any:
        return lambda *_: self.append(name)


def test_waiting_and_emptying_reach_the_right_device(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    for kind, module in (("mps", torch.mps), ("cuda", torch.cuda)):
        for name in ("synchronize", "empty_cache"):
            monkeypatch.setattr(module, name, calls.of(f"{kind}.{name}"))
    for device in (MPS, torch.device("cpu")):
        devices.synchronize(device)
        devices.empty_cache(device)
    devices.synchronize(torch.device("cuda:1"))
    assert calls == ["mps.synchronize", "mps.empty_cache", "cuda.synchronize"]


def test_randomness_of_mps_is_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = torch.Generator().manual_seed(3)
    monkeypatch.setattr(torch.mps, "_get_default_mps_generator", lambda: theirs)
    before = theirs.get_state(), torch.get_rng_state()
    with devices.kept_randomness((MPS, MPS), seed=7):
        first = torch.rand(3, generator=theirs), torch.rand(3)
    with devices.kept_randomness((MPS,), seed=7):
        second = torch.rand(3, generator=theirs), torch.rand(3)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(theirs.get_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_mps_is_accepted_wherever_a_device_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.commands.sweep import job
    from headstart.extraction import settings

    monkeypatch.setattr(settings, "_usable", torch.device)
    given = Extraction(device="mps")
    assert given.resolve_device() == MPS
    given.check_precision(MPS)
    assert half_types(MPS) == ()
    assert describe_machine(MPS)["type"] == "mps"
    with autocast("float32", MPS):
        pass
    for name, where in {
        "mps": "cpu",  # heads are not solved there
        "cuda:all": "cuda",
        "cuda:1,cuda:0": "cuda:1",
        "cpu, cpu": "cpu",
        "auto": "auto",
    }.items():
        assert job._head_device(name) == where


@pytest.mark.parametrize(
    ("error", "memory", "device"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True, True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 3 GB)"), True, True),
        (
            RuntimeError("[enforce fail] not enough memory: you tried to allocate 9 bytes"),
            True,
            True,
        ),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (RuntimeError("expected scalar type Float but found Half"), False, False),
    ],
)
def test_failures_of_devices_are_told_from_those_of_networks(
    error: RuntimeError, memory: bool, device: bool
) -> None:
    assert devices.is_out_of_memory(error) == memory
    assert devices.is_of_device(error) == device


def test_an_array_of_arguments_stays_where_it_is() -> None:
    batch = Arguments((torch.ones(2, 3),))
    assert batch.to(torch.device("cpu")).args[0] is batch.args[0]


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs MPS")
def test_rows_on_mps_are_those_of_the_cpu_to_rounding() -> None:
    import numpy as np

    from headstart import extract, load_backbone
    from headstart.data import load_items

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    backbone = load_backbone(net, mean=0.5, std=0.5, size=16, layer="2")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    split = load_items((pixels, np.zeros(40, int)))
    there = extract(backbone, split, settings=Extraction(device="mps")).features[0]
    net.to("cpu")
    here = extract(backbone, split, settings=Extraction(device="cpu")).features[0]
    np.testing.assert_allclose(there, here, atol=1e-4)
