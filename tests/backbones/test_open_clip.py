"""open_clip: towers of images as the library runs them, and the towers of texts beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.backbones import load_backbone
from headstart.backbones.text_tower import has_text_tower, text_weights
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import predict
from headstart.core.errors import BackboneError
from headstart.core.progress import SilentReporter
from tests.finetuning.conftest import squares

open_clip = pytest.importorskip("open_clip")
from safetensors.torch import save_file  # noqa: E402

SMALL: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
"""ViT-B-32 made small; its tokenizer is CLIP's own."""
COLOURS = {"mean": (0.48, 0.46, 0.41), "std": (0.27, 0.26, 0.28)}


def model_of(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = open_clip.create_model("ViT-B-32", **SMALL).eval()
    with torch.no_grad():
        model.logit_scale.fill_(2.5)
    return model


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("open_clip") / "clip.safetensors"
    state = {name: tensor.clone() for name, tensor in model_of().state_dict().items()}
    save_file(state, str(path))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, file: Path) -> Path:
    place = tmp_path_factory.mktemp("saved model")
    stated = {**COLOURS, "size": 32, "resize_mode": "squash", "interpolation": "bilinear"}
    config = {"model_cfg": SMALL, "preprocess_cfg": stated}
    (place / "open_clip_config.json").write_text(json.dumps(config))
    (place / "open_clip_model.safetensors").write_bytes(file.read_bytes())
    return place


def of_file(file: Path, **options: Any) -> Any:
    return load_backbone("open_clip/ViT-B-32", weights=file, model_args=SMALL, **options)


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    shapes = ((67, 101), (120, 83), (32, 32), (311, 250))
    coarse = (rng.integers(0, 256, (h // 4, w // 4, 3), dtype=np.uint8) for h, w in shapes)
    return [
        Image.fromarray(x).resize((w, h), Image.Resampling.BICUBIC)
        for x, (h, w) in zip(coarse, shapes, strict=True)
    ]


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_rows_are_the_librarys_own(mode: str, folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    place.mkdir()
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = mode
    (place / "open_clip_config.json").write_text(json.dumps(config))
    for name in ("open_clip_model.safetensors",):
        (place / name).symlink_to(folder / name)
    backbone = load_backbone(f"open_clip/{place}")
    assert backbone.inputs.mean == COLOURS["mean"]
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{place}")
    with torch.no_grad():
        expected = model.eval().encode_image(torch.stack([transform(x) for x in pictures()]))
        samples = [backbone.inputs.sample(np.asarray(x)) for x in pictures()]
        found = backbone.features(backbone.inputs.finish(backbone.inputs.collate(samples)))
    assert float((found - expected).abs().max()) < 1e-5


def test_a_file_of_the_whole_model_is_loaded_and_its_colours_are_asked_for(file: Path) -> None:
    with pytest.raises(BackboneError, match="mean, std") as found:
        of_file(file)
    assert "CLIP" in str(found.value)
    backbone = of_file(file, **COLOURS)
    state = model_of().visual.state_dict()
    assert all(torch.equal(v, state[n]) for n, v in backbone.module.visual.state_dict().items())
    assert backbone.blocks == tuple(f"visual.transformer.resblocks.{i}" for i in range(2))


def test_vectors_of_texts_are_the_librarys_own(file: Path) -> None:
    backbone = of_file(file, **COLOURS)
    assert has_text_tower(backbone)
    assert not has_text_tower(backbone.at("visual.transformer.resblocks.0"))
    texts = ["a photo of a cat", "a photo of " + "a very " * 30 + "long dog"]
    found = text_weights(backbone, texts)
    model = model_of()
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("ViT-B-32", context_length=20)(texts)
        expected = model.encode_text(tokens, normalize=True) * model.logit_scale.exp()
    assert np.abs(found.weight.T - expected.double().numpy()).max() < 1e-5
    assert found.cut == (texts[1],)


def test_a_head_begins_as_texts(folder: Path, tmp_path: Path) -> None:
    images, labels = squares(24, 9)
    names = np.array(["red_cat", "small stone"])
    first, second = squares(40, 0)
    source = {"train": (first, names[second]), "test": (images, names[labels])}
    fit(
        source, f"open_clip/{folder}", start="text", labels_per_class=0, out=tmp_path / "run",
        cache=tmp_path / "c", reporter=SilentReporter(),
    )  # fmt: skip
    said = predict(
        images, tmp_path / "run", cache=tmp_path / "c", reporter=SilentReporter()
    ).probabilities
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}", context_length=20)
    with torch.no_grad():
        rows = model.eval().encode_image(
            torch.stack([transform(Image.fromarray(x)) for x in images]), normalize=True
        )
        texts = model.encode_text(
            tokens(["a photo of a red cat", "a photo of a small stone"]), normalize=True
        )
        expected = (model.logit_scale.exp() * rows @ texts.T).softmax(1).numpy()
    np.testing.assert_allclose(said, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViT-B-32", "without weights"),
        ("ViT-B-23", "knows no model 'ViT-B-23'"),
        ("ViT-B-32.laion2b", "knows no model 'ViT-B-32.laion2b'"),
    ],
)
def test_what_is_not_there_is_said_with_the_nearest(name: str, said: str) -> None:
    with pytest.raises(BackboneError, match=said) as found:
        load_backbone(f"open_clip/{name}")
    assert "open_clip/ViT-B-32" in str(found.value.hint)
