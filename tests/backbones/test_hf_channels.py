"""Models of transformers for images of 1, 4 and 13 channels: filters as timm makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")

from headstart.backbones import load_backbone
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import predict
from headstart.core.errors import BackboneError
from headstart.core.progress import SilentReporter
from tests.image_models import KINDS, TOWERS, save_image_model

ALIKE = {"mean": 0.5, "std": 0.5}
STANDARDISED = {"bit"}
"""It scales its filters as it runs, so that a sum of filters is not what three of them do."""


def rows(backbone: Any, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return backbone.module(x).numpy()


@pytest.mark.walk(keep=7)
@pytest.mark.parametrize("kind", [kind for kind in (*KINDS, *TOWERS) if kind not in STANDARDISED])
def test_every_kind_sees_one_channel_as_three_that_are_equal(kind: str, tmp_path: Path) -> None:
    folder = f"hf/{save_image_model(tmp_path / 'm', kind)}"
    colours = load_backbone(folder, **ALIKE)
    one = load_backbone(folder, model_args={"num_channels": 1}, **ALIKE)
    assert one.inputs.kind == "bands"
    assert one.inputs.in_channels == 1
    x = torch.rand(2, 1, *one.inputs.size)
    repeated = rows(colours, x.expand(-1, 3, -1, -1))
    np.testing.assert_allclose(rows(one, x), repeated, rtol=1e-4, atol=1e-4)
    assert any("summed for one channel, else repeated" in note for note in one.notes)


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_features_are_those_of_timm_with_the_same_weights(channels: int, tmp_path: Path) -> None:
    """timm changes a file of three colours by itself; here both get one network's weights."""
    import timm
    from safetensors.torch import save_file

    folder = save_image_model(tmp_path / "m", "vit")
    model = load_backbone(f"hf/{folder}", **ALIKE).module.model
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4,
             "mlp_ratio": 1.5}  # fmt: skip
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes)
    file = tmp_path / "timm.safetensors"
    save_file(as_timm(model.state_dict(), set(theirs.state_dict())), file)
    options = {**ALIKE, "size": 32}
    ours = load_backbone(f"hf/{folder}", model_args={"num_channels": channels}, **options)
    own = load_backbone(
        "timm/vit_tiny_patch16_224", weights=file, model_args={**sizes, "in_chans": channels},
        **options,
    )  # fmt: skip
    ours.module.double()
    own.module.double()
    x = torch.randn(3, channels, 32, 32, dtype=torch.float64)
    state = ours.module.model(pixel_values=x).last_hidden_state[:, 0].detach().numpy()
    np.testing.assert_allclose(state, rows(own, x), atol=2e-5)


def as_timm(state: dict[str, torch.Tensor], wanted: set[str]) -> dict[str, torch.Tensor]:
    """Name the tensors of a ViT of transformers as timm does."""
    found = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "patch_embed.proj.weight": state["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": state["layernorm.weight"],
        "norm.bias": state["layernorm.bias"],
    }
    inner = {"norm1": ("layernorm_before",), "norm2": ("layernorm_after",),
             "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
             "attn.proj": ("attention.o_proj",), "mlp.fc1": ("mlp.fc1",),
             "mlp.fc2": ("mlp.fc2",)}  # fmt: skip
    for block in range(2):
        for end in ("weight", "bias"):
            found |= {
                f"blocks.{block}.{name}.{end}": torch.cat(
                    [state[f"layers.{block}.{theirs}.{end}"] for theirs in parts]
                )
                for name, parts in inner.items()
            }
    assert set(found) == wanted
    return {name: tensor.contiguous() for name, tensor in found.items()}


def test_a_model_of_other_channels_is_taken_as_it_is(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_image_model(tmp_path / "m", "vit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_channels": 4}))
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("projection.weight"))
    four = torch.randn(len(tensors[name]), 4, 8, 8)
    save_file({**tensors, name: four}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneError, match=r"with 4 channels is not known.*their mean, std"):
        load_backbone(f"hf/{folder}")
    backbone = load_backbone(f"hf/{folder}", **ALIKE)
    assert torch.equal(dict(backbone.module.model.named_parameters())[name], four)
    assert backbone.feature_shape() == (32,)
    for other in (3, 13):
        with pytest.raises(BackboneError, match=rf"are for 4 channels, not {other}"):
            load_backbone(f"hf/{folder}", model_args={"num_channels": other}, **ALIKE)


SCENES = np.random.default_rng(0).random((24, 32, 32, 13)).astype(np.float32)
LABELS = np.arange(24) % 2
SCENES[LABELS == 1, :, :, 7] /= 2


@pytest.mark.parametrize("way", ["filters", "bands"])
def test_a_fit_of_thirteen_bands(way: str, tmp_path: Path) -> None:
    folder = f"hf/{save_image_model(tmp_path / 'm', 'vit')}"
    options: dict[str, Any] = {"mean": "train", "std": "train"}
    if way == "filters":
        options["model_args"] = {"num_channels": 13}
    else:
        options["bands"] = (8, 8, 4)
    run = fit(
        (SCENES, LABELS), folder, head="lda", cache=tmp_path / "c", out=tmp_path / "run",
        reporter=SilentReporter(), baselines=False, **options,
    )  # fmt: skip
    assert len(run.backbone.inputs.mean) == (13 if way == "filters" else 3)
    found = predict(SCENES, tmp_path / "run", cache=tmp_path / "c", reporter=SilentReporter())
    assert len(found.labels) == 24


def test_images_of_other_bands_are_refused_with_the_ways(tmp_path: Path) -> None:
    folder = f"hf/{save_image_model(tmp_path / 'm', 'vit')}"
    with pytest.raises(Exception, match=r"13 .*bands"):
        fit((SCENES, LABELS), folder, cache=tmp_path / "c", write=False,
            reporter=SilentReporter())  # fmt: skip
    with pytest.raises(Exception, match=r"13 bands, and the network takes 4 channels: choose 4"):
        fit((SCENES, LABELS), folder, model_args={"num_channels": 4}, cache=tmp_path / "c",
            write=False, reporter=SilentReporter(), **ALIKE)  # fmt: skip
