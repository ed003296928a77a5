"""The loop: equal curves from images and from stored rows, state from stage to stage, proofs."""

from __future__ import annotations

import random

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from headstart.backbones import Backbone, load_backbone
from headstart.core.errors import ConfigError
from headstart.finetuning import Recipe, Stage
from headstart.finetuning.checkpoint import Checkpoint, Saved
from headstart.finetuning.state import Average, build_optimizer
from headstart.finetuning.targets import resolve
from headstart.modules.digests import digests
from tests.finetuning.conftest import Bench
from tests.finetuning.models import residual


def timm_backbone(name: str, size: int, **arguments: object) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=0, **arguments)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.8, 1.2)
    return load_backbone(module, mean=0.5, std=0.25, size=size)


class Skips(nn.Module):
    """An encoder and a decoder, with two skips from the one to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.norm = nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.fuse = nn.Conv2d(16, 8, 3, padding=1)
        self.out = nn.Conv2d(11, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        one = torch.relu(self.down1(x))
        two = torch.relu(self.norm(self.down2(one)))
        three = torch.relu(self.fuse(torch.cat([self.up(two), one], 1)))
        small = nn.functional.avg_pool2d(x, 2)
        return self.out(torch.cat([three, small], 1)).mean(dim=(2, 3))


def skips() -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_backbone(Skips(), mean=0.5, std=0.25, size=16)


FAMILIES = {
    "residual": (lambda: residual(dropout=0.2), ("last:2",)),
    "resnet": (lambda: timm_backbone("resnet18", 32), ("last:1",)),
    "mobilenet": (lambda: timm_backbone("mobilenetv1_100", 32, pad_type="same"), ("last:2",)),
    "vit": (lambda: timm_backbone("vit_tiny_patch16_224", 32, img_size=32, depth=3), ("last:1",)),
    "convnext": (
        lambda: timm_backbone("convnext_atto", 32, depths=(1, 1, 2, 1), drop_path_rate=0.2),
        ("last:1",),
    ),
    "skips": (skips, ("head", "fuse", "out")),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_rows_give_the_curves_and_weights_of_ordinary_training(
    bench: Bench, family: str
) -> None:
    make, train = FAMILIES[family]
    stage = Stage("s", train, epochs=2, batch_size=16, lr=1e-3, views=0)
    recipe = Recipe("r", (stage,), head_dropout=0.1)
    plain, network, _ = bench.train(make(), recipe, "off")
    cached, other, prepared = bench.train(make(), recipe, "on")
    assert prepared.cuts[0] is not None
    assert cached.stages[0].cached
    assert not plain.stages[0].cached
    if family == "skips":
        assert len(prepared.cuts[0].boundary) > 1
    for one, two in zip(plain.records, cached.records, strict=True):
        assert two.validation_loss == pytest.approx(one.validation_loss, abs=1e-5)
        if one.train_loss is not None:
            assert two.train_loss == pytest.approx(one.train_loss, abs=1e-5)
    before, after = dict(network.named_parameters()), dict(other.named_parameters())
    for name, parameter in before.items():
        torch.testing.assert_close(after[name], parameter, atol=1e-5, rtol=1e-5, msg=name)


def test_stages_move_the_cut_and_keep_the_optimizer(bench: Bench) -> None:
    recipe = Recipe(
        "r",
        (
            Stage("one", ("last:1",), epochs=2, batch_size=8, clip=0.5),
            Stage("two", ("last:2",), epochs=1, batch_size=8, ema=0.9, mixup=0.0),
        ),
    )
    plain, network, _ = bench.train(residual(dropout=0.1), recipe, "off")
    cached, other, prepared = bench.train(residual(dropout=0.1), recipe, "on")
    names = [cut.boundary[0].name for cut in prepared.cuts if cut is not None]
    assert len(set(names)) == 2
    assert [r.train_loss for r in plain.records] == [r.train_loss for r in cached.records]
    assert digests(network) == digests(other)
    assert all("bit-identical" in stage.proof for stage in cached.stages)


def test_nothing_outside_the_stage_moves_and_modes_are_given_back(bench: Bench) -> None:
    backbone = residual()
    backbone.module.train()
    backbone.module.blocks[0].eval()
    before = digests(backbone.module)
    recipe = Recipe("r", (Stage("s", ("last:1",), epochs=2, batch_size=8, lr=1e-2),))
    trained, _, _ = bench.train(backbone, recipe, "off")
    moved = {name for name, value in digests(backbone.module).items() if before[name] != value}
    assert trained.best.stage == 0
    assert moved
    assert all(name.startswith("blocks.2.") for name in moved)
    assert not any("running" in name for name in moved)
    assert backbone.module.training
    assert not backbone.module.blocks[0].training
    assert all(parameter.requires_grad for parameter in backbone.module.parameters())


def test_batch_statistics_move_only_where_the_recipe_says_so(bench: Bench) -> None:
    backbone = residual()
    before = digests(backbone.module)
    recipe = Recipe("r", (Stage("s", ("last:1",), epochs=1, batch_size=8, norm="batch"),))
    bench.train(backbone, recipe, "on")
    moved = {n for n, v in digests(backbone.module).items() if before[n] != v and "running" in n}
    assert moved <= {f"blocks.2.bn{i}.running_{kind}" for i in (1, 2) for kind in ("mean", "var")}


def test_the_usual_mistake_can_be_made_by_name_and_moves_the_frozen_part(bench: Bench) -> None:
    backbone = residual(dropout=0.2)
    before = digests(backbone.module)
    stage = Stage("s", ("head",), epochs=1, batch_size=8, frozen="requires-grad-only")
    trained, _, prepared = bench.train(backbone, Recipe("r", (stage,)), "auto")
    moved = {n for n, v in digests(backbone.module).items() if before[n] != v}
    assert prepared.cuts == (None,)
    assert "depend on" in prepared.plan.stages[0].no_cut
    assert trained.best.stage == 0
    assert "blocks.0.bn1.running_mean" in moved
    assert all("running" in name or "num_batches" in name for name in moved)


def test_reestimated_statistics_are_measured_once_and_then_fixed(bench: Bench) -> None:
    backbone = residual()
    before = digests(backbone.module)
    recipe = Recipe(
        "r",
        tuple(
            Stage(name, ("last:1",), epochs=1, batch_size=8, norm="reestimated", lr=1e-2)
            for name in ("one", "two")
        ),
    )
    trained, _, _ = bench.train(backbone, recipe, "on")
    after = digests(backbone.module)
    assert before["blocks.0.bn1.running_mean"] != after["blocks.0.bn1.running_mean"]
    assert all("bit-identical" in stage.proof for stage in trained.stages)


def test_chance_of_the_user_is_left_alone(bench: Bench) -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = (torch.rand(1), random.random(), np.random.rand())
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    recipe = Recipe("r", (Stage("s", epochs=1, batch_size=8, noise=0.1, mixup=0.2),), "fresh", 0.5)
    bench.train(residual(dropout=0.3), recipe, "on")
    assert (torch.rand(1), random.random(), np.random.rand()) == expected


def test_another_seed_gives_another_course_and_the_same_seed_the_same(bench: Bench) -> None:
    recipe = Recipe("r", (Stage("s", epochs=2, batch_size=8),), head_dropout=0.3)
    losses = [
        [r.train_loss for r in bench.train(residual(), recipe, seed=seed)[0].records]
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_views_are_other_rows_of_the_same_space(bench: Bench) -> None:
    recipe = Recipe("r", (Stage("s", epochs=3, batch_size=8, views=2),))
    plain, network, _ = bench.train(residual(), recipe, "off")
    cached, _, prepared = bench.train(residual(), recipe, "on")
    assert [r.train_loss for r in plain.records[1:]] == pytest.approx(
        [r.train_loss for r in cached.records[1:]], abs=1e-6
    )
    cut = prepared.plan.stages[0].cut
    assert cut is not None
    assert cut.rows == 2 * 45 + 15
    again = bench.plan(network, recipe).plan.stages[0].cut
    assert again is not None
    assert again.at.missing == 0


class Branching(nn.Module):
    """Asks for values in its forward, so that it cannot be recorded as a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.three = nn.Conv2d(6, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        if x.isnan().any():
            raise ValueError("not a number")
        return torch.relu(self.three(torch.relu(self.two(x))))


@pytest.mark.parametrize("layer", [None, "two"])
def test_a_network_that_cannot_be_recorded_trains_all_the_same(
    bench: Bench, layer: str | None
) -> None:
    def make() -> Backbone:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return load_backbone(
                Branching(), layer=layer, pooling="avg", mean=0.5, std=0.25, size=16
            )

    recipe = Recipe("r", (Stage("s", ("two", "head"), epochs=2, batch_size=8),))
    plain, network, _ = bench.train(make(), recipe, "off")
    cached, other, prepared = bench.train(make(), recipe, "auto", decisions=("stored",))
    assert plain.records[-1].train_loss == pytest.approx(cached.records[-1].train_loss, abs=1e-5)
    assert prepared.plan.stages[0].cut is not None or prepared.plan.stages[0].no_cut
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, msg=name)


def test_bfloat16_stages_and_half_rows_come_near(bench: Bench) -> None:
    def course(precision: str, dtype: str) -> list[float]:
        stage = Stage("s", ("last:1",), epochs=2, batch_size=8, precision=precision)  # type: ignore[arg-type]
        trained, _, prepared = bench.train(residual(), Recipe("r", (stage,)), dtype=dtype)
        cut = prepared.plan.stages[0].cut
        assert cut is not None
        assert cut.at.boundary[0][2] == dtype
        return [r.validation_loss for r in trained.records]

    exact = course("float32", "float32")
    for precision, dtype in (("float32", "float16"), ("float32", "bfloat16"), ("bfloat16",) * 2):
        assert course(precision, dtype) == pytest.approx(exact, abs=0.02)


def test_mixing_and_noise_at_the_cut_change_the_course_reproducibly(bench: Bench) -> None:
    def course(**more: float) -> list[float | None]:
        recipe = Recipe("r", (Stage("s", epochs=1, batch_size=8, **more),))  # type: ignore[arg-type]
        return [r.train_loss for r in bench.train(residual(), recipe)[0].records]

    assert course(mixup=0.4) == course(mixup=0.4) != course()
    assert course(noise=0.5) == course(noise=0.5) != course()


def test_the_best_epoch_is_kept_even_if_it_is_the_start(bench: Bench) -> None:
    recipe = Recipe(
        "r", (Stage("s", ("all",), epochs=2, batch_size=8, lr=10.0, optimizer="sgd", momentum=0.0),)
    )
    backbone = residual()
    before = digests(backbone.module)
    trained, _, _ = bench.train(backbone, recipe, "off")
    best = max(trained.records, key=lambda r: (r.validation_accuracy, -r.validation_loss))
    assert trained.best == best
    assert trained.best.stage == -1
    assert digests(backbone.module) == before


def test_divergence_ends_the_recipe_and_keeps_the_best(bench: Bench) -> None:
    stage = Stage("s", ("all",), epochs=3, batch_size=8, lr=1e30, optimizer="sgd")
    trained, network, _ = bench.train(residual(), Recipe("r", (stage, Stage("t"))), "off")
    assert trained.stages[-1].ended.startswith("diverged in epoch")
    assert len(trained.stages) == 1
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_patience_ends_a_stage_and_no_gain_ends_the_recipe(bench: Bench) -> None:
    still = Stage("s", epochs=9, batch_size=8, lr=1e-12, patience=2, schedule="constant")
    recipe = Recipe("r", (still, Stage("t", epochs=1)), stop_without_gain=True)
    trained, _, _ = bench.train(residual(), recipe)
    # The rate is so small that no accuracy changes; the loss may still fall in the last digits.
    assert trained.stages[0].epochs == 3
    assert trained.stages[0].ended == "no higher validation accuracy in 2 epochs"
    assert (trained.best.stage < 0) == (len(trained.stages) == 1)


def test_optimizer_state_goes_on_by_parameter() -> None:
    from headstart.finetuning import Classifier

    network = Classifier(residual(), 2)
    recipe = Recipe("r", (Stage("a", ("head",)), Stage("b", ("last:1",))))
    one, two = resolve(network, recipe)
    first = build_optimizer(network, one.stage, one.rates)
    network.head.weight.grad = torch.ones_like(network.head.weight)
    first.step()
    second = build_optimizer(network, two.stage, two.rates, first)
    assert second.state[network.head.weight]["step"] == 1
    sgd = Stage("c", optimizer="sgd")
    assert not build_optimizer(network, sgd, one.rates, first).state


def test_the_average_is_lent_and_taken_back() -> None:
    layer = nn.Linear(2, 2)
    average = Average(layer, ["weight"], 0.5)
    start = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    average.update()
    moved = layer.weight.detach().clone()
    share = min(0.5, 2 / 11)
    with average.applied():
        torch.testing.assert_close(layer.weight.detach(), share * start + (1 - share) * moved)
    assert torch.equal(layer.weight, moved)


class Stop(Exception):
    """Stands for a kill between two epochs."""


class Stopping(Checkpoint):
    """Stops after so many saves."""

    def __init__(self, *arguments: object, after: int) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.left = after

    def save(self, saved: Saved) -> None:
        super().save(saved)
        self.left -= 1
        if self.left == 0:
            raise Stop


RESUMABLE = Recipe(
    "r",
    (
        Stage("one", ("last:1",), epochs=2, batch_size=8, ema=0.8, norm="reestimated"),
        Stage("two", ("last:2",), epochs=2, batch_size=8, norm="batch", patience=5),
    ),
    head_dropout=0.3,
)


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_a_stopped_training_goes_on_to_the_identical_result(bench: Bench, after: int) -> None:
    whole, network, _ = bench.train(residual(dropout=0.2), RESUMABLE)
    folder = bench.root.parent / "checkpoint"
    with pytest.raises(Stop):
        bench.train(
            residual(dropout=0.2),
            RESUMABLE,
            checkpoint=Stopping(folder, "identity", after=after),
        )
    resumed, other, _ = bench.train(
        residual(dropout=0.2), RESUMABLE, checkpoint=Checkpoint(folder, "identity")
    )
    assert [(r.train_loss, r.validation_loss) for r in whole.records] == [
        (r.train_loss, r.validation_loss) for r in resumed.records
    ]
    assert digests(network) == digests(other)
    assert [stage.epochs for stage in resumed.stages] == [2, 2]


def test_a_checkpoint_of_another_plan_and_a_damaged_one_are_refused(bench: Bench) -> None:
    folder = bench.root.parent / "checkpoint"
    with pytest.raises(Stop):
        bench.train(residual(), RESUMABLE, checkpoint=Stopping(folder, "one", after=1))
    with pytest.raises(ConfigError, match="another plan or other data"):
        Checkpoint(folder, "two").load()
    names = {path.name for path in folder.iterdir()}
    assert len(names) == 3
    state = next(path for path in folder.iterdir() if path.name.startswith("state"))
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    with pytest.raises(Exception, match="damaged"):
        Checkpoint(folder, "one").load()
