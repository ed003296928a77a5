"""Loggers: what is read back of a whole run, of one that was cut, of fit, sweep and compare."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.commands.finetune.job import finetune
from headstart.commands.finetune.loggers import EpochLoggers
from headstart.commands.loggers import check_loggers
from headstart.commands.run import Run
from headstart.core.errors import ConfigError, MissingExtraError
from headstart.core.progress import SilentReporter
from headstart.finetuning import Recipe, Stage
from headstart.finetuning.outcome import EpochRecord
from tests.commands.test_finetune import source
from tests.finetuning.models import residual

RECIPE = Recipe(
    "short",
    (
        Stage("head", epochs=2, batch_size=8, lr=1e-2),
        Stage("block", ("last:1",), epochs=2, batch_size=8, lr=1e-2, rates={"head": 3e-3}),
    ),
)


class Stop(Exception):
    pass


class StoppingReporter(SilentReporter):
    """Ends the job when an epoch has been trained, and not saved."""

    def note(self, text: str) -> None:
        if text.startswith("block, epoch 2"):
            raise Stop


def run(folder: Path, *loggers: str, reporter: SilentReporter | None = None) -> Run:
    return finetune(
        source(), residual(), RECIPE, out=folder / "run", cache=folder / "cache", stored="off",
        baselines=False, loggers=loggers, reporter=reporter or SilentReporter(),
    )  # fmt: skip


def losses(run: Run) -> dict[int, float]:
    return {i: e["validation_loss"] for i, e in enumerate(run.training["epochs"])}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return every scalar of the event files as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    assert "_hparams_/session_start_info" in found.summary_metadata
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def test_tensorboard_reads_back_every_epoch_once_also_after_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(Stop):
        run(tmp_path, "tensorboard", reporter=StoppingReporter())
    folder = tmp_path / "run" / "tensorboard"
    assert [step for step, _ in scalars(folder)["validation/loss"]] == [0, 1, 2, 3]
    whole = run(tmp_path, "tensorboard", "tensorboard")
    found = scalars(folder)
    assert dict(found["validation/loss"]) == pytest.approx(losses(whole), rel=1e-5)
    for tag, first in (("validation/accuracy", 0), ("train/loss", 1), ("train/accuracy", 1),
                       ("rate", 0), ("seconds", 0)):  # fmt: skip
        assert [step for step, _ in found[tag]] == list(range(first, 5)), tag
    assert found["test/accuracy"] == [(4, pytest.approx(whole.accuracy))]
    events = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"recipe.stage.1.rates.head" in events


def test_mlflow_goes_on_with_the_run_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ants and bees")
    environment = dict(os.environ)
    with pytest.raises(Stop):
        run(tmp_path, "mlflow", reporter=StoppingReporter())
    whole = run(tmp_path, "mlflow")
    changed = {k for k in os.environ if os.environ[k] != environment.get(k)}
    assert {name for name in changed if "ML" in name} == set()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/run/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("ants and bees")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == json.loads((tmp_path / "run" / "mlflow.json").read_text())["run_id"]
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(found.info.run_id, "validation/loss")
    assert {m.step: m.value for m in history} == pytest.approx(losses(whole))
    assert len(history) == 5
    assert found.data.metrics["test/accuracy"] == whole.accuracy
    assert found.data.params["recipe.stage.1.rates.head"] == "0.003"
    assert found.data.params["plan.stage.1.groups"] == "blocks.2, head"
    assert client.list_artifacts(found.info.run_id)[0].path == "plan.json"


def record(epoch: int) -> EpochRecord:
    return EpochRecord(0, "s", epoch, 0.5, 0.5, 0.25, 0.75, 1e-3, 1.0)


def test_a_logger_that_fails_ends_no_training_and_catches_up() -> None:
    class Flaky:
        away = True

        def __init__(self) -> None:
            self.steps: list[int] = []

        def log_metrics(self, figures: dict[str, float], step: int) -> None:
            if self.away:
                raise ConnectionError("no route\nto host")
            self.steps.append(step)

        def save(self) -> None:
            pass

    class Listener(SilentReporter):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    logger, listener = Flaky(), Listener()
    loggers = EpochLoggers({"mlflow": (logger, 0)}, listener)  # type: ignore[dict-item]
    loggers.epochs([record(1)])
    assert listener.notes == ["mlflow could not log: no route to host"]
    logger.away = False
    loggers.epochs([record(1), record(2)])
    loggers.epochs([record(1), record(2)])
    assert logger.steps == [0, 1]


def test_training_needs_no_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {"lightning", *(n for n in sys.modules if n.startswith("lightning."))}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("lightning.fabric.loggers")
    assert run(tmp_path).training["stages"]


def test_unknown_missing_and_homeless_loggers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="must be one of tensorboard, mlflow, wandb, not 'paper'"):
        run(tmp_path, "paper")
    with pytest.raises(ConfigError, match="loggers write into the run folder"):
        finetune(source(), residual(), RECIPE, write=False, loggers=("tensorboard",))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[mlflow\]'"):
        check_loggers(["mlflow"])
    assert not (tmp_path / "run").exists()


def test_a_server_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://of.this.kind")
    with pytest.raises(ConfigError, match="mlflow cannot log at MLFLOW_TRACKING_URI") as e:
        run(tmp_path, "mlflow")
    assert "\n" not in str(e.value)


# -- fit, sweep and compare ----------------------------------------------------------------------

EVIL = "a|b <i>=1"


def pictures() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 90, (60, 16, 16, 3), dtype=np.uint8)
    x[::2, :8] += 150
    y = np.array([EVIL, "c"])[np.arange(60) % 2]
    return {"train": (x[:40], y[:40]), "test": (x[40:], y[40:])}


JOBS = {
    "fit": ({"head": "lda"}, "classes", {"test/accuracy", "n_train", "seconds/total"}),
    "sweep": ({"heads": ("lda", "ridge")}, "candidates", {"test/accuracy", "test/macro_f1"}),
    "compare": (
        {"configs": ("eval", "train"), "repeats": 2},
        "configurations",
        {"accuracy/train", "accuracy/eval_inference_mode"},
    ),
}


def logged(name: str, folder: Path, *loggers: str) -> tuple[Any, str, set[str]]:
    options, table, figures = JOBS[name]
    made = getattr(headstart, name)(
        pictures(), "headstart/glyphs", out=folder / "run", cache=folder / "cache",
        loggers=loggers, reporter=SilentReporter(), **options,
    )  # fmt: skip
    return made, table, figures


@pytest.mark.parametrize("name", JOBS)
def test_figures_and_tables_are_read_back(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("tensorboard")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, table, figures = logged(name, tmp_path, "tensorboard", "mlflow")
    folder = tmp_path / "run"
    found = scalars(folder / "tensorboard")
    assert figures <= set(found)
    assert {step for values in found.values() for step, _ in values} == {0}
    events = b"".join(path.read_bytes() for path in (folder / "tensorboard").iterdir())
    assert table.encode() in events
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("headstart").experiment_id])
    assert figures <= set(run.data.metrics)
    assert run.data.params["backbone"] == "headstart/glyphs"
    place = client.download_artifacts(run.info.run_id, f"{table}.json", str(tmp_path))
    read = json.loads(Path(place).read_text())
    assert len(read["data"]) >= 2
    assert {len(row) for row in read["data"]} == {len(read["columns"])}
    if name == "fit":
        assert read["data"][0][0] == EVIL
        # The same folder once more: nothing is in the way, and the events are those of one run.
        logged(name, tmp_path, "tensorboard")
        assert figures <= set(scalars(folder / "tensorboard"))


@pytest.mark.slow
def test_weights_and_biases_is_offline_unless_there_is_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    logged("fit", tmp_path, "wandb")
    assert {n for n in os.environ if n.startswith("WANDB")} == {
        n for n in before if n.startswith("WANDB")
    }
    folder = tmp_path / "run"
    (offline,) = (folder / "wandb").glob("offline-run-*")
    number = json.loads((folder / "wandb.json").read_text())["run_id"]
    (file,) = offline.glob(f"run-{number}.wandb")
    written = file.read_bytes()
    assert b"test/accuracy" in written
    assert b"table-file" in written
    assert b"headstart/glyphs" in written


def test_rank_refuses_loggers_instead_of_leaving_them_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="backbones are compared"):
        headstart.rank(
            pictures(), ["headstart/glyphs"], loggers=("tensorboard",), out=tmp_path / "run"
        )
