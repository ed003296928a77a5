"""Averaged and copied models: torch's ``update_bn`` leaves what a contract keeps as it is."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import timm.utils
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from headstart.core.errors import FreezeError
from headstart.freezing import (
    FreezeHandle,
    compare_digests,
    digests,
    freeze,
    reestimate,
)
from headstart.modules.kinds import is_running_norm
from tests.freezing.models import CONSTANT_NORMS, NORMS, TwoParts, batch

pytestmark = pytest.mark.filterwarnings("ignore:a freeze contract keeps")

COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "itself": lambda net: net,
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "AveragedModel": AveragedModel,
    "AveragedModel-EMA": lambda net: AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    "AveragedModel-buffers": lambda net: AveragedModel(net, use_buffers=True),
    "of a copy": lambda net: AveragedModel(copy.deepcopy(net)),
    "timm-EMA": lambda net: timm.utils.ModelEmaV2(net),
    "timm-EMA-3": lambda net: timm.utils.ModelEmaV3(net),
}
LAYERS = {**NORMS, **CONSTANT_NORMS}


def trained(net: nn.Module) -> nn.Module:
    """A network whose norms have seen data."""
    net.train()
    for step in range(3):
        net(batch(step)[0])
    return net


def batches(count: int = 3) -> list[Tensor]:
    return [batch(seed)[0] for seed in range(10, 10 + count)]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("copied", COPIES)
def test_update_bn_leaves_held_norms_and_measures_the_others(copied: str, layer: str) -> None:
    net = trained(TwoParts(LAYERS[layer]))
    freeze(net, {"encoder": "frozen", "decoder": "trainable"})
    average = COPIES[copied](net)
    inner = FreezeHandle.of(average).model
    held, free = digests(inner.encoder), digests(inner.decoder)
    update_bn(batches(), average)
    assert compare_digests(held, digests(inner.encoder)) == ()
    moved = set(compare_digests(free, digests(inner.decoder)))
    assert moved == {"1.running_mean", "1.running_var"}  # three passes before, and three now
    assert inner.decoder[1].num_batches_tracked == 3
    FreezeHandle.of(average).verify()
    FreezeHandle.of(net).verify()


@pytest.mark.parametrize("copied", COPIES)
def test_a_reset_by_hand_is_not_carried_out_and_says_so(copied: str) -> None:
    net = trained(TwoParts(NORMS["BatchNorm2d"]))
    freeze(net, {"encoder": "frozen", "decoder": "trainable"})
    average = COPIES[copied](net)
    before = digests(FreezeHandle.of(average).model.encoder)
    for module in average.modules():
        if is_running_norm(module):
            if module.num_features == 4:  # of the encoder
                with pytest.warns(UserWarning, match="keeps the running statistics"):
                    module.reset_running_stats()
            else:
                module.reset_running_stats()
    assert digests(FreezeHandle.of(average).model.encoder) == before
    with pytest.raises(FreezeError, match=r"frozen.*FreezeHandle\.of\(model\)\.release\(\)"):
        reestimate(average, batches(), layers=["*encoder.1"])


@pytest.mark.parametrize("copied", COPIES)
def test_a_released_copy_is_measured_anew_and_the_original_stays(copied: str) -> None:
    net = trained(TwoParts(NORMS["BatchNorm2d"]))
    freeze(net, {"encoder": "frozen", "decoder": "trainable"})
    original = digests(net)
    average = COPIES[copied](net)
    handle = FreezeHandle.of(average)
    handle.release()
    plain = copy.deepcopy(average)
    update_bn(batches(), average)
    changed = compare_digests(original, digests(handle.model))
    assert {"encoder.1.running_mean", "encoder.1.running_var"} <= set(changed)
    if copied != "itself":
        FreezeHandle.of(net).verify()
        assert digests(net) == original
        reestimate(plain, batches())


def test_accuracy_of_an_averaged_model_survives_update_bn() -> None:
    torch.manual_seed(0)
    centres = 4 * torch.randn(3, 8)
    labels = torch.arange(300) % 3
    items = centres[labels] + torch.randn(300, 8) + 20
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(items), labels).backward()
        optimizer.step()

    def accuracy(model: nn.Module) -> float:
        model.eval()
        return float((model(items).argmax(1) == labels).float().mean())

    before = accuracy(net)
    assert before > 0.95
    freeze(net, {"": "frozen", "3": "trainable"})
    average = AveragedModel(net)
    average.update_parameters(net)
    update_bn(items.split(50), average)
    assert accuracy(average) == before


def test_norms_that_a_policy_lets_move_are_reset_as_ever() -> None:
    net = trained(TwoParts(NORMS["BatchNorm2d"]))
    freeze(net, {"encoder": "norm-only", "decoder": "trainable"})
    net.encoder[1].reset_running_stats()
    assert net.encoder[1].running_mean.abs().sum() == 0
