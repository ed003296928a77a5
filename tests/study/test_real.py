"""A real ImageNet backbone on photographs: the pattern of the published figures."""

from __future__ import annotations

import pytest

from headstart.backbones import load_backbone
from headstart.data import load_data
from headstart.extraction import Extraction
from headstart.study import CompareConfig, run_study

pytestmark = [pytest.mark.real, pytest.mark.slow]


def mobilenet(shared_data, size, **preprocessing):
    return load_backbone(
        "timm/mobilenetv1_100",
        weights=shared_data / "weights" / "mobilenetv1_imagenet.safetensors",
        model_args={"pad_type": "same", "bn_eps": 1e-3},
        layer="blocks.4.0",
        size=size,
        **{"mean": 0.5, "std": 0.5, **preprocessing},
    )


def compared(shared_data, cache, backbone, names, data="hymenoptera", **settings):
    return run_study(
        load_data(shared_data / data),
        backbone,
        CompareConfig(configs=names, **{"repeats": 2, **settings}),
        extraction=Extraction(batch_size=32, device="cpu"),
        cache=cache,
    )


def test_ants_and_bees(shared_data, cache):
    names = "no_grad,inference_mode,class-ordered,unscaled,reestimated+unscaled"
    result = compared(shared_data, cache, mobilenet(shared_data, 96), names)
    accuracy = {outcome.name: outcome.accuracy.value for outcome in result.outcomes}
    right = accuracy["eval+inference_mode"]
    assert right > 0.8
    assert accuracy["class-ordered"] < right - 0.15
    assert accuracy["unscaled"] < right - 0.08
    assert accuracy["reestimated+unscaled"] > accuracy["unscaled"] + 0.08
    assert accuracy["no_grad"] == accuracy["inference_mode"]
    kinds = {finding.kind for finding in result.findings}
    assert {"inputs: fit", "class-ordered batches", "rows depend on the batch"} <= kinds
    assert result.recommendation.configuration == "eval+inference_mode"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"scale": 1.0, "mean": 0.0, "std": 1.0}, "inputs: unscaled"),
        ({"channels": "BGR"}, "inputs: channels"),
    ],
)
def test_faults_of_the_inputs(shared_data, cache, fault, kind):
    backbone = mobilenet(shared_data, 96, **fault)
    result = compared(shared_data, cache, backbone, "eval", repeats=1)
    finding = next(f for f in result.findings if f.kind == kind)
    assert "bn1" in finding.text
    mended = result.evidence.outcome("inputs mended").case.function.inputs
    # a wrong mean and deviation are planted in test_inputs, where they cost less time
    assert (mended.mean, mended.std, mended.channels) == ((0.5,) * 3, (0.5,) * 3, "RGB")
    assert result.recommendation.configuration == "inputs mended"


def test_tiny_images(shared_data, cache):
    backbone = mobilenet(shared_data, 128)
    names, limits = "eval", {"train_items": 200, "test_items": 100, "repeats": 1}
    result = compared(shared_data, cache, backbone, names, data="cifar10", **limits)
    finding = next(f for f in result.findings if f.kind == "tiny images")
    assert "your images are 32 px" in finding.text
    assert not any(f.kind in ("inputs: unscaled", "inputs: channels") for f in result.findings)
