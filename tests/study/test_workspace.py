from __future__ import annotations

import numpy as np

from headstart.study.workspace import Workspace


def test_arrays_come_back(tmp_path):
    workspace = Workspace(tmp_path / "state")
    assert workspace.get("a") is None
    assert not workspace.folder.exists()
    arrays = {"rows": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.empty(0, np.int64)}
    workspace.put("a", arrays)
    found = Workspace(tmp_path / "state").get("a")
    assert found is not None
    assert all((found[key] == arrays[key]).all() for key in arrays)


def test_damage_counts_as_absence(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.put("a", {"rows": np.arange(1000, dtype=np.float32)})
    path = tmp_path / "a.safetensors"
    good = path.read_bytes()
    for place in range(8, len(good), 97):
        bad = bytearray(good)
        bad[place] ^= 4
        path.write_bytes(bad)
        found = workspace.get("a")
        assert found is None or (found["rows"] == np.arange(1000)).all()
    path.write_bytes(good[:-3])
    assert workspace.get("a") is None
    path.write_bytes(good)
    assert workspace.get("a") is not None


def test_clearing_leaves_the_state_of_others(tmp_path):
    mine, other = Workspace(tmp_path / "s"), Workspace(tmp_path / "s")
    mine.put("a", {"x": np.zeros(1)})
    other.put("b", {"x": np.zeros(1)})
    mine.clear()
    assert other.get("b") is not None
    assert mine.get("a") is None
    other.clear()
    assert not (tmp_path / "s").exists()
