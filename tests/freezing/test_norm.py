"""Statistics: exact re-estimation, merging, blending, drift."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from headstart.core.errors import FreezeError
from headstart.freezing import Moments, blend, digests, drift, freeze, reestimate
from headstart.freezing.drifts import LayerDrift
from tests.freezing.models import NORMS, TwoParts


class Branched(nn.Module):
    """Norms after each other, side by side, and after a shortcut, as in a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.left = nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1)
        )
        self.after = nn.BatchNorm2d(4)
        self.shortcut = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Dropout())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.after(self.left(x)) + self.shortcut(x))


def model(seed: int = 0) -> Branched:
    torch.manual_seed(seed)
    return Branched().double()


def data(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shift = torch.tensor([5.0, -3.0, 0.5]).view(1, 3, 1, 1)
    images = torch.randn(count, 3, 6, 6, generator=generator) * 4 + shift
    return images.double()


def giant_batch(net: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What torch does with all items in one batch: normalisers of every layer, and the output."""
    net = copy.deepcopy(net).train()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    output = net(images)
    statistics = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            positions = {"stem": 16, "left": 16, "after": 16, "shortcut": 16, "head": 1}
            n = len(images) * positions[name.split(".")[0]]
            statistics[f"{name}.running_mean"] = module.running_mean
            # What normalises is the biased variance; torch stores the unbiased one.
            statistics[f"{name}.running_var"] = module.running_var * (n - 1) / n
    return statistics, output


@st.composite
def partitions(draw: st.DrawFn) -> tuple[int, list[int]]:
    count = draw(st.integers(2, 24))
    cuts = draw(st.sets(st.integers(1, count - 1), max_size=6))
    return count, sorted(cuts)


@settings(max_examples=25, deadline=None)
@given(partitions(), st.booleans(), st.integers(0, 3))
def test_layerwise_equals_one_giant_batch(
    partition: tuple[int, list[int]], in_memory: bool, seed: int
) -> None:
    count, cuts = partition
    images = data(count, seed)
    net = model(seed)
    expected, output = giant_batch(net, images)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    result = reestimate(
        net, [images[i] for i in np.split(order.numpy(), cuts)], in_memory=in_memory
    )
    assert result.passes == (1 if in_memory else 5)
    state = net.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(net.eval()(images), output, rtol=1e-6, atol=1e-9)


def test_one_pass_is_exact_for_the_first_layer_and_measures_the_others_as_they_run() -> None:
    images = data(12)
    net = model()
    expected, _ = giant_batch(net, images)
    inputs = {}
    probe = copy.deepcopy(net).eval()
    probe.after.register_forward_pre_hook(lambda _, args: inputs.update(after=args[0]))
    probe(images)
    result = reestimate(net, images.split(5), method="one_pass")
    assert result.passes == 1
    torch.testing.assert_close(net.stem[1].running_mean, expected["stem.1.running_mean"])
    mean = inputs["after"].mean((0, 2, 3))
    torch.testing.assert_close(net.after.running_mean, mean)
    assert not torch.allclose(net.after.running_mean, expected["after.running_mean"])


def test_nothing_else_is_touched() -> None:
    net = model().train()
    net.left.eval()
    modes = [module.training for module in net.modules()]
    before = digests(net)
    random_state = torch.get_rng_state()
    threads = threading.active_count()
    reestimate(net, data(8).split(3))
    after = digests(net)
    moved = {name for name in before if before[name] != after[name]}
    assert moved == {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert threading.active_count() == threads
    assert not any(module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_failure_leaves_the_statistics_as_they_were(in_memory: bool) -> None:
    net = model()
    before = digests(net)
    threads = threading.active_count()
    with pytest.raises(RuntimeError, match="shapes"):
        reestimate(net, [data(4), torch.zeros(4, 3, 7, 7).double()], in_memory=in_memory)
    assert digests(net) == before
    assert threading.active_count() == threads
    assert not any(module._forward_pre_hooks for module in net.modules())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.floats(-1e6, 1e6))
def test_moments_merge_like_the_whole(sizes: list[int], offset: float) -> None:
    generator = torch.Generator().manual_seed(sum(sizes))
    x = torch.randn(sum(sizes), 3, 2, generator=generator).double() + offset
    merged = Moments(0, torch.zeros(3).double(), torch.zeros(3).double())
    for part in x.split(sizes):
        merged = merged.merge(Moments.of(part))
    whole = Moments.of(x)
    assert merged.count == whole.count == 2 * sum(sizes)
    torch.testing.assert_close(merged.mean, x.mean((0, 2)), rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(merged.variance, whole.variance, rtol=1e-8, atol=1e-9)


def test_blend_is_linear_and_exact_at_its_ends() -> None:
    net = model()
    before = copy.deepcopy(net.state_dict())
    result = reestimate(net, data(8).split(4))
    after = copy.deepcopy(net.state_dict())
    blend(net, result, 0.25)
    expected = 0.75 * before["after.running_var"] + 0.25 * after["after.running_var"]
    torch.testing.assert_close(net.after.running_var, expected)
    blend(net, result, 0.0)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    blend(net, result, 1.0)
    assert all(torch.equal(v, after[k]) for k, v in net.state_dict().items())
    with pytest.raises(FreezeError, match="from 0 to 1"):
        blend(net, result, 1.5)
    with pytest.raises(FreezeError, match="no layers"):
        blend(nn.Linear(2, 2), result, 0.5)


def test_drift_is_zero_at_home_and_names_the_channel_that_moved() -> None:
    net = model()
    images = data(16)
    reestimate(net, images.split(4))
    at_home = drift(net, images.split(5))
    assert [item.name for item in at_home] == ["stem.1", "left.1", "after", "shortcut.1", "head.2"]
    assert max(item.symmetric_kl for item in at_home) < 1e-12
    before = digests(net)
    net.stem[0].bias.data[2] += 10
    moved = drift(net, images.split(5))[0]
    assert digests(net).keys() == before.keys()
    running = net.stem[1].running_var[2] + net.stem[1].eps
    assert moved.worst[0][0] == 2
    # Equal variances: symmetric KL is the squared shift over the variance.
    assert moved.worst[0][1] == pytest.approx(float(100 / running), rel=1e-6)
    assert moved.symmetric_kl == pytest.approx(float(100 / running) / 4, rel=1e-6)
    assert moved.mean_shift == pytest.approx(float(10 / running.sqrt()) / 4, rel=1e-6)
    assert moved.variance_ratio == pytest.approx(1.0)
    assert str(moved).startswith("stem.1: symmetric KL")
    assert isinstance(moved, LayerDrift)


@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm3d", "SyncBatchNorm", "UserNorm"])
def test_every_batch_norm_is_covered(name: str) -> None:
    net = TwoParts(NORMS[name])
    images = data(9).float()
    result = reestimate(net, images.split(4))
    encoder = result.layers[0]
    x = net.encoder[0](images)
    torch.testing.assert_close(encoder.mean, x.double().mean((0, 2, 3)), rtol=1e-5, atol=1e-5)


def test_instance_norms_are_left_alone_and_named() -> None:
    net = TwoParts(NORMS["InstanceNorm2d"])
    before = net.encoder[1].running_mean.clone()
    result = reestimate(net, data(6).float().split(3))
    assert result.skipped == ("encoder.1",)
    assert torch.equal(net.encoder[1].running_mean, before)


class TestRefusals:
    def test_nothing_to_do(self) -> None:
        with pytest.raises(FreezeError, match="no batch norm"):
            reestimate(nn.Sequential(nn.LayerNorm(3)), [torch.randn(2, 3)])
        with pytest.raises(FreezeError, match="no batches"):
            reestimate(model(), [])
        with pytest.raises(FreezeError, match="did you mean 'after'"):
            reestimate(model(), [data(2)], layers=["aftr"])
        with pytest.raises(FreezeError, match="expected 'layerwise'"):
            reestimate(model(), [data(2)], method="both")

    def test_layers_used_twice(self) -> None:
        norm = nn.BatchNorm1d(3)
        net = nn.Sequential(norm, nn.ReLU(), norm)
        with pytest.raises(FreezeError, match="run more than once"):
            reestimate(net, [torch.randn(4, 3)])
        assert reestimate(net, [torch.randn(4, 3)], method="one_pass").layers[0].count == 8

    def test_frozen_statistics(self) -> None:
        net = model()
        handle = freeze(net, "frozen")
        with pytest.raises(FreezeError, match="are frozen; release"):
            reestimate(net, [data(4)])
        handle.release()
        reestimate(net, [data(4)])
        freeze(net, "frozen-reestimated").verify()
        net.eval()(data(3))
        handle.release()
        net.train()(data(4))
        with pytest.raises(FreezeError, match="were not re-estimated"):
            freeze(net, "frozen-reestimated")

    def test_generators_are_kept_in_memory(self) -> None:
        images = data(8)
        net, other = model(), model()
        reestimate(net, (part for part in images.split(3)), memory_limit=0)
        reestimate(other, images.split(3))
        assert digests(net) == digests(other)
