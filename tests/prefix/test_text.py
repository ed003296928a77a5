"""Networks for text: masks beside the trunk, recurrent layers, library code full of branches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from headstart.freezing import freeze
from headstart.prefix import Cut, find_cut


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.cells = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows, _ = self.cells(self.words(x))
        return self.head(rows[:, -1])


def test_a_recurrent_layer_is_one_operation() -> None:
    model = Recurrent()
    x = torch.randint(20, (4, 7))
    cut = find_cut(model, x, freeze(model, {"": "frozen", "head": "trainable"}))
    assert isinstance(cut, Cut), cut
    assert [spec.shape for spec in cut.boundary] == [(8,)]
    assert cut.check.exact


@pytest.mark.parametrize("kind", ["Bert", "DistilBert"])
def test_a_transformer_is_cut_between_its_layers_with_the_mask_beside(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = (
        {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
        if kind == "Bert"
        else {"dim": 32, "n_layers": 3, "n_heads": 2}
    )
    model = getattr(transformers, f"{kind}ForSequenceClassification")(
        getattr(transformers, f"{kind}Config")(vocab_size=50, **sizes)
    )
    layers, head = (
        ("bert.encoder.layer", "bert.pooler")
        if kind == "Bert"
        else ("distilbert.transformer.layer", "pre_classifier")
    )
    handle = freeze(
        model,
        {"": "frozen", f"{layers}.2": "trainable", head: "trainable", "classifier": "trainable"},
    )
    example = {
        "input_ids": torch.randint(50, (4, 9)),
        "attention_mask": torch.ones(4, 9, dtype=torch.long),
    }
    example["attention_mask"][1:, 6:] = 0
    cut = find_cut(model, example, handle)
    assert isinstance(cut, Cut), cut
    assert cut.check.exact
    assert sorted(spec.dtype for spec in cut.boundary) == ["bool", "float32"]
    model.train()
    torch.manual_seed(0)
    expected = model(**example).logits
    torch.manual_seed(0)
    found = cut.suffix(*cut.prefix(**example)).logits
    assert torch.equal(found, expected)
