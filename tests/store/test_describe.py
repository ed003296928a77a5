from __future__ import annotations

import enum
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.errors import StoreError
from headstart.store import ABSENT, Difference, canonical_json, differences, space_key

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
DESCRIPTIONS = st.dictionaries(st.text(max_size=4), PLAIN, max_size=4)


def test_the_key_is_pinned() -> None:
    description = {"b": [1, 1.5, None, True], "a": {"ü": "x"}}
    text = b'{"a":{"\\u00fc":"x"},"b":[1,1.5,null,true]}'
    assert canonical_json(description) == text
    assert space_key(description) == "48470fef4b4ce44c1db425b670dfd53f"


@given(DESCRIPTIONS)
def test_the_key_ignores_the_order_of_names(description: dict) -> None:
    turned = dict(reversed(description.items()))
    assert space_key(turned) == space_key(description)
    assert differences(description, turned) == ()


@given(DESCRIPTIONS, DESCRIPTIONS)
def test_keys_are_equal_exactly_where_nothing_differs(left: dict, right: dict) -> None:
    assert (space_key(left) == space_key(right)) == (differences(left, right) == ())


def test_numbers_of_other_types_are_other_values() -> None:
    assert len({space_key({"x": value}) for value in (1, 1.0, True, "1", None, -0.0, 0.0)}) == 7


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (np.float64(1.0), "a.b[1]"),
        (Colour.RED, "a.b[1]"),
        ((1, 2), "a.b[1]"),
        (float("nan"), "a.b[1]"),
        (b"x", "a.b[1]"),
        (OrderedDict(), "a.b[1]"),
        ({1: 2}, "of 'a.b[1]'"),
        (lambda: 0, "a.b[1]"),
    ],
)
def test_what_is_not_plain_is_refused_with_its_path(value: object, path: str) -> None:
    with pytest.raises(StoreError) as caught:
        space_key({"a": {"b": [1, value]}})
    assert path in caught.value.message


def test_all_faults_are_named_together() -> None:
    with pytest.raises(StoreError) as caught:
        space_key({"x": {1}, "y": 2j, "z": 1})
    assert "'x'" in caught.value.message
    assert "'y'" in caught.value.message
    assert "'z'" not in caught.value.message


def test_differences_name_paths() -> None:
    left = {"preprocessing": {"resize": 256, "crop": 224}, "layers": ["a"], "old": None}
    right = {"preprocessing": {"resize": 232, "crop": 224}, "layers": ["a", "b"]}
    found = differences(left, right)
    assert [str(difference) for difference in found] == [
        "preprocessing.resize: 256 → 232",
        'layers[1]: absent → "b"',
        "old: null → absent",
    ]
    assert found[2] == Difference("old", None, ABSENT)
