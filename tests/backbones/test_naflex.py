"""NaFlexViT: images keep their aspect ratio, and a row does not depend on the rest of its batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from headstart.backbones import Backbone, load_backbone
from headstart.cache import FeatureCache
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import predict
from headstart.core.errors import BackboneError
from headstart.core.progress import SilentReporter
from headstart.data import Patches, load_items
from headstart.extraction import Extraction, extract

pytest.importorskip("timm.models.naflexvit")
SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2, "pos_embed_grid_size": (4, 4)}
NAMES = (
    "naflexvit_base_patch16_gap",
    "naflexvit_base_patch16_par_gap",
    "naflexvit_base_patch16_parfac_gap",
    "naflexvit_base_patch16_map",
)
TOLERANCE = 2e-5
"""Sums of other lengths are rounded elsewhere: rows of about 1 in size."""


def network(name: str, place: Path, **options: Any) -> Backbone:
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=0, **SMALL).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    file = place / f"{name}.safetensors"
    save_file({n: t.contiguous() for n, t in module.state_dict().items()}, str(file))
    given = {"mean": 0.5, "std": 0.5, "max_length": 24, **options}
    return load_backbone(f"timm/{name}", weights=file, model_args=SMALL, **given)


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = ((40, 90), (120, 33), (64, 64), (311, 250), (30, 200))
    coarse = (rng.integers(0, 256, (h // 8, w // 8, 3), dtype=np.uint8) for h, w in shapes)
    return [
        np.asarray(Image.fromarray(x).resize((w, h), Image.Resampling.BICUBIC))
        for x, (h, w) in zip(coarse, shapes, strict=True)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_timms_own_and_do_not_depend_on_padding(name: str, tmp_path: Path) -> None:
    from timm.data import create_transform
    from timm.data.naflex_dataset import NaFlexCollator

    backbone = network(name, tmp_path)
    transform = create_transform(
        (3, 96, 96), is_training=False, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic",
        naflex=True, patch_size=16, max_seq_len=24, patchify=True,
    )  # fmt: skip
    batch = NaFlexCollator(24)([(transform(Image.fromarray(x)), 0) for x in pictures()])[0]
    with torch.no_grad():
        expected = backbone.module(batch).numpy()
    split = load_items(pictures())
    for size in (1, 2, 5):
        found = extract(backbone, split, settings=Extraction(batch_size=size)).features[0]
        assert np.abs(found - expected).max() < TOLERANCE
    padded = backbone.inputs.one_shape(())
    samples = [backbone.inputs.sample(x) for x in pictures()]
    with torch.no_grad():
        found = backbone.features(padded.finish(padded.collate(samples))).numpy()
    assert np.abs(found - expected).max() < TOLERANCE


@pytest.mark.parametrize("name", [NAMES[0], NAMES[3]])
def test_at_a_layer_padding_is_left_out_of_the_mean(name: str, tmp_path: Path) -> None:
    backbone = network(name, tmp_path).at("blocks.0")
    split = load_items(pictures())
    together, alone = (
        extract(backbone, split, settings=Extraction(batch_size=size)).features[0]
        for size in (5, 1)
    )
    assert np.abs(together - alone).max() < TOLERANCE


def test_the_aspect_ratio_is_kept_and_every_image_has_as_many_patches_as_it_can(
    tmp_path: Path,
) -> None:
    backbone = network(NAMES[0], tmp_path)
    assert isinstance(backbone.inputs, Patches)
    for picture in pictures():
        height, width, _ = picture.shape
        rows, columns = (s // 16 for s in backbone.inputs.sample(picture).shape[:2])
        assert rows * columns <= 24
        assert (rows + 1) * (columns + 1) > 24
        assert 0.5 < (rows / columns) / (height / width) < 2
    assert backbone.inputs.sample(np.zeros((1, 1, 3), np.uint8)).shape == (64, 64, 3)


def test_what_a_file_does_not_say_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="mean, std"):
        network(NAMES[0], tmp_path, mean=None, std=None)


def test_a_run_with_views_predicts_as_it_trained(tmp_path: Path) -> None:
    backbone = network(NAMES[0], tmp_path)
    folder = tmp_path / "data"
    for label, tint in (("dark", 60), ("light", 200)):
        (folder / label).mkdir(parents=True)
        for i, picture in enumerate(pictures() * 2):
            made = np.clip(picture // 8 + tint + i, 0, 255).astype(np.uint8)
            Image.fromarray(made).save(folder / label / f"{i}.png")
    cache = FeatureCache(tmp_path / "cache")
    run = fit(folder, backbone, cache=cache, out=tmp_path / "run", reporter=SilentReporter())
    said = predict(folder, tmp_path / "run", cache=cache, reporter=SilentReporter())
    assert run.evaluation.accuracy.value >= 0.75
    assert len(said.labels) == 20
    split = load_items(folder)
    view = backbone.inputs.numbered_views(1, seed=3)[0]
    rows = cache.features(backbone, split, view=view).rows
    plain = cache.features(backbone, split).rows
    assert rows.shape == plain.shape
    assert np.abs(np.asarray(rows) - np.asarray(plain)).max() > 1e-3
