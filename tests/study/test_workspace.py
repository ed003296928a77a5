from __future__ import annotations

import numpy as np

from headstart.store import Store
from headstart.study.workspace import Workspace

A, B = "a" * 32, "b" * 32


def test_arrays_come_back(tmp_path):
    workspace = Workspace(Store(tmp_path).results("study"))
    assert workspace.get(A) is None
    assert not workspace.results.folder.exists()
    arrays = {"rows": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.empty(0, np.int64)}
    workspace.put(A, arrays)
    found = Workspace(Store(tmp_path).results("study")).get(A)
    assert found is not None
    assert all((found[key] == arrays[key]).all() for key in arrays)


def test_clearing_leaves_the_state_of_others(tmp_path):
    mine, other = (Workspace(Store(tmp_path).results("study")) for _ in range(2))
    mine.put(A, {"x": np.zeros(1)})
    mine.subfolder(A).mkdir()
    other.put(B, {"x": np.zeros(1)})
    mine.clear()
    assert other.get(B) is not None
    assert mine.get(A) is None
    other.clear()
    assert not other.results.folder.exists()
