"""Networks that are recorded rather than written: TorchScript, torch.fx, torch.export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from headstart.backbones import load_backbone
from headstart.core.errors import BackboneError
from headstart.data import Preprocessing, load_items
from headstart.extraction import extract

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PLAN = Preprocessing(size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))
TWO = torch.zeros(2, 3, 32, 32)


def network(*, maps: bool = False, stride: int = 2) -> nn.Module:
    torch.manual_seed(0)
    trunk = [nn.Conv2d(3, 8, 3, stride), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)]
    trunk.append(nn.Conv2d(8, 12, 3, 2))
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 6)]
    return nn.Sequential(*trunk, *([] if maps else pooled)).eval()


def exported(module: nn.Module, *, dynamic: bool = True) -> nn.Module:
    shapes = ({0: torch.export.Dim("items")},) if dynamic else None
    return torch.export.export(module, (TWO,), dynamic_shapes=shapes).module()


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.pool = inner, nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.inner(x)).flatten(1)


RECORDED = {
    "script": torch.jit.script,
    "trace": lambda module: torch.jit.trace(module, TWO),
    "frozen script": lambda module: torch.jit.freeze(torch.jit.script(module)),
    "fx": fx.symbolic_trace,
    "export": exported,
}
SLOW = [
    pytest.param(name, marks=pytest.mark.slow) if name == "export" else name for name in RECORDED
]


def split():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    return load_items((pixels, np.zeros(5, int)))


def rows(module: nn.Module, pooling: str | None = None) -> np.ndarray:
    return extract(load_backbone(module, inputs=PLAN, pooling=pooling), split()).features[0]


@pytest.mark.parametrize("how", SLOW)
def test_the_output_is_that_of_the_network(how):
    np.testing.assert_allclose(rows(RECORDED[how](network())), rows(network()), atol=1e-5)
    inside = Around(RECORDED[how](network(maps=True)))
    np.testing.assert_allclose(rows(inside), rows(Around(network(maps=True))), atol=1e-5)


@pytest.mark.parametrize("how", SLOW)
def test_its_code_and_weights_are_its_identity(how):
    def identity(module: nn.Module) -> dict:
        return load_backbone(RECORDED[how](module), inputs=PLAN).identity()

    before = identity(network())
    assert identity(network()) == before
    assert identity(network(stride=1)) != before
    other = network()
    with torch.no_grad():
        other[7].bias[0] += 1
    assert identity(other) != before


@pytest.mark.parametrize("how", ["script", "trace"])
def test_the_layers_of_torchscript_are_refused_for_what_they_are(how):
    with pytest.raises(BackboneError, match=r"layer '4' is TorchScript.*omit layer"):
        load_backbone(RECORDED[how](network()), inputs=PLAN, layer="4")
    with pytest.raises(BackboneError, match=r"layer 'inner' is TorchScript"):
        load_backbone(Around(RECORDED[how](network(maps=True))), inputs=PLAN, layer="inner")


def test_layers_of_a_network_around_torchscript_can_be_read():
    net = Around(torch.jit.script(network(maps=True)))
    backbone = load_backbone(net, inputs=PLAN, layer="pool")
    assert backbone.feature_shape() == (12,)
    assert [layer.name for layer in backbone.layers] == ["pool"]


@pytest.mark.slow
def test_exported_programs_are_refused_in_one_line():
    with pytest.raises(BackboneError, match=r"two items but not on five.*dynamic_shapes"):
        load_backbone(exported(network(), dynamic=False), inputs=PLAN)
    with pytest.raises(BackboneError, match=r"no layers to read: omit layer"):
        load_backbone(exported(network()), inputs=PLAN, layer="4")
    with pytest.raises(BackboneError, match=r"not a ExportedProgram.*pass program.module\(\)"):
        load_backbone(torch.export.export(network(), (TWO,)), inputs=PLAN)


@pytest.mark.slow
def test_a_factory_may_return_an_exported_program(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        "from tests.backbones.test_recorded import *\n"
        "def make():\n"
        "    return exported(network()), PLAN\n"
    )
    assert load_backbone(f"{file}:make").feature_shape() == (6,)
