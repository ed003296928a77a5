"""The rows of a sentence-transformers folder are the library's own embeddings."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from headstart.backbones import load_backbone
from headstart.extraction import Extraction, extract
from tests.text_models import questions, save_sentence_model, split_of

library = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed"
)
DATA = Path(__file__).parents[2].parent / "shared" / "data"


def difference(folder: Path, texts: list[str], **settings: object) -> float:
    """Return the largest difference of a value."""
    model = library.SentenceTransformer(str(folder), device="cpu")
    expected = model.encode(texts, batch_size=16, show_progress_bar=False)
    backbone = load_backbone(f"hf/{folder}")
    found = extract(backbone, split_of(texts), settings=Extraction(16, **settings)).features[0]
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token", "max_tokens"])
def test_small_folders(pooling: str, tmp_path: Path) -> None:
    folder = save_sentence_model(tmp_path / "m", "bert", pooling)
    assert difference(folder, questions(40)[0]) < 1e-5


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "weights" / "minilm").is_dir(), reason="needs ../shared/data")
def test_minilm() -> None:
    with (DATA / "trec" / "test.csv").open() as file:
        texts = [row["text"] for row in csv.DictReader(file)][:150]
    texts += ["word " * 400, "a", "Ä ö ü – “quotes” 漢字 \U0001f600", texts[0].upper()]
    assert difference(DATA / "weights" / "minilm", texts) < 1e-5
