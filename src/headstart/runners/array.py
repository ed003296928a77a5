"""One member of a job array: this process does its share, and what others leave undone.

Slurm, Kubernetes and torchrun start the members. They share nothing but the store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from headstart.cache import FeatureCache
from headstart.core.errors import ConfigError
from headstart.core.progress import Progress, Reporter, tell
from headstart.runners.job import Job, Ran, summary
from headstart.runners.share import work
from headstart.runners.table import Crew
from headstart.store import Space

_LOOK_SECONDS = 2.0


def run(job: Job, crew: Crew, reporter: Reporter) -> Sequence[Ran]:
    """Compute the share of one member of an array.

    Raises:
        ConfigError: it is not said which member this is.
    """
    if crew.index is None or crew.of is None:
        raise ConfigError(
            ("runner='array' divides the work of headstart extract",),
            hint="let every member of the array run headstart extract first, with index=I and of=N;"
            " this command then finds the rows",
        )
    unit, cache = job.cuts[0].inputs.unit, FeatureCache(job.place)
    missing = len(job.missing(cache))
    with reporter.task(f"extract features {crew.index}/{crew.of}", missing, unit) as progress:
        space = cache.space(job.cuts[0], job.settings, job.view)
        counted = _Counted(space, progress)
        ran = work(job, crew.index, crew.of, counted, crew.patience)
        counted.look()
    for note in (*ran.notes, summary((ran,), unit, ran.seconds)):
        if note:
            reporter.note(note)
    return (ran,)


class _Counted:
    """Shows how far all members are, as far as this one has read the log of the store."""

    def __init__(self, space: Space, progress: Progress) -> None:
        self._space, self._progress = space, progress
        self._known, self._looked = len(space), time.monotonic()

    def __call__(self, done: int, shares: str) -> None:  # noqa: ARG002
        tell(self._progress, shares)
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self.look()

    def look(self) -> None:
        """Count the rows."""
        before, self._known = self._known, len(self._space)
        self._looked = time.monotonic()
        self._progress.advance(max(0, self._known - before))


_SCHEDULERS: Mapping[str, tuple[str, str]] = {
    "slurm": ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    "kubernetes": ("JOB_COMPLETION_INDEX", ""),
    "torchrun": ("RANK", "WORLD_SIZE"),
}
"""The variables that say which member a process is, and of how many; Kubernetes says only which."""


def member(index: int | str | None, of: int | None) -> tuple[int, int]:
    """Return which member of an array this process is, from 0, and of how many.

    Args:
        index: a number, or the name of the scheduler whose variables say it.
        of: how many; None where the scheduler says it.

    Raises:
        ConfigError: it is not said, or the number is not below ``of``.
    """
    text, base, step = str(index) if index is not None else "", 0, 1
    if text in _SCHEDULERS:
        name, total = _SCHEDULERS[text]
        found = os.environ.get(name)
        if found is None or not found.isdecimal():
            raise ConfigError((f"index='{text}' needs the variable {name}, which is not set",))
        if text == "slurm":  # tasks may be numbered 1-8 or 0-30:10
            base = int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0"))
            step = max(1, int(os.environ.get("SLURM_ARRAY_TASK_STEP", "1")))
        if of is None and os.environ.get(total, "").isdecimal():
            of = int(os.environ[total])
        text = str((int(found) - base) // step)
    if of is None or not text:
        raise ConfigError(
            ("runner='array' needs to know which member of how many this process is",),
            hint="give index=I and of=N, or index='slurm', 'kubernetes' or 'torchrun'",
        )
    if not text.isdecimal() or int(text) >= of:
        raise ConfigError((f"index must be a number from 0 to {of - 1}, not '{text}'",))
    return int(text), of


__all__ = ["member", "run"]
