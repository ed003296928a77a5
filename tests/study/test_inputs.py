"""Planted faults of the inputs: each is named, and right inputs are left in peace."""

from __future__ import annotations

import dataclasses

import pytest

from headstart.study import CompareConfig
from headstart.study.input_findings import kind_of_fault
from headstart.study.inputs import check_inputs
from headstart.study.repetitions import divide

from .conftest import RIGHT, picture_data, planted

NORMS = ("norm1", "norm2", "norm3")


def check(preprocessing=RIGHT, *, side=32):
    data = divide(picture_data(side=side), CompareConfig(repeats=1))
    return check_inputs(planted(preprocessing), NORMS, data, 32)


def test_right_inputs():
    found = check()
    assert found.correction is None
    assert found.own_size is None
    assert found.given.early < 0.1
    assert len(found.trials) >= 10


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"scale": 1.0, "mean": 0.0, "std": 1.0}, "unscaled"),
        ({"scale": 1.0}, "unscaled"),
        ({"scale": 1 / 255**2}, "overscaled"),
        ({"mean": 0.0, "std": 1.0}, "normalisation"),
        ({"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}, "normalisation"),
        ({"channels": "BGR"}, "channels"),
    ],
)
def test_faults(fault, kind):
    found = check(dataclasses.replace(RIGHT, **fault))
    assert found.correction is not None
    assert kind_of_fault(found) == kind
    mended = found.correction.inputs
    assert mended.scale == pytest.approx(RIGHT.scale)
    assert dataclasses.replace(mended, scale=RIGHT.scale) == RIGHT
    assert found.correction.early < found.given.early / 1.6
    assert found.correction.first < found.given.first


def test_tiny_images():
    found = check(side=10)
    assert found.correction is None
    assert found.enlarged.factor == pytest.approx(3.2)
    # 32 px is the network's own size: there is nothing smaller to try
    assert found.own_size is None
    larger = check(dataclasses.replace(RIGHT, size=(96, 96)), side=32)
    assert larger.own_size is not None
    assert larger.own_size.inputs.size == (48, 48)
    assert larger.own_size.early < larger.given.early
