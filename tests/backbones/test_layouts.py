"""Layouts over the architectures of timm, torchvision and transformers, by name and wrapped.

Every layer gives a row with its own number of channels that equals the mean over the positions of
the item run alone, or is refused. The reference knows nothing of how layouts are found: it runs one
item, takes the axis whose size is a number of channels in this network (sizes of inputs are chosen
so that no other axis has such a size), and leaves out the special tokens that are listed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from headstart.backbones import Backbone, features_of, load_backbone
from headstart.core.errors import BackboneError
from headstart.data import Preprocessing
from headstart.modules.forward import capture


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    size: int
    special: dict[int, int] = field(default_factory=dict)  # number of tokens → how many lead
    refused: str = "nothing"  # layers that may be refused, as a regular expression


def from_timm(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False, num_classes=0, **arguments)


def from_torchvision(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None)


def from_transformers(model: str, **config: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = pytest.importorskip("transformers")
        kind = getattr(transformers, f"{model}Model")
        return Last(kind(kind.config_class(**config)))

    return make


class Last(nn.Module):
    """A module of one's own around a transformers model."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).last_hidden_state


class Wrapped(nn.Module):
    """A module of one's own around a network."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


SMALL_VIT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "image_size": 40,
    "patch_size": 8,
}
# Queries, keys and their attention have channels on two axes, heads and width; tables of positions
# belong to no item; maps of attention weights have none.
PARTS = r"[qk]_norm|position|rel_pos|relative|attn_drop|softmax|cpb_mlp"

CASES = {
    "timm/test_resnet": Case(from_timm("test_resnet"), 160),
    "timm/test_convnext": Case(from_timm("test_convnext"), 160),
    "timm/test_mambaout": Case(from_timm("test_mambaout"), 160),
    "timm/test_vit": Case(from_timm("test_vit", img_size=80), 80, {26: 1}, PARTS),
    "timm/test_vit2": Case(from_timm("test_vit2", img_size=80), 80, {26: 1}, PARTS),
    "timm/test_vit3": Case(from_timm("test_vit3", img_size=80), 80, {26: 1}, PARTS),
    "timm/test_efficientnet": Case(from_timm("test_efficientnet"), 160),
    "timm/test_byobnet": Case(from_timm("test_byobnet"), 160),
    "timm/test_nfnet": Case(from_timm("test_nfnet"), 160),
    "timm/deit_tiny_distilled": Case(
        from_timm("deit_tiny_distilled_patch16_224", img_size=80, depth=2), 80, {27: 2}, PARTS
    ),
    "timm/dinov2_reg": Case(
        from_timm("vit_small_patch14_reg4_dinov2", img_size=70, depth=2), 70, {30: 5}, PARTS
    ),
    "timm/eva02": Case(
        from_timm("eva02_tiny_patch14_224", img_size=70, depth=2), 70, {26: 1}, PARTS
    ),
    "timm/beit": Case(
        from_timm("beit_base_patch16_224", img_size=80, depth=1, embed_dim=96, num_heads=2),
        80,
        {26: 1},
        PARTS,
    ),
    "timm/cait": Case(
        from_timm("cait_xxs24_224", img_size=80, depth=2), 80, {26: 1}, PARTS + "|proj_[lw]"
    ),
    "timm/volo": Case(
        from_timm("volo_d1_224", img_size=80),
        80,
        {26: 1},
        PARTS + r"|attn\.attn",
    ),
    "timm/swin": Case(
        from_timm("swin_tiny_patch4_window7_224", img_size=112, depths=(1, 2)), 112, {}, PARTS
    ),
    "timm/swinv2_cr": Case(
        from_timm("swinv2_cr_tiny_ns_224", img_size=224, depths=(1, 1)),
        224,
        {},
        PARTS + "|meta_mlp",
    ),
    "timm/edgenext": Case(from_timm("edgenext_xx_small"), 128, {}, PARTS),
    "timm/gcvit": Case(from_timm("gcvit_xxtiny"), 224, {}, PARTS),
    "timm/coat": Case(
        from_timm("coat_tiny", img_size=96, serial_depths=(1, 1, 1, 1), parallel_depth=1),
        96,
        {577: 1, 145: 1, 37: 1, 10: 1},
        PARTS + r"|crpe|cpe|aggregate|parallel_blocks\.0$",
    ),
    "timm/pit": Case(from_timm("pit_ti_224", img_size=112), 112, {170: 1, 50: 1, 17: 1}, PARTS),
    "timm/xcit": Case(from_timm("xcit_nano_12_p16_224", img_size=80, depth=2), 80, {26: 1}, PARTS),
    "timm/mobilevit": Case(from_timm("mobilevit_xxs"), 160, {}, PARTS),
    "timm/regnet": Case(from_timm("regnetx_002"), 112),
    "timm/poolformer": Case(from_timm("poolformerv2_s12"), 112),
    "torchvision/resnet18": Case(from_torchvision("resnet18"), 112),
    "torchvision/swin_t": Case(from_torchvision("swin_t"), 112, {}, PARTS),
    "torchvision/convnext_tiny": Case(from_torchvision("convnext_tiny"), 112),
    "torchvision/mobilenet_v3_small": Case(from_torchvision("mobilenet_v3_small"), 112),
    "torchvision/squeezenet1_1": Case(from_torchvision("squeezenet1_1"), 112),
    "transformers/ViT": Case(from_transformers("ViT", **SMALL_VIT), 40, {26: 1}),
    "transformers/Dinov2WithRegisters": Case(
        from_transformers(
            "Dinov2WithRegisters", **{**SMALL_VIT, "num_register_tokens": 4, "mlp_ratio": 2}
        ),
        40,
        {30: 5},
    ),
    "transformers/DeiT": Case(from_transformers("DeiT", **SMALL_VIT), 40, {27: 2}),
    "transformers/CLIPVision": Case(
        from_transformers("CLIPVision", **SMALL_VIT), 40, {26: 1}, "position"
    ),
    "transformers/Swin": Case(
        from_transformers(
            "Swin", image_size=56, patch_size=2, embed_dim=12, depths=[1, 1], num_heads=[2, 2]
        ),
        56,
        {},
        PARTS,
    ),
}
FAST = ("timm/test_convnext", "timm/test_vit", "timm/test_resnet", "timm/test_mambaout")


def backbone_of(case: Case, module: nn.Module) -> Backbone:
    plan = Preprocessing(size=(case.size, case.size), mean=(0.5,) * 3, std=(0.25,) * 3)
    return load_backbone(module, inputs=plan)


def widths(module: nn.Module) -> set[int]:
    """Return the numbers of channels that operations of a network have."""
    found: set[int] = set()
    for part in module.modules():
        for name in ("out_features", "out_channels", "num_features", "in_features", "in_channels"):
            if isinstance(value := getattr(part, name, None), int):
                found.add(value)
        if isinstance(part, nn.LayerNorm):
            found.update(part.normalized_shape)
        if isinstance(part, nn.MultiheadAttention):
            found.add(part.embed_dim)
    return found - {1}


def alone(backbone: Backbone, layer: str, item: int) -> Tensor:
    one = backbone.probe(2)[item : item + 1]
    with torch.no_grad():
        read = capture(
            backbone.module.eval(), [layer], lambda _layer, o: o.clone(), *one.args, **one.kwargs
        )
    return read[layer]


def check(case: Case, backbone: Backbone, layers: list[str]) -> tuple[list[str], list[str]]:
    """Compare the rows of layers with the reference; return what was refused, and what skipped."""
    channels, refused, skipped = widths(backbone.module), [], []
    for layer in layers:
        try:
            with torch.no_grad():
                (rows,) = features_of([backbone.at(layer)], backbone.probe(2))
        except BackboneError as error:
            refused.append(f"{layer}: {error.message}")
            continue
        for item in range(2):
            output = alone(backbone, layer, item)
            axes = [axis for axis, size in enumerate(output.shape) if size in channels]
            if len(axes) != 1:
                skipped.append(layer)
                break
            positions = output.movedim(axes[0], -1).reshape(-1, output.shape[axes[0]])
            leading = case.special.get(len(positions), 0) if output.ndim == 3 else 0
            expected = positions[leading:].mean(0)
            assert rows.shape == (2, len(expected)), layer
            scale = float(expected.abs().max()) or 1.0
            assert float((rows[item] - expected).abs().max()) <= 1e-4 * scale, layer
    return refused, skipped


def contract(name: str, layers: Callable[[list[str]], list[str]]) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    module = case.make().eval()
    backbone = backbone_of(case, module)
    chosen = layers([layer.name for layer in backbone.layers])
    refused, skipped = check(case, backbone, chosen)
    assert [why for why in refused if not re.search(case.refused, why.partition(":")[0])] == []
    assert all("cannot be found" in why or "rows of items" in why for why in refused)
    assert len(skipped) <= 0.2 * len(chosen), skipped


@pytest.mark.slow
@pytest.mark.walk(keep=8)
@pytest.mark.parametrize("name", CASES)
def test_every_layer(name):
    contract(name, lambda layers: layers)


@pytest.mark.parametrize("name", FAST)
def test_some_layers(name):
    contract(name, lambda layers: layers[:: max(1, len(layers) // 12)])


@pytest.mark.parametrize(
    "name",
    ["timm/test_vit", "timm/dinov2_reg", "timm/deit_tiny_distilled", "timm/test_convnext"],
)
def test_a_network_gives_the_same_row_inside_a_module_of_ones_own(name):
    case = CASES[name]
    torch.manual_seed(0)
    module = case.make().eval()
    plain, wrapped = backbone_of(case, module), backbone_of(case, Wrapped(module))
    layer = "blocks.1" if case.special else "stages.1.blocks.0.mlp"
    for pooling in ("avg", "gem", *(("cls",) if case.special else ())):
        with torch.no_grad():
            one = plain.at(layer, pooling).features(plain.probe(2))
            two = wrapped.at(f"inner.{layer}", pooling).features(plain.probe(2))
        assert torch.equal(one, two)
