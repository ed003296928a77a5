"""The loggers that a run may name, and how each is opened and takes a table.

To add one, write a function that opens it and enter it by :func:`register_logger`. Importing this
module loads none of their libraries.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.cards import Grid
from headstart.core.errors import ConfigError
from headstart.core.files import write_json
from headstart.core.records import ACCURACY, FIELDS

if TYPE_CHECKING:
    from lightning.fabric.loggers.logger import Logger

_EVENTS, _MLRUNS, _MLFLOW = "tensorboard", "mlruns", "mlflow.json"
_WANDB, _WANDB_RUN = "wandb", "wandb.json"

Open = Callable[[Path, Mapping[str, Any], Mapping[str, Any], bool], "tuple[Logger, int]"]
"""From the run folder, the hyper-parameters (flat, by dotted name), the plan in plain values, and
whether the run resumes one that was killed: to a Lightning logger, and how many epochs it has
logged already."""
LogTable = Callable[[Any, str, Grid], None]
"""From a logger, the name of a table, and the table."""


@dataclass(frozen=True)
class LoggerKind:
    """A logger that a run may name.

    Attributes:
        name: its name; also the extra of headstart that installs it.
        packages: what has to be installed for it.
        open: see :data:`Open`.
        table: logs a table; None: tables are left out.
    """

    name: str
    packages: tuple[str, ...]
    open: Open
    table: LogTable | None = None


LOGGERS: dict[str, LoggerKind] = {}


def register_logger(kind: LoggerKind) -> None:
    """Add a logger to those that a run may name; a known name is replaced."""
    LOGGERS[kind.name] = kind


def safe_name(name: str) -> str:
    """Return a name that all of them take: names of classes and configurations are a user's."""
    return re.sub(r"[^\w\-. :/]", "_", name)


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
    figure = FIELDS[str(settings.get("figure", ACCURACY))]
    figures = {f"validation/{figure}": 0.0, f"test/{figure}": 0.0}
    for summary in hparams(logger._sanitize_params(dict(settings)), figures):  # type: ignore[no-untyped-call]
        logger.experiment._get_file_writer().add_summary(summary)
    if plan:
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
    known = _known_run(folder / _MLFLOW) if resumed else None
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
                logger.log_hyperparams({safe_name(name): value for name, value in settings.items()})
                if plan:
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


def _known_run(file: Path) -> str | None:
    """Return the run that a killed job has begun."""
    try:
        return str(json.loads(file.read_text())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_wandb(
    folder: Path, settings: Mapping[str, Any], plan: Mapping[str, Any], resumed: bool
) -> tuple[Logger, int]:
    """Open one run of Weights & Biases: offline in the run folder, unless there is a key.

    Offline is what nobody has to log in for; ``wandb sync`` uploads it. ``WANDB_MODE``,
    ``WANDB_PROJECT`` (``headstart``) and ``WANDB_API_KEY`` are read as everywhere. ``wandb.json``
    names the run, so that a job that was killed resumes it; steps that the service has already are
    sent again and dropped there.
    """
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    known = _known_run(folder / _WANDB_RUN) if resumed else None
    mode = os.environ.get("WANDB_MODE") or (
        "online" if os.environ.get("WANDB_API_KEY") else "offline"
    )
    quiet = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True)
    try:
        with _quiet("wandb"):
            logger = WandbLogger(
                folder.resolve().name,
                folder,
                project=os.environ.get("WANDB_PROJECT") or "headstart",
                id=known,
                offline=mode == "offline",
                mode=mode,
                settings=quiet,
                config={**settings, **({"plan": json.dumps(plan)} if plan else {})},
            )
            run: Any = logger.experiment
            write_json(folder / _WANDB_RUN, {"run_id": str(run.id)})
    except (wandb.errors.Error, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError((f"wandb cannot log: {reason}",), hint="WANDB_MODE=offline") from error
    return logger, 0


def _markdown(logger: Any, name: str, table: Grid) -> None:
    """Log a table as text."""
    lines = [table.header, ["---"] * len(table.header), *table.cells(len(table.rows))]
    rows = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    logger.experiment.add_text(name, "\n".join(rows))
    logger.save()


def _mlflow_table(logger: Any, name: str, table: Grid) -> None:
    """Log a table in the form of MLflow's own."""
    values = {"columns": list(table.header), "data": [list(row) for row in table.rows]}
    logger.experiment.log_dict(logger.run_id, values, f"{name}.json")


def _wandb_table(logger: Any, name: str, table: Grid) -> None:
    logger.log_table(name, columns=list(table.header), data=[list(row) for row in table.rows])


register_logger(
    LoggerKind("tensorboard", ("tensorboard", "lightning"), _open_tensorboard, _markdown)
)
register_logger(
    LoggerKind(
        "mlflow", ("mlflow", "sqlalchemy", "alembic", "lightning"), _open_mlflow, _mlflow_table
    )
)
register_logger(LoggerKind("wandb", ("wandb", "lightning"), _open_wandb, _wandb_table))


__all__ = ["LOGGERS", "LoggerKind", "register_logger", "safe_name"]
