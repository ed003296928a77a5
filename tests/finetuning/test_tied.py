"""Tied parameters, shared modules, parametrizations: fine-tuned as any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from headstart.backbones import Backbone, load_backbone
from headstart.commands.finetune.job import finetune, plan_finetune
from headstart.core.progress import SilentReporter
from headstart.finetuning import Classifier, Recipe, Stage
from headstart.finetuning.presets import PRESETS
from headstart.finetuning.targets import resolve
from headstart.freezing import freeze
from tests.finetuning.conftest import squares


class Trunk(nn.Module):
    """Pixels to rows by three layers, changed by ``change``."""

    def __init__(self, change: Callable[[Trunk], None]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.one, self.two, self.three = (nn.Linear(6, 6) for _ in range(3))
        self.norm = nn.LayerNorm(6)
        change(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).mean((2, 3))
        for layer in (self.one, self.two, self.three):
            x = x + torch.relu(layer(x))
        return self.norm(x)


class Autoencoder(nn.Module):
    """Its first layer is used again, transposed, under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(48, 6), nn.Linear(6, 48)
        self.decode.weight = nn.Parameter(self.encode.weight.T.contiguous())
        self.again = nn.Linear(48, 6)
        self.again.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
        return self.again(torch.relu(self.decode(torch.relu(self.encode(x)))))


class Behind(nn.Module):
    """The tied layer's first name is that of a part which never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(12, 12)
        self.used = nn.Linear(12, 12)
        self.used.weight = self.unused.weight
        self.used.bias = self.unused.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.used(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def tie(trunk: Trunk) -> None:
    trunk.three.weight = trunk.one.weight


def tie_all(trunk: Trunk) -> None:
    trunk.two.weight = trunk.three.weight = trunk.one.weight
    trunk.three.bias = trunk.two.bias


def share(trunk: Trunk) -> None:
    trunk.three = trunk.one


def share_twice(trunk: Trunk) -> None:
    trunk.two = trunk.three = trunk.one


def tie_norms(trunk: Trunk) -> None:
    trunk.norm.bias = trunk.norm.weight


def parametrized(how: Callable[[nn.Module], object]) -> Callable[[Trunk], None]:
    def change(trunk: Trunk) -> None:
        how(trunk.one)
        how(trunk.three)

    return change


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def shared_parametrization(trunk: Trunk) -> None:
    same = nn.Linear(6, 6)
    parametrize.register_parametrization(trunk.one, "weight", same)
    parametrize.register_parametrization(trunk.two, "weight", same)


CHANGES: dict[str, Callable[[], nn.Module]] = {
    "tied": lambda: Trunk(tie),
    "all tied": lambda: Trunk(tie_all),
    "shared module": lambda: Trunk(share),
    "module used three times": lambda: Trunk(share_twice),
    "scale tied to shift": lambda: Trunk(tie_norms),
    "tied across parts": Autoencoder,
    "tied to what never runs": Behind,
    "weight norm": lambda: Trunk(parametrized(parametrizations.weight_norm)),
    "old weight norm": lambda: Trunk(parametrized(nn.utils.weight_norm)),
    "spectral norm": lambda: Trunk(parametrized(parametrizations.spectral_norm)),
    "old spectral norm": lambda: Trunk(parametrized(nn.utils.spectral_norm)),
    "orthogonal": lambda: Trunk(parametrized(parametrizations.orthogonal)),
    "a parametrization of one's own": lambda: Trunk(
        parametrized(lambda m: parametrize.register_parametrization(m, "weight", Halved()))
    ),
    "a parametrization shared": lambda: Trunk(shared_parametrization),
}
pytestmark = pytest.mark.filterwarnings("ignore")


def network(name: str) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_backbone(CHANGES[name](), mean=0.5, std=0.5, size=16)


DATA = {"train": squares(30), "test": squares(10, 1)}


@pytest.mark.parametrize("stored", ["off", "auto"])
@pytest.mark.parametrize("name", CHANGES)
def test_it_is_fine_tuned_with_everything_that_names_tensors(
    name: str, stored: str, tmp_path: Path
) -> None:
    """An average, a carried optimizer, rates by block, a checkpoint and a run folder."""
    stages = (
        Stage("one", ("last:1",), epochs=1, ema=0.5, lr=1e-2),
        Stage("all", ("all",), epochs=2, ema=0.5, decay=0.8, lr=1e-2),
    )
    backbone = network(name)
    ties = dict(backbone.module.named_parameters(remove_duplicate=False))
    groups = {key: id(value) for key, value in ties.items()}
    run = finetune(
        DATA, backbone, recipe=Recipe("r", stages, "probe"), out=tmp_path / "run", stored=stored,
        cache=tmp_path / "cache", baselines=False, reporter=SilentReporter(),
    )  # fmt: skip
    after = dict(run.backbone.module.named_parameters(remove_duplicate=False))
    assert {key: id(value) for key, value in after.items()} == groups
    assert len(run.training["epochs"]) == 4
    assert run.tuned


@pytest.mark.slow
@pytest.mark.walk(keep=24)
@pytest.mark.parametrize("recipe", PRESETS)
@pytest.mark.parametrize("name", CHANGES)
def test_every_recipe_is_planned_and_trained(name: str, recipe: str, tmp_path: Path) -> None:
    more = {"recipe": recipe, "cache": tmp_path / "c", "baselines": False}
    plan = plan_finetune(DATA, network(name), reporter=SilentReporter(), **more)
    assert plan.stages
    finetune(DATA, network(name), epochs=1, write=False, reporter=SilentReporter(), **more)


def test_groups_that_share_a_tensor_thaw_together() -> None:
    network = Classifier(load_backbone(Autoencoder(), mean=0.5, std=0.5, size=16), 2)
    (target,) = resolve(network, Recipe("r", (Stage("s", ("last:1",)),)))
    assert target.groups == ("encode", "again", "head")
    assert "backbone.encode.weight" in target.trainable
    assert "backbone.decode.weight" not in target.trainable


@pytest.mark.parametrize("name", CHANGES)
def test_it_is_frozen_and_verified(name: str) -> None:
    module = CHANGES[name]()
    handle = freeze(module)
    module.train()
    module(torch.rand(4, 3, 16, 16))
    handle.verify()
