from __future__ import annotations

import pytest

from headstart.core.errors import ConfigError
from headstart.data import Preprocessing
from headstart.study import DEFAULT, PRESETS, Configuration, parse, register, resolve

GIVEN = Preprocessing(size=32, mean=0.5, std=0.5)


@pytest.mark.parametrize(
    ("name", "mode", "autograd", "statistics", "draws"),
    [
        # the five of the question, and the naive one
        ("train", "train", "grad", "batch", True),
        ("no_grad", "train", "no_grad", "batch", True),
        ("inference_mode", "train", "inference", "batch", True),
        ("eval", "eval", "grad", "running", False),
        ("eval+no_grad", "eval", "no_grad", "running", False),
        ("eval+inference_mode", "eval", "inference", "running", False),
        ("reestimated", "eval", "inference", "reestimated", False),
        ("reestimated+no_grad", "eval", "no_grad", "reestimated", False),
        ("class-ordered", "train", "inference", "batch", True),
        ("recompute", "train", "inference", "batch", True),
        ("dropout", "eval", "inference", "running", True),
        ("no-dropout", "train", "inference", "batch", False),
        ("unscaled", "eval", "inference", "running", False),
        ("no_grad+unscaled", "train", "no_grad", "batch", True),
        ("layer=stage2.0", "eval", "inference", "running", False),
        ("features+sgd", "eval", "inference", "running", False),
    ],
)
def test_names_mean_what_people_mean(name, mode, autograd, statistics, draws):
    found = parse(name)
    assert (found.mode, found.autograd) == (mode, autograd)
    assert (found.normalises_by, found.draws) == (statistics, draws)


def test_blend_takes_its_weight():
    assert parse("blend(0.25)").alpha == 0.25
    with pytest.raises(ConfigError, match="alpha in"):
        parse("blend(1.5)")
    with pytest.raises(ConfigError, match="number from 0 to 1"):
        parse("blend(much)")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unscaled", {"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ("unnormalised", {"scale": 1 / 255, "mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ("misnormalised", {"mean": (0.485, 0.456, 0.406)}),
        ("swapped-channels", {"channels": "BGR"}),
        ("size=64+mean=0.1/0.2/0.3", {"size": (64, 64), "mean": (0.1, 0.2, 0.3)}),
    ],
)
def test_inputs(name, expected):
    found = parse(name).inputs_from(GIVEN)
    assert {key: getattr(found, key) for key in expected} == expected


def test_unknown_words_are_met_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'reestimate'.*nearest: reestimated"):
        parse("reestimate")


def test_all_faults_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        resolve("evil,eval+train,eval+batch,blend(7),eval,eval")
    text = str(caught.value)
    for part in ("'evil'", "'eval' and 'train'", "never normalises by the batch", "alpha", "twice"):
        assert part in text
    assert len(caught.value.faults) == 5


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "eval", "statistics": "batch"},
        {"mode": "train", "statistics": "reestimated"},
        {"statistics": "blend"},
        {"alpha": 0.5},
        {"recompute": True},
        {"recompute": True, "mode": "train", "order": "class"},
        {"recipe": "lp-ft", "autograd": "no_grad"},
        {"recipe": "lp-ft", "mode": "train", "dropout": "off"},
        {"recipe": " "},
        {"batch_size": 1},
        {"mode": "test"},
    ],
)
def test_contradictions_are_refused(values):
    with pytest.raises(ConfigError, match="the configuration 'mine'"):
        Configuration("mine", **values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preprocessing": {"colour": 1}}, "no colour"),
        ({"preprocessing": {"scale": 1.0}, "inputs": "unscaled"}, "both set scale"),
        ({"inputs": "overscaled"}, "does not apply to images"),
    ],
)
def test_inputs_that_the_backbone_cannot_have_are_refused(values, words):
    with pytest.raises(ConfigError, match=f"the configuration 'mine': .*{words}"):
        Configuration("mine", **values).inputs_from(GIVEN)


def test_a_configuration_of_ones_own_in_one_line():
    mine = register(Configuration("mine", statistics="blend", alpha=0.2))
    try:
        assert resolve(["mine", "eval"])[0] is mine
        assert resolve("mine,eval")[0] is mine
    finally:
        del PRESETS["mine"]


def test_fine_tuning_by_name():
    recipes = [
        c.recipe for c in resolve("finetune+sgd,finetune+adam,finetune:lp-ft,finetune:a.toml")
    ]
    assert recipes == ["sgd-step", "adam-step", "lp-ft", "a.toml"]
    beside = parse("finetune+adam+layer=stage2+unscaled")
    assert (beside.layer, beside.inputs, beside.head) == ("stage2", "unscaled", None)
    assert not any(c.recipe for c in resolve(None))


def test_faults_of_fine_tuning_are_told_together():
    with pytest.raises(ConfigError) as caught:
        resolve("finetune,finetune:lp-ft+sgd,features+finetune+sgd,finetune+sgd+eval,finetune:+sgd")
    assert len(caught.value.faults) == 5
    for part in ("does not say how it trains", "its own optimizer", "contradict each other",
                 "the recipe 'sgd-step' decides", "'finetune:'"):  # fmt: skip
        assert part in str(caught.value)


def test_defaults_and_tutorial_heads():
    assert [c.name for c in resolve(None)] == list(DEFAULT)
    options = parse("features+sgd").head.options
    assert (options["lr"], options["momentum"], options["epochs"]) == (1e-3, 0.9, 21)
    with pytest.raises(ConfigError, match="no configuration to compare"):
        resolve("")
