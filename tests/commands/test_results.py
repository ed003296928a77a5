"""Kept results: every value of a key counts, whatever its size and kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from headstart.commands.results import Results, Trained
from headstart.heads import fit_prototype

HEAD = fit_prototype(np.eye(4), np.arange(4) % 2, 2)


@pytest.fixture
def found(tmp_path: Path):
    """``found(key)``: whether a result was there under a key; it is afterwards."""
    results = Results(tmp_path)

    def ask(key: Mapping[str, Any]) -> bool:
        return results.trained(key, lambda: Trained(HEAD, (), {}, ()))[1]

    return ask


def test_arrays_count_by_all_they_hold(found) -> None:
    groups = np.arange(3000)
    other = groups.copy()
    other[1500] = 7  # where the text of an array has dots
    kinds = [
        groups,
        other,
        groups.astype(np.int32),
        groups.reshape(2, -1),
        groups[::-1],
        np.array([f"patient {i}" for i in groups], dtype=object),
        np.array([f"patient {i}" for i in other], dtype=object),
    ]
    for value in kinds:
        assert not found({"options": {"groups": value}})
    for value in kinds:
        assert found({"options": {"groups": value.copy()}})


def test_plain_values_of_numpy_and_mappings_are_those_of_python(found) -> None:
    assert not found({"options": {"C": 0.5, "k": 3, "shapes": [1, 2]}})
    same = {"C": np.float64(0.5), "k": np.int32(3), "shapes": (1, 2)}
    assert found({"options": same})
    assert found({"options": MappingProxyType(same)})


@pytest.mark.parametrize("value", [object(), {1, 2}, Path("x"), np.array([object()])], ids=type)
def test_what_has_no_description_is_no_key(found, value: object) -> None:
    with pytest.raises(TypeError, match="plain values and arrays"):
        found({"options": {"groups": value}})
