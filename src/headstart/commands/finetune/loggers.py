"""TensorBoard and MLflow: the curves of a training in tools that people already have open.

Lightning's loggers do the logging. After every epoch they receive the records that they lack, of
all records so far: a run that resumes after a kill logs no epoch twice and leaves none out.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.errors import ConfigError, MissingExtraError
from headstart.core.files import write_json
from headstart.core.progress import Reporter
from headstart.core.records import Evaluation, to_plain
from headstart.finetuning.outcome import EpochRecord
from headstart.finetuning.plan import Plan

if TYPE_CHECKING:
    from lightning.fabric.loggers.logger import Logger

_EVENTS, _MLRUNS, _MLFLOW = "tensorboard", "mlruns", "mlflow.json"

Open = Callable[[Path, Mapping[str, Any], Mapping[str, Any], bool], "tuple[Logger, int]"]
"""From the run folder, the hyper-parameters (flat, by dotted name), the plan in plain values, and
whether the run resumes one that was killed: to a Lightning logger, and how many epochs it has
logged already."""


@dataclass(frozen=True)
class LoggerKind:
    """A logger that a run may name.

    Attributes:
        name: its name; also the extra of headstart that installs it.
        packages: what has to be installed for it.
        open: see :data:`Open`.
    """

    name: str
    packages: tuple[str, ...]
    open: Open


LOGGERS: dict[str, LoggerKind] = {}


def register_logger(kind: LoggerKind) -> None:
    """Add a logger to those that a run may name; a known name is replaced."""
    LOGGERS[kind.name] = kind


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that are not installed.

    Raises:
        MissingExtraError: naming the extra.
    """
    for name in names:
        for package in LOGGERS[name].packages:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, name, f"the logger '{name}'")


class Loggers:
    """The loggers of a run; steps are epochs counted over all stages, the start being 0.

    Args:
        opened: by name the logger, and how many epochs it has logged already.
        reporter: notes what could not be logged. A server that is away ends no training.
    """

    def __init__(self, opened: Mapping[str, tuple[Logger, int]], reporter: Reporter) -> None:
        self._loggers = {name: logger for name, (logger, _) in opened.items()}
        self._logged = {name: logged for name, (_, logged) in opened.items()}
        self._reporter = reporter
        self._step = 0

    def epochs(self, records: Sequence[EpochRecord]) -> None:
        """Log the records that are not logged yet; ``records`` are all so far."""
        self._step = len(records) - 1

        def log(name: str, logger: Logger) -> None:
            for step in range(self._logged[name], len(records)):
                _write(logger, _figures(records[step]), step)
                self._logged[name] = step + 1

        self._each(log)

    def test(self, evaluation: Evaluation) -> None:
        """Log the scores on the test split, at the last step."""
        figures = {
            "test/accuracy": evaluation.accuracy.value,
            "test/balanced_accuracy": evaluation.balanced_accuracy.value,
            "test/macro_f1": evaluation.macro_f1.value,
            "test/log_loss": evaluation.log_loss,
            "test/ece": evaluation.ece,
        }
        self._each(lambda _, logger: _write(logger, figures, self._step))

    def close(self, status: str) -> None:
        """End all of them, as ``success`` or ``failed``."""
        self._each(lambda _, logger: logger.finalize(status))

    def _each(self, do: Callable[[str, Logger], None]) -> None:
        for name, logger in self._loggers.items():
            try:
                do(name, logger)
            except Exception as error:  # of whatever library is behind it
                text = " ".join(str(error).split())[:200]
                self._reporter.note(f"{name} could not log: {text or type(error).__name__}")


def _write(logger: Logger, figures: dict[str, float], step: int) -> None:
    logger.log_metrics(figures, step)
    logger.save()


@contextmanager
def open_loggers(
    names: Sequence[str],
    folder: Path,
    settings: Mapping[str, Any],
    plan: Plan,
    *,
    resumed: bool,
    reporter: Reporter,
) -> Iterator[Loggers]:
    """Open loggers that write into a run folder, and end them with the block.

    Args:
        names: of loggers; one that is named twice is opened once.
        folder: the run folder.
        settings: the hyper-parameters, nested in any way.
        plan: kept whole beside them; its main figures are hyper-parameters too.
        resumed: whether this is the rest of a run that was killed.
        reporter: notes what could not be logged.

    Raises:
        ConfigError: MLflow cannot be reached at ``MLFLOW_TRACKING_URI``.
    """
    flat = dict(_flat({**settings, "plan": _planned_figures(plan)}))
    opened = {}
    for name in dict.fromkeys(names):
        with _environment_restored():
            opened[name] = LOGGERS[name].open(folder, flat, to_plain(plan), resumed)
    loggers, status = Loggers(opened, reporter), "failed"
    try:
        yield loggers
        status = "success"
    finally:
        loggers.close(status)


@contextmanager
def _environment_restored() -> Iterator[None]:
    """Restore the environment variables on exit: libraries set some of their own."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Let libraries, which have to be imported already, log errors alone."""
    logs = {log: log.level for log in map(logging.getLogger, names)}
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in logs.items():
            log.setLevel(level)


def _open_tensorboard(
    folder: Path, settings: Mapping[str, Any], plan: Mapping[str, Any], resumed: bool
) -> tuple[Logger, int]:
    """Open event files in a folder of this run alone.

    A run that resumes logs all its epochs again: events that a kill has truncated, or that belong
    to an epoch which was not finished, would otherwise stay.
    """
    from lightning.fabric.loggers.tensorboard import TensorBoardLogger
    from torch.utils.tensorboard.summary import hparams

    del resumed
    for old in (folder / _EVENTS).glob("events.out.tfevents.*"):
        old.unlink()
    logger = TensorBoardLogger(folder, name=_EVENTS, version="")
    # Not by log_hyperparams, which would also log the placeholder of every figure as a step.
    figures = {"validation/accuracy": 0.0, "test/accuracy": 0.0}
    for summary in hparams(logger._sanitize_params(dict(settings)), figures):  # type: ignore[no-untyped-call]
        logger.experiment._get_file_writer().add_summary(summary)
    logger.experiment.add_text("plan", f"```\n{json.dumps(plan, indent=1)}\n```")
    return logger, 0


def _open_mlflow(
    folder: Path, settings: Mapping[str, Any], plan: Mapping[str, Any], resumed: bool
) -> tuple[Logger, int]:
    """Open one run at ``MLFLOW_TRACKING_URI``, or in a database in the run folder.

    (A database and not MLflow's plain files, which its newer versions refuse.) The experiment is
    ``MLFLOW_EXPERIMENT_NAME``, or ``headstart``. ``mlflow.json`` names the run, so that a job that
    was killed resumes it.
    """
    import mlflow
    from lightning.pytorch.loggers import MLFlowLogger

    uri, own = os.environ.get("MLFLOW_TRACKING_URI"), (folder / _MLRUNS).resolve()
    known = _known_run(folder) if resumed else None
    tracking: Any = mlflow  # untyped
    before = tracking.get_tracking_uri() if tracking.is_tracking_uri_set() else None
    if not uri:
        own.mkdir(exist_ok=True)
    try:
        with _quiet("mlflow", "alembic", "lightning.pytorch.loggers.mlflow"):
            logger = MLFlowLogger(
                os.environ.get("MLFLOW_EXPERIMENT_NAME") or "headstart",
                folder.resolve().name,
                uri or f"sqlite:///{(own / 'mlflow.db').as_posix()}",
                artifact_location=None if uri else own.as_uri(),
                run_id=known,
            )
            client, number = logger.experiment, logger.run_id
            if known is None:
                # Names of block groups are the user's; MLflow takes letters, digits, a few signs.
                logger.log_hyperparams(
                    {re.sub(r"[^\w\-. :/]", "_", name): value for name, value in settings.items()}
                )
                client.log_dict(number, dict(plan), "plan.json")
                write_json(folder / _MLFLOW, {"run_id": number})
            client.update_run(number, status="RUNNING")
            history = client.get_metric_history(number, "validation/loss")
    except (mlflow.exceptions.MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        where = "at MLFLOW_TRACKING_URI" if uri else f"in '{own}'"
        raise ConfigError((f"mlflow cannot log {where}: {reason}",)) from error
    finally:
        tracking.set_tracking_uri(before)  # which the logger sets for the whole process
    return logger, len({metric.step for metric in history})


def _known_run(folder: Path) -> str | None:
    """Return the MLflow run that a killed job has begun."""
    try:
        return str(json.loads((folder / _MLFLOW).read_text())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


register_logger(LoggerKind("tensorboard", ("tensorboard", "lightning"), _open_tensorboard))
register_logger(
    LoggerKind("mlflow", ("mlflow", "sqlalchemy", "alembic", "lightning"), _open_mlflow)
)


def _figures(record: EpochRecord) -> dict[str, float]:
    """Return what is logged of an epoch; the start has no training figures."""
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


def _planned_figures(plan: Plan) -> dict[str, Any]:
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


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested settings: ``recipe.stage.0.lr``; lists of words are leaves."""
    if isinstance(value, list | tuple):
        if not any(isinstance(item, Mapping) for item in value):
            yield name, ", ".join(map(str, value))
            return
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, item in value.items():
        yield from _flat(item, f"{name}.{key}" if name else str(key))


__all__ = ["LOGGERS", "LoggerKind", "Loggers", "check_loggers", "open_loggers", "register_logger"]
