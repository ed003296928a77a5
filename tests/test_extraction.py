"""Extraction: right rows, the user's module untouched, impure networks refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones import load_backbone
from headstart.core.errors import BackboneError, BadFilesError, ConfigError, DataError
from headstart.data import Preprocessing, load_items
from headstart.extraction import Extraction, Extractor, extract

PLAN = Preprocessing(size=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def split_of(count: int, seed: int = 0):
    return load_items((images(count, seed), np.zeros(count, int)))


class Net(nn.Module):
    def __init__(self, **norm: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6, **norm)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.norm(self.conv(x))).relu().mean((2, 3))


@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
def test_rows_are_those_of_a_plain_loop(batch_size):
    net = Net()
    split = split_of(10)
    rows = extract(
        load_backbone(net, inputs=PLAN), split, settings=Extraction(batch_size=batch_size)
    )
    pixels = torch.from_numpy(images(10)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = net.eval()(PLAN.normalise(pixels))
    assert rows.indices.tolist() == list(range(10))
    assert rows.features[0].dtype == np.float32
    np.testing.assert_allclose(rows.features[0], expected.numpy(), atol=1e-6)


def test_the_module_is_left_as_it_was():
    net = Net().train()
    net.norm.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    extract(load_backbone(net, inputs=PLAN), split_of(5))
    assert net.training
    assert net.dropout.training
    assert not net.norm.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not any(part._forward_hooks for part in net.modules())


def test_a_norm_without_running_statistics_is_refused():
    backbone = load_backbone(Net(track_running_stats=False), inputs=PLAN)
    with pytest.raises(BackboneError, match=r"different features in another batch.*not cached"):
        extract(backbone, split_of(8))


class Confused(nn.Module):
    """Attends over the items, since torch's attention takes (tokens, items, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, 4)
        self.attention = nn.MultiheadAttention(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        return self.attention(x, x, x)[0]


@pytest.mark.parametrize("layer", [None, "attention"])
def test_attention_over_the_items_is_refused_for_what_it_is(layer):
    backbone = load_backbone(Confused(), inputs=PLAN, layer=layer, pooling="avg")
    with pytest.raises(BackboneError, match=r"mixes the items.*batch_first"):
        extract(backbone, split_of(8))


class Silent(Net):
    """A branch whose scale was never trained."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((6, 1, 1), scale))
        self.branch = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return (x + self.branch(self.norm(x) * self.scale)).mean((2, 3))


def test_features_that_are_the_same_for_every_item_are_refused():
    with pytest.raises(BackboneError, match=r"at branch gives the same features for every image"):
        extract(load_backbone(Silent(0.0), inputs=PLAN, layer="branch"), split_of(8))
    extract(load_backbone(Silent(0.1), inputs=PLAN, layer="branch"), split_of(8))
    # Items that are alike, or one alone, say nothing of the network.
    alike = load_items((np.repeat(images(1), 8, axis=0), np.zeros(8, int)))
    extract(load_backbone(Silent(0.1), inputs=PLAN), alike)
    extract(load_backbone(Silent(0.0), inputs=PLAN, layer="branch"), split_of(1))


class Rows(Net):
    """A network whose rows a function of the same name in the test changes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.lstm = nn.LSTM(6, 6)  # takes (time, items, channels)
        self.behind = nn.LSTM(6, 6, batch_first=True)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("centre", torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(super().forward(x))

    def change(self, rows: torch.Tensor) -> torch.Tensor:
        return rows


class OverTheItems(Rows):
    """The first item of a batch comes first in time, alone or not: its row is always the same."""

    def change(self, rows):
        return self.lstm(rows[:, None].expand(-1, 3, -1))[0].mean(1)


class BackwardsOverTheItems(Rows):
    def change(self, rows):
        return self.lstm(rows.flip(0)[:, None])[0].flip(0)[:, 0]


class Numbered(Rows):
    """Adds its table of positions along the items."""

    def change(self, rows):
        return rows + 0.1 * torch.arange(len(rows))[:, None]


class BesideTheNext(Rows):
    def change(self, rows):
        return rows + 0.1 * rows.roll(-1, 0)


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("layer", [None, "pooled"])
@pytest.mark.parametrize("kind", [OverTheItems, BackwardsOverTheItems, Numbered, BesideTheNext])
def test_rows_that_depend_on_the_place_in_the_batch_are_refused(kind, layer, count):
    net = nn.Sequential()
    net.add_module("pooled", kind())
    with pytest.raises(BackboneError, match=r"mixes the items|rows in a different order"):
        extract(load_backbone(net, inputs=PLAN, layer=layer), split_of(count))


class Drifting(Rows):
    """Its centre follows the data in evaluation mode too, by a millionth a batch."""

    def change(self, rows):
        self.centre += 1e-5 * rows.mean(0)
        return rows - self.centre


class Faint(Rows):
    def change(self, rows):
        return rows + 1e-5 * torch.randn_like(rows)


class Doubling(Rows):
    def forward(self, x):
        return super().forward(x.mul_(2))


class CountingPasses(Rows):
    """Keeps a plain number that moves its rows, by less than rounding in one pass."""

    calls = 0

    def change(self, rows):
        self.calls += 1
        return rows * (1 + 1e-5 * self.calls)


class InAList(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.seen_rows = [torch.zeros(6)]

    def change(self, rows):
        self.seen_rows[0] = 0.9 * self.seen_rows[0] + 1e-5 * rows.mean(0)
        return rows - self.seen_rows[0]


class InPart(Rows):
    """The state is a part's, not the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.part = CountingPasses()

    def change(self, rows):
        return self.part.change(rows)


class Elsewhere(Rows):
    """Draws from a generator that is not torch's."""

    def change(self, rows):
        return rows + float(DRAWS.random())


DRAWS = np.random.default_rng(0)


class Remembering(Rows):
    """Keeps what it saw last, and how often it ran; its rows do not depend on either."""

    calls = 0

    def change(self, rows):
        self.last, self.calls = rows, self.calls + 1
        return rows


def test_what_a_network_notes_down_does_no_harm():
    assert len(extract(load_backbone(Remembering(), inputs=PLAN), split_of(8)).indices) == 8


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (CountingPasses, r"second pass.*changes its attribute 'calls' even in evaluation mode"),
        (InAList, r"second pass.*changes its attribute 'seen_rows'"),
        (InPart, r"second pass.*changes its attribute 'part\.calls'"),
        (Elsewhere, r"second pass.*draws random numbers, or keeps a state"),
        (Drifting, r"second pass.*changes its buffer 'centre' even in evaluation mode"),
        (Faint, r"second pass.*draws random numbers"),
        (Doubling, r"second pass.*writes to its own input"),
    ],
)
def test_rows_that_depend_on_earlier_passes_are_refused_for_what_it_is(kind, why):
    with pytest.raises(BackboneError, match=why):
        extract(load_backbone(kind(), inputs=PLAN), split_of(8))


class NeedsCompany(Rows):
    """Without statistics of its own, torch's norm of rows refuses one item."""

    def change(self, rows):
        return nn.functional.batch_norm(rows, None, None, training=True)


class Squeezing(Rows):
    def change(self, rows):
        return rows.squeeze()


@pytest.mark.parametrize("kind", [NeedsCompany, Squeezing])
def test_a_network_that_cannot_take_one_item_is_refused(kind):
    with pytest.raises(BackboneError, match=r"not on one alone.*track_running_stats|for 1 items"):
        extract(load_backbone(kind(), inputs=PLAN), split_of(8))


class Rarely(Rows):
    """Draws in every pass, and in one of four to some effect."""

    def change(self, rows):
        return rows + (torch.rand(()) < 0.25).float()


def test_what_is_drawn_and_shows_in_few_passes_is_refused():
    with torch.random.fork_rng():
        torch.manual_seed(3)  # the first two passes of the check are the same
        with pytest.raises(BackboneError, match="draws random numbers"):
            extract(load_backbone(Rarely(), inputs=PLAN), split_of(8))


class Whole(Rows):
    def change(self, rows):
        return (20 * rows - self.least).relu().to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_rows_of_other_types_become_float32(dtype):
    net = Whole()
    net.dtype, net.least = dtype, 5.0  # some values are below it
    rows = extract(load_backbone(net, inputs=PLAN), split_of(8)).features[0]
    assert rows.dtype == np.float32
    with torch.no_grad():
        expected = net.eval()(PLAN.normalise(torch.from_numpy(images(8)).permute(0, 3, 1, 2)))
    np.testing.assert_allclose(rows, expected.numpy().astype(np.float32), rtol=1e-6)


class CountingItems(Rows):
    def change(self, rows):
        self.seen += len(rows)
        return rows


class Drawing(Rows):
    def change(self, rows):
        return rows + 0.0 * torch.randn_like(rows)


class Masking(Rows):
    """Writes to its input, and to the same effect every time."""

    def forward(self, x):
        x[:, :, 0] = 0
        return super().forward(x)


class OverTime(Rows):
    def change(self, rows):
        return self.behind(rows[:, None].expand(-1, 3, -1))[0].mean(1)


@pytest.mark.parametrize("kind", [CountingItems, Drawing, Masking, OverTime])
def test_states_that_change_no_row_are_not_refused(kind):
    rows = extract(load_backbone(kind(), inputs=PLAN), split_of(8)).features[0]
    with torch.no_grad():
        expected = kind().eval()(PLAN.normalise(torch.from_numpy(images(8)).permute(0, 3, 1, 2)))
    np.testing.assert_allclose(rows, expected.numpy(), atol=1e-6)


class Noisy(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


def test_a_network_that_draws_random_numbers_is_refused():
    with pytest.raises(BackboneError, match="second pass"):
        extract(load_backbone(Noisy(), inputs=PLAN), split_of(8))


class Broken(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 0.0


def test_infinite_features_are_refused():
    with pytest.raises(BackboneError, match="not finite"):
        extract(load_backbone(Broken(), inputs=PLAN), split_of(3))


class OverItsDeviation(Net):
    """Divides by the deviation of each image, which a plain one does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / x.std((1, 2, 3)).unsqueeze(1)


@pytest.mark.parametrize("engine", ["auto", "eager"])
@pytest.mark.parametrize("plain", [(0,), (2, 17), tuple(range(5, 20))])
def test_items_whose_features_are_not_finite_are_named_and_left_out(plain, engine):
    pixels = images(20)
    pixels[list(plain)] = 128
    split = load_items((pixels, np.zeros(20, int)))
    backbone = load_backbone(OverItsDeviation(), inputs=PLAN)
    settings = Extraction(batch_size=6, engine=engine)
    with pytest.raises(BadFilesError, match="its features are not finite") as caught:
        extract(backbone, split, settings=settings)
    assert [where for where, _ in caught.value.files] == [split.origins[i] for i in plain]
    found = extract(backbone, split, settings=settings, on_bad="skip")
    kept = np.setdiff1d(np.arange(20), plain)
    assert np.array_equal(found.indices, kept)
    alone = extract(backbone, load_items((pixels[kept], np.zeros(len(kept), int))))
    np.testing.assert_allclose(found.features[0], alone.features[0], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_compiled_rows_equal_eager_ones():
    backbone = load_backbone("headstart/glyphs")
    cuts = (backbone, backbone.at("stage2.0"))
    split = split_of(20)
    eager = extract(cuts, split, settings=Extraction(batch_size=8))
    compiled = extract(cuts, split, settings=Extraction(batch_size=8, engine="compile"))
    for one, two in zip(eager.features, compiled.features, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    assert not any(part._forward_hooks for part in backbone.module.modules())


def test_half_precision_stays_close():
    backbone = load_backbone("headstart/glyphs")
    split = split_of(16)
    full = extract(backbone, split).features[0]
    half = extract(backbone, split, settings=Extraction(precision="bfloat16")).features[0]
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.05 * np.abs(full).max()


def test_one_extractor_serves_several_splits():
    backbone = load_backbone("headstart/glyphs")
    with Extractor((backbone,)) as extractor:
        one = np.concatenate([r.features[0] for r in extractor.rows(split_of(5, 1))])
        two = np.concatenate([r.features[0] for r in extractor.rows(split_of(5, 2))])
    np.testing.assert_array_equal(one, extract(backbone, split_of(5, 1)).features[0])
    np.testing.assert_array_equal(two, extract(backbone, split_of(5, 2)).features[0])


class Counting(Net):
    """Counts the items that are computed."""

    items = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.items += len(x)
        return super().forward(x)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 31, 63, 64, 65, 130])
def test_no_batch_is_filled_up_beyond_need(count):
    """One image was computed as 64."""
    net = Counting()
    backbone = load_backbone(net, inputs=PLAN)
    net.items = 0
    rows = extract(backbone, split_of(count)).features[0]
    # A quarter of a small job, twice; one item alone; and two in the other order.
    checked = 2 * max(2, min(count // 4, 8)) + 1 + 2
    batches = -(-count // 64)
    assert net.items == checked + batches * min(count, 64)
    alone = extract(backbone, split_of(count), settings=Extraction(batch_size=1)).features[0]
    np.testing.assert_allclose(rows, alone, atol=1e-6)


def test_rows_do_not_depend_on_which_of_them_were_missing():
    """What is stored does not decide: a split that goes on after a kill has the same rows."""
    backbone, split = load_backbone(Net(), inputs=PLAN), split_of(30)
    with Extractor((backbone,)) as extractor:
        (whole,) = extractor.rows(split)
        (rest,) = extractor.rows(split, np.arange(11, 30))
        np.testing.assert_array_equal(whole.features[0][11:], rest.features[0])


def test_one_item_alone_shows_that_rows_depend_on_the_batch():
    backbone = load_backbone(Net(track_running_stats=False), inputs=PLAN)
    with pytest.raises(BackboneError, match=r"different features in another batch.*not cached"):
        extract(backbone, split_of(1))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("count", [1, 5])
def test_rows_of_small_splits_are_those_of_full_batches(name, count):
    import timm

    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=0).eval()
    inputs = Preprocessing(size=(160, 160), mean=(0.5,) * 3, std=(0.25,) * 3)
    backbone = load_backbone(net, inputs=inputs)
    full = extract(backbone, split_of(64)).features[0][:count]
    few = extract(backbone, split_of(64).take(range(count))).features[0]
    np.testing.assert_allclose(few, full, rtol=1e-4, atol=1e-4 * np.abs(full).max())


def test_unreadable_items(tmp_path):
    from PIL import Image

    for i in range(3):
        Image.fromarray(images(1, i)[0]).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"not an image")
    split = load_items(tmp_path)
    backbone = load_backbone("headstart/glyphs")
    with pytest.raises(BadFilesError, match=r"1\.png"):
        extract(backbone, split)
    rows = extract(backbone, split, on_bad="skip")
    assert rows.indices.tolist() == [0, 2]
    with pytest.raises(DataError, match="none of the items"):
        extract(backbone, split.take([1]), on_bad="skip")


def test_impossible_settings_are_listed_together():
    with pytest.raises(ConfigError, match=r"batch_size.*precision.*workers"):
        Extraction(batch_size=0, precision="float8", workers=0)
    with pytest.raises(ConfigError, match="cannot be used"):
        Extraction(device="cuda:99").resolve_device()
    with pytest.raises(ConfigError, match="cannot be used"):
        Extraction(device="toaster").resolve_device()
