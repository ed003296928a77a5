"""What a study keeps until it is finished."""

from __future__ import annotations

import numpy as np

from headstart.store import Store
from headstart.study.rows import Kept

A, B = "a" * 32, "b" * 32


def test_clearing_leaves_the_state_of_others(tmp_path):
    mine, other = (Kept(Store(tmp_path).results("study")) for _ in range(2))
    mine.put(A, {"x": np.arange(3)}, {"seconds": 1.5})
    mine.folder(A).mkdir()
    other.put(B, {"x": np.zeros(1)})
    found = Kept(Store(tmp_path).results("study")).get(A)
    assert found is not None
    assert (found.arrays["x"] == np.arange(3)).all()
    assert found.values == {"seconds": 1.5}
    mine.clear()
    assert other.get(B) is not None
    assert mine.get(A) is None
    assert not mine.folder(A).exists()
    other.clear()
    assert not other.results.folder.exists()
