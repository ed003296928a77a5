"""Models of images of transformers: their own pixels, their own pooling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.backbones import load_backbone
from headstart.backbones.image_processor import TOLERANCE, preprocessing_of
from headstart.cache import describe_space
from headstart.core.errors import BackboneError
from headstart.core.progress import SilentReporter
from headstart.data import Preprocessing, Split
from headstart.data.items import SampleItems
from headstart.extraction import extract
from tests.image_models import KINDS, TOWERS, save_image_model

SHAPES = [(67, 101), (240, 173), (32, 32), (500, 377), (31, 200)]


def pictures(shapes: list[tuple[int, int]] = SHAPES, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((w, h), 3)
        )
        for h, w in shapes
    ]


def split_of(images: list[np.ndarray]) -> Split:
    n = len(images)
    return Split(SampleItems(images, lambda v: v, "x"), np.arange(n), np.full(n, -1))


def rows(folder: Path, images: list[np.ndarray], **options: Any) -> np.ndarray:
    return extract(load_backbone(f"hf/{folder}", **options), split_of(images)).features[0]


def prepared(folder: Path, images: list[np.ndarray]) -> torch.Tensor:
    """Return the pixels of the processor that a folder holds, as transformers reads it."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor([Image.fromarray(x) for x in images], return_tensors="pt")["pixel_values"]


def test_every_family_is_in_the_walk() -> None:
    import transformers.models.auto.modeling_auto as auto

    left_out = {
        # several inputs or outputs of their own kind, generative models, wrappers
        "clip", "imagegpt", "metaclip_2", "perceiver", "shieldgemma2", "siglip", "siglip2",
        "timm_wrapper", "donut-swin", "dinat",
        # twins of families that are walked
        "mobilevitv2", "pvt_v2", "swiftformer", "efficientnet", "hgnet_v2", "pp_lcnet", "textnet",
    }  # fmt: skip
    named = {name.replace("-", "_") for name in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES}
    assert named - set(KINDS) <= {name.replace("-", "_") for name in left_out}


OTHER = {"clip_vision_model", "siglip_vision_model", "dinov3_vit", "dinov3_convnext"}
"""Their classifiers pool otherwise than the models themselves, or there is none."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OTHER])
def test_the_row_is_what_the_classifier_of_this_architecture_is_given(
    kind: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForImageClassification

    folder = save_image_model(tmp_path / "m", kind, classifier=True)
    images = pictures()
    found = rows(folder, images)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    seen: list[torch.Tensor] = []
    head = next(getattr(model, n) for n in ("classifier", "head", "fc") if hasattr(model, n))
    head.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(1)))
    with torch.inference_mode():
        model(pixel_values=prepared(folder, images))
    expected = seen[0].numpy()
    if kind in ("cvt", "poolformer"):  # their classifiers normalise once more
        bare = getattr(model, model.base_model_prefix)
        with torch.inference_mode():
            out = bare(prepared(folder, images))
        states = out.last_hidden_state.mean((2, 3))
        expected = (out.cls_token_value.flatten(1) if kind == "cvt" else states).numpy()
    if kind.startswith("dinov2"):  # class token and mean, of which the first is taken
        expected = expected[:, : found.shape[1]]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    assert np.ptp(found, axis=0).max() > 1e-2 * np.abs(found).max(), (
        "rows do not depend on the image"
    )


@pytest.mark.parametrize(
    "kind", [*sorted(OTHER), "dinov2", "dinov2_with_registers", "swin", "convnext"]
)
def test_the_row_is_the_models_own_pooled_output(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = save_image_model(tmp_path / "m", kind)
    images = pictures()
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = model(pixel_values=prepared(folder, images)).pooler_output.flatten(1).numpy()
    np.testing.assert_allclose(rows(folder, images), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", TOWERS)
def test_of_two_towers_that_of_images_is_taken(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = save_image_model(tmp_path / "m", kind)
    images = pictures()
    backbone = load_backbone(f"hf/{folder}")
    assert any("an image tower and a text tower" in note for note in backbone.notes)
    assert not any("text" in name for name, _ in backbone.module.named_parameters())
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        found = model.get_image_features(pixel_values=prepared(folder, images))
    expected = getattr(found, "pooler_output", found).numpy()
    np.testing.assert_allclose(rows(folder, images), expected, atol=2e-5 * np.abs(expected).max())
    assert len(backbone.blocks) == 2


@pytest.mark.parametrize(
    ("kind", "prefix"), [("vit", 1), ("deit", 2), ("dinov2_with_registers", 4), ("ijepa", 0)]
)
def test_class_and_register_tokens_take_no_part_in_the_mean(
    kind: str, prefix: int, tmp_path: Path
) -> None:
    from transformers import AutoModel

    folder = save_image_model(tmp_path / "m", kind)
    images = pictures()
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        out = model(pixel_values=prepared(folder, images), output_hidden_states=True)
    states = out.last_hidden_state.numpy()
    expected = states[:, prefix:].mean(1)
    np.testing.assert_allclose(rows(folder, images, pooling="avg"), expected, atol=1e-4)
    block = load_backbone(f"hf/{folder}").blocks[0]
    inner = out.hidden_states[1].numpy()
    found = rows(folder, images, layer=block)
    np.testing.assert_allclose(found, inner[:, prefix:].mean(1), atol=1e-4)
    if prefix:
        np.testing.assert_allclose(
            rows(folder, images, layer=block, pooling="cls"), inner[:, 0], atol=1e-4
        )


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip"])
def test_other_sizes_interpolate_the_positions(kind: str, tmp_path: Path) -> None:
    folder = save_image_model(tmp_path / "m", kind)
    at = [rows(folder, pictures(), size=side) for side in (32, 48)]
    assert at[0].shape == at[1].shape
    assert not np.allclose(at[0], at[1])


def processors() -> dict[str, Any]:
    """Return processors of every usual kind."""
    import transformers as t

    return {
        "vit": t.ViTImageProcessor(),
        "vit not square": t.ViTImageProcessor(size={"height": 96, "width": 128}),
        "clip": t.CLIPImageProcessor(),
        "clip odd": t.CLIPImageProcessor(
            size={"shortest_edge": 75}, crop_size={"height": 60, "width": 60}
        ),
        "siglip": t.SiglipImageProcessor(resample=2),
        "dinov2": t.BitImageProcessor(
            size={"shortest_edge": 256}, image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        ),
        "convnext": t.ConvNextImageProcessor(size={"shortest_edge": 224}),
        "convnext 384": t.ConvNextImageProcessor(size={"shortest_edge": 384}),
        "beit": t.BeitImageProcessor(
            do_center_crop=True, size={"height": 256, "width": 256},
            crop_size={"height": 224, "width": 224},
        ),
        "deit": t.DeiTImageProcessor(),
        "levit": t.LevitImageProcessor(),
        "mobilenet": t.MobileNetV2ImageProcessor(),
        # BGR, and nothing is normalised
        "mobilevit": t.MobileViTImageProcessor(size={"shortest_edge": 288}),
        "poolformer": t.PoolFormerImageProcessor(),
        "efficientnet": t.EfficientNetImageProcessor(),  # divides by the deviation twice
        "segformer": t.SegformerImageProcessor(size={"height": 64, "width": 64}),
        "raw": t.ViTImageProcessor(do_rescale=False, do_normalize=False),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", processors())
def test_pixels_are_the_processors_own(name: str, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    processors()[name].save_pretrained(tmp_path)
    by_pillow = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    found = preprocessing_of(by_pillow)
    assert found is not None
    images = pictures([*SHAPES, (301, 299), (226, 225), (1000, 230)], 1)
    ours = torch.cat(
        [found.finish(found.collate([found.sample(image)])).args[0] for image in images]
    )
    expected = by_pillow([Image.fromarray(x) for x in images], return_tensors="pt")["pixel_values"]
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=TOLERANCE)
    other = AutoImageProcessor.from_pretrained(tmp_path, backend="torchvision")
    theirs = other([Image.fromarray(x) for x in images], return_tensors="pt")["pixel_values"]
    levels = (ours - theirs).abs().amax((2, 3)) / found.scale * torch.tensor(found.std)
    assert levels.max() <= 2.01, "torchvision's own rounding is at most two levels of 255"


def test_what_a_processor_does_beyond_is_not_guessed(tmp_path: Path) -> None:
    import transformers as t

    padded = t.CLIPImageProcessor(
        size={"shortest_edge": 30}, crop_size={"height": 32, "width": 32}
    )  # too small for the crop: padded with black
    folder = save_image_model(tmp_path / "m", "vit", processor=padded)
    with pytest.raises(BackboneError, match=r"is not known.*mean, std.*CLIPImageProcessor does mo"):
        load_backbone(f"hf/{folder}")
    stated = load_backbone(f"hf/{folder}", mean=0.5, std=0.5)
    assert stated.inputs == Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3)
    bare = save_image_model(tmp_path / "bare", "vit", processor=None)
    with pytest.raises(BackboneError, match=r"is not known.*there is no preprocessor_config.json"):
        load_backbone(f"hf/{bare}")


def test_a_pooler_that_the_weights_lack_is_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_image_model(tmp_path / "m", "beit")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if "pooler" not in name}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    backbone = load_backbone(f"hf/{folder}")
    assert any("since the weights lack its pooling" in note for note in backbone.notes)
    again = load_backbone(f"hf/{folder}")
    assert describe_space(backbone) == describe_space(again)
    name = next(name for name in kept if "layer.1" in name)
    kept.pop(name)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneError, match=r"lack 1 tensors of the model, such as layers\.1"):
        load_backbone(f"hf/{folder}")


def test_a_bare_folder_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = save_image_model(tmp_path / "m", "vit")
    with pytest.raises(BackboneError, match=r"for a transformers model, write hf/.*/m"):
        load_backbone(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dinov2", "swin", "clip"])
def test_the_loss_curve_of_stored_rows_is_that_of_the_images(kind: str, tmp_path: Path) -> None:
    from headstart.commands.finetune.job import finetune
    from headstart.finetuning import Recipe, Stage
    from tests.finetuning.conftest import squares

    folder = save_image_model(tmp_path / "m", kind)
    recipe = Recipe("last", (Stage("last", ("last:1", "head"), epochs=2, lr=1e-3),), "probe")
    curves: dict[str, list[float]] = {}
    for mode in ("on", "off"):
        plans: list[Any] = []
        run = finetune(
            {"train": squares(40), "test": squares(16, 9)}, f"hf/{folder}", recipe, stored=mode,
            cache=tmp_path / "c", write=False, baselines=False, reporter=SilentReporter(),
            show_plan=plans.append,
        )  # fmt: skip
        curves[mode] = [epoch["train_loss"] for epoch in run.training["epochs"][1:]]
        stored = plans[0].stages[0].cut
        assert (stored is not None and stored.read) == (mode == "on"), plans[0].stages[0].no_cut
    np.testing.assert_allclose(curves["on"], curves["off"], rtol=1e-4)


def test_random_masks_are_refused(tmp_path: Path) -> None:
    import transformers as t

    config = t.ViTMAEConfig(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48, decoder_hidden_size=32, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2, decoder_intermediate_size=32,
    )  # fmt: skip
    t.AutoModel.from_config(config).save_pretrained(tmp_path)
    t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(BackboneError):
        rows(tmp_path, pictures())


def test_a_run_through_fit_and_predict(tmp_path: Path) -> None:
    from headstart.commands.fit.job import fit
    from headstart.commands.predict.job import predict
    from tests.finetuning.conftest import squares

    folder = save_image_model(tmp_path / "m", "dinov2", processor=None)
    import transformers as t

    t.BitImageProcessor(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    data = {"train": squares(40), "test": squares(20, 9)}
    run = fit(
        data, f"hf/{folder}", out=tmp_path / "run", cache=tmp_path / "c",
        reporter=SilentReporter(),
    )  # fmt: skip
    assert run.evaluation.accuracy.value > 0.5
    said = predict(
        squares(20, 9)[0], tmp_path / "run", cache=tmp_path / "c", reporter=SilentReporter()
    )
    assert len(said.labels) == 20
