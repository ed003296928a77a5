"""Models of texts compute what transformers and sentence-transformers compute."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.backbones import load_backbone
from headstart.core.errors import BackboneError, ConfigError, DataError
from headstart.core.progress import SilentReporter
from headstart.data.items import SampleItems
from headstart.data.texts import Texts
from headstart.extraction import Extraction, extract
from tests.text_models import (
    CAUSAL,
    KINDS,
    questions,
    save_model,
    save_sentence_model,
    sentence,
    split_of,
)

TEXTS = [sentence(np.random.default_rng(n), n) for n in (1, 2, 3, 5, 8, 13, 21, 34, 50)]
"""Texts of many lengths."""


class Notes(SilentReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def rows(folder: Path, texts: list[str], batch: int = 64, **options: Any) -> np.ndarray:
    backbone = load_backbone(f"hf/{folder}", **options)
    return extract(backbone, split_of(texts), settings=Extraction(batch)).features[0]


def states_of(folder: Path, text: str) -> np.ndarray:
    """Return the hidden states of one text alone, by transformers itself: ``(tokens, d)``."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    tokens = AutoTokenizer.from_pretrained(folder)(
        text, return_tensors="pt", truncation=True, max_length=60
    )
    tokens.pop("token_type_ids", None)
    with torch.inference_mode():
        return model(**tokens).last_hidden_state[0].numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_no_row_depends_on_padding_or_on_other_texts(kind: str, side: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", kind, side=side)
    one = rows(folder, TEXTS)
    scale = np.abs(one).max()
    for batch in (1, 2, 5):
        np.testing.assert_allclose(rows(folder, TEXTS, batch), one, atol=2e-6 * scale)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    again = rows(folder, [TEXTS[i] for i in order], 4)
    np.testing.assert_allclose(again, one[order], atol=2e-6 * scale)
    alone = [states_of(folder, text) for text in TEXTS]
    way = "last" if kind in CAUSAL else "mean"
    expected = [s[-1] if way == "last" else s.mean(0) for s in alone]
    np.testing.assert_allclose(one, np.stack(expected), atol=1e-5 * scale)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_layers_and_poolings(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", kind)
    alone = [states_of(folder, text) for text in TEXTS]
    for pooling, expected in (
        ("avg", [s.mean(0) for s in alone]),
        ("cls", [s[0] for s in alone]),
        ("last", [s[-1] for s in alone]),
    ):
        found = rows(folder, TEXTS, 4, pooling=pooling)
        np.testing.assert_allclose(found, np.stack(expected), atol=1e-4)
    backbone = load_backbone(f"hf/{folder}")
    assert len(backbone.blocks) == 3
    cuts = [backbone.at(name) for name in backbone.blocks]
    found = extract(cuts, split_of(TEXTS), settings=Extraction(4)).features
    assert all(np.isfinite(each).all() and each.shape == (len(TEXTS), 32) for each in found)
    assert not np.allclose(found[0], found[2])
    with pytest.raises(BackboneError, match=r"alone: texts differ in length"):
        extract(backbone.at(backbone.blocks[0], "none"), split_of(TEXTS))


@pytest.mark.parametrize(
    ("pooling", "of"),
    [
        ("mean_tokens", lambda s: s.mean(0)),
        ("cls_token", lambda s: s[0]),
        ("max_tokens", lambda s: s.max(0)),
        ("lasttoken", lambda s: s[-1]),
        ("mean_sqrt_len_tokens", lambda s: s.sum(0) / np.sqrt(len(s))),
        (
            "weightedmean_tokens",
            lambda s: (s * np.arange(1, len(s) + 1)[:, None]).sum(0) / sum(range(1, len(s) + 1)),
        ),
    ],
)
def test_a_sentence_folder_pools_as_it_says(pooling: str, of: Any, tmp_path: Path) -> None:
    folder = save_sentence_model(tmp_path / "m", "bert", pooling)
    texts = TEXTS[:6]
    expected = np.stack([of(states_of(folder, text)) for text in texts])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows(folder, texts, 3), expected, atol=1e-5)
    assert load_backbone(f"hf/{folder}").inputs.max_length == 24


def test_a_prompt_belongs_to_the_text(tmp_path: Path) -> None:
    plain = save_sentence_model(tmp_path / "plain")
    asked = save_sentence_model(tmp_path / "asked", prompt="what is ")
    texts, _ = questions(6)
    np.testing.assert_allclose(
        rows(asked, texts), rows(plain, [f"what is {text}" for text in texts]), atol=1e-6
    )


def test_the_key_follows_from_content_alone(tmp_path: Path) -> None:
    from headstart.cache import describe_space

    folder = save_model(tmp_path / "m")
    key = describe_space(load_backbone(f"hf/{folder}"))
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert describe_space(load_backbone("hf/any", weights=tmp_path / "elsewhere")) == key
    tokens = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]
    (tmp_path / "elsewhere" / "tokenizer.json").write_text(json.dumps(tokens))
    other = describe_space(load_backbone(f"hf/{tmp_path / 'elsewhere'}"))
    assert other["backbone"] == key["backbone"]
    assert other["preprocessing"] != key["preprocessing"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert describe_space(load_backbone(f"hf/{folder}"))["backbone"] != key["backbone"]
    shorter = load_backbone(f"hf/{folder}", max_length=5)
    assert shorter.inputs.max_length == 5
    with pytest.raises(ConfigError, match="'text' have no size"):
        load_backbone(f"hf/{folder}", size=224)


def test_loading_draws_nothing_from_the_users_generator(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m")
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    load_backbone(f"hf/{folder}")
    assert torch.equal(torch.rand(3), expected)


def test_inputs_travel_to_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.data import tokenizers

    inputs = load_backbone(f"hf/{save_model(tmp_path / 'm')}").inputs
    packed = pickle.dumps(inputs)
    monkeypatch.setattr(tokenizers, "_KEPT", {})
    tokenizers._open.cache_clear()
    with pytest.raises(BackboneError, match="not the one of a backbone that has been loaded"):
        inputs.sample("the cat")
    assert pickle.loads(packed) == inputs == copy.deepcopy(inputs)
    assert inputs.sample("the cat").shape == (2, 4)


# What is refused


def test_a_tokenizer_without_padding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"no padding token.*pad_token = tokenizer.eos_token"):
        load_backbone(f"hf/{save_model(tmp_path / 'm', 'gpt2', pad=False)}")


def test_a_model_without_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(BackboneError, match=r"has no tokenizer in.*save_pretrained"):
        load_backbone(f"hf/{folder}")


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(BackboneError, match=r"only pytorch_model.bin, which may hold code"):
        load_backbone(f"hf/{folder}")


def test_code_of_a_model_is_not_run(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    own = {
        **config,
        "model_type": "mine",
        "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(own))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BackboneError, match="comes with its own code, which is not run"):
        load_backbone(f"hf/{folder}")
    kernel = {**config, "attn_implementation": "somebody/attention"}
    (folder / "config.json").write_text(json.dumps(kernel))
    with pytest.raises(BackboneError, match="refers to external code"):
        load_backbone(f"hf/{folder}")
    assert not (tmp_path / "ran").exists()


def test_parts_of_a_sentence_folder_that_are_not_known_are_refused(tmp_path: Path) -> None:
    folder = save_sentence_model(tmp_path / "m")
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "my_code.Normalize"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(BackboneError, match=r"part 'my_code.Normalize'"):
        load_backbone(f"hf/{folder}")
    modules[2] = {"type": "sentence_transformers.models.Normalize", "path": "../../elsewhere"}
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(BackboneError, match="folders outside of it"):
        load_backbone(f"hf/{folder}")


def test_missing_tensors_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_model(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layer.2" in name)
    tensors.pop(name)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneError, match=r"lack 1 tensors of the model, such as enc.*layer.2"):
        load_backbone(f"hf/{folder}")


def test_other_kinds_of_models_are_refused(tmp_path: Path) -> None:
    from transformers import ViltConfig, VivitConfig, Wav2Vec2Config

    Wav2Vec2Config(hidden_size=32, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="has no feature extractor in"):
        load_backbone(f"hf/{tmp_path}")
    VivitConfig(hidden_size=32, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(BackboneError):
        load_backbone(f"hf/{tmp_path}")
    ViltConfig(hidden_size=32, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(BackboneError):
        load_backbone(f"hf/{tmp_path}")


def test_a_network_that_takes_padding_for_content_is_refused(tmp_path: Path) -> None:
    backbone = load_backbone(f"hf/{save_model(tmp_path / 'm')}")

    class Deaf(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.inner(input_ids, torch.ones_like(attention_mask))

    deaf = load_backbone(Deaf(backbone.module), inputs=backbone.inputs)
    with pytest.raises(BackboneError, match="treats padding as content"):
        extract(deaf, split_of(TEXTS))


def test_images_and_texts_do_not_mix(tmp_path: Path) -> None:
    backbone = load_backbone(f"hf/{save_model(tmp_path / 'm')}")
    split = split_of(TEXTS)
    with pytest.raises(DataError, match="data are texts, and this backbone takes images"):
        extract(load_backbone("headstart/glyphs"), split)
    images = SampleItems(np.zeros((2, 8, 8), np.uint8), lambda v: v, "x")
    with pytest.raises(DataError, match="data are images, and this backbone takes texts"):
        extract(backbone, type(split)(images, np.arange(2), np.array([-1, -1])))


def test_an_unknown_folder_and_a_name_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackboneError, match="does not exist, expected the folder of a"):
        load_backbone(f"hf/{tmp_path / 'none'}")
    import huggingface_hub

    def offline(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(BackboneError, match=r"hf/some/model is not on this machine.*no network"):
        load_backbone("hf/some/model")


def test_longer_texts_are_cut_and_counted(tmp_path: Path) -> None:
    backbone = load_backbone(f"hf/{save_model(tmp_path / 'm')}", max_length=10)
    assert isinstance(backbone.inputs, Texts)
    reporter = Notes()
    extract(backbone, split_of(TEXTS), reporter=reporter)
    assert any(
        "Longer than 10 tokens; the rest is not read: 4 texts" in note for note in reporter.notes
    )
