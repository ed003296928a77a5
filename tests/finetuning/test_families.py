"""Every built-in recipe runs on every network: the smallest model of every family of timm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch
from torch import nn

from headstart.backbones import load_backbone
from headstart.core.errors import HeadstartError
from headstart.finetuning import Classifier
from headstart.finetuning.network import network_groups
from headstart.finetuning.presets import PRESETS
from headstart.finetuning.targets import Target, resolve
from headstart.freezing import freeze
from headstart.modules.digests import compare_digests, digests
from tests.backbones.families import SMALLEST

QUICK = ("test_convnext", "test_vit", "test_mambaout", "efficientvim_m1", "test_vit_relpos")
"""Families of small models: a class named head, tokens, parameters of the root."""


def classifier(name: str) -> Classifier:
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=0)
    size = module.pretrained_cfg.get("input_size", (3, 224, 224))[1:]
    return Classifier(load_backbone(module, mean=0.5, std=0.5, size=size), 3)


def targets(network: Classifier) -> Iterator[tuple[str, Target]]:
    """Yield every stage of every recipe, and surgery at every block."""
    groups = [group.name for group in network_groups(network)]
    for name, preset in PRESETS.items():
        for block in groups[:-1] if name == "surgical" else [None]:
            for target in resolve(network, preset.recipe, surgical=block):
                yield f"{name}: {target.stage.name} {block or ''}", target


def check_groups(network: Classifier) -> None:
    groups = network_groups(network)
    names = [group.name for group in groups]
    assert len(set(names)) == len(names)
    assert names[-1] == "head"
    assert names.count("head") == 1
    live = [name for name, _ in network.named_parameters() if name in network.live_tensors()]
    assert sorted(name for group in groups for name in group.parameters) == sorted(live)


def step(network: Classifier, target: Target) -> None:
    """One training step: what is to train moves, and the rest does not."""
    handle = freeze(network, target.policies)
    network.train()
    before = digests(network)
    parameters = dict(network.named_parameters())
    rates = [parameters[name] for rate in target.rates for name in rate.parameters]
    optimizer = torch.optim.SGD(rates, lr=0.1)
    inputs = network.source.probe(2)
    logits = inputs.call(network)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    optimizer.step()
    moved = set(compare_digests(before, digests(network)))
    handle.verify()
    assert moved & set(target.trainable)
    assert not moved & set(target.freeze.frozen)
    handle.release()
    for parameter in network.parameters():
        parameter.grad = None


def walk(name: str) -> None:
    network = classifier(name)
    check_groups(network)
    found = dict(targets(network))
    blocks = network_groups(network)[:-1]
    for number, block in enumerate(blocks):
        target = found[f"surgical: surgical {block.name}"]
        trained = {n for n in target.trainable if not n.startswith("head.")}
        assert set(block.parameters) <= trained
        # A block that shares a tensor with another thaws with it (the position encodings of CoaT).
        frozen = [each for each in blocks[:number] if each.name not in target.groups]
        others = {n for each in frozen for n in each.parameters}
        assert not others & trained
    first, last = blocks[0].name, blocks[-1].name
    for key in (f"surgical: surgical {first}", f"surgical: surgical {last}", "gradual: thaw 1 "):
        step(network, found[key])


@pytest.mark.parametrize("name", QUICK)
def test_every_recipe_runs_on_networks_of_every_shape(name: str) -> None:
    walk(name)


@pytest.mark.slow
@pytest.mark.walk(keep=5)
@pytest.mark.parametrize("name", [name for name in SMALLEST if name not in QUICK])
def test_every_recipe_runs_on_the_smallest_model_of_every_family(name: str) -> None:
    try:
        network = classifier(name)
    except HeadstartError as error:
        pytest.skip(f"does not load as a backbone: {error}")
    del network
    walk(name)
