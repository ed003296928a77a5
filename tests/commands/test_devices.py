"""Several devices learn what one learns: real processes on the CPU, joined over gloo."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.commands.finetune.job import finetune, plan_finetune
from headstart.commands.run import Run
from headstart.core.errors import ConfigError, HeadstartError
from headstart.core.progress import SilentReporter
from headstart.finetuning import Recipe, Stage
from headstart.modules.digests import named_tensors
from tests.commands.test_finetune import source
from tests.finetuning.models import residual

QUIET = SilentReporter()

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")

# 40 items train: batches of 13, 13, 13 and 1, so that shares are uneven and the last one is empty.
EVEN = Recipe(
    "two stages",
    (
        Stage("block", ("last:1",), epochs=2, batch_size=13, lr=1e-2, clip=1.0),
        Stage("two", ("last:2",), epochs=2, batch_size=13, lr=1e-2, optimizer="sgd", ema=0.9),
    ),
    "fresh",
)


def figures(run: Run) -> list[float]:
    names = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    return [e[name] for e in run.training["epochs"] for name in names if e[name] is not None]


def tensors(run: Run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in named_tensors(run.backbone.module)}


def same(one: Run, two: Run) -> None:
    """Both runs have the same curves and weights, up to the order of sums."""
    assert figures(two) == pytest.approx(figures(one), abs=1e-5)
    other = tensors(two)
    for name, tensor in tensors(one).items():
        torch.testing.assert_close(other[name], tensor, atol=1e-5, rtol=1e-5, msg=name)


class Stop(HeadstartError):
    pass


class StoppingReporter(SilentReporter):
    """Ends the job in the middle of an epoch: at the note that ends it, before it is saved."""

    def note(self, text: str) -> None:
        if text.startswith("two, epoch 2"):
            raise Stop("by the test")


def run(folder: Path, stored: str, devices: int, reporter: SilentReporter = QUIET) -> Run:
    return finetune(
        source(), residual(), EVEN, out=folder / "run", stored=stored, devices=devices,
        cache=folder / "cache", reporter=reporter,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of one device."""
    found = run(tmp_path_factory.mktemp("alone"), "on", 1)
    assert found.n_train == 40
    return found


def test_two_devices_have_the_curves_and_weights_of_one(alone: Run, tmp_path: Path) -> None:
    environment, threads = dict(os.environ), torch.get_num_threads()
    two = run(tmp_path, "on", 2)
    same(alone, two)
    assert two.evaluation.accuracy == alone.evaluation.accuracy
    assert two.evaluation.log_loss == pytest.approx(alone.evaluation.log_loss, abs=1e-5)
    assert [b.name for b in two.baselines] == [b.name for b in alone.baselines]
    assert all("bit-identical" in stage["proof"] for stage in two.training["stages"])
    assert all(stage["cached"] for stage in two.training["stages"])
    assert {p.name for p in two.folder.iterdir()} == {p.name for p in alone.folder.iterdir()}
    # Nothing of it is left behind.
    assert dict(os.environ) == environment
    assert torch.get_num_threads() == threads
    assert not torch.distributed.is_initialized()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("stored", "first", "then"), [("off", 1, 2), pytest.param("on", 2, 1, marks=pytest.mark.slow)]
)
def test_a_run_goes_on_with_another_number_of_devices(
    alone: Run, tmp_path: Path, stored: str, first: int, then: int
) -> None:
    with pytest.raises(Stop):
        run(tmp_path, stored, first, StoppingReporter())
    assert not multiprocessing.active_children()
    assert (tmp_path / "run" / "checkpoint").is_dir()
    other = run(tmp_path, stored, then)
    assert any("continuing after epoch 1 of stage 'two'" in note for note in other.notes)
    same(alone, other)


def test_what_cannot_be_divided_is_refused_together() -> None:
    recipe = Recipe(
        "r",
        (
            Stage("one", ("last:1",), norm="batch"),
            Stage("two", frozen="requires-grad-only"),
            Stage("three"),
        ),
    )
    with pytest.raises(ConfigError) as caught:
        plan_finetune(source(), residual(), recipe, devices=2, reporter=QUIET)
    assert [fault[:11] for fault in caught.value.faults] == ["stage 'one'", "stage 'two'"]
    assert "which 2 devices would divide" in str(caught.value)


def test_more_devices_than_there_are_and_what_cannot_be_sent_are_told_in_one_line() -> None:
    with pytest.raises(ConfigError, match="devices=10000, but this machine has"):
        finetune(source(), residual(), EVEN, devices=10000, write=False, reporter=QUIET)
    with pytest.raises(ConfigError, match="devices must be at least 1, not 0"):
        finetune(source(), residual(), EVEN, devices=0, write=False, reporter=QUIET)
    backbone = residual()
    backbone.module.hidden = lambda x: x
    with pytest.raises(ConfigError, match="cannot be sent to other processes") as caught:
        finetune(source(), backbone, EVEN, devices=2, write=False, reporter=QUIET)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_command_has_the_curve_of_one_device_by_torchrun_and_by_itself(tmp_path: Path) -> None:
    images, labels = source()["train"]
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    (tmp_path / "r.toml").write_text(
        'start = "probe"\n[[stage]]\ntrain = ["last:1"]\nepochs = 2\ndropout = false\n'
    )

    def losses(out: str, *start: str, more: tuple[str, ...] = ()) -> list[float]:
        subprocess.run(
            [sys.executable, *start, "-m", "headstart", "finetune", "data.npz", "-r", "r.toml",
             "-b", "headstart/glyphs", "--out", out, "--cache", "cache", "--device", "cpu", *more],
            cwd=tmp_path, check=True, timeout=300,
        )  # fmt: skip
        epochs = json.loads((tmp_path / out / "metrics.json").read_text())["training"]["epochs"]
        return [epoch["validation_loss"] for epoch in epochs]

    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    one = pytest.approx(losses("one"), abs=1e-5)
    assert losses("two", *torchrun) == one
    assert losses("also two", more=("--devices", "2")) == one
