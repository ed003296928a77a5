"""Policies: presets, contradictions, and what a cache may ask of them."""

from __future__ import annotations

import json
import pickle

import pytest

from headstart.core.errors import FreezeError
from headstart.freezing.policy import PRESETS, FreezePolicy, as_policy, preset_name


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"norm": "running", "norm_updates": True}, "normalise by the batch"),
        ({"norm": "reestimated", "norm_updates": True}, "moving average"),
        ({"parameters": "trainable", "autograd": "no_grad"}, "never receive a gradient"),
        ({"affine": "trainable", "autograd": "inference"}, "never receive a gradient"),
        ({"norm": "runing"}, "'running', 'batch', 'reestimated'"),
        ({"norm_updates": 1.5}, "False, True"),
    ],
)
def test_contradictions_are_refused_with_the_reason(axes: dict, message: str) -> None:
    with pytest.raises(FreezeError, match=message):
        FreezePolicy(**axes)


def test_faults_are_reported_together() -> None:
    with pytest.raises(FreezeError) as caught:
        FreezePolicy(parameters="no", stochastic="maybe")
    assert "parameters is 'no'" in str(caught.value)
    assert "stochastic is 'maybe'" in str(caught.value)


def test_what_may_be_cached() -> None:
    assert FreezePolicy().cacheable
    assert PRESETS["features"].cacheable
    batch = FreezePolicy(norm="batch")
    assert not batch.batch_independent
    assert not batch.cacheable
    assert not FreezePolicy(stochastic="on").deterministic
    assert not PRESETS["trainable"].cacheable


def test_presets_have_names_and_one_line_each() -> None:
    for name, policy in PRESETS.items():
        assert as_policy(name) is policy
        assert preset_name(policy) == name
        assert str(policy).startswith(f"{name}: ")
        assert "\n" not in str(policy)
        assert json.loads(json.dumps(policy.describe())) == policy.describe()
        assert FreezePolicy(**policy.describe()) == policy
        assert pickle.loads(pickle.dumps(policy)) == policy
    assert preset_name(FreezePolicy(stochastic="on")) is None
    with pytest.raises(FreezeError, match="'frozen'"):
        as_policy("frozn")


def test_affine_follows_unless_said_otherwise() -> None:
    assert not FreezePolicy().affine_trainable
    assert FreezePolicy("trainable", "batch", True).affine_trainable
    assert not FreezePolicy("trainable", "running", affine="frozen").affine_trainable
    assert FreezePolicy(affine="trainable").trains
