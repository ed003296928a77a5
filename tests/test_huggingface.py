"""Hugging Face's real Trainer: what is frozen stays, a leak is found, a resumed run goes on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.core.errors import FreezeError

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from headstart.huggingface import Freeze  # noqa: E402

SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 20, "num_labels": 2}  # fmt: skip


class Normed(nn.Module):
    """A text classifier with a batch norm between encoder and classifier, and dropout."""

    def __init__(self, seed: int = 0, *, leak: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES))
        self.encoder, self.norm = model.bert, nn.BatchNorm1d(16)
        self.classifier, self.leak = nn.Linear(16, 2), leak

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        if self.leak and self.training:
            with torch.no_grad():
                self.encoder.embeddings.word_embeddings.weight[0] += 0.01
        logits = self.classifier(self.norm(self.encoder(input_ids).pooler_output))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def items(n: int = 32) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 60, (n, 8), generator=generator)
    return [{"input_ids": row, "labels": row[0] % 2} for row in ids]


def trained(model: nn.Module, folder: Path, callback: Any, epochs: int = 1, **more: Any) -> Any:
    arguments = transformers.TrainingArguments(
        str(folder), num_train_epochs=epochs, per_device_train_batch_size=8, learning_rate=1e-2,
        weight_decay=0.1, report_to=[], disable_tqdm=True, save_strategy="epoch", use_cpu=True,
        logging_strategy="no", **more,
    )  # fmt: skip
    return transformers.Trainer(model, arguments, train_dataset=items(), callbacks=[callback])


def state(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


PARTS = {"encoder": "frozen", "norm": "frozen"}


def test_what_is_frozen_does_not_move(tmp_path: Path) -> None:
    model, freeze = Normed(), Freeze(PARTS, every_epoch=True)
    before = state(model)
    made = trained(model, tmp_path, freeze)
    held = {id(p) for group in made.create_optimizer().param_groups for p in group["params"]}
    assert held == {id(p) for p in model.classifier.parameters()}
    made.train()
    after = state(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"classifier.weight", "classifier.bias"}
    assert freeze.verification is not None
    assert freeze.verification.holds


def test_a_callback_that_is_added_later_freezes_in_time(tmp_path: Path) -> None:
    model, freeze = Normed(), Freeze(PARTS)
    before = state(model.encoder)
    made = trained(model, tmp_path, transformers.TrainerCallback())
    made.add_callback(freeze)
    made.train()
    assert equal(before, state(model.encoder))


def test_a_leak_ends_the_training_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FreezeError, match="word_embeddings"):
        trained(Normed(leak=True), tmp_path, Freeze(PARTS)).train()


def test_a_resumed_run_is_compared_with_its_first_start(tmp_path: Path) -> None:
    model = Normed()
    trained(model, tmp_path, Freeze(PARTS)).train()
    frozen = state(model.encoder)
    (checkpoint,) = tmp_path.glob("checkpoint-*")

    again, freeze = Normed(seed=5), Freeze(PARTS)  # built anew, with other numbers
    made = trained(again, tmp_path, freeze, epochs=2)
    made.train(resume_from_checkpoint=str(checkpoint))
    assert equal(frozen, state(again.encoder))

    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    tensors["norm.running_var"] += 1e-3  # it moved in between
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(FreezeError, match="running_var"):
        trained(Normed(), tmp_path, Freeze(PARTS), epochs=2).train(
            resume_from_checkpoint=str(checkpoint)
        )
