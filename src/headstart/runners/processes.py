"""Processes of this machine: started, watched, and replaced when one dies.

Each has the network to itself and as many threads as are its share of the processors. Claims in
the store divide the work; what a process has committed stays when it is killed, and what it had
not committed is computed by the others.
"""

from __future__ import annotations

import _thread
import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from traceback import format_exc
from typing import Any

from headstart.cache import FeatureCache
from headstart.core.errors import ConfigError, HeadstartError
from headstart.core.progress import Progress, Reporter, tell
from headstart.core.scratch import scratch_folder
from headstart.runners.job import Job, Ran, summary
from headstart.runners.on_machine import devices_of, settings_of, threads_of
from headstart.runners.share import work
from headstart.runners.table import Crew

_DEATHS = 3
"""So many processes may die in a row, none of them having computed a row, before it is given up."""
_REPORT_SECONDS = 0.5
_LEAVE_SECONDS = 20.0  # to commit what is computed, when all are told to end


def run(job: Job, crew: Crew, reporter: Reporter) -> Sequence[Ran]:
    """Compute the missing rows of a job in several processes.

    Raises:
        ConfigError: the job cannot be sent to other processes.
        HeadstartError: what a process raised, or that they keep dying.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)  # a spawned process that runs its parent's script again; the parent says why
    count = crew.workers or len(devices_of(job.settings)) or max(1, os.cpu_count() or 1)
    payload = job.pickled()
    missing = len(job.missing(FeatureCache(job.place)))
    unit = job.cuts[0].inputs.unit
    begun = time.monotonic()
    with (
        scratch_folder() as folder,
        reporter.task("extract features", missing, unit) as progress,
    ):
        (folder / "job").write_bytes(payload)
        del payload
        found = _Crew(folder / "job", count, progress, reporter).run()
    said = summary(found, unit, time.monotonic() - begun)
    for note in dict.fromkeys(note for ran in found for note in ran.notes):
        reporter.note(note)
    if said:
        reporter.note(said)
    return found


class _Crew:
    """The processes of one job."""

    def __init__(self, job: Path, count: int, progress: Progress, reporter: Reporter) -> None:
        self._job, self._count = job, count
        self._progress, self._reporter = progress, reporter
        self._deaths = 0
        self._shares: dict[int, str] = {}
        self._found: dict[int, Ran] = {}
        self._members: dict[Connection, _Member] = {}
        self._leaving: list[_Member] = []  # that are done; a process takes its time to end

    def run(self) -> list[Ran]:
        """Start all, and return when all are done."""
        try:
            for index in range(self._count):
                self._start(index)
            while self._members:
                for connection in wait(list(self._members), timeout=1.0):
                    assert isinstance(connection, Connection)
                    self._hear(connection)
        finally:
            self._end()
        return list(self._found.values())

    def _start(self, index: int) -> None:
        member = _Member(self._job, index, self._count)
        self._members[member.connection] = member

    def _hear(self, connection: Connection) -> None:
        """Take one message of a process, or the end of it."""
        member = self._members[connection]
        try:
            kind, *said = connection.recv()
        except (EOFError, OSError):
            self._lost(member)
            return
        member.began = True
        if kind == "told":
            done, self._shares[member.index] = said
            self._deaths = 0 if done else self._deaths
            self._progress.advance(done)
            tell(self._progress, self._spent())
        elif kind == "ran":
            (self._found[member.index],) = said
            self._leave(member)
            self._leaving.append(member)  # waited for when all are done: others are heard meanwhile
        else:
            raise said[0]

    def _spent(self) -> str:
        """Return where the time of each worker goes, the largest share of each."""
        shown = sorted(self._shares.items())[:4]
        told = (f"{index}: {shares.partition(',')[0]}" for index, shares in shown if shares)
        return "workers " + ", ".join(told) if any(self._shares.values()) else ""

    def _lost(self, member: _Member) -> None:
        """Replace a process that ended before it was done."""
        self._leave(member)
        member.process.join(_LEAVE_SECONDS)
        code = member.process.exitcode
        if code == 1 and not member.began:
            raise ConfigError(
                ("a process exited before it started",),
                hint="a script has to make the call under if __name__ == '__main__'",
            )
        self._deaths += 1
        how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
        if self._deaths > _DEATHS:
            raise HeadstartError(
                f"process {member.index} ended {how}, and so did {_DEATHS} before it, without"
                " computing anything in between",
                hint="what is committed stays; find out what ends them (memory, a scheduler"
                " limit), or use fewer with runner_workers=N",
            )
        self._reporter.note(
            f"process {member.index} ended {how}; what it committed stays, and another one is"
            " started in its place"
        )
        self._start(member.index)

    def _leave(self, member: _Member) -> None:
        del self._members[member.connection]
        self._shares.pop(member.index, None)
        member.connection.close()

    def _end(self) -> None:
        """End those that still run: they commit what they have computed."""
        left = list(self._members.values())
        for member in left:
            member.process.terminate()
        deadline = time.monotonic() + _LEAVE_SECONDS
        for member in [*self._leaving, *left]:
            member.process.join(max(0.1, deadline - time.monotonic()))
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
            member.connection.close()
        self._members, self._leaving = {}, []


class _Member:
    """One process, and the pipe that it reports through."""

    def __init__(self, job: Path, index: int, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.index = index
        self.connection, theirs = context.Pipe(duplex=False)
        self.process: Any = context.Process(
            target=_work, args=(job, index, count, theirs), name=f"headstart-worker-{index}"
        )
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.began = False  # whether it has reported anything


def _work(path: Path, index: int, count: int, connection: Connection) -> None:
    """Be one of the processes."""
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    told = _Report(connection)
    try:
        told.flush()
        threads_of(count)
        job: Job = pickle.loads(path.read_bytes())  # noqa: S301  from our own parent
        ran = work(settings_of(job, index, count), index, count, told)
        told.flush()
        connection.send(("ran", ran))
    except HeadstartError as error:
        with contextlib.suppress(OSError):
            connection.send(("failed", error))
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
    except Exception:
        with contextlib.suppress(OSError):
            connection.send(("failed", RuntimeError(f"in process {index}: {format_exc()}")))


def _leave(*_: object) -> None:
    raise SystemExit(143)


def _leave_with_parent() -> None:
    """End this process when its parent is dead; what is computed is committed on the way."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _thread.interrupt_main()


class _Report:
    """Sends reports, not too many."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._done, self._shares, self._sent = 0, "", 0.0

    def __call__(self, done: int, shares: str) -> None:
        self._done, self._shares = self._done + done, shares
        if time.monotonic() - self._sent >= _REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what was not sent yet."""
        self._connection.send(("told", self._done, self._shares))
        self._done, self._sent = 0, time.monotonic()


__all__ = ["run"]
