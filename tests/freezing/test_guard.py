"""The guard stops at the first step that leaks, and says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import swa_utils
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from headstart.core.errors import FreezeError
from headstart.freezing import freeze, guard
from tests.freezing.models import TwoParts, batch


def frozen_model() -> TwoParts:
    net = TwoParts(lambda: nn.BatchNorm2d(4)).train()
    freeze(net, {"encoder": "frozen", "decoder": "trainable"})
    return net


def loop(
    net: nn.Module,
    sabotage: Callable[[int], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    steps: int = 3,
) -> None:
    optimizer = optimizer or torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(steps):
        net.train()
        if sabotage is not None:
            sabotage(step)
        images, labels = batch(step)
        optimizer.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()


def test_a_sound_loop_passes_and_is_counted() -> None:
    net = frozen_model()
    with guard(net) as report:
        loop(net)
    assert (report.steps, report.checks, report.idle) == (3, 3, ())
    assert not _global_optimizer_post_hooks
    assert not _global_optimizer_pre_hooks


def test_direct_mode_is_caught_at_its_step_with_the_cause() -> None:
    net = frozen_model()

    def sabotage(step: int) -> None:
        net.encoder[1].training = step == 1

    expected = r"before step 2.*running_mean.*batch-norm update"
    with pytest.raises(FreezeError, match=expected), guard(net):
        loop(net, sabotage)
    assert not _global_optimizer_post_hooks


def test_direct_mode_of_dropout_is_caught_though_nothing_moves() -> None:
    net = TwoParts(lambda: nn.Dropout(0.5)).train()
    freeze(net, {"encoder": "frozen"})
    net.encoder[1].training = True
    expected = r"at step 1, 'encoder\.1' is in training mode"
    with pytest.raises(FreezeError, match=expected), guard(net):
        loop_without_train(net)


def loop_without_train(net: nn.Module) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    images, labels = batch()
    nn.functional.cross_entropy(net(images), labels).backward()
    optimizer.step()


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimizer_is_named_with_its_group(fused: bool) -> None:
    net = frozen_model()
    weight = net.encoder[0].weight

    def sabotage(step: int) -> None:
        weight.grad = torch.zeros_like(weight) if step == 1 else None

    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1, fused=fused)
    with pytest.raises(FreezeError) as caught, guard(net):
        loop(net, sabotage, optimizer)
    message = str(caught.value)
    assert message.startswith("at step 2, a frozen tensor had moved: encoder.0.weight")
    assert "the optimizer AdamW stepped it" in message
    assert "weight_decay=0.1" in message


def test_gradients_switched_on_are_named() -> None:
    net = frozen_model()
    with pytest.raises(FreezeError, match=r"requires_grad"), guard(net):
        loop(net, lambda step: net.requires_grad_(True))


def test_direct_assignment_is_named() -> None:
    net = frozen_model()

    def in_place(step: int) -> None:
        net.encoder[0].weight.data.add_(1e-7 if step == 2 else 0)

    with pytest.raises(FreezeError, match=r"at step 3.*direct assignment"), guard(net):
        loop(net, in_place, torch.optim.SGD(net.decoder.parameters(), lr=0.1))

    net = frozen_model()
    with pytest.raises(FreezeError, match="replaced by another tensor"), guard(net):
        net.encoder[0].bias = nn.Parameter(torch.ones(4), requires_grad=False)


def test_trainable_parts_in_evaluation_mode_are_the_other_direction() -> None:
    net = frozen_model()
    net.eval()
    expected = r"'decoder' is in evaluation mode.*; call model\.train"
    with pytest.raises(FreezeError, match=expected), guard(net):
        loop_without_train(net)


def test_what_never_trains_is_listed() -> None:
    net = frozen_model()
    with guard(net, every=2) as report:
        loop(net, optimizer=torch.optim.SGD(net.decoder[3].parameters(), lr=0.1))
    assert report.idle == ("decoder.1.weight", "decoder.1.bias")
    assert report.checks == 1


def test_ema_copies() -> None:
    net = frozen_model()
    exact = swa_utils.AveragedModel(net, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with guard(exact):
        for _ in range(4):
            loop(net, optimizer=optimizer, steps=1)
            exact.update_parameters(net)
    rounding = swa_utils.AveragedModel(net, avg_fn=swa_utils.get_ema_avg_fn(0.9))
    with pytest.raises(FreezeError, match="EMA copy"), guard(rounding):
        for _ in range(8):
            rounding.update_parameters(net)


def test_needs_a_contract_that_holds() -> None:
    with pytest.raises(FreezeError, match="no contract"), guard(nn.Linear(2, 2)):
        pass
    net = frozen_model()
    net.encoder[1].running_var.add_(1)
    with pytest.raises(FreezeError, match="before the first guarded step"), guard(net):
        pass
    with pytest.raises(FreezeError, match="at least 1"), guard(net, every=0):
        pass
