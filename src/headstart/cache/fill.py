"""Fill spaces of the store: compute the rows that are missing, once, and commit them in time.

Several processes may fill the same space at the same time. Each claims a share of the missing rows,
computes and commits it, and returns when all rows are there, whoever computed them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.progress import Progress, Reporter, SilentReporter, tell
from headstart.core.records import CacheUse, Storage
from headstart.core.scratch import is_scratch
from headstart.core.stages import Stages
from headstart.store import Space

COMMIT_SECONDS = 3.0
COMMIT_BYTES = 32 * 2**20
"""Rows are committed after this much work or memory, from the first batch on: a killed run loses
no more than that, what is being committed, and the batch under way. A commit takes some hundredths
of a second, on a slow disk some seconds: it runs in a thread of its own beside the next batches,
one commit at a time. No more than twice this memory waits: then computing waits for the disk."""
_SHARE_SECONDS = 15.0  # of work that is claimed at a time
_FIRST_BATCHES = 4  # claimed before the speed is known
_POLL_SECONDS = 0.2

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Block:
    """Computed rows.

    Attributes:
        ids: of m items.
        columns: for every space its columns by name, each ``(m, ...)``.
    """

    ids: Sequence[str]
    columns: Sequence[Columns]

    @property
    def nbytes(self) -> int:
        """The memory that the rows take."""
        return sum(array.nbytes for columns in self.columns for array in columns.values())


Compute = Callable[[list[str]], Iterable[Block]]
"""From the ids of some items to their rows. An item without a row in any block is lost: it cannot
be read, and is not tried again."""


@dataclass(frozen=True)
class Filled:
    """What filling did.

    Attributes:
        use: rows found and rows computed, counted over unique items.
        lost: ids of the items that have no row, because they cannot be read.
    """

    use: CacheUse
    lost: frozenset[str]


def fill(
    spaces: Sequence[Space],
    ids: Sequence[str],
    compute: Compute,
    *,
    task: str,
    unit: str,
    number: int = 0,
    batch_size: int = 64,
    storage: Storage | None = None,
    reporter: Reporter | None = None,
    stages: Stages | None = None,
) -> Filled:
    """Compute and commit the rows that are missing.

    Args:
        spaces: filled together, by the same pass over the items.
        ids: of the items; equal ones are computed once.
        compute: returns the rows of missing items.
        task, unit: what progress shows ("extract features", "images").
        number: of the view.
        batch_size: items in a pass of ``compute``; shares of the work are multiples of it.
        storage: how floating columns are stored; None keeps their type.
        reporter: shown progress.
        stages: takes the time of writing; progress shows its shares.

    Raises:
        StoreError: rows cannot be written; what was committed stays.
    """
    reporter = reporter or SilentReporter()
    unique = len(set(ids))
    missing = missing_rows(spaces, ids, number)
    if not missing:
        return Filled(CacheUse(unique, 0), frozenset())
    for space in spaces:
        if space.below is not None:
            place = space.folder.parent
            kept = "not kept" if is_scratch(place) else f"kept in {place}"
            reporter.note(
                f"{space.below.parent} is read-only: rows that it lacks are computed and {kept}"
            )
            break
    filling = Filling(
        spaces,
        number=number,
        batch_size=batch_size,
        storage=storage,
        reporter=reporter,
        stages=stages,
    )
    with reporter.task(task, len(missing), unit) as progress, filling:
        filling.fill(missing, compute, progress)
    lost = frozenset(filling.lost)
    return Filled(CacheUse(unique - len(missing), len(missing) - len(lost)), lost)


def missing_rows(spaces: Iterable[Space], ids: Sequence[str], number: int = 0) -> list[str]:
    """Return the ids that at least one space lacks, in order, each once."""
    return list(dict.fromkeys(key for space in spaces for key in space.missing(ids, number)))


class Filling:
    """A filling under way, for items that arrive in portions; :func:`fill` does it in one.

    It is a context. On leaving it, by an error too, computed rows are committed and the claims of
    this process released.

    Args:
        spaces, number, batch_size, storage, reporter, stages: as for :func:`fill`.
        commit_seconds: rows are committed after this much work; None: :data:`COMMIT_SECONDS`.

    Attributes:
        lost: ids of the items that have no row so far.
    """

    def __init__(
        self,
        spaces: Sequence[Space],
        *,
        number: int = 0,
        batch_size: int = 64,
        storage: Storage | None = None,
        reporter: Reporter | None = None,
        stages: Stages | None = None,
        commit_seconds: float | None = None,
    ) -> None:
        self.spaces, self.number, self.storage = tuple(spaces), number, storage
        self.lost: set[str] = set()
        self._reporter = reporter or SilentReporter()
        self._batch_size, self._least = batch_size, _FIRST_BATCHES * batch_size
        self._share = self._least
        self._stages = stages or Stages()
        self._commit_seconds = commit_seconds
        self._waiting: list[Block] = []
        self._ready: set[str] = set()  # ids of the rows that wait or are being committed
        self._since = 0.0  # when the work on those that wait began
        self._noted = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="headstart-write")
        self._writing: Future[None] | None = None
        self._written: list[Block] = []  # what it commits

    def __enter__(self) -> Filling:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        except (KeyboardInterrupt, SystemExit):
            self.commit()  # the user's signal may have come in the middle of it
            raise
        finally:
            self._writer.shutdown()
            for space in self.spaces:
                space.release()

    def fill(
        self,
        ids: Sequence[str],
        compute: Compute,
        task: Progress | None = None,
        *,
        patient: bool = True,
    ) -> None:
        """Compute the rows of some items that are missing; commit them when enough wait.

        Args:
            ids: of the items.
            compute: returns their rows.
            task: advanced by the items that are done, here or elsewhere.
            patient: wait for rows that other processes compute, or leave those to them.
        """
        missing = self._missing(ids)
        while missing:
            mine = self._claim(missing)
            if mine:
                self._compute(mine, compute, task)
            elif patient:
                self._wait()
            else:
                return
            before, missing = len(missing), self._missing(missing)
            if task is not None:
                task.advance(max(0, before - len(missing) - len(mine)))

    def commit(self) -> None:
        """Commit the rows that wait; if that is interrupted, they wait on for the next commit."""
        self._settle()
        self._begin()
        self._settle()

    def commit_soon(self) -> None:
        """Begin to commit the rows that wait, beside further work, unless a commit is under way."""
        if self.is_idle:
            self._settle()
            self._begin()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being committed."""
        return self._writing is None or self._writing.done()

    def _begin(self) -> None:
        """Begin to commit the rows that wait, in the thread that writes; none is being written."""
        if not self._waiting:
            return
        blocks, self._waiting = self._waiting, []
        self._written = blocks
        self._writing = self._writer.submit(self._write, blocks)
        self._since = time.monotonic()

    def _settle(self) -> None:
        """Wait for what is being committed.

        Raises:
            StoreError: it cannot be stored: a full disk, say. Its rows are missing, and not tried
                again.
        """
        if self._writing is None:
            return
        wait([self._writing])  # an interruption here leaves it to the next call
        error = self._writing.exception()
        self._writing = None
        written, self._written = self._written, []
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self._waiting = [*written, *self._waiting]  # for the next commit
            raise error
        self._ready.difference_update(key for block in written for key in block.ids)
        if error is not None:
            raise error

    def _write(self, blocks: Sequence[Block]) -> None:
        ids = [key for block in blocks for key in block.ids]
        with self._stages("write"):
            for position, space in enumerate(self.spaces):
                parts = [block.columns[position] for block in blocks]
                columns = {
                    name: np.concatenate([part[name] for part in parts]) for name in parts[0]
                }
                space.append(
                    ids, columns, self.number, storage=self.storage, reporter=self._reporter
                )

    def _missing(self, ids: Sequence[str]) -> list[str]:
        done = self.lost | self._ready
        return [key for key in missing_rows(self.spaces, ids, self.number) if key not in done]

    def _claim(self, missing: list[str]) -> list[str]:
        """Reserve the next share: rows that one space lacks are claimed there."""
        for space in self.spaces:
            lacking = space.missing(missing, self.number)
            if lacking:
                return space.claim(lacking, self.number, limit=self._share)
        return []

    def _compute(self, keys: list[str], compute: Compute, task: Progress | None) -> None:
        begun = time.monotonic()
        if not self._waiting:
            self._since = begun
        without = set(keys)
        for block in compute(keys):
            self._waiting.append(block)
            self._ready.update(block.ids)
            without.difference_update(block.ids)
            if task is not None:
                task.advance(len(block.ids))
                tell(task, self._stages.shares())
            self._commit_if_due()
        self.lost |= without
        self._disclaim(without)
        if task is not None:
            task.advance(len(without))
        if len(keys) >= self._share:  # a share: what was claimed is committed together
            self._settle()
            self._begin()
            # The first share is small, to learn the speed.
            rate = len(keys) / max(time.monotonic() - begun, 1e-3)
            wanted = int(rate * _SHARE_SECONDS)
            self._share = max(self._least, wanted - wanted % self._batch_size)  # no part of a batch

    def _disclaim(self, lost: set[str]) -> None:
        """Leave items that cannot be read to others, who would wait for them as long as we live."""
        for space in self.spaces if lost else ():
            space.disclaim(sorted(lost), self.number)

    def _commit_if_due(self) -> None:
        if self.is_idle:
            self._settle()
        size = sum(block.nbytes for block in self._waiting)
        wanted = COMMIT_SECONDS if self._commit_seconds is None else self._commit_seconds
        due = time.monotonic() - self._since >= wanted or size >= COMMIT_BYTES
        if due and self._writing is not None and size >= COMMIT_BYTES:
            with self._stages("waiting"):
                self._settle()
        if due and self._writing is None:
            self._begin()

    def _wait(self) -> None:
        """Wait for another process, which may be waiting for rows that wait here."""
        if self._waiting or self._writing is not None:
            self.commit()
            return
        if not self._noted:
            self._reporter.note("another process is computing the remaining rows; waiting for it")
            self._noted = True
        time.sleep(_POLL_SECONDS)


__all__ = ["Block", "Columns", "Compute", "Filled", "Filling", "fill", "missing_rows"]
