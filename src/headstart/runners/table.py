"""The table of runners. Imports nothing heavy: help texts read it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.core.errors import ConfigError
from headstart.core.wording import did_you_mean

if TYPE_CHECKING:
    from headstart.core.progress import Reporter
    from headstart.runners.job import Job, Ran

LOCAL = "local"
"""Not a runner: this process computes what is missing."""


@dataclass(frozen=True)
class Crew:
    """Who computes missing rows.

    Attributes:
        runner: a name of the table, or :data:`LOCAL`.
        workers: how many; None: one for each of several devices, else for each processor of this
            machine, or each of the cluster.
        address: of a cluster that runs already; None: one of this machine.
        cpus, gpus: processors and GPUs that Ray sets aside for an actor, parts of one allowed;
            None: one processor, and one GPU where the network may use it and the cluster has any.
        index, of: which member of a job array this process is, and of how many.
        patience: seconds without a commit of another member of an array after which its shards
            are computed here; None: three times what a shard takes, a minute at least.
    """

    runner: str = LOCAL
    workers: int | None = None
    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None
    index: int | None = None
    of: int | None = None
    patience: float | None = None

    def run(self, job: Job, reporter: Reporter) -> Sequence[Ran]:
        """Compute the missing rows of a job; return what each worker did."""
        return find_runner(self.runner).open()(job, self, reporter)


Run = Callable[["Job", Crew, "Reporter"], "Sequence[Ran]"]
"""Computes the missing rows of a job and returns what each worker did. What cannot be computed
stays missing: whoever asked for the rows finds out why."""


@dataclass(frozen=True)
class Runner:
    """One way of running workers.

    Attributes:
        name: as the option takes it.
        summary: of the help text.
        open: imports what it needs, and returns what runs a job.
    """

    name: str
    summary: str
    open: Callable[[], Run]


_RUNNERS: dict[str, Runner] = {}


def register_runner(runner: Runner) -> Runner:
    """Enter a runner in the table, and return it; one of the same name is replaced."""
    _RUNNERS[runner.name] = runner
    return runner


def runner_names() -> tuple[str, ...]:
    """Return the names that the option takes."""
    return (LOCAL, *_RUNNERS)


def find_runner(name: str) -> Runner:
    """Return a runner by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in _RUNNERS:
        known = ", ".join(_RUNNERS)
        raise ConfigError(
            (f"runner must be one of {known}, not {name!r}",), hint=did_you_mean(name, _RUNNERS)
        )
    return _RUNNERS[name]


def describe_runners() -> str:
    """Return what each runner is, for help texts."""
    known = "; ".join(f"{runner.name}: {runner.summary}" for runner in _RUNNERS.values())
    return f"{LOCAL}: this process; {known}."


def _in_module(name: str) -> Callable[[], Run]:
    def load() -> Run:
        run: Any = importlib.import_module(f"headstart.runners.{name}").run
        return run  # type: ignore[no-any-return]

    return load


register_runner(Runner("processes", "processes of this machine", _in_module("processes")))
register_runner(
    Runner("array", "one of the members of a job array, for extract", _in_module("array"))
)
register_runner(Runner("ray", "actors of a Ray cluster", _in_module("cluster")))


__all__ = [
    "LOCAL",
    "Crew",
    "Run",
    "Runner",
    "describe_runners",
    "find_runner",
    "register_runner",
    "runner_names",
]
