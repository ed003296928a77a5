"""TensorBoard, MLflow and Weights & Biases: results in tools that people already have open.

Lightning's loggers do the logging. A job opens them on its run folder, logs figures by step and
tables, and ends them; :mod:`headstart.commands.finetune.loggers` adds the epochs of a training. A
server that is away ends no job.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.commands.logger_kinds import LOGGERS, LoggerKind, register_logger, safe_name
from headstart.core.cards import Grid
from headstart.core.errors import ConfigError, MissingExtraError
from headstart.core.progress import Reporter
from headstart.core.settings import option

if TYPE_CHECKING:
    from lightning.fabric.loggers.logger import Logger


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that are not installed.

    Raises:
        MissingExtraError: naming the extra.
    """
    for name in names:
        for package in LOGGERS[name].packages:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, name, f"the logger '{name}'")


@dataclass(frozen=True)
class LogOptions:
    """The option of every command that logs.

    Attributes:
        loggers: ``tensorboard``, ``mlflow`` and ``wandb``, beside the report; they write into the
            run folder.
    """

    loggers: tuple[str, ...] = option(
        (),
        "Also log into the run folder; can be repeated.",
        choices=lambda: LOGGERS,
        flags=("--log",),
        panel="Running",
        record=False,
    )


def require_loggers(names: Sequence[str], write: bool) -> None:
    """Refuse loggers that are not installed, or that have no folder to write into.

    Raises:
        ConfigError: there is no run folder.
        MissingExtraError: naming the extra.
    """
    if names and not write:
        raise ConfigError(("loggers write into the run folder, and write is False",))
    check_loggers(names)


class Loggers:
    """The loggers of a run.

    Args:
        opened: by name the logger, and how many steps it has logged already.
        reporter: notes what could not be logged. A server that is away ends no job.
    """

    def __init__(self, opened: Mapping[str, tuple[Logger, int]], reporter: Reporter) -> None:
        self._loggers = {name: logger for name, (logger, _) in opened.items()}
        self._logged = {name: logged for name, (_, logged) in opened.items()}
        self._reporter = reporter

    def figures(self, figures: Mapping[str, float], step: int = 0) -> None:
        """Log figures at a step; those that are not finite are left out."""
        finite = {safe_name(name): value for name, value in figures.items() if math.isfinite(value)}
        self._each(lambda _, logger: _write(logger, finite, step))

    def table(self, name: str, table: Grid) -> None:
        """Log a table, where the logger takes any."""

        def log(kind: str, logger: Logger) -> None:
            take = LOGGERS[kind].table
            if take is not None:
                take(logger, name, table)

        self._each(log)

    def close(self, status: str) -> None:
        """End all of them, as ``success`` or ``failed``."""

        def end(_: str, logger: Logger) -> None:
            logger.finalize(status)
            finish = getattr(getattr(logger, "_experiment", None), "finish", None)
            if finish is not None:  # Weights & Biases goes on with a run until it is told
                finish(exit_code=0 if status == "success" else 1)

        self._each(end)

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
    reporter: Reporter,
    *,
    plan: Mapping[str, Any] | None = None,
    resumed: bool = False,
    made: Callable[..., Any] = Loggers,
) -> Iterator[Any]:
    """Open loggers that write into a run folder, and end them with the block.

    Args:
        names: of loggers; one that is named twice is opened once.
        folder: the run folder.
        settings: the hyper-parameters, nested in any way.
        reporter: notes what could not be logged.
        plan: kept whole beside them, in plain values; None: there is none.
        resumed: whether this is the rest of a run that was killed.
        made: the class that is yielded.

    Raises:
        ConfigError: a logger cannot be reached, or cannot write.
    """
    flat = dict(_flat(settings))
    opened = {}
    for name in dict.fromkeys(names):
        with _environment_restored():
            opened[name] = LOGGERS[name].open(folder, flat, dict(plan or {}), resumed)
    loggers, status = made(opened, reporter), "failed"
    try:
        yield loggers
        status = "success"
    finally:
        with _environment_restored():
            loggers.close(status)


def log_outcome(
    names: Sequence[str],
    folder: Path | None,
    settings: Mapping[str, Any],
    reporter: Reporter,
    figures: Mapping[str, float],
    tables: Mapping[str, Grid],
) -> None:
    """Log what a job has found, once it has written its run folder.

    Args:
        names: of loggers.
        folder: the run folder; None: nothing is logged.
        settings: the hyper-parameters, nested in any way.
        reporter: notes what could not be logged.
        figures: by name.
        tables: by name.

    Raises:
        ConfigError: as for :func:`open_loggers`.
    """
    if folder is None or not names:
        return
    with open_loggers(names, folder, settings, reporter) as loggers:
        loggers.figures(figures)
        for name, table in tables.items():
            loggers.table(name, table)


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


__all__ = [
    "LOGGERS",
    "LogOptions",
    "LoggerKind",
    "Loggers",
    "check_loggers",
    "log_outcome",
    "open_loggers",
    "register_logger",
    "require_loggers",
]
