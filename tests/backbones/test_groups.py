"""Block groups: ordered, complete, and what freezing and learning rates make of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from headstart.backbones.groups import block_groups, param_groups
from headstart.core.errors import FreezeError
from headstart.freezing import freeze


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50, hidden_size=8, num_hidden_layers=3, num_attention_heads=2,
            intermediate_size=8,
        )
    )  # fmt: skip


def t5() -> nn.Module:
    from transformers import T5Config, T5Model

    return T5Model(T5Config(vocab_size=50, d_model=8, d_ff=8, num_layers=2, num_heads=2, d_kv=4))


# (model, number of groups, some names of groups in order)
MODELS: dict[str, tuple[Callable[[], nn.Module], int, tuple[str, ...]]] = {
    "timm-vit": (
        lambda: timm.create_model("vit_tiny_patch16_224"), 14, ("stem", "blocks.0", "head"),
    ),
    "timm-resnet": (lambda: timm.create_model("resnet18"), 10, ("layer1.0", "layer4.1", "fc")),
    "resnet": (torchvision.models.resnet18, 10, ("conv1+bn1", "layer1.0", "layer4.1", "fc")),
    "mobilenet": (torchvision.models.mobilenet_v2, 20, ("features.0", "features.18")),
    "vit": (torchvision.models.vit_b_32, 15, ("stem", "encoder.layers.encoder_layer_0", "heads")),
    "convnext": (torchvision.models.convnext_tiny, 23, ("features.1.0", "features.2")),
    "vgg": (torchvision.models.vgg11_bn, 11, ("features.0+features.1", "classifier.6")),
    "googlenet": (
        lambda: torchvision.models.googlenet(init_weights=False), 15, ("inception3a", "fc"),
    ),
    "bert": (bert, 6, ("bert.embeddings", "bert.encoder.layer.2", "classifier")),
    "t5": (t5, 7, ("encoder.block.0", "decoder.block.1")),
    "plain": (lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), 2, ("0", "2")),
}  # fmt: skip


@pytest.mark.parametrize("family", MODELS)
def test_groups_are_ordered_and_cover_every_parameter_once(family: str) -> None:
    make, count, names = MODELS[family]
    with torch.device("meta"):
        model = make()
    groups = block_groups(model)
    labels = [group.name for group in groups]
    assert [n for n in labels if n in names] == list(names)
    assert len(labels) == len(set(labels))
    listed = [name for group in groups for name in group.parameters]
    assert sorted(listed) == sorted(name for name, _ in model.named_parameters())
    assert len(groups) == count, labels


def test_freezing_and_rates_share_the_groups() -> None:
    model = timm.create_model("resnet18")
    last = [module for group in block_groups(model)[-3:] for module in group.modules]
    handle = freeze(model, {"": "frozen"} | dict.fromkeys(last[1:], "trainable"))
    assert {name.split(".")[0] for name in handle.plan.trainable} == {"layer4", "fc"}
    groups = param_groups(model, lr=1.0, decay=0.5, weight_decay=0.1)
    assert [(g["name"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("layer4.1", 0.5, 0.1),
        ("layer4.1 (no decay)", 0.5, 0.0),
        ("fc", 1.0, 0.1),
        ("fc (no decay)", 1.0, 0.0),
    ]
    freeze(model, {"": "frozen"} | dict.fromkeys(last, "trainable"))
    thawed = param_groups(model, lr=1.0, decay=0.5)
    assert (thawed[0]["name"], thawed[0]["lr"]) == ("layer4.0", 0.25)
    assert "layer4.0 (no decay)        0.25" in str(thawed)
    optimizer = torch.optim.AdamW(thawed)
    assert len(optimizer.param_groups) == len(thawed)
    freeze(model)
    with pytest.raises(FreezeError, match="nothing to optimise"):
        param_groups(model, lr=1.0)


def test_norms_biases_and_named_tokens_do_not_decay() -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=1)
    groups = param_groups(model, lr=1e-3, no_decay=["head"])
    names = {id(p): n for n, p in model.named_parameters()}
    spared = {names[id(p)] for g in groups if not g["weight_decay"] for p in g["params"]}
    decayed = {names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]}
    assert spared | decayed == set(names.values())
    assert {"cls_token", "pos_embed", "blocks.0.norm1.weight", "head.weight"} <= spared
    assert {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= decayed
    with pytest.raises(FreezeError, match=r"did you mean 'head\.weight'"):
        param_groups(model, lr=1e-3, no_decay=["haed.weight"])


def test_parts_may_train_slowly_instead_of_being_frozen() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
    groups = param_groups(model, lr=1.0, decay=1.0, scales={"encoder": 0.1, "encoder.bias": 0.2})
    assert {g["name"]: g["lr"] for g in groups} == {
        "encoder (× 0.1)": 0.1,
        "encoder (× 0.2) (no decay)": 0.2,
        "decoder": 1.0,
        "decoder (no decay)": 1.0,
    }
    with pytest.raises(FreezeError, match="did you mean 'encoder'"):
        param_groups(model, lr=1.0, scales={"encodr": 0.1})
    with pytest.raises(FreezeError, match="the scale of 'encoder' is 0"):
        param_groups(model, lr=1.0, scales={"encoder": 0})


def test_faults_are_named_together() -> None:
    with pytest.raises(FreezeError) as caught:
        param_groups(nn.Linear(2, 2), lr=-1, decay=2)
    assert "lr is -1" in str(caught.value)
    assert "decay is 2" in str(caught.value)
    with pytest.raises(FreezeError, match="no parameters"):
        block_groups(nn.ReLU())


class Backwards(nn.Module):
    """Registered from the output to the input, and says so."""

    def __init__(self, named: int) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(2, 2), nn.Linear(2, 2)
        self.named = named

    def grouped_parameters(self) -> list[list[str]]:
        return [["first.weight", "first.bias"], ["last.weight", "last.bias"]][: self.named]


def test_a_network_may_group_its_own_parameters() -> None:
    assert [group.name for group in block_groups(Backwards(2))] == ["first", "last"]
    with pytest.raises(FreezeError, match=r"Backwards\.grouped_parameters.*'last\.bias', 'last\.w"):
        block_groups(Backwards(1))
