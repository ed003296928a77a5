"""Every norm and every source of chance × every way of training × both directions.

Frozen stays: parameters, buffers and modes of a frozen encoder are what they were, and its output
in training is that of evaluation. Trainable trains: of an encoder that came in evaluation mode,
as ``from_pretrained`` returns it, parameters and statistics move and every layer is in training.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import swa_utils

from headstart.freezing import FreezeHandle, compare_digests, digests, freeze
from headstart.modules.kinds import is_constant_norm, running_buffers
from tests.freezing.models import CHANCES, CONSTANT_NORMS, NORMS, TwoParts, batch

LAYERS = {**NORMS, **CONSTANT_NORMS, **CHANCES}
FROZEN = {"encoder": "frozen", "decoder": "trainable"}
TRAINABLE = {"encoder": "trainable", "decoder": "trainable"}

Loop = Callable[[nn.Module], nn.Module]


def steps(net: nn.Module, call: Callable[[Tensor], Tensor] | None = None, count: int = 2) -> None:
    """A plain loop that calls ``train`` and ``eval`` as trainers do."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.1)
    for step in range(count):
        net.train()
        images, labels = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy((call or net)(images), labels).backward()
        optimizer.step()
        net.eval()
        with torch.no_grad():
            net(images)
    net.train()


def plain(net: nn.Module) -> nn.Module:
    steps(net)
    return net


def applied(net: nn.Module) -> nn.Module:
    net.apply(lambda module: module.train())
    steps(net)
    net.apply(lambda module: module.train())
    return net


def deep_copied(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net)
    steps(net)
    return net


def pickled(net: nn.Module) -> nn.Module:
    net = pickle.loads(pickle.dumps(net))
    steps(net)
    return net


def saved_whole(net: nn.Module) -> nn.Module:
    stream = io.BytesIO()
    torch.save(net, stream)
    stream.seek(0)
    net = torch.load(stream, weights_only=False)
    steps(net)
    return net


def resumed(net: nn.Module) -> nn.Module:
    steps(net, count=1)
    stream = io.BytesIO()
    torch.save(net.state_dict(), stream)
    stream.seek(0)
    net.load_state_dict(torch.load(stream, weights_only=True))
    steps(net, count=1)
    return net


def functional(net: nn.Module) -> nn.Module:
    def call(images: Tensor) -> Tensor:
        tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        return torch.func.functional_call(net, tensors, (images,))

    steps(net, call)
    return net


def averaged(net: nn.Module) -> nn.Module:
    copies = swa_utils.AveragedModel(net)
    for _ in range(2):
        steps(net, count=1)
        copies.update_parameters(net)
    FreezeHandle.of(copies).verify()
    steps(copies.module, count=1)
    return net


LOOPS: dict[str, Loop] = {
    f.__name__: f
    for f in (
        plain, applied, deep_copied, pickled, saved_whole, resumed, functional, averaged,
    )
}  # fmt: skip


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("layer", LAYERS)
def test_frozen_stays(layer: str, loop: str) -> None:
    torch.manual_seed(0)
    net = TwoParts(LAYERS[layer]).train()
    freeze(net, FROZEN)
    before, decoder = digests(net.encoder), digests(net.decoder)
    images, _ = batch(7)
    expected = net.eval().encoder(images)
    net.train()
    trained = LOOPS[loop](net)
    assert compare_digests(before, digests(trained.encoder)) == ()
    assert not any(module.training for module in trained.encoder.modules())
    assert torch.equal(trained.encoder(images), expected)
    FreezeHandle.of(trained).verify()
    assert len(compare_digests(decoder, digests(trained.decoder))) == len(decoder)
    assert all(module.training for module in trained.decoder.modules())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("layer", LAYERS)
def test_trainable_trains(layer: str, loop: str) -> None:
    torch.manual_seed(0)
    net = TwoParts(LAYERS[layer]).train()
    net.encoder.eval()
    freeze(net, TRAINABLE)
    before = digests(net.encoder)
    trained = LOOPS[loop](net)
    expected_to_move(net.encoder, before, digests(trained.encoder))
    assert all(module.training for module in trained.modules())
    if layer in CHANCES:
        images, _ = batch(7)
        assert not torch.equal(trained.encoder(images), trained.encoder(images))


def expected_to_move(encoder: nn.Module, before: dict[str, str], after: dict[str, str]) -> None:
    """Every parameter moves, and every running statistic that is not constant."""
    moved = compare_digests(before, after)
    wanted = {name for name, _ in encoder.named_parameters()}
    for name, module in encoder.named_modules():
        if not is_constant_norm(module):
            wanted |= {f"{name}.{key}" for key in running_buffers(module)}
    # torch's instance norm registers a counter that it never counts.
    wanted -= {
        f"{name}.num_batches_tracked"
        for name, module in encoder.named_modules()
        if isinstance(module, nn.InstanceNorm2d)
    }
    assert set(moved) == wanted
