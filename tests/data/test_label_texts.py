"""Several labels in one text: what is written can be told apart, wherever it is written."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headstart.commands.abstaining import set_columns
from headstart.commands.collection import label_text
from headstart.commands.task_report import joined
from headstart.data import load_data
from headstart.data.label_texts import one_text
from headstart.evaluation.sets import YES, ClassSets, LabelSets

NAMES = st.lists(st.text(alphabet="a|\\", min_size=1, max_size=4), max_size=4)


@given(NAMES, NAMES)
def test_two_lists_of_labels_are_never_one_text(first: list[str], second: list[str]) -> None:
    assert (one_text(first) == one_text(second)) == (first == second)


def test_every_table_writes_several_labels_alike() -> None:
    names = ["a|b", "c", "d\\"]
    members = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    wanted = [r"a\|b|c", r"a\|b|d" + "\\\\"]
    assert joined(names, members) == wanted
    states = np.where(members > 0, YES, 0).astype(np.int8)
    assert set_columns(LabelSets(0.9, states, False), names)["sure"] == wanted
    rows = tuple(np.flatnonzero(row) for row in members)
    assert set_columns(ClassSets(0.9, rows, 3, False), names)["set"] == wanted
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    split = load_data((images, [["a|b", "c"], ["a|b", "d\\"]] * 20)).train
    assert {label_text(split, at) for at in range(len(split))} == set(wanted)
