"""Kept results: every value of a key counts, whatever its size and kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from headstart.commands.results import baselines_once, trained_once
from headstart.commands.run_facts import split_fingerprint
from headstart.core.fingerprints import canonical_json, fingerprint
from headstart.core.records import Baseline, Curve, Interval, Score
from headstart.data import load_data
from headstart.heads import Trained, fit_prototype
from headstart.store import Store

HEAD = fit_prototype(np.eye(4), np.arange(4) % 2, 2)


@pytest.fixture
def found(tmp_path: Path):
    """``found(key)``: whether a result was there under a key; it is afterwards."""

    def ask(key: Mapping[str, Any]) -> bool:
        return trained_once(Store(tmp_path), key, lambda: Trained(HEAD))[1]

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


def test_a_trained_head_and_baselines_come_back_as_they_were(tmp_path: Path) -> None:
    curve = Curve("loss", (1.0, 2.0), (0.5, 0.25), "epoch", "nats", chosen=2.0, log_x=True)
    made = Trained(HEAD.with_temperature(1.5), {"C": 0.1}, (curve,), ("one note",))
    beat = (
        Baseline("majority", "the largest class", Score(0.5, Interval(0.4, 0.6, 0.95, "t", 9))),
        Baseline("pixels", "", Score(0.7, None)),
    )
    store = Store(tmp_path)
    for known in (False, True):
        trained, found = trained_once(store, {"a": 1}, lambda: made)
        assert found is known
        assert (trained.chosen, trained.curves, trained.notes) == (
            made.chosen, made.curves, made.notes,
        )  # fmt: skip
        x = np.arange(8.0).reshape(2, 4)
        np.testing.assert_array_equal(trained.head.predict_proba(x), made.head.predict_proba(x))
        assert baselines_once(store, {"a": 1}, lambda known=known: () if known else beat) == beat


def test_what_another_version_kept_is_computed_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    trained_once(store, {}, lambda: Trained(HEAD))
    (info,) = store.results("heads")
    kept = store.results("heads").get(info.key)
    assert kept is not None
    for values in ({}, {**kept.values, "head": {**kept.values["head"], "kind": "unheard of"}}):
        store.results("heads").put(info.key, kept.arrays, values)
        assert not trained_once(store, {}, lambda: Trained(HEAD))[1]
        assert trained_once(store, {}, lambda: Trained(HEAD))[1]


@pytest.mark.parametrize("grouped", [False, True])
def test_the_fingerprint_of_a_split_is_that_of_its_canonical_json(*, grouped: bool) -> None:
    split = load_data("digits").train
    groups = np.array([f"série {i % 7}" for i in range(len(split))]) if grouped else None
    split = dataclasses.replace(split, groups=groups)
    lines = [[key, int(label)] for key, label in zip(split.ids, split.labels, strict=True)]
    more = [] if groups is None else [groups.tolist()]
    text = canonical_json([list(split.classes), lines, *more], compact=False)
    assert split_fingerprint(split) == fingerprint(text)
