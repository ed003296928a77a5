"""Heads that begin as texts about the classes: without a label they are what the library says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.commands.cli import main
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import predict
from headstart.commands.update.job import update
from headstart.core.errors import ConfigError
from headstart.core.progress import SilentReporter
from headstart.heads import load_head
from tests.finetuning.conftest import squares
from tests.image_models import save_image_model
from tests.text_models import tokenizer

QUIET = SilentReporter()


def save_towers(folder: Path, kind: str) -> Path:
    save_image_model(folder, kind)
    tokenizer().save_pretrained(folder)
    return folder


def data(train: int = 40) -> dict[str, Any]:
    def named(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = squares(count, seed)
        return images, np.array(["red_cat", "small stone"])[labels]

    return {"train": named(train, 0), "test": named(24, 9)}


def zero_shot(folder: Path, images: np.ndarray, texts: list[str], padding: Any) -> np.ndarray:
    """Return the probabilities that transformers gives the texts for each image."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding=padding, max_length=40, truncation=True, return_tensors="pt"
    )
    tokens.pop("token_type_ids", None)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor([Image.fromarray(x) for x in images], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model(pixel_values=pixels, **tokens).logits_per_image.softmax(1).numpy()


@pytest.mark.parametrize(("kind", "padding"), [("clip", True), ("siglip", "max_length")])
def test_without_a_label_it_is_the_models_own_answer(
    kind: str, padding: Any, tmp_path: Path
) -> None:
    folder = save_towers(tmp_path / "m", kind)
    source = data()
    run = fit(
        source, f"hf/{folder}", start="text", prompt="what is a {}", labels_per_class=0,
        out=tmp_path / "run", cache=tmp_path / "c", reporter=QUIET,
    )  # fmt: skip
    images, labels = source["test"]
    texts = ["what is a red cat", "what is a small stone"]
    expected = zero_shot(folder, images, texts, padding)
    said = predict(images, tmp_path / "run", cache=tmp_path / "c", reporter=QUIET)
    np.testing.assert_allclose(said.probabilities, expected, atol=1e-4)
    shot = next(each for each in run.baselines if each.name == "zero-shot")
    right = np.mean(np.array(["red_cat", "small stone"])[expected.argmax(1)] == labels)
    assert shot.accuracy.value == run.evaluation.accuracy.value == right
    assert "what is a red cat" in shot.description
    assert load_head(tmp_path / "run").unit


def test_labels_are_drawn_towards_the_texts(tmp_path: Path) -> None:
    folder = save_towers(tmp_path / "m", "clip")
    run = fit(
        data(), f"hf/{folder}", start="text", out=tmp_path / "run", cache=tmp_path / "c",
        reporter=QUIET,
    )  # fmt: skip
    shot = next(each for each in run.baselines if each.name == "zero-shot")
    assert run.evaluation.accuracy.value > max(0.9, shot.accuracy.value)
    assert any("begins as the texts of the classes, right without a label" in n for n in run.notes)
    assert "zero-shot" in (tmp_path / "run" / "report.html").read_text()
    more, labels = data(12)["train"]
    again = update((255 - more, labels), tmp_path / "run", cache=tmp_path / "c", reporter=QUIET)
    assert again.n_train == 52


def test_what_a_class_is_called(tmp_path: Path) -> None:
    folder = save_towers(tmp_path / "m", "clip")
    run = fit(
        data(), f"hf/{folder}", start="text", cache=tmp_path / "c", write=False, reporter=QUIET,
        class_names={"red_cat": ["cat", "red cat"], "small stone": "stone"},
    )  # fmt: skip
    assert run.head.owner.tolist() == [0, 0, 1]
    assert any("a photo of a cat" in note for note in run.notes)
    with pytest.raises(ConfigError, match=r"there is no class 'dog' \(red_cat, small stone\)"):
        fit(
            data(), f"hf/{folder}", start="text", cache=tmp_path / "c", write=False,
            class_names={"dog": "dog"}, reporter=QUIET,
        )  # fmt: skip


def test_what_is_refused(tmp_path: Path) -> None:
    vit = save_image_model(tmp_path / "vit", "vit")
    clip = save_towers(tmp_path / "clip", "clip")
    for name, more in (
        (f"hf/{vit}", {}), ("headstart/glyphs", {}),
        (f"hf/{clip}", {"layer": "model.vision_model.encoder.layers.0"}),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="has no text tower"):
            fit(
                data(),
                name,
                start="text",
                cache=tmp_path / "c",
                write=False,
                reporter=QUIET,
                **more,
            )
    with pytest.raises(ConfigError, match=r"prompt must contain \{\} where the name of a class"):
        fit(data(), f"hf/{clip}", start="text", prompt="a photo", reporter=QUIET)
    with pytest.raises(ConfigError, match="prompt requires start='text'"):
        fit(data(), f"hf/{clip}", prompt="a {}", reporter=QUIET)


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_towers(tmp_path / "m", "clip")
    for role, (images, labels) in data(12).items():
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            (tmp_path / "data" / role / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / "data" / role / label / f"{i}.png")
    words = ["fit", str(tmp_path / "data"), "-b", f"hf/{folder}", "--start", "text", "--prompt"]
    words += ["a small {}", "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "c")]
    monkeypatch.setattr(sys, "argv", ["headstart", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    out, err = capsys.readouterr()
    assert "zero-shot" in out
    assert "'a small red cat'" in out + err
