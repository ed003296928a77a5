"""Training the suffix on stored rows equals ordinary frozen fine-tuning, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.freezing import FreezeHandle
from headstart.prefix import Cut, find_cut
from tests.prefix.models import FAMILIES, images, made, same_state, stored, twin

SIZE, STEPS = 4, 3


def trained(
    model: nn.Module, run: Callable[[int], Tensor], steps: int = STEPS
) -> list[tuple[float, float]]:
    """Train under the contract of the model, and validate in between; return the losses."""
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9
    )
    losses = []
    labels = torch.arange(SIZE) % 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for step in range(steps):
            model.train()
            optimizer.zero_grad()
            loss = F.cross_entropy(run(step), labels)
            loss.backward()
            optimizer.step()
            model.eval()
            with torch.no_grad():
                validation = F.cross_entropy(run(0), labels)
            losses.append((float(loss.detach()), float(validation)))
    return losses


@pytest.mark.parametrize("name", FAMILIES)
def test_curves_and_final_weights_are_bit_identical(name: str) -> None:
    family = FAMILIES[name]
    ordinary = made(family)
    cached = twin(ordinary)
    batches = [images(SIZE, family.size, seed) for seed in range(STEPS)]

    cut = find_cut(cached, batches[0], FreezeHandle.of(cached), measure=False)
    assert isinstance(cut, Cut), cut
    assert cut.check.exact, cut.check
    assert len(cut.boundary) == family.boundary
    cached.eval()
    rows = [stored(cut, batch) for batch in batches]

    expected = trained(ordinary, lambda step: ordinary(batches[step]))
    found = trained(cached, lambda step: cut.suffix(*rows[step]))
    assert found == expected
    assert same_state(ordinary, cached)
    assert not same_state(cached, made(family)), "nothing was trained"


def test_the_trainer_may_hold_the_suffix_alone() -> None:
    """``suffix.train()`` and ``suffix.parameters()`` do what those of the model do."""
    family = FAMILIES["mobilenetv1"]
    ordinary, cached = made(family), made(family)
    batch = images(SIZE, family.size)
    cut = find_cut(cached, batch, FreezeHandle.of(cached))
    assert isinstance(cut, Cut), cut
    rows = cut.prefix(batch)
    expected = trained(ordinary, lambda _: ordinary(batch))
    found = trained(cut.suffix, lambda _: cut.suffix(*rows))
    assert found == expected
    assert same_state(ordinary, cached)


def test_an_optimizer_made_before_the_cut_stays_valid() -> None:
    family = FAMILIES["resnet18"]
    model = made(family)
    trains = {id(p) for p in model.parameters() if p.requires_grad}
    cut = find_cut(model, images(2, family.size), FreezeHandle.of(model))
    assert isinstance(cut, Cut), cut
    assert {id(p) for p in cut.suffix.parameters()} == trains
    names = dict(model.named_parameters())
    assert all(names[name] is p for name, p in cut.suffix.named_parameters())
    assert all(names[name] is p for name, p in cut.prefix.named_parameters())
    buffers: dict[str, Any] = dict(model.named_buffers())
    assert all(buffers[name] is b for name, b in cut.suffix.named_buffers())
    assert not {id(p) for p in cut.prefix.parameters()} & trains


def test_half_precision_rows_are_taken_up_by_the_suffix() -> None:
    family = FAMILIES["resnet18"]
    model = made(family)
    batch = images(SIZE, family.size)
    handle = FreezeHandle.of(model)
    model.eval()
    expected = model(batch)
    errors = []
    for dtype, unit in (("float16", 2**-11), ("bfloat16", 2**-8)):
        cut = find_cut(model, batch, handle, dtype=dtype)  # type: ignore[arg-type]
        assert isinstance(cut, Cut), cut
        rows = stored(cut, batch)
        assert rows[0].dtype == getattr(torch, dtype)
        assert cut.bytes_per_item == rows[0][0].numel() * 2
        error = cut.rounding[0]
        assert error is not None
        assert error.fits
        assert 0 < error.rms_error < unit
        found = cut.suffix(*rows)
        assert torch.equal(found, cut.suffix(*(row.float() for row in rows)))
        errors.append(float((found - expected).detach().abs().max()))
    assert 0 < errors[0] < errors[1]
