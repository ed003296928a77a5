"""Random histories of a store against a dictionary that does the same in memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headstart.core.errors import StoreError
from headstart.store import Store
from tests.store.conftest import make_ids

POOL = make_ids(24)
CHOICES = st.lists(st.integers(0, 23), max_size=12)
VIEWS = st.integers(0, 1)
DESCRIPTION = {"model": "machine"}


class StoreMachine(RuleBasedStateMachine):
    """Appends, overlaps, crashes, losses, repairs and collections; every value is told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.store = Store(self.folder / "store")
        self.space = self.store.space(DESCRIPTION)
        self.model: dict[tuple[str, int], float] = {}
        self.written: dict[tuple[str, int], set[float]] = {}
        self.stamp = 0.0

    def teardown(self) -> None:
        self.space.close()
        shutil.rmtree(self.folder)

    def rows(self, ids: list[str], view: int) -> np.ndarray:
        """Values that were never used before, so that it shows which publication is read."""
        values = self.stamp + np.arange(len(ids), dtype=np.float64)
        self.stamp += len(ids)
        for i, value in zip(ids, values.tolist(), strict=True):
            self.written.setdefault((i, view), set()).add(value)
        return np.stack([values, -values], axis=1)

    @rule(chosen=CHOICES, view=VIEWS)
    def append(self, chosen: list[int], view: int) -> None:
        ids = [POOL[i] for i in chosen]
        rows = self.rows(ids, view)
        new = 0
        for i, row in zip(ids, rows, strict=True):
            if (i, view) not in self.model:
                self.model[i, view] = row[0]
                new += 1
        assert self.space.append(ids, {"x": rows}, view) == new

    @rule(chosen=CHOICES, view=VIEWS)
    def overlap(self, chosen: list[int], view: int) -> None:
        """Two writers that both saw the rows missing; the second to commit must lose."""
        ids = [POOL[i] for i in dict.fromkeys(chosen)]
        first, second = self.rows(ids, view), self.rows(ids, view)
        other = self.store.space(DESCRIPTION)
        commit = other._commit

        def late(*arguments: object) -> int:
            self.space.append(ids, {"x": first}, view)
            return commit(*arguments)  # type: ignore[arg-type]

        other._commit = late  # type: ignore[method-assign]
        missing = [i for i in ids if (i, view) not in self.model]
        if not missing:
            return
        assert other.append(ids, {"x": second}, view) == 0
        other.close()
        for i, row in zip(ids, first, strict=True):
            self.model.setdefault((i, view), row[0])

    @rule(chosen=CHOICES, view=VIEWS)
    def crash_before_the_commit(self, chosen: list[int], view: int) -> None:
        """A shard is renamed into place, but the transaction never ends."""
        ids = [POOL[i] for i in dict.fromkeys(chosen)]
        ids = [i for i in ids if (i, view) not in self.model]
        if not ids:
            return
        rows = self.rows(ids, view)

        class Killed(BaseException):
            pass

        def die(*_: object) -> None:
            raise Killed

        import headstart.store.space as module

        fsync, module.sync_folder = module.sync_folder, die
        try:
            self.space.append(ids, {"x": rows}, view)
            raise AssertionError("the crash did not happen")
        except Killed:
            pass
        finally:
            module.sync_folder = fsync

    @rule()
    def repair(self) -> None:
        before = dict(self.model)
        report = self.store.verify(repair=True)
        assert report.ok
        assert self.store.verify().faults == ()
        # A shard that was left behind may be adopted: its rows are as good as any.
        for key, value in self.found().items():
            if key in before:
                assert value == before[key]
            else:
                assert value in self.written[key]
                self.model[key] = value
        assert self.found() == self.model

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def lose_a_shard(self, data: st.DataObject) -> None:
        files = sorted((self.space.folder / "shards").iterdir())
        data.draw(st.sampled_from(files)).unlink()
        self.space.close()
        self.space = self.store.space(DESCRIPTION)
        self.store.verify(repair=True)
        # Rows of other shards stay; a lost row may live on in a shard that came second with it.
        self.model = self.found()
        assert all(value in self.written[key] for key, value in self.model.items())

    @rule()
    def open_anew(self) -> None:
        self.space.close()
        self.space = self.store.space(DESCRIPTION)

    @rule()
    def collect_in_use(self) -> None:
        self.space.missing([])
        if self.space.folder.exists():
            assert self.store.gc(max_size=0).removed == ()

    @rule()
    def collect(self) -> None:
        self.space.close()
        self.store.gc(max_size=0)
        assert not self.space.folder.exists()
        self.model.clear()

    def found(self) -> dict[tuple[str, int], float]:
        result = {}
        for view in (0, 1):
            missing = set(self.space.missing(POOL, view))
            there = [i for i in POOL if i not in missing]
            rows = self.space.read(there, view).array("x") if there else []
            result.update({(i, view): row[0] for i, row in zip(there, rows, strict=True)})
        return result

    @invariant()
    def reads_are_those_of_the_model(self) -> None:
        for view in (0, 1):
            known = [i for i in POOL if (i, view) in self.model]
            assert self.space.missing(POOL, view) == [i for i in POOL if i not in known]
            if known:
                rows = self.space.read(known[::-1], view)[np.arange(len(known))]
                assert rows[:, 0].tolist() == [self.model[i, view] for i in known[::-1]]
                assert (rows[:, 0] == -rows[:, 1]).all()
        absent = [i for i in POOL if (i, 1) not in self.model]
        if absent:
            try:
                self.space.read(absent[:1], 1)
            except StoreError:
                pass
            else:
                raise AssertionError("a missing row was read")


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=25,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
