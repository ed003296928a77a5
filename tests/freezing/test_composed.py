"""A model composed of parts, one of them loaded and frozen; and real weights on real images."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from headstart.backbones.weights import load_weights
from headstart.freezing import FreezePolicy, compare_digests, digests, drift, freeze, guard


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.drop = nn.Dropout(0.5)
        self.rnn = nn.GRU(8, 8, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        output, _ = self.rnn(self.drop(self.embed(tokens)))
        return output


class Translator(nn.Module):
    """Encoder, attention and decoder, as in the thread about transfer between two tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.decoder = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 20))

    def forward(self, tokens: Tensor) -> Tensor:
        rows = self.encoder(tokens)
        return self.decoder(self.attention(rows, rows, rows)[0])


def test_an_encoder_from_a_checkpoint_stays_while_the_rest_trains(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Encoder()
    file = tmp_path / "encoder.safetensors"
    save_file(source.state_dict(), str(file))

    model = Translator()
    assert load_weights(model, file, into="encoder").complete
    handle = freeze(model, {"encoder": "frozen"})
    tokens = torch.randint(0, 20, (4, 6))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with guard(model) as report:
        for _ in range(3):
            model.train()
            loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    handle.verify()
    assert report.idle == ()
    assert digests(model.encoder) == digests(source)
    assert torch.equal(model.encoder(tokens), source.eval()(tokens))
    assert model.decoder[1].training
    assert model.attention.training
    assert not torch.equal(model(tokens), model(tokens))


@pytest.fixture(scope="module")
def mobilenet(shared_data: Path) -> nn.Module:
    import timm

    model = timm.create_model("mobilenetv1_100", pad_type="same", bn_eps=1e-3)
    load_weights(
        model,
        shared_data / "weights" / "mobilenetv1_imagenet.safetensors",
        allow_missing=["blocks.4.1", "classifier"],
    )
    model.blocks[4] = model.blocks[4][:1]
    model.reset_classifier(2)
    return model


@pytest.fixture(scope="module")
def insects(shared_data: Path) -> list[tuple[Tensor, Tensor]]:
    """Four batches of eight ants and bees at 96 pixels, in [-1, 1] as in pre-training."""
    from PIL import Image
    from torchvision.transforms.v2 import functional as transforms

    def read(path: Path) -> Tensor:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((96, 96), Image.Resampling.BILINEAR)
        return transforms.pil_to_tensor(small).float() / 127.5 - 1

    folders = [sorted((shared_data / "hymenoptera/train" / n).iterdir()) for n in ("ants", "bees")]
    batches = []
    for index in range(4):
        paths = [path for folder in folders for path in folder[4 * index : 4 * index + 4]]
        batches.append((torch.stack([read(p) for p in paths]), torch.arange(8) // 4))
    return batches


def fit(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    torch.manual_seed(0)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9, weight_decay=1e-4)
    for images, labels in batches:
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


@pytest.mark.real
def test_real_statistics_move_without_the_contract_and_stay_with_it(
    mobilenet: Any, insects: list[tuple[Tensor, Tensor]]
) -> None:
    plain = copy.deepcopy(mobilenet)
    plain.requires_grad_(False)
    plain.classifier.requires_grad_(True)
    before = digests(plain)
    fit(plain, insects)
    moved = [n for n in compare_digests(before, digests(plain)) if "classifier" not in n]
    assert len(moved) == 25 * 3
    assert all("running_" in name or "num_batches" in name for name in moved)

    held = copy.deepcopy(mobilenet)
    handle = freeze(held, {"": "frozen", "classifier": "trainable"})
    fit(held, insects)
    moved = compare_digests(before, digests(held))
    assert moved == ("classifier.bias", "classifier.weight")
    assert handle.verify().checked == len(before) - 2


@pytest.mark.real
def test_real_drift_sees_images_that_were_not_scaled(
    mobilenet: Any, insects: list[tuple[Tensor, Tensor]]
) -> None:
    right = drift(mobilenet, insects)
    wrong = drift(mobilenet, [((images + 1) * 127.5, labels) for images, labels in insects])
    assert len(right) == 25
    assert right[0].name == "bn1"
    assert wrong[0].symmetric_kl > 100 * right[0].symmetric_kl


@pytest.mark.real
def test_real_batch_statistics_do_not_move_either(
    mobilenet: Any, insects: list[tuple[Tensor, Tensor]]
) -> None:
    model = copy.deepcopy(mobilenet)
    policy = FreezePolicy(norm="batch")
    handle = freeze(model, {"": policy, "classifier": "trainable"})
    model.train()
    images = insects[0][0]
    together, alone = model.forward_features(images), model.forward_features(images[:2])
    assert not torch.allclose(together[:2], alone, rtol=0.1)
    assert not policy.cacheable
    handle.verify()
