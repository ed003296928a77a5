"""``headstart audit --backbone B --data DATA``: inputs and splits, without training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from headstart.backbones.glyphs.network import GlyphNet
from headstart.commands.audit.job import audit_data
from headstart.commands.cli import app


def glyph_data(seed: int = 0, copies: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return bright strokes on dark grounds, 32×32, of two classes."""
    rng = np.random.default_rng(seed)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(n) % 2
        images = np.zeros((n, 32, 32, 3), np.uint8)
        for image, label in zip(images, labels, strict=True):
            at = int(rng.integers(6, 24))
            if label:
                image[at : at + 3, 4:28] = 255
            else:
                image[4:28, at : at + 3] = 255
        noise = rng.integers(0, 20, images.shape)
        return np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8), labels

    train, test = draw(40), draw(20)
    test[0][:copies], test[1][:copies] = train[0][:copies], train[1][:copies]
    return {"train": train, "test": test}


def test_unscaled_inputs_are_found_and_right_ones_are_let_alone() -> None:
    # The bundled backbone has running statistics of glyphs in its own preprocessing.
    assert GlyphNet().num_features == 128
    right = audit_data(glyph_data())
    wrong = audit_data(glyph_data(), mean=0, std=1, scale=1)
    assert "input-mismatch" not in [f.code for f in right.at_least("error")]
    found = [f for f in wrong.findings if f.code == "input-mismatch"]
    assert found, wrong.findings
    assert "--scale" in found[0].fix
    assert found[0].evidence["drift as given"] > 10


def test_test_items_that_are_training_items_are_counted() -> None:
    report = audit_data(glyph_data(copies=3))
    (found,) = [f for f in report.findings if f.code == "train-test-copies"]
    assert found.evidence == {"copies": 3, "items": 20}


def test_the_command_takes_a_script_or_data(tmp_path: object) -> None:
    done = CliRunner().invoke(app, ["audit"])
    assert done.exit_code != 0


@pytest.mark.real
@pytest.mark.slow
def test_unscaled_photographs(shared_data: object) -> None:
    backbone = {
        "source": "timm/mobilenetv1_100",
        "weights": f"{shared_data}/weights/mobilenetv1_imagenet.safetensors",
        "model_args": {"pad_type": "same", "bn_eps": 1e-3},
        "layer": "blocks.4.0",
        "size": 96,
    }
    from headstart import BackboneSpec

    spec = BackboneSpec(**backbone, mean=0, std=1, scale=1)  # type: ignore[arg-type]
    report = audit_data(f"{shared_data}/hymenoptera", spec)
    (found,) = [f for f in report.findings if f.code == "input-mismatch"]
    assert found.severity == "error"
    assert "0.5" in found.evidence["correction"]
    assert json.dumps(report.plain())
    right = BackboneSpec(**backbone, mean=0.5, std=0.5)  # type: ignore[arg-type]
    assert audit_data(f"{shared_data}/hymenoptera", right).at_least("warning") == ()
