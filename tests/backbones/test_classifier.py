"""The classifier that weights bring along: the right one, and classes that names really mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from headstart import load_backbone
from headstart.backbones.classifier import (
    Classifier,
    classifier_of,
    imagenet_classes,
    match_classes,
)
from headstart.backbones.families import family_of
from headstart.backbones.family import Request
from headstart.backbones.photos import PHOTOS, load_photos, weights_path
from headstart.core.errors import BackboneError


def words(*names: str, **given: object) -> list[tuple[str, ...]]:
    match = match_classes(names, given)  # type: ignore[arg-type]
    assert not match.faults, match.faults
    known = imagenet_classes()
    return [tuple(known[i].words[0] for i in match.members[name]) for name in names]


def test_there_are_a_thousand_classes_in_the_usual_order() -> None:
    known = imagenet_classes()
    assert len(known) == 1000
    assert [known[i].words[0] for i in (0, 309, 310, 985)] == ["tench", "bee", "ant", "daisy"]
    assert known[310].identifier == "n02219486"
    assert known[310].meaning.startswith("social insect")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("ants", "bees"), ("ant", "bee")),
        (("Ant", "BEE"), ("ant", "bee")),
        (("emmet", "n02206856"), ("ant", "bee")),
        (("golden_retriever", "Siamese-cat"), ("golden retriever", "Siamese cat")),
        (("red foxes", "strawberries"), ("red fox", "strawberry")),
        (("Timber wolves", "daisies", "  goldfish "), ("timber wolf", "daisy", "goldfish")),
        (("mixing bowls", "church"), ("mixing bowl", "church")),
        (("sunglasses",), ("sunglasses",)),
    ],
)
def test_names_that_are_found(names: tuple[str, ...], found: tuple[str, ...]) -> None:
    assert words(*names) == [(one,) for one in found]


@pytest.mark.parametrize(
    "name", [name for known in imagenet_classes()[::37] for name in known.words]
)
def test_every_word_of_a_class_means_it_or_is_asked_about(name: str) -> None:
    meant = [i for i, known in enumerate(imagenet_classes()) if name in known.words]
    match = match_classes([name])
    assert match.faults if len(meant) > 1 else match.members[name] == tuple(meant)


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("cat", "ant"), "no class of ImageNet-1k is called 'cat'; the nearest: 'tabby cat'"),
        (("crane",), "2 classes of ImageNet-1k are called 'crane': n02012849 (large long-necked"),
        (("pandas",), "2 classes of ImageNet-1k are called 'pandas': n02509815"),
        (("airplane",), "no class of ImageNet-1k is called 'airplane'"),
        (("0", "1"), "no class of ImageNet-1k is called '0'"),
        (("310",), "no class of ImageNet-1k is called '310'"),
        (("s", ""), "no class of ImageNet-1k is called 's'"),
        (("蟻",), "no class of ImageNet-1k is called '蟻'"),
        (("ant", "ants"), "'ant', 'ants' would be the same class, 'ant'"),
    ],
)
def test_names_that_are_not_guessed_at(names: tuple[str, ...], fault: str) -> None:
    assert fault in " ".join(match_classes(names).faults)


def test_what_is_given_is_one_class_or_several_and_nothing_nearly_right() -> None:
    assert words("cat", "deer", cat=["tabby", "Persian cat"], deer="hartebeest") == [
        ("tabby", "Persian cat"),
        ("hartebeest",),
    ]
    assert words("bird", bird="n02012849") == [("crane",)]
    wrong = match_classes(["cat"], {"cat": ["tabbies"], "cow": "ox"})
    assert wrong.faults == (
        "there is no class 'cow' (cat)",
        "no class of ImageNet-1k is called 'tabbies' (of 'cat')",
    )
    assert (
        "would be the same class" in match_classes(["a", "b"], {"a": "ant", "b": "ant"}).faults[0]
    )
    assert match_classes(["ant"], {"ant": []}).faults


def test_of_photos_it_reads_what_the_backbone_returns() -> None:
    try:
        weights_path(PHOTOS)
    except BackboneError:
        pytest.skip("its package is not installed")
    backbone = load_backbone("headstart/photos")
    load = classifier_of(backbone)
    assert load is not None
    found = load()
    assert found is not None
    images = backbone.probe(2)
    with torch.no_grad():
        features = backbone.features(images).double().numpy()
        logits = load_photos(classifier=True)(*images.args).numpy()
    np.testing.assert_allclose(features @ found.weight + found.bias, logits, atol=1e-4)
    assert classifier_of(backbone.at("blocks.5")) is None
    assert classifier_of(load_backbone(backbone.module, inputs=backbone.inputs)) is None


def test_a_backbone_of_another_width_or_weights_of_ones_own_have_none(tmp_path: Path) -> None:
    assert classifier_of(load_backbone("headstart/glyphs")) is None
    torch.manual_seed(0)
    file = tmp_path / "own.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), file)
    own = load_backbone("timm/resnet10t", weights=file, size=32, mean=0.5, std=0.5)
    assert classifier_of(own) is None


def _of_timm(name: str, **args: object) -> Classifier | None:
    family, rest = family_of(f"timm/{name}")
    load = family.classifier(Request(rest, None, args))
    return None if load is None else load()


def test_of_timm_it_is_the_linear_layer_of_the_whole_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = timm.create_model("resnet10t.c3_in1k").eval()
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    overlay = {"file": str(tmp_path / "model.safetensors")}
    found = _of_timm("resnet10t.c3_in1k", pretrained_cfg_overlay=overlay)
    assert found is not None
    np.testing.assert_array_equal(found.weight.T, whole.fc.weight.detach().numpy())
    np.testing.assert_array_equal(found.bias, whole.fc.bias.detach().numpy())


@pytest.mark.parametrize(
    "name", ["convnext_tiny.in12k", "vit_base_patch16_clip_224.openai", "no_such_network"]
)
def test_weights_that_were_trained_on_other_classes_have_none(name: str) -> None:
    assert _of_timm(name) is None
