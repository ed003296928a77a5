"""Digests see bits, shapes and dtypes; changes are measured."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from headstart.core.errors import FreezeError
from headstart.modules.digests import (
    SAMPLE_SIZE,
    change,
    compare_digests,
    digest,
    digests,
    record,
)

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_digest_depends_on_content_shape_and_dtype_only(dtype: torch.dtype) -> None:
    tensor = torch.arange(24).reshape(4, 6).to(dtype)
    assert digest(tensor) == digest(tensor.clone())
    assert digest(tensor.t().contiguous().t()) == digest(tensor)
    assert digest(tensor.reshape(6, 4)) != digest(tensor)
    other = tensor.clone()
    other[3, 5] = 0
    assert digest(other) != digest(tensor)
    assert len({digest(tensor.real.to(d)) for d in DTYPES}) == len(DTYPES)


def test_digest_sees_the_sign_of_zero_and_takes_odd_shapes() -> None:
    assert digest(torch.tensor(0.0)) != digest(torch.tensor(-0.0))
    assert digest(torch.empty(0, 3)) != digest(torch.empty(3, 0))
    assert len(digest(torch.tensor(1.0))) == 32
    conjugate = torch.tensor([1 + 2j, 3 - 1j]).conj()
    assert digest(conjugate) == digest(conjugate.resolve_conj())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(0, 31))
def test_one_flipped_bit_is_seen(position: int, bit: int) -> None:
    tensor = torch.linspace(-1, 1, 10_000)
    before = digest(tensor)
    flipped = tensor.view(torch.int32).clone()
    flipped[position] ^= (1 << bit) if bit < 31 else -(2**31)
    assert digest(flipped.view(torch.float32)) != before


def test_module_digests_name_all_tensors_and_follow_ties() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    model.register_buffer("scratch", torch.ones(2), persistent=False)
    before, whole = digests(model), digest(model)
    assert set(before) == {*model.state_dict(), "scratch"}
    assert before["0.weight"] == before["2.weight"]
    model(torch.randn(4, 3))
    moved = compare_digests(before, digests(model))
    assert moved == ("1.num_batches_tracked", "1.running_mean", "1.running_var")
    assert digest(model) != whole


def test_what_cannot_be_read_is_refused_by_name() -> None:
    with pytest.raises(FreezeError, match=r"'0\.weight'"):
        digests(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(FreezeError, match="no bytes"):
        digest(torch.empty(3, device="meta"))
    with pytest.raises(FreezeError, match="no bytes"):
        digest(torch.eye(3).to_sparse())


def test_change_says_how_far() -> None:
    tensor = torch.tensor([3.0, 4.0])
    known = record(tensor)
    assert change("w", tensor, known) is None
    moved = change("w", torch.tensor([3.0, 4.5]), known)
    assert moved is not None
    assert (moved.largest, moved.relative, moved.compared) == (0.5, 0.1, 2)
    assert str(moved) == "w (largest change 0.5, 10.00%)"
    reshaped = change("w", torch.zeros(3), known)
    assert "expected (2,) float32, found (3,) float32" in str(reshaped)


def test_large_tensors_are_sampled_and_still_seen() -> None:
    tensor = torch.zeros(3 * SAMPLE_SIZE)
    known = record(tensor)
    assert known.sample is not None
    assert known.sample.numel() == SAMPLE_SIZE
    between = tensor.clone()
    between[1] = 1.0
    assert "outside the 4,096 sampled values" in str(change("w", between, known))
    assert change("w", tensor + 2, known).largest == 2.0
