"""The contract of every family, and what load_backbone refuses."""

from __future__ import annotations

import re
from collections import namedtuple
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from headstart.backbones import Backbone, families, load_backbone
from headstart.backbones.family import Built, Family
from headstart.backbones.groups import block_groups
from headstart.commands.cli import app
from headstart.core.errors import BackboneError, ConfigError
from headstart.data import Preprocessing

COLOURS = {"mean": 0.5, "std": 0.5}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Complete checkpoints with random weights, as a user would have them on disk."""
    folder = tmp_path_factory.mktemp("weights")
    made = {}
    for name, module in {
        "timm/resnet10t": timm.create_model("resnet10t"),
        "timm/vit_tiny_patch16_224": timm.create_model("vit_tiny_patch16_224", img_size=64),
        "timm/convnext_atto": timm.create_model("convnext_atto"),
        "torchvision/squeezenet1_1": torchvision.models.squeezenet1_1(weights=None),
        "torchvision/resnet18": torchvision.models.resnet18(weights=None),
        "torchvision/mobilenet_v3_small": torchvision.models.mobilenet_v3_small(weights=None),
    }.items():
        path = folder / f"{name.replace('/', '-')}.safetensors"
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, path)
        made[name] = path
    return made


FAMILIES = [
    ("headstart/glyphs", {}, "stage2.0", 32),
    ("timm/resnet10t", {}, "layer3", 64),
    ("timm/vit_tiny_patch16_224", {"img_size": 64}, "blocks.5", 64),
    ("timm/convnext_atto", {}, "stages.1", 64),
    ("torchvision/resnet18", {}, "layer3", 64),
    ("torchvision/squeezenet1_1", {}, "features.7", 64),
    ("torchvision/mobilenet_v3_small", {}, "features.4", 64),
]


@pytest.mark.parametrize(("name", "args", "layer", "size"), FAMILIES, ids=[f[0] for f in FAMILIES])
class TestEveryFamily:
    def load(
        self, name: str, args: dict, size: int, checkpoints: dict[str, Path], **more: object
    ) -> Backbone:
        weights = checkpoints.get(name)
        if weights is None:
            return load_backbone(name, **more)
        return load_backbone(name, weights=weights, model_args=args, size=size, **COLOURS, **more)

    def test_gives_one_finite_row_an_item(self, name, args, layer, size, checkpoints):
        backbone = self.load(name, args, size, checkpoints)
        with torch.no_grad():
            rows = backbone.features(backbone.probe(3))
        assert rows.shape == (3, *backbone.feature_shape())
        assert rows.ndim == 2
        assert torch.isfinite(rows).all()
        assert not backbone.module.training

    def test_is_cut_at_a_layer(self, name, args, layer, size, checkpoints):
        whole = self.load(name, args, size, checkpoints)
        cut = whole.at(layer)
        assert layer in {entry.name for entry in whole.layers}
        assert cut.parameter_count() < whole.parameter_count()
        with torch.no_grad():
            rows = cut.features(whole.probe(2))
        assert rows.shape == (2, *cut.feature_shape())

    def test_names_blocks_that_exist(self, name, args, layer, size, checkpoints):
        backbone = self.load(name, args, size, checkpoints)
        modules = dict(backbone.module.named_modules())
        assert backbone.blocks
        assert set(backbone.blocks) <= set(modules)

    def test_is_described_the_same_twice(self, name, args, layer, size, checkpoints):
        one = self.load(name, args, size, checkpoints, layer=layer)
        two = self.load(name, args, size, checkpoints, layer=layer)
        assert one.identity() == two.identity()


def test_local_weights_ask_for_their_colours(checkpoints):
    with pytest.raises(
        BackboneError, match=r"do not state their mean, std.*give mean=VALUE, std=VALUE"
    ):
        load_backbone("timm/resnet10t", weights=checkpoints["timm/resnet10t"])


def test_local_weights_may_carry_their_preprocessing(tmp_path):
    module = timm.create_model("resnet10t")
    path = tmp_path / "w.safetensors"
    plan = '{"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "size": [48, 48], "scale": 1.0}'
    save_file(module.state_dict(), path, metadata={"headstart.preprocessing": plan})
    backbone = load_backbone("timm/resnet10t", weights=path)
    assert backbone.inputs.mean == (0.1, 0.2, 0.3)
    assert backbone.inputs.size == (48, 48)
    overridden = load_backbone("timm/resnet10t", weights=path, size=64)
    assert overridden.inputs.size == (64, 64)
    assert overridden.inputs.scale == 1.0


def test_damaged_preprocessing_metadata_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(
        timm.create_model("resnet10t").state_dict(),
        path,
        metadata={"headstart.preprocessing": '{"mean": "os.system"}'},
    )
    with pytest.raises(BackboneError, match="is not a preprocessing"):
        load_backbone("timm/resnet10t", weights=path)


def test_weights_may_be_missing_behind_the_cut_only(checkpoints, tmp_path):
    from safetensors.torch import load_file

    whole = load_file(checkpoints["timm/resnet10t"])
    part = {k: v for k, v in whole.items() if not k.startswith(("layer4", "fc"))}
    path = tmp_path / "part.safetensors"
    save_file(part, path)
    cut = load_backbone("timm/resnet10t", weights=path, layer="layer3", size=64, **COLOURS)
    assert any("after layer3" in note for note in cut.notes)
    with pytest.raises(BackboneError, match=r"layer4.*choose a layer before what is missing"):
        load_backbone("timm/resnet10t", weights=path, size=64, **COLOURS)
    with pytest.raises(BackboneError, match=r"layer4"):
        load_backbone("timm/resnet10t", weights=path, layer="layer4", size=64, **COLOURS)


def test_a_fine_tuned_classifier_of_other_width_is_left_out(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=7).state_dict(), path)
    backbone = load_backbone("timm/resnet10t", weights=path, size=64, **COLOURS)
    assert backbone.feature_shape() == (512,)


class Tiny(nn.Module):
    """A network of the user's own."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).mean((2, 3)) * self.factor


def test_a_module_of_ones_own_is_left_as_it_is():
    module = Tiny().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    backbone = load_backbone(module, size=8, **COLOURS)
    backbone.identity()
    assert module.training
    assert module.norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_a_module_of_ones_own_needs_preprocessing():
    with pytest.raises(BackboneError, match=r"preprocessing of Tiny is not known.*size"):
        load_backbone(Tiny())
    plan = Preprocessing(size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
    assert load_backbone(Tiny(), inputs=plan).feature_shape() == (4,)


FACTORY = """
import torch
from torch import nn
from headstart.data import Preprocessing

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
    def forward(self, x):
        return self.conv(x).mean((2, 3))

def bare(width=5):
    torch.manual_seed(0)
    return Net(width)

def complete():
    return bare(), Preprocessing(size=(9, 9), mean=(0, 0, 0), std=(1, 1, 1))

def wrong():
    return 3
"""


def test_a_file_with_a_factory(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FACTORY)
    assert load_backbone(f"{path}:complete").feature_shape() == (5,)
    wide = load_backbone(f"{path}:bare", model_args={"width": 6}, size=9, **COLOURS)
    assert wide.feature_shape() == (6,)
    for name, message in {
        f"{path}:wrong": "returned a int",
        f"{path}:absent": "has no function 'absent'",
        f"{tmp_path}/no.py:f": "there is no file",
    }.items():
        with pytest.raises(BackboneError, match=message):
            load_backbone(name)
    with pytest.raises(BackboneError, match="does not take these model arguments"):
        load_backbone(f"{path}:bare", model_args={"depth": 1}, size=9, **COLOURS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "is not the name of a backbone"),
        ("timm/resnet1888", "nearest are timm/resnet18"),
        ("timm/resnet18.nope", "nearest are timm/resnet18"),
        ("torchvision/resnet1888", "nearest are torchvision/resnet18"),
        ("torchvision/resnet18.NOPE", r"resnet18\.IMAGENET1K_V1"),
        ("headstart/glyph", "nearest are headstart/glyphs"),
        ("headstart/", "is not the name of a backbone"),
    ],
)
def test_unknown_names_offer_the_nearest(name, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(name)


def test_unknown_layers_and_poolings():
    with pytest.raises(BackboneError, match=r"no layer 'stage9'.*stage1"):
        load_backbone("headstart/glyphs", layer="stage9")
    with pytest.raises(BackboneError, match="pooling must be one of"):
        load_backbone("headstart/glyphs", layer="stage1", pooling="max")
    with pytest.raises(BackboneError, match="class token"):
        load_backbone("headstart/glyphs", layer="stage1", pooling="cls")


def test_impossible_preprocessing_lists_all_faults():
    with pytest.raises(ConfigError, match=r"std must be positive.*scale must be positive"):
        load_backbone("headstart/glyphs", std=0.0, scale=-1.0)


def test_a_size_that_the_network_cannot_take(checkpoints):
    with pytest.raises(BackboneError, match="cannot run on images of 40×40"):
        load_backbone(
            "timm/vit_tiny_patch16_224",
            weights=checkpoints["timm/vit_tiny_patch16_224"],
            model_args={"img_size": 64},
            size=40,
            **COLOURS,
        )


class Two(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.conv, self.run = nn.Conv2d(3, 4, 3), forward

    def forward(self, x, *more, **named):
        return self.run(self.conv(x).mean((2, 3)), *more, **named)


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (Two(lambda x, mask: x * mask), "a module that supplies the rest"),
        (Two(lambda x: {}["key"]), "KeyError"),
        (Two(lambda x: x).double(), "its weights are float64.*pass module.float()"),
        (Two(lambda x: x).bfloat16(), "its weights are bfloat16.*pass module.float()"),
        (nn.ModuleList([nn.Linear(2, 2)]), "a module that supplies the rest"),
        (nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten()), "1 tensor|2 tensors.*have no values"),
        (Two(lambda x: x).to("meta"), r"2 tensors of the Two have no values \('conv.weight'"),
    ],
)
def test_a_module_that_cannot_run_says_what_may_help(module, what):
    with pytest.raises(BackboneError, match=what):
        load_backbone(module, size=8, mean=0.5, std=0.5)


Both = namedtuple("Both", ("maps", "rows"))


@pytest.mark.parametrize(
    ("give", "said"),
    [
        (lambda x: {"aux": x[:, :2], "rows": x}, r"2 tensors \('aux' \(2,\).*'rows' \(4,\)"),
        (lambda x: (x[:, :2], x), r"2 tensors \(0 \(2,\) an item, 1 \(4,\)"),
        (lambda x: [x[:, :2], x, x], r"3 tensors"),
        (lambda x: Both(x[:, :2], x), r"'maps' \(2,\) an item, 'rows' \(4,\)"),
        (lambda x: (x[:, :2], None, {"more": x}), None),
        (lambda x: {"rows": x[:, :2]}, None),
        (lambda x: x[:, :2], None),
    ],
)
@pytest.mark.parametrize("layer", [None, "0"])
def test_which_of_several_tensors_is_the_feature_is_said(give, said, layer):
    module = Two(give) if layer is None else nn.Sequential(Two(give), nn.Identity())
    backbone = load_backbone(module, size=8, layer=layer, **COLOURS)
    assert backbone.feature_shape() == (2,)
    notes = [note for note in backbone.notes if "the first is the feature" in note]
    assert len(notes) == (said is not None)
    assert said is None or re.search(said, notes[0])


@pytest.mark.parametrize(
    ("give", "why"),
    [
        (lambda x: torch.fft.fft(x), "returns complex numbers"),
        (lambda x: (torch.fft.rfft(x), x), "returns complex numbers"),
        (lambda x: x.relu().to_sparse(), "returns a sparse tensor"),
        (lambda x: (None, x), "returns a tuple whose first value is a NoneType"),
        (lambda x: {"rows": {"inner": x}}, "returns a dict"),
        (lambda x: x.sum(), r"gives \(\) for 2 items"),
    ],
)
@pytest.mark.parametrize("layer", [None, "0"])
def test_an_output_without_a_real_row_an_item_is_refused(give, why, layer):
    module = Two(give) if layer is None else nn.Sequential(Two(give), nn.Identity())
    with pytest.raises(BackboneError, match=f"{why}|no axis grows"):
        load_backbone(module, size=8, layer=layer, **COLOURS)


def test_a_module_of_ones_own_takes_no_model_args():
    with pytest.raises(BackboneError, match="the Two is already built"):
        load_backbone(Two(lambda x: x), size=8, mean=0.5, std=0.5, model_args={"width": 2})


def test_torchvision_preprocessing_is_that_of_its_weights():
    from headstart.backbones.families.torchvision_models import preprocessing_of

    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    plan = Preprocessing(**preprocessing_of(weights.transforms()))
    image = torchvision.transforms.functional.to_pil_image(
        torch.randint(0, 256, (3, 300, 413), dtype=torch.uint8)
    )
    pixels = torch.from_numpy(plan.geometry(image).copy()).permute(2, 0, 1)[None]
    ours, theirs = plan.normalise(pixels)[0], weights.transforms()(image)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_size_of_ones_own_keeps_the_whole_image(checkpoints):
    weights = checkpoints["timm/resnet10t"]
    own = load_backbone("timm/resnet10t", weights=weights, size=64, **COLOURS)
    assert own.inputs.crop_fraction == 1.0
    assert any("whole image is kept" in note for note in own.notes)
    default = load_backbone("timm/resnet10t", weights=weights, **COLOURS)
    assert default.inputs.crop_fraction < 1.0
    given = load_backbone("timm/resnet10t", weights=weights, size=64, crop_fraction=0.8, **COLOURS)
    assert given.inputs.crop_fraction == 0.8


def test_a_family_of_ones_own(monkeypatch):
    """It is loaded, listed, offered in messages, and groups the parameters of its networks."""
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))

    def build(request):
        module = Tiny(**request.model_args)
        return Built(module, {"mean": 0, "std": 1, "size": 8}, ("conv", "norm"))

    def groups(module):
        names = ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]
        return [names] if type(module) is Tiny else None

    families.register_family(
        Family("toy", "toy/NAME", "for tests", build, names=lambda: ("tiny",), groups=groups)
    )
    backbone = load_backbone("toy/tiny", layer="conv", model_args={"factor": 2.0})
    assert backbone.blocks == ("conv", "norm")
    assert backbone.feature_shape() == (4,)
    assert [group.name for group in block_groups(backbone.module)] == ["conv+norm"]
    assert len(block_groups(nn.Sequential(Tiny(), nn.Linear(4, 2)))) > 1
    with pytest.raises(BackboneError, match=r"torchvision/NAME.*toy/NAME"):
        load_backbone("tony/tiny")
    result = CliRunner().invoke(app, ["backbones"])
    assert "toy/NAME" in result.output
    assert "toy/tiny" in CliRunner().invoke(app, ["backbones", "toy/ti"]).output
