"""TensorBoard and MLflow: the curves of a training, in tools that people have open anyway.

Each is reached through its own library. What has been logged is known to the logger, and after
every epoch it is given all records so far: after a kill it goes on with what it lacks, so no epoch
is logged twice and none is left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from headstart.core.errors import ConfigError, MissingExtraError
from headstart.core.progress import Reporter
from headstart.core.records import Evaluation
from headstart.finetuning.outcome import EpochRecord
from headstart.finetuning.plan import Plan
from headstart.finetuning.processes import environment_kept, quiet

NEEDED = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
"""The loggers, and the packages of each, which the extra of its name installs."""

_EVENTS, _MLRUNS, _MLFLOW = "tensorboard", "mlruns", "mlflow.json"
_PARAMS = 100  # MLflow takes no more in one call


class Logger(Protocol):
    """One tool; its steps are epochs counted over all stages, the start being 0."""

    logged: int
    """How many steps it holds."""

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Add figures; all of them or none."""

    def close(self, whole: bool) -> None:
        """End; ``whole`` says whether the job went through."""


class Loggers:
    """The loggers of one run.

    Args:
        loggers: by name.
        reporter: told what could not be logged. A server that is away ends no training.
    """

    def __init__(self, loggers: Mapping[str, Logger], reporter: Reporter) -> None:
        self._loggers, self._reporter = loggers, reporter
        self._step = 0

    def epochs(self, records: Sequence[EpochRecord]) -> None:
        """Log the records that are not logged yet; these are all so far."""
        self._step = len(records) - 1
        for name, logger in self._loggers.items():
            with self._forgiven(name):
                for step in range(logger.logged, len(records)):
                    logger.write(_figures(records[step]), step)
                    logger.logged = step + 1

    def test(self, evaluation: Evaluation) -> None:
        """Log what the test split gave, at the last step."""
        figures = {
            "test/accuracy": evaluation.accuracy.value,
            "test/balanced_accuracy": evaluation.balanced_accuracy.value,
            "test/macro_f1": evaluation.macro_f1.value,
            "test/log_loss": evaluation.log_loss,
            "test/ece": evaluation.ece,
        }
        for name, logger in self._loggers.items():
            with self._forgiven(name):
                logger.write(figures, self._step)

    def close(self, whole: bool) -> None:
        """End all of them."""
        for name, logger in self._loggers.items():
            with self._forgiven(name):
                logger.close(whole)

    @contextlib.contextmanager
    def _forgiven(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of whatever library lies behind it
            text = " ".join(str(error).split())[:200]
            self._reporter.note(f"{name} could not log: {text or type(error).__name__}")


def logger_faults(names: Sequence[str]) -> list[str]:
    """Return what is wrong with the names of loggers."""
    known = " and ".join(NEEDED)
    return [f"the loggers are {known}, not {name!r}" for name in names if name not in NEEDED]


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that are not installed.

    Raises:
        MissingExtraError: naming the extra.
    """
    for name in names:
        for package in NEEDED[name]:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, name, f"the logger '{name}'")


@contextlib.contextmanager
def open_loggers(
    names: Sequence[str],
    folder: Path,
    settings: Mapping[str, Any],
    *,
    plan: Mapping[str, Any],
    goes_on: bool,
    reporter: Reporter,
) -> Iterator[Loggers]:
    """Open loggers that write into a run folder, and end them with the block.

    Args:
        names: of loggers; of one named twice there is one.
        folder: the run folder.
        settings: the hyper-parameters, nested as they like.
        plan: kept whole beside them.
        goes_on: whether this is the rest of a run that was killed.
        reporter: told what could not be logged.

    Raises:
        ConfigError: MLflow cannot be reached where ``MLFLOW_TRACKING_URI`` says.
    """
    flat = dict(_flat(settings))
    opened: dict[str, Logger] = {}
    for name in dict.fromkeys(names):
        if name == "tensorboard":
            opened[name] = TensorBoard(folder / _EVENTS, flat, plan)
        else:
            opened[name] = MLflow(folder, flat, plan, goes_on=goes_on)
    loggers, whole = Loggers(opened, reporter), False
    try:
        yield loggers
        whole = True
    finally:
        loggers.close(whole)


def planned_figures(plan: Plan) -> dict[str, Any]:
    """Return what of a plan is worth comparing runs by."""
    stages = [
        {
            "groups": stage.groups,
            "trainable": stage.trainable,
            "parameters": stage.parameters,
            "stored_rows": stage.cut is not None and stage.cut.read,
        }
        for stage in plan.stages
    ]
    return {"n_train": plan.n_train, "n_validation": plan.n_validation, "stage": stages}


class TensorBoard:
    """Event files in a folder that holds this run alone.

    A run that goes on writes its epochs anew: events that a kill has cut off, or that stand there
    from an epoch that was not finished, would otherwise stay.
    """

    def __init__(self, folder: Path, params: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        with environment_kept():
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self.logged = 0
        self._writer = cast(Any, SummaryWriter(str(folder)))  # torch leaves it untyped
        # SummaryWriter.add_hparams would begin a second run for them in a folder below.
        shown = {key: value if _is_scalar(value) else str(value) for key, value in params.items()}
        for summary in cast(Any, hparams)(
            shown, {"validation/accuracy": 0.0, "test/accuracy": 0.0}
        ):
            self._writer._get_file_writer().add_summary(summary)
        self._writer.add_text("plan", f"```\n{json.dumps(plan, indent=1)}\n```")

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Add figures."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, whole: bool) -> None:  # noqa: ARG002
        """Close the file."""
        self._writer.close()


class MLflow:
    """One run at ``MLFLOW_TRACKING_URI``, or in a database of the run folder's own.

    (A database and not MLflow's plain files, which its newer versions refuse.) The experiment is
    that of ``MLFLOW_EXPERIMENT_NAME``, or ``headstart``. ``mlflow.json`` names the run, so that a
    job that was killed goes on with it.
    """

    def __init__(
        self, folder: Path, params: Mapping[str, Any], plan: Mapping[str, Any], *, goes_on: bool
    ) -> None:
        with environment_kept(), quiet("mlflow"):
            from mlflow.entities import Metric
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient

            self._metric = Metric
            uri, own = os.environ.get("MLFLOW_TRACKING_URI"), (folder / _MLRUNS).resolve()
            if not uri:
                own.mkdir(exist_ok=True)
            try:
                self._client = MlflowClient(uri or f"sqlite:///{(own / 'mlflow.db').as_posix()}")
                begun = _run_of(folder) if goes_on else None
                if begun is None:
                    artifacts = None if uri else own.as_uri()
                    begun = self._begin(folder.resolve().name, artifacts, params, plan)
                    (folder / _MLFLOW).write_text(json.dumps({"run_id": begun}))
                self._run = begun
                history = self._client.get_metric_history(self._run, "validation/loss")
            except (MlflowException, OSError) as error:
                reason = " ".join(str(error).split())[:300]
                where = "where MLFLOW_TRACKING_URI says" if uri else f"in '{own}'"
                raise ConfigError((f"mlflow cannot log {where}: {reason}",)) from error
        self.logged = len({metric.step for metric in history})
        self._client.update_run(self._run, status="RUNNING")

    def _begin(
        self,
        name: str,
        artifacts: str | None,
        params: Mapping[str, Any],
        plan: Mapping[str, Any],
    ) -> str:
        from mlflow.entities import Param

        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "headstart"
        found = self._client.get_experiment_by_name(experiment)
        number = (
            self._client.create_experiment(experiment, artifact_location=artifacts)
            if found is None
            else found.experiment_id
        )
        run = str(self._client.create_run(number, run_name=name).info.run_id)
        # Names of block groups are the user's; MLflow takes letters, digits and a few signs.
        listed = [
            Param(re.sub(r"[^\w\-. :/]", "_", key), str(value)) for key, value in params.items()
        ]
        for start in range(0, len(listed), _PARAMS):
            self._client.log_batch(run, params=listed[start : start + _PARAMS])
        self._client.log_dict(run, dict(plan), "plan.json")
        return run

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Add figures, in one call: an epoch is there whole or not at all."""
        now = int(1000 * time.time())
        metrics = [self._metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, whole: bool) -> None:
        """End the run."""
        self._client.set_terminated(self._run, "FINISHED" if whole else "FAILED")


def _run_of(folder: Path) -> str | None:
    """Return the MLflow run that a killed job has begun."""
    try:
        return str(json.loads((folder / _MLFLOW).read_text())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _figures(record: EpochRecord) -> dict[str, float]:
    """Return what is logged of an epoch; of the start there is no training."""
    named = {
        "train/loss": record.train_loss,
        "train/accuracy": record.train_accuracy,
        "validation/loss": record.validation_loss,
        "validation/accuracy": record.validation_accuracy,
        "rate": record.rate,
        "seconds": record.seconds,
        "stage": float(record.stage),
    }
    return {name: value for name, value in named.items() if value is not None}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested settings: ``recipe.stage.0.lr``; short lists are leaves."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield from _flat(item, f"{name}.{number}")
    elif isinstance(value, list | tuple):
        yield name, ", ".join(str(item) for item in value)
    else:
        yield name, value


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


__all__ = ["Loggers", "check_loggers", "logger_faults", "open_loggers", "planned_figures"]
