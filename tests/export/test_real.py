"""Real networks in every runtime, on photographs and questions, from the file on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.commands.export.job import export
from tests.export.conftest import QUIET

pytestmark = [pytest.mark.real, pytest.mark.slow]

MOBILE: dict[str, Any] = {
    "model_args": {"pad_type": "same", "bn_eps": 1e-3}, "layer": "blocks.4.0",
    "mean": 0.5, "std": 0.5,
}  # fmt: skip
USUAL: dict[str, Any] = {"mean": 0.5, "std": 0.5}
NETWORKS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "resnet-18": ("timm/resnet18", "resnet18", USUAL),
    "mobilenet-v1": ("timm/mobilenetv1_100", "mobilenetv1_imagenet", MOBILE),
    "efficientnet-lite0": ("headstart/photos", None, {}),
    "vit": ("timm/vit_tiny_patch16_224", "vit_tiny_patch16_224", USUAL),
    "minilm": ("hf/{weights}/minilm", None, {}),
}


@pytest.fixture(scope="module")
def some(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen photographs of each class and split, questions, and weights that are drawn."""
    import timm
    import torch
    from safetensors.torch import save_file

    place = tmp_path_factory.mktemp("real")
    for folder in (f"{split}/{name}" for split in ("train", "val") for name in ("ants", "bees")):
        (place / "photos" / folder).mkdir(parents=True)
        for path in sorted((shared_data / "hymenoptera" / folder).iterdir())[:12]:
            shutil.copy(path, place / "photos" / folder / path.name)
    lines = (shared_data / "trec" / "train.csv").read_text(encoding="utf-8").splitlines()[:120]
    (place / "questions.csv").write_text("\n".join(lines), encoding="utf-8")
    for name in ("resnet18", "vit_tiny_patch16_224"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            tensors = timm.create_model(name, pretrained=False).state_dict()
        save_file({k: v.contiguous() for k, v in tensors.items()}, place / f"{name}.safetensors")
    return place


@pytest.mark.parametrize("name", NETWORKS)
def test_every_runtime_predicts_as_the_run(
    name: str, some: Path, shared_data: Path, tmp_path: Path
) -> None:
    source, file, given = NETWORKS[name]
    weights = shared_data / "weights"
    if file is not None:
        here = some / f"{file}.safetensors"
        given = {**given, "weights": here if here.exists() else weights / f"{file}.safetensors"}
    data = some / ("questions.csv" if name == "minilm" else "photos")
    shared: dict[str, Any] = {"cache": tmp_path / "cache", "reporter": QUIET}
    headstart.fit(
        str(data), source.format(weights=weights), head="lda", precision="float32",
        baselines=False, out=tmp_path / "run", **given, **shared,
    )  # fmt: skip
    for to in ("onnx", "openvino", "pt2", "safetensors"):
        made = export(tmp_path / "run", to, output=tmp_path / to, items=6, **shared)
        assert made.parity.largest <= 1e-4, to
        assert made.parity.same == made.parity.items == 6
