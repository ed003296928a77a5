"""What the graph may and may not hold before the boundary."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.core.errors import ConfigError, FreezeError
from headstart.freezing import FreezePolicy, freeze, plan_freeze
from headstart.modules.forward import capture
from headstart.prefix import Cut, NoCut, find_cut
from tests.prefix.models import FAMILIES, block, images, made, same_state


def cut_of(model: nn.Module, example: object, frozen: object, **options: object) -> Cut:
    found = find_cut(model, example, frozen, **options)  # type: ignore[arg-type]
    assert isinstance(found, Cut), found
    return found


class Chain(nn.Module):
    """A trunk of three blocks with a layer under test between the first and the second."""

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.one = block(3, 4)
        self.between = between if between is not None else nn.Identity()
        self.two = block(4, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.between(self.one(x))).mean((2, 3)))


def test_all_frozen_but_the_head_is_cut_at_the_pooled_row() -> None:
    model = Chain()
    handle = freeze(model, {"": "frozen", "head": "trainable"})
    cut = cut_of(model, images(4, 8), handle)
    assert [spec.shape for spec in cut.boundary] == [(8,)]
    assert cut.bytes_per_item == 32
    assert "'head' is not frozen" in cut.ends[0]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Dropout(0.5), "random"),
        (nn.RReLU(), "random"),
        (timm.layers.DropPath(0.5), "random"),
        (nn.BatchNorm2d(4), "buffers"),
        (nn.BatchNorm2d(4, track_running_stats=False), "other items"),
    ],
    ids=["dropout", "rrelu", "drop-path", "batch-norm", "no-running-statistics"],
)
def test_what_varies_in_the_frozen_part_ends_it(layer: nn.Module, reason: str) -> None:
    """Frozen parameters do not make a layer deterministic: training mode is on."""
    model = Chain(layer).requires_grad_(False)
    model.one.eval()
    for part in (model.one, model.two):  # these two stay in evaluation mode, the layer does not
        freeze(part, "frozen")
    model.head.requires_grad_(True)
    cut = cut_of(model, images(4, 8), lambda name: not name.startswith("head"))
    assert [spec.shape for spec in cut.boundary] == [(4, 8, 8)]
    assert any("between" in end and reason in end for end in cut.ends), cut.ends


def test_batch_statistics_that_do_not_move_end_it_too() -> None:
    model = Chain(nn.BatchNorm2d(4))
    handle = freeze(
        model, {"": "frozen", "between": FreezePolicy(norm="batch"), "head": "trainable"}
    )
    cut = cut_of(model, images(4, 8), handle)
    assert [spec.shape for spec in cut.boundary] == [(4, 8, 8)]
    assert any("batch statistics" in end for end in cut.ends)


def test_a_first_layer_that_varies_leaves_nothing() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4), nn.Linear(4, 2))
    handle = freeze(model, {"": FreezePolicy(stochastic="on"), "2": "trainable"})
    found = find_cut(model, torch.randn(4, 4), handle)
    assert isinstance(found, NoCut)
    assert not found
    assert "'0' draws random numbers" in found.reason


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def test_an_operation_across_the_batch_ends_it() -> None:
    model = nn.Sequential(nn.Linear(4, 6), Centred(), nn.Linear(6, 2))
    handle = freeze(model, {"": "frozen", "2": "trainable"})
    cut = cut_of(model, torch.randn(4, 4), handle)
    assert [spec.shape for spec in cut.boundary] == [(6,)]
    assert "other items" in cut.ends[0]


class Tied(nn.Module):
    """The decoder uses the encoder's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.encoder = nn.Linear(6, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = nn.Parameter(torch.randn(4, 4))
        self.head = nn.Linear(4, 2)
        self.head.weight = nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encoder(self.first(x))
        return self.head(F.linear(self.decoder(hidden), self.encoder.weight.T)[:, :4])


def test_a_tied_weight_that_trains_is_not_before_the_cut() -> None:
    model = Tied()
    model.requires_grad_(False)
    model.encoder.weight.requires_grad_(True)
    names = {"": True, "encoder.weight": False}
    cut = cut_of(model, torch.randn(4, 6), names)
    assert [spec.name for spec in cut.boundary] == ["first"]
    assert id(model.encoder.weight) in {id(p) for p in cut.suffix.parameters()}
    assert id(model.encoder.weight) not in {id(p) for p in cut.prefix.parameters()}


def test_shared_memory_counts_as_tied() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)).requires_grad_(False)
    model[1].weight = nn.Parameter(model[2].weight.new_zeros(4, 4), requires_grad=False)
    model[2].weight = nn.Parameter(model[1].weight.detach()[:2])
    cut = cut_of(model, torch.randn(4, 4), lambda name: name != "2.weight")
    assert [spec.name for spec in cut.boundary] == ["_0"]


class InPlace(nn.Module):
    """Works in place on what the cut stores, and reads the old and the new content."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 6)
        self.gate = nn.Linear(6, 6)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.trunk(x)
        gate = self.gate(hidden)
        same = hidden.view(-1, 2, 3)
        hidden.mul_(2.0)
        same.add_(1.0)
        return self.head(self.act(hidden) + gate)


def test_in_place_operations_on_both_sides_of_the_boundary() -> None:
    model = InPlace()
    x = torch.randn(4, 4)
    for trains in ("gate", "head"):
        handle = freeze(model, {"": "frozen", trains: "trainable"})
        cut = cut_of(model, x, handle)
        rows = cut.prefix(x)
        before = [row.clone() for row in rows]
        assert torch.equal(cut.suffix(*rows), model(x))
        assert torch.equal(cut.suffix(*rows), model(x)), "the second epoch sees other rows"
        assert all(map(torch.equal, rows, before))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = block(3, 4)
        self.text = nn.Embedding(10, 4)
        self.head = nn.Linear(8, 2)

    def forward(
        self, image: Tensor, tokens: Tensor, mask: Tensor, scale: float = 1.0
    ) -> dict[str, Tensor]:
        left = self.image(image).mean((2, 3))
        right = (self.text(tokens) * mask[..., None]).sum(1)
        joined = torch.cat([left, right], 1) * scale
        return {"logits": self.head(joined), "mask": mask}


def test_several_inputs_of_several_types_by_name() -> None:
    model = TwoInputs()
    handle = freeze(model, {"": "frozen", "head": "trainable"})
    example = {
        "image": images(3, 8),
        "tokens": torch.randint(10, (3, 5)),
        "mask": torch.randint(2, (3, 5)).bool(),
        "scale": 0.5,
    }
    cut = cut_of(model, example, handle)
    assert {spec.dtype for spec in cut.boundary} == {"float32", "bool"}
    found, expected = cut.suffix(*cut.prefix(**example)), model(**example)
    assert torch.equal(found["logits"], expected["logits"])
    assert torch.equal(found["mask"], expected["mask"])
    with pytest.raises(ConfigError, match="another form"):
        cut.prefix(example["image"])


class Deep(nn.Module):
    """Branches on a shape, flattens by the batch size, makes tensors of the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 6)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.head = nn.Linear(18, 2)

    def forward(self, x: Tensor) -> Tensor:
        count, length, _ = x.shape
        if length % 2:
            x = F.pad(x, (0, 0, 0, 1))
        x = torch.cat([self.token.expand(count, -1, -1), self.one(x)], 1)
        x = x + torch.arange(x.shape[1], device=x.device)[:, None]
        x = x + torch.zeros(count, 1, 6)
        for row in range(x.size(1)):
            x = x * (1 + row)
        return self.head(x.view(count * 1, -1)[:, :18])


def test_shapes_are_settled_and_the_batch_size_is_free() -> None:
    model = Deep()
    handle = freeze(model, {"": "frozen", "head": "trainable"})
    cut = cut_of(model, torch.randn(2, 3, 6), handle)
    for count in (1, 2, 5):
        x = torch.randn(count, 3, 6)
        assert torch.allclose(cut.suffix(*cut.prefix(x)), model(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="3×6, found 5×6"):
        cut.prefix(torch.randn(2, 5, 6))
    with pytest.raises(ConfigError, match="per item"):
        cut.suffix(torch.randn(2, 5, 6))


def test_channels_last_models_keep_their_memory_layout() -> None:
    model = Chain().to(memory_format=torch.channels_last)
    handle = freeze(model, {"": "frozen", "two": "trainable", "head": "trainable"})
    x = images(4, 8).contiguous(memory_format=torch.channels_last)
    cut = cut_of(model, x, handle)
    assert cut.boundary[0].order == (0, 2, 3, 1)
    stored = [row.contiguous() for row in cut.prefix(x)]
    model.train()
    assert torch.equal(cut.suffix(*stored), model(x))


def test_the_model_is_left_as_it_was() -> None:
    family = FAMILIES["mobilenetv1"]
    model = made(family)
    handle = freeze(model, family.stage)
    model.eval()
    model.blocks[4].train()
    before, attributes = copy.deepcopy(model), set(vars(model))
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    grad = torch.is_grad_enabled()
    example = images(3, family.size)
    kept = example.clone()
    find_cut(model, example, handle)
    assert [part.training for part in model.modules()] == modes
    assert same_state(model, before)
    assert set(vars(model)) == attributes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled() is grad
    assert torch.equal(example, kept)
    assert "training" not in vars(nn.Module)
    handle.verify()


def test_a_plan_that_is_not_carried_out_gives_the_same_cut() -> None:
    family = FAMILIES["resnet18"]
    model = made(family)
    frozen = freeze(model, family.stage)
    expected = cut_of(model, images(2, family.size), frozen, measure=False)
    frozen.release()
    plan = plan_freeze(model, family.stage)
    found = cut_of(model, images(2, family.size), plan, measure=False)
    assert found.boundary == expected.boundary
    assert found.describe() == expected.describe()


def test_unfreezing_moves_the_cut() -> None:
    family = FAMILIES["resnet18"]
    model = made(family)
    shapes = []
    for part in ("fc", "layer4", "layer3"):
        handle = freeze(model, {"": "frozen", "fc": "trainable", part: "trainable"})
        shapes.append(
            cut_of(model, images(2, family.size), handle, measure=False).boundary[0].shape
        )
    assert shapes == [(512,), (256, 3, 3), (128, 6, 6)]


def test_reading_that_costs_more_than_computing_is_not_done() -> None:
    model = Chain()
    handle = freeze(model, {"": "frozen", "two": "trainable", "head": "trainable"})
    found = find_cut(model, images(4, 8), handle, read_bandwidth=1.0)
    assert isinstance(found, NoCut)
    assert "less time" in found.reason


def test_contradictions_and_unknown_names_are_refused() -> None:
    model = Chain()
    with pytest.raises(FreezeError, match=r"requires_grad on.*headstart\.freeze"):
        find_cut(model, images(2, 8), lambda name: name.startswith("one"))
    with pytest.raises(FreezeError, match=r"'ones' is no parameter.*'one'"):
        find_cut(model, images(2, 8), {"ones": True})
    with pytest.raises(FreezeError, match="another Chain"):
        find_cut(model, images(2, 8), freeze(Chain()))
    with pytest.raises(ConfigError, match="no tensor"):
        find_cut(model, {"x": 3}, {"": False})
    with pytest.raises(ConfigError, match="float8"):
        find_cut(model, images(2, 8), {"": False}, dtype="float8")  # type: ignore[arg-type]


def test_a_copy_of_the_suffix_trains_on_its_own() -> None:
    family = FAMILIES["mobilenetv1"]
    model = made(family)
    batch = images(4, family.size)
    cut = cut_of(model, batch, freeze(model, family.stage))
    copied = copy.deepcopy(cut.suffix)
    copied.eval()
    model.train()
    rows = cut.prefix(batch)
    ours = {id(p) for p in cut.suffix.parameters()}
    assert not ours & {id(p) for p in copied.parameters()}
    assert torch.equal(copied(*rows), copied(*rows)), "dropout follows the copy's own mode"
    model.eval()
    assert torch.equal(copied(*rows), cut.suffix(*rows))


class Modal(nn.Module):
    """Its forward follows its mode, and goes on behind the layers that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.cells = nn.Linear(6, 6), nn.LSTM(6, 6, batch_first=True)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.one(x), 0.5, self.training)
        rows, _ = self.cells(x)
        return self.head(self.norm(rows.mul_(2.0)))


class UpTo(nn.Module):
    """Reads a network at a layer, as a classifier on a backbone does."""

    def __init__(self, layer: str | None) -> None:
        super().__init__()
        self.body, self.layer, self.last = Modal(), layer, nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        found = capture(self.body, [self.layer], lambda _layer, output: output, x)
        return self.last(found[self.layer].mean(1)[:, :6])


@pytest.mark.parametrize("layer", ["one", "cells", "norm"])
def test_a_network_that_is_read_at_a_layer_is_recorded_up_to_there(layer: str) -> None:
    model = UpTo(layer)
    handle = freeze(model, {"": "frozen", "last": "trainable"})
    x = torch.randn(3, 4, 6)
    cut = cut_of(model, x, handle)
    assert [spec.shape for spec in cut.boundary] == [(6,)]
    with torch.no_grad():
        assert torch.equal(cut.suffix(*cut.prefix(x)), model.eval()(x))
    parts = {name for name, _ in cut.prefix.named_parameters()}
    assert not any(name.startswith("body.head") for name in parts)
    assert any(name.startswith("body.norm") for name in parts) == (layer == "norm")
    assert all("body" not in name or "last" in name for name in dict(cut.suffix.named_parameters()))


def test_the_mode_is_followed_up_to_a_layer() -> None:
    model = UpTo("norm")
    handle = freeze(model, {"": FreezePolicy(stochastic="on"), "last": "trainable"})
    cut = cut_of(model, torch.randn(3, 4, 6), handle)
    assert [spec.name for spec in cut.boundary] == ["body_one"]
    assert any("dropout in 'body'" in end and "mode" in end for end in cut.ends), cut.ends
