"""Small models of images of transformers with random weights, saved as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

VIT: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 48,
}  # fmt: skip
STAGES: dict[str, Any] = {"hidden_sizes": [16, 32], "depths": [1, 1]}
SWIN: dict[str, Any] = {
    "image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4],
    "window_size": 4,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": 80, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 40, "bos_token_id": 2, "eos_token_id": 3,
    "pad_token_id": 0,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTConfig", VIT),
    "deit": ("DeiTConfig", VIT),
    "vit_msn": ("ViTMSNConfig", VIT),
    "dinov2": ("Dinov2Config", VIT),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", {**VIT, "num_register_tokens": 3}),
    "dinov3_vit": ("DINOv3ViTConfig", {**VIT, "num_register_tokens": 3}),
    "beit": ("BeitConfig", {**VIT, "use_mean_pooling": True}),
    "data2vec_vision": ("Data2VecVisionConfig", {**VIT, "use_mean_pooling": False}),
    "ijepa": ("IJepaConfig", VIT),
    "hiera": (
        "HieraConfig",
        {"image_size": [32, 32], "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2],
         "patch_stride": [4, 4], "query_stride": [2, 2], "masked_unit_size": [4, 4],
         "num_query_pool": 1},
    ),
    "swin": ("SwinConfig", SWIN),
    "swinv2": ("Swinv2Config", SWIN),
    "focalnet": (
        "FocalNetConfig",
        {"image_size": 32, "embed_dim": 16, "hidden_sizes": [16, 32], "depths": [1, 1],
         "focal_levels": [2, 2], "focal_windows": [3, 3]},
    ),
    "convnext": ("ConvNextConfig", {**STAGES, "num_stages": 2}),
    "convnextv2": ("ConvNextV2Config", {**STAGES, "num_stages": 2}),
    "dinov3_convnext": ("DINOv3ConvNextConfig", STAGES),
    "resnet": ("ResNetConfig", {**STAGES, "embedding_size": 16}),
    "regnet": ("RegNetConfig", {**STAGES, "embedding_size": 16, "groups_width": 8}),
    "bit": ("BitConfig", {**STAGES, "embedding_size": 16, "num_groups": 8}),
    "mobilenet_v1": ("MobileNetV1Config", {"depth_multiplier": 0.25, "image_size": 32}),
    "mobilenet_v2": ("MobileNetV2Config", {"depth_multiplier": 0.25, "image_size": 32}),
    "mobilevit": (
        "MobileViTConfig",
        {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": 4,
         "neck_hidden_sizes": [8, 16, 16, 24, 24, 32, 48]},
    ),
    "segformer": (
        "SegformerConfig",
        {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [16, 32],
         "num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "patch_sizes": [7, 3],
         "strides": [4, 2]},
    ),
    "pvt": (
        "PvtConfig",
        {"image_size": 32, "num_encoder_blocks": 2, "depths": [1, 1], "hidden_sizes": [16, 32],
         "sequence_reduction_ratios": [2, 1], "patch_sizes": [4, 2], "strides": [4, 2],
         "num_attention_heads": [1, 2], "mlp_ratios": [2, 2]},
    ),
    "poolformer": (
        "PoolFormerConfig",
        {"num_encoder_blocks": 2, "depths": [1, 1], "hidden_sizes": [16, 32],
         "patch_sizes": [7, 3], "strides": [4, 2], "padding": [2, 1]},
    ),
    "cvt": (
        "CvtConfig",
        {"embed_dim": [16, 32, 32], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
    ),
    "levit": (
        "LevitConfig",
        {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2],
         "depths": [1, 1, 1], "key_dim": [8, 8, 8]},
    ),
    "clip_vision_model": ("CLIPVisionConfig", VIT),
    "siglip_vision_model": ("SiglipVisionConfig", VIT),
}  # fmt: skip
"""By ``model_type``: the class of the configuration, and small sizes."""
TOWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("CLIPConfig", {"projection_dim": 24}),
    "siglip": ("SiglipConfig", {}),
    "chinese_clip": ("ChineseCLIPConfig", {"projection_dim": 24}),
}
"""Models with a tower for images and one for texts."""


def config_of(kind: str) -> Any:
    """Return the configuration of a kind."""
    import transformers

    name, sizes = (KINDS | TOWERS)[kind]
    made = getattr(transformers, name)
    if kind in TOWERS:
        return made(text_config=dict(TEXT), vision_config=dict(VIT), **sizes)
    return made(**sizes)


def save_image_model(
    folder: Path, kind: str = "vit", *, classifier: bool = False, processor: Any = "small",
    seed: int = 0,
) -> Path:  # fmt: skip
    """Save a model with random weights and an image processor; return the folder.

    Args:
        folder: where to.
        kind: of :data:`KINDS` or :data:`TOWERS`.
        classifier: whether the weights are those of a classifier of images.
        processor: an image processor; ``small``: one that gives what the model is made for.
        seed: of the weights.
    """
    import transformers

    config = config_of(kind)
    made = transformers.AutoModelForImageClassification if classifier else transformers.AutoModel
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind_of = made._model_mapping[type(config)]  # several for DeiT and LeViT
        model = (kind_of[0] if isinstance(kind_of, tuple) else kind_of)(config)
        for parameter in model.parameters():  # so that positions and class tokens matter
            if parameter.ndim == 4:
                torch.nn.init.kaiming_normal_(parameter)
            elif parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    if processor == "small":
        side = size_of(config)
        processor = transformers.ViTImageProcessor(size={"height": side, "width": side})
    if processor is not None:
        processor.save_pretrained(folder)
    return folder


def size_of(config: Any) -> int:
    """Return the side of the images that a configuration is made for; 32 where it takes any."""
    side = getattr(getattr(config, "vision_config", config), "image_size", 32)
    side = side[0] if isinstance(side, list | tuple) else side
    return int(side) if side and side <= 64 else 32
