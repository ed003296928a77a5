"""Recipes: presets, files, and how they are found in a network, all faults at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from headstart.backbones import load_backbone
from headstart.core.errors import ConfigError
from headstart.finetuning import PRESETS, Classifier, Recipe, Stage, load_recipe
from headstart.finetuning.recipe_file import recipe_from, recipe_to_plain
from headstart.finetuning.state import build_optimizer
from headstart.finetuning.targets import resolve
from tests.finetuning.models import residual


def faults_of(recipe: Recipe, network: Classifier | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(network or Classifier(residual(), 2), recipe)
    return "\n".join(caught.value.faults)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_sound_and_survives_a_file(name: str) -> None:
    recipe = PRESETS[name][1].check()
    assert recipe_from(recipe_to_plain(recipe)) == recipe


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("family", ["vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_every_preset_fits_other_families(name: str, family: str) -> None:
    with torch.device("cpu"):
        module = timm.create_model(family, num_classes=0)
    size = 224 if family.startswith("vit") else 32
    backbone = load_backbone(module, mean=0.5, std=0.5, size=size)
    targets = resolve(Classifier(backbone, 2), PRESETS[name][1])
    assert all(target.freeze.trainable for target in targets)


def test_words_select_groups_and_the_rest_is_frozen() -> None:
    network = Classifier(residual(), 2)
    recipe = Recipe(
        "words",
        (
            Stage("head", ("head",)),
            Stage("two", ("last:2",)),
            Stage("glob", ("blocks.[01]",)),
            Stage("module", ("blocks.2.conv2",)),
            Stage("norms", ("norms",)),
            Stage("all", ("all",)),
        ),
    )
    head, two, glob, module, norms, everything = resolve(network, recipe)
    assert head.freeze.trainable == ("head.weight", "head.bias")
    assert two.groups == ("blocks.1", "blocks.2", "head")
    assert glob.groups == ("blocks.0", "blocks.1")
    assert module.freeze.trainable == (
        "backbone.blocks.2.conv2.weight",
        "backbone.blocks.2.conv2.bias",
    )
    assert all(".bn" in name for name in norms.freeze.trainable)
    assert len(norms.freeze.trainable) == 12
    # The part behind the cut takes part in nothing, and so neither trains nor counts.
    dead = {"backbone.tail.weight", "backbone.tail.bias"}
    assert dead.isdisjoint(everything.freeze.trainable)
    assert {*everything.freeze.trainable, *dead} == {n for n, _ in network.named_parameters()}


def test_gradual_becomes_one_stage_a_block() -> None:
    targets = resolve(Classifier(residual(), 2), PRESETS["gradual"][1])
    assert [t.stage.name for t in targets] == [f"thaw {n}" for n in (1, 2, 3, 4)]
    assert [len(t.groups) for t in targets] == [2, 3, 4, 5]


def test_rates_shrink_toward_the_input_and_single_ones_override() -> None:
    stage = Stage("s", ("last:3",), lr=1.0, decay=0.5, weight_decay=0.1, rates={"blocks.1": 7.0})
    (target,) = resolve(Classifier(residual(), 2), Recipe("r", (stage,)))
    rates = {rate.name: rate.lr for rate in target.rates}
    assert rates == {"head": 1.0, "blocks.2": 0.5, "blocks.1": 7.0, "blocks.0": 0.125}
    decayed = {n for rate in target.rates if rate.weight_decay for n in rate.parameters}
    assert decayed == {n for n in target.freeze.trainable if "conv" in n or "head" in n} - {
        n for n in target.freeze.trainable if n.endswith("bias")
    }


def test_optimizer_groups_hold_the_parameters_themselves() -> None:
    network = Classifier(residual(), 2)
    (target,) = resolve(network, Recipe("r", (Stage("s", ("last:1",)),)))
    optimizer = build_optimizer(network, target.stage, target.rates)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    named = dict(network.named_parameters())
    assert held == {id(named[name]) for name in target.freeze.trainable}


def test_all_faults_of_all_stages_come_together_with_the_fix() -> None:
    said = faults_of(
        Recipe(
            "bad",
            (
                Stage("a", ("blocs.1", "last:9"), rates={"head": 0.0}),
                Stage("a", ("head",), rates={"blocks.1": 1e-3, "haed": 1.0}),
                Stage("b", (), lr=0, epochs=0),
                Stage("c", ("blocks.0.act",)),
                Stage("d", ("surgical",), optimizer="adamax"),  # type: ignore[arg-type]
            ),
            validation=1.5,
        )
    )
    for part in (
        "validation must be above 0 and below 1, not 1.5",
        "several stages are named 'a'",
        "'blocs.1' in train matches no group and no module (the nearest are 'blocks.1'",
        "'last:9' is out of range: the backbone has 4 block groups",
        "the rate of group 'head' is 0, so it would train without moving; to freeze it",
        "rates has 'blocks.1', which does not train in this stage",
        "rates has 'haed', which matches no group (the nearest are 'head')",
        "train is empty, so the stage trains nothing",
        "stage 'b': lr must not be 0: nothing would move; to freeze a part, leave it out",
        "stage 'b': epochs must be at least 1, not 0",
        "stage 'c': train = ['blocks.0.act'] matches only parts without trainable",
        "set start = 'probe'",
        "stage 'd': optimizer must be one of adamw, adam, sgd (did you mean 'adam', 'adamw'), not"
        " 'adamax'",
    ):
        assert part in said, part


def test_tokens_and_positions_thaw_with_their_group_alone() -> None:
    """They belong to the whole network, whose blocks stay frozen."""
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=2)
    network = Classifier(load_backbone(module, mean=0.5, std=0.5, size=224), 2)
    (target,) = resolve(network, Recipe("r", (Stage("s", ("stem",)),)))
    assert set(target.trainable) == {
        "backbone.cls_token", "backbone.pos_embed",
        "backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias",
    }  # fmt: skip


def test_a_file_is_read_with_all_faults_together(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        start = "prob"
        head_dropuot = 0.2
        [[stage]]
        name = "first"
        train = "head"
        epochs = 2.5
        lr = "fast"
        dropout = 1
        [[stage]]
        train = [1]
        weigth_decay = 0.1
        """
    )
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    said = "\n".join(caught.value.faults)
    for part in (
        "start must be probe or fresh, not 'prob'",
        "there is no field 'head_dropuot' (the nearest are 'head_dropout')",
        "stage 'first': epochs must be a whole number, not 2.5",
        "stage 'first': lr must be a number, not 'fast'",
        "stage 'first': dropout must be True or False, not 1",
        "stage 'stage 2': train must be text, not 1",
        "stage '2': there is no field 'weigth_decay' (the nearest are 'weight_decay'",
    ):
        assert part in said, part


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("rates = 3", "rates must be a table from group names to rates, not 3"),
        ("rates = { head = 'much' }", "rates must be a table from group names to rates"),
        ("lr = inf", "lr must be at least 0 and below inf, not inf"),
        ("lr = nan", "lr must be at least 0 and below inf, not nan"),
        ("warmup = 12", "warmup is 12 epochs of 10: nothing would be left"),
        ("name = ' x'", "name must be text without spaces around it"),
        ("train = []", "train is empty"),
        ("batch_size = 1\nnorm = 'batch'", "one item has no batch statistics"),
        ("train = ['gradual', 'head']", "'gradual' must be the only entry in train"),
    ],
)
def test_what_cannot_be_in_a_stage_is_said(tmp_path: Path, field: str, said: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(f"[[stage]]\n{field}\n")
    with pytest.raises(ConfigError, match=said):
        load_recipe(path)


def test_a_file_makes_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'start = "probe"\n[[stage]]\ntrain = "last:1"\nepochs = 3\nlr = 1\n'
        '[stage.rates]\n"layer4.1" = 1e-4\n'
    )
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.start) == ("mine", "probe")
    assert recipe.stages == (
        Stage("stage 1", ("last:1",), epochs=3, lr=1.0, rates={"layer4.1": 1e-4}),
    )


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("lp_ft", "there is no recipe named 'lp_ft'; recipes are 'lp-ft'"),
        ("nowhere.toml", "cannot be read: No such file"),
    ],
)
def test_unknown_sources_are_one_clear_line(source: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_recipe(source)


def test_text_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[[stage\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_recipe(tmp_path / "r.toml")
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_recipe(tmp_path / "r.toml")


def test_schedules_and_warm_up() -> None:
    cosine = Stage(epochs=10, warmup=2)
    assert [cosine.rate_factor(e) for e in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    step = Stage(epochs=20, schedule="step", step_size=7, gamma=0.1)
    assert [step.rate_factor(e) for e in (0, 6.9, 7, 14)] == pytest.approx([1, 1, 0.1, 0.01])
    assert Stage(schedule="constant").rate_factor(3.3) == 1.0


def test_the_features_are_those_of_the_backbone() -> None:
    backbone = residual("blocks.1")
    network = Classifier(backbone, 2).eval()
    x = backbone.probe(3)
    with torch.no_grad():
        assert torch.equal(x.call(network.features), backbone.features(x))
    assert network.backbone is backbone.module
