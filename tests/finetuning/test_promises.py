"""Promises of a plan and of a training that are easily broken from the side."""

from __future__ import annotations

import dataclasses
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.backbones import load_backbone
from headstart.commands.finetune.job import FinetuneConfig, finetune
from headstart.core.arguments import Arguments
from headstart.core.errors import ConfigError
from headstart.core.progress import SilentReporter
from headstart.finetuning import Classifier, Recipe, Stage, costs, timing
from headstart.finetuning.gradients import gradients_for
from headstart.finetuning.room import memory_for_rows
from headstart.finetuning.targets import resolve
from headstart.modules.digests import digests
from tests.finetuning.conftest import Bench, squares
from tests.finetuning.models import residual

# What the plan counts on


def test_rows_that_an_earlier_stage_stores_are_not_stored_again(bench: Bench) -> None:
    recipe = Recipe("r", (Stage("one"), Stage("two", lr=1e-4), Stage("views", views=2)))
    first, second, third = bench.plan(Classifier(residual(), 2), recipe).plan.stages
    assert first.cut is not None
    assert second.cut is not None
    assert third.cut is not None
    assert (first.cut.at.missing, second.cut.at.missing) == (60, 0)
    assert second.seconds_storing == 0
    # The views of the training items are other rows; those of the validation items are there.
    assert third.cut.at.missing == 2 * 45


@pytest.mark.parametrize("epochs", [1, 2, 20])
def test_what_is_stored_does_not_decide_what_a_stage_trains_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    """With an empty cache, one filled at the usual cut, and one filled at every other cut."""
    monkeypatch.setattr(costs, "decode_seconds", lambda *_, **__: 1.0)  # storing is what costs
    network, recipe = Classifier(residual(), 2), Recipe("r", (Stage("s", epochs=epochs),))
    first = bench.plan(network, recipe, "auto")
    assert first.plan.stages[0].cut is not None
    for place in (each.place for each in first.plan.stages[0].cut.places):
        cut = bench.plan(network, recipe, decisions=(place,)).cuts[0]
        assert cut is not None
        rows = bench.feeds(network).rows(cut, recipe.stages[0])
        for part in bench.parts:
            rows.fill(part, None, SilentReporter())
        again = bench.plan(network, recipe, "auto")
        assert again.decisions == first.decisions, place
        assert again.plan.stages[0].cut is not None
        stored = [each.missing for each in again.plan.stages[0].cut.places if each.place == place]
        assert stored == [0]


def test_the_same_command_gives_the_same_weights_with_an_empty_and_a_filled_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "decode_seconds", lambda *_, **__: 1.0)
    data = {"train": squares(60), "test": squares(20, 1)}
    recipe = Recipe("r", (Stage("s", ("last:1",), epochs=1, batch_size=8, lr=1e-2),))

    def weights(cache: Path, **more: object) -> dict[str, Tensor]:
        run = finetune(
            data, residual(), recipe=recipe, write=False, cache=cache, baselines=False,
            reporter=SilentReporter(), **more,
        )  # fmt: skip
        return {**run.tuned, "head": torch.from_numpy(run.head.weight)}

    empty = weights(tmp_path / "cache")
    weights(tmp_path / "cache", stored="on")
    filled = weights(tmp_path / "cache")
    for name, tensor in empty.items():
        assert torch.equal(tensor, filled[name]), name


def test_room_on_the_disk_is_taken_by_one_stage_after_the_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe("r", (Stage("one", ("last:1",)), Stage("two", ("last:2",))))
    plan = bench.plan(Classifier(residual(), 2), recipe).plan
    assert all(stage.cut is not None and stage.cut.read for stage in plan.stages)
    # Neither place is pooled: both have rows of the same size. There is room for one.
    room = 1.5 * plan.stages[0].cut.at.bytes / 0.9 if plan.stages[0].cut else 0
    monkeypatch.setattr("headstart.finetuning.room.free_bytes", lambda _: int(room))
    one, two = bench.plan(Classifier(residual(), 2), recipe).plan.stages
    assert one.cut is not None
    assert two.cut is not None
    assert one.cut.read
    assert not two.cut.read
    assert "the disk has" in two.cut.reason


def test_an_unfinished_run_goes_on_from_the_images_where_the_disk_is_full(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe("r", (Stage("one", ("last:1",)),))
    network = Classifier(residual(), 2)
    decided = bench.plan(network, recipe).decisions
    assert decided != ("",)
    monkeypatch.setattr("headstart.finetuning.room.free_bytes", lambda _: 0)
    assert bench.plan(network, recipe, decisions=decided).decisions == ("",)


def test_rows_behind_statistics_that_change_are_not_known_yet(bench: Bench) -> None:
    for first in (Stage("one", norm="reestimated"), Stage("one", frozen="requires-grad-only")):
        recipe = Recipe("r", (first, Stage("two")))
        second = bench.plan(Classifier(residual(), 2), recipe, "auto").plan.stages[1]
        assert second.cut is not None
        assert second.cut.at.missing is None


@pytest.mark.parametrize("act", ["mixup", "noise"])
def test_what_mixup_and_noise_act_on_does_not_hang_on_the_clock(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    monkeypatch.setattr(timing.Disk, "read_seconds", lambda *_: 100.0)  # reading never pays
    network = Classifier(residual(), 2)
    usual = bench.plan(network, Recipe("r", (Stage("s", ("last:1",)),)), "auto")
    assert usual.decisions == ("",)
    mixed = bench.plan(network, Recipe("r", (Stage("s", ("last:1",), **{act: 0.2}),)), "auto")  # type: ignore[arg-type]
    assert mixed.decisions != ("",)


def test_gradients_of_the_users_loop_are_put_back_and_change_nothing() -> None:
    network = Classifier(residual(), 2)
    mark = torch.full_like(network.backbone.stem.weight, 3.0)  # type: ignore[union-attr, arg-type]
    network.backbone.stem.weight.grad = mark  # type: ignore[union-attr]
    with gradients_for(network, ["head.weight"]):
        assert all(parameter.grad is None for parameter in network.parameters())
        network(torch.rand(2, 3, 16, 16)).sum().backward()
    assert network.backbone.stem.weight.grad is mark  # type: ignore[union-attr]
    assert network.head.weight.grad is None


def test_weights_are_no_activations() -> None:
    wide = nn.Sequential(nn.Linear(4, 1000), nn.ReLU(), nn.Linear(1000, 2))
    # Two items, so that the weights would be more an item than all that is kept.
    cost = timing.measure_step(wide, Arguments((torch.rand(2, 4),)), 2, "float32")
    # The hidden values behind the ReLU, once; inputs and what the loss keeps are a few numbers. The
    # weights of the second layer, which its backward pass keeps too, would be as much again.
    assert 4 * 1000 <= cost.activations < 4 * 1100


def test_a_cold_read_is_measured_cold_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that are still mapped are not forgotten: nothing may be mapped when that is asked."""
    maps: list[weakref.ref[np.memmap]] = []  # type: ignore[type-arg]
    alive: list[int] = []
    real = np.memmap

    def mapped(*arguments: object, **named: object) -> np.memmap:  # type: ignore[type-arg]
        made = real(*arguments, **named)  # type: ignore[call-overload]
        maps.append(weakref.ref(made))
        return made  # type: ignore[no-any-return]

    monkeypatch.setattr(np, "memmap", mapped)
    monkeypatch.setattr(
        os,
        "posix_fadvise",
        lambda *_: alive.append(sum(one() is not None for one in maps)),
        raising=False,
    )
    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    with timing.Disk(tmp_path) as disk:
        assert disk.read_seconds(4096, False) > 0
    assert len(maps) == len(alive) > 1
    assert set(alive) == {0}


def test_rows_are_held_where_the_network_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """No CUDA device is here, so what it answers is given; the host has more in any case."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (4_000_000, 8_000_000))
    assert memory_for_rows(torch.device("cuda")) == 1_000_000
    assert memory_for_rows(torch.device("cpu")) > 1_000_000


# What a recipe may name


class Tailed(nn.Module):
    """Two blocks with norms, and a classifier behind the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(4, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU())
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.two(self.one(x)).mean(dim=(2, 3)))


def tailed(layer: str) -> Classifier:
    return Classifier(load_backbone(Tailed(), layer=layer, mean=0.5, std=0.25, size=16), 2)


@pytest.mark.parametrize("train", [("fc",), ("two", "fc"), ("f*",)])
def test_what_lies_behind_the_layer_cannot_be_trained(train: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="does not run; the classifier that trains is 'head'"):
        resolve(tailed("two"), Recipe("r", (Stage("s", train),)))


@pytest.mark.parametrize("train", [("head",), ("last:1",), ("norms",), ("all",)])
def test_statistics_are_reestimated_where_a_norm_lies_behind_the_layer(
    bench: Bench, train: tuple[str, ...]
) -> None:
    backbone = tailed("one").source
    stage = Stage("s", train, epochs=1, batch_size=8, norm="reestimated")
    trained, network, _ = bench.train(backbone, Recipe("r", (stage,)), "off")
    assert len(trained.records) == 2
    behind = network.backbone.two[1]  # type: ignore[union-attr, index]
    assert torch.equal(behind.running_mean, torch.zeros(4))


def test_an_instance_norm_with_statistics_does_not_stop_the_reestimation(bench: Bench) -> None:
    module = Tailed()
    module.two[1] = nn.InstanceNorm2d(4, track_running_stats=True)
    backbone = load_backbone(module, layer="two", mean=0.5, std=0.25, size=16)
    stage = Stage("s", epochs=1, batch_size=8, norm="reestimated")
    trained, _, _ = bench.train(backbone, Recipe("r", (stage,)), "off")
    assert len(trained.records) == 2


# What happens in training


def test_a_last_batch_of_one_item_has_no_variance_and_is_left_out(bench: Bench) -> None:
    # 45 items in batches of 11: one is left, and the last block sees one pixel of it.
    for stage in (
        Stage("s", epochs=1, batch_size=11, frozen="requires-grad-only"),
        Stage("s", ("all",), epochs=1, batch_size=11, norm="batch"),
    ):
        trained, _, _ = bench.train(residual(size=2), Recipe("r", (stage,)), "off")
        assert len(trained.records) == 2
    assert "use 2 or more" in str(
        Recipe("r", (Stage("s", batch_size=1, frozen="requires-grad-only"),)).faults()
    )


def test_a_lower_loss_alone_is_no_gain(bench: Bench) -> None:
    """On data that the start separates already, only the loss can improve."""
    stages = (Stage("one", epochs=8, lr=0.05), Stage("two", epochs=1), Stage("three", epochs=1))
    recipe = Recipe("r", stages, stop_without_gain=True)
    trained, _, _ = bench.train(residual(), recipe)
    reached = [record.validation_accuracy for record in trained.records]
    assert max(r.validation_accuracy for r in trained.records if r.stage == 0) == max(reached)
    assert [outcome.name for outcome in trained.stages] == ["one", "two"]


def test_the_start_is_what_the_head_was_made_with(bench: Bench, tmp_path: Path) -> None:
    """Re-estimated statistics come after the start, which is kept whole where it is better."""
    stage = Stage("s", epochs=1, batch_size=8, lr=1e-9)
    plain, _, _ = bench.train(residual(), Recipe("r", (stage,)))
    moved, _, _ = bench.train(
        residual(), Recipe("r", (dataclasses.replace(stage, norm="reestimated"),))
    )
    start, end = moved.records
    assert start.validation_loss == pytest.approx(plain.records[0].validation_loss, rel=1e-5)
    assert start.validation_loss != pytest.approx(end.validation_loss, rel=1e-3)
    # A probe that is right already, and a stage that only harms.
    backbone = residual()
    before = digests(backbone.module)
    stage = Stage("s", ("all",), epochs=1, batch_size=8, lr=30.0, norm="reestimated")
    run = finetune(
        {"train": squares(60), "test": squares(20, 1)}, backbone,
        Recipe("r", (stage,), start="probe"), write=False, cache=tmp_path, baselines=False,
        reporter=SilentReporter(),
    )  # fmt: skip
    assert run.training["best"]["stage"] == -1
    assert digests(backbone.module) == before


class Interrupted(SilentReporter):
    """Stops when an epoch has been told."""

    def __init__(self, after: str) -> None:
        self.after = after

    def note(self, text: str) -> None:
        if self.after in text:
            raise KeyboardInterrupt


@pytest.mark.parametrize("norm", ["running", "reestimated"])
def test_a_module_of_ones_own_can_be_interrupted_and_goes_on(tmp_path: Path, norm: str) -> None:
    data = {"train": squares(60), "test": squares(20, 1)}
    recipe = Recipe(
        "r",
        (Stage("s", ("last:1",), epochs=3, batch_size=8, norm=norm),),
        start="probe",  # type: ignore[arg-type]
    )
    config = FinetuneConfig(baselines=False)

    def run(name: str, backbone: object, reporter: SilentReporter) -> object:
        return finetune(
            data, backbone, recipe, out=tmp_path / name, cache=tmp_path / "cache", config=config,  # type: ignore[arg-type]
            reporter=reporter,
        ).training["epochs"]  # fmt: skip

    whole = run("whole", residual(), SilentReporter())
    backbone = residual()
    before = digests(backbone.module)
    with pytest.raises(KeyboardInterrupt):
        run("parts", backbone, Interrupted("s, epoch 2 of 3"))
    assert digests(backbone.module) == before
    again = run("parts", backbone, SilentReporter())
    plain = [{k: v for k, v in record.items() if k != "seconds"} for record in whole]  # type: ignore[attr-defined]
    assert plain == [{k: v for k, v in r.items() if k != "seconds"} for r in again]  # type: ignore[attr-defined]
