"""Static embeddings are those of the libraries that made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from headstart.backbones import load_backbone
from headstart.cache import describe_space
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import predict
from headstart.core.errors import BackboneError
from headstart.core.progress import SilentReporter
from headstart.extraction import Extraction, extract
from tests.text_models import WORDS, questions, sentence, split_of, tokenizer

TEXTS = [*questions(30)[0], "words nobody knows cat", "zzz", sentence(np.random.default_rng(0), 90)]
SIZE = len(WORDS) + 4


def rows(name: str, texts: list[str] = TEXTS, **options: Any) -> np.ndarray:
    return extract(
        load_backbone(name, **options), split_of(texts), settings=Extraction(7)
    ).features[0]


def save_static(folder: Path, **config: Any) -> Path:
    """Save a small model as model2vec does."""
    folder.mkdir(parents=True, exist_ok=True)
    vectors = torch.randn(SIZE, 12, generator=torch.Generator().manual_seed(0))
    save_file({"embeddings": vectors}, folder / "model.safetensors")
    tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", **config}))
    return folder


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("quantised", [False, True])
def test_a_folder_of_model2vec(normalize: bool, quantised: bool, tmp_path: Path) -> None:
    library = pytest.importorskip("model2vec", reason="model2vec is not installed")
    rng = np.random.default_rng(0)
    more: dict[str, Any] = {}
    if quantised:
        more = {
            "token_mapping": rng.integers(0, 20, SIZE),
            "weights": rng.uniform(0.5, 2, SIZE).astype(np.float32),
        }
    vectors = rng.normal(size=(20 if quantised else SIZE, 12)).astype(np.float32)
    made = library.StaticModel(
        vectors, tokenizer().backend_tokenizer, normalize=normalize, max_length=40, **more
    )
    made.save_pretrained(tmp_path / "m")
    expected = made.encode(TEXTS)
    for name in (f"static/{tmp_path / 'm'}", f"hf/{tmp_path / 'm'}"):
        np.testing.assert_allclose(rows(name), expected, atol=1e-5)
    assert load_backbone(f"static/{tmp_path / 'm'}").inputs.max_length == 40


def test_a_static_embedding_of_sentence_transformers(tmp_path: Path) -> None:
    library = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    models = pytest.importorskip("sentence_transformers.models", reason="needs version 3 or later")
    Normalize, StaticEmbedding = models.Normalize, models.StaticEmbedding

    part = StaticEmbedding(tokenizer().backend_tokenizer, embedding_dim=12)
    made = library.SentenceTransformer(modules=[part, Normalize()], device="cpu")
    made.save(str(tmp_path / "m"))
    expected = made.encode(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(rows(f"hf/{tmp_path / 'm'}"), expected, atol=1e-5)


def test_wordllama_brings_its_weights_along() -> None:
    library = pytest.importorskip("wordllama.inference", reason="wordllama is not installed")
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    package = Path(library.__file__).parent
    vectors = load_file(package / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    tokens = package / "tokenizers" / "l2_supercat_tokenizer_config.json"
    made = library.WordLlamaInference(vectors, Tokenizer.from_file(str(tokens)))
    texts = ["How far is it from here to there?", "Ä ö ü – 漢字 \U0001f600", "a", "long " * 700]
    np.testing.assert_allclose(rows("static/wordllama", texts), made.embed(texts), atol=1e-4)
    backbone = load_backbone("static/wordllama")
    assert backbone.about.licence == "MIT"
    assert backbone.feature_shape() == (256,)


def test_fit_and_predict(tmp_path: Path) -> None:
    quiet = SilentReporter()
    folder = save_static(tmp_path / "m", normalize=True)
    data = {"train": questions(120), "test": questions(60, 1)}
    run = fit(data, f"static/{folder}", out=tmp_path / "run", cache=tmp_path / "c", reporter=quiet)
    assert run.evaluation.accuracy.value > 0.8
    said = predict(["the cat sleeps"], tmp_path / "run", cache=tmp_path / "c", reporter=quiet)
    assert len(said.labels) == 1
    key = describe_space(load_backbone(f"static/{folder}"))
    other = save_static(tmp_path / "elsewhere", normalize=True)
    assert describe_space(load_backbone(f"hf/{other}")) == key
    plain = save_static(tmp_path / "plain", normalize=False)
    assert describe_space(load_backbone(f"static/{plain}")) != key


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"there is no folder '.*none'"):
        load_backbone(f"static/{tmp_path / 'none'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackboneError, match="holds no static embeddings; expected a folder of mod"):
        load_backbone(f"static/{tmp_path / 'empty'}")
    folder = save_static(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BackboneError, match=r"the tokenizer of .* cannot be read"):
        load_backbone(f"static/{folder}")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(BackboneError, match=r"the weights of .* cannot be read"):
        load_backbone(f"static/{folder}")
    with pytest.raises(BackboneError, match="has no arguments"):
        load_backbone("static/wordllama", model_args={"dim": 64})
