"""How names, counts and figures are worded."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.wording import (
    clean,
    columns,
    count,
    did_you_mean,
    format_bytes,
    format_number,
    format_percent,
    format_seconds,
    format_shape,
    listed,
    nearest,
    quoted,
    shorten,
)


def test_counts_and_lists_of_names() -> None:
    assert count(1, "image") == "1 image"
    assert count(1200, "class", "classes") == "1,200 classes"
    assert quoted(["a", "it's", "\x1b[31m"]) == "'a', \"it's\", '\\x1b[31m'"
    assert quoted("abcd", 3) == "'a', 'b', 'c' and 1 more"
    assert quoted(range(5000), 1) == "'0' and 4,999 more"
    assert listed(["eval", "train"]) == "eval, train"
    assert listed("abc", 2) == "a, b and 1 more"


def test_the_nearest_names_come_first() -> None:
    names = ["module.fc.weight", "fc.bias", "encoder.fc.weight", "head"]
    assert nearest("fc.weight", names)[:2] == ("module.fc.weight", "encoder.fc.weight")
    assert nearest("Label", ["label", "image"]) == ("label",)
    assert nearest("LABEL", ["Labels"]) == ("Labels",)
    assert nearest("xyz", names) == ()
    assert did_you_mean("lable", ["label", "image"]) == "did you mean 'label'"
    assert did_you_mean("xyz", names) is None


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.50 kB"), (12_500_000, "12.5 MB"), (2e9, "2 GB"),
     (3e15, "3,000 TB")],
)  # fmt: skip
def test_sizes(size: float, words: str) -> None:
    assert format_bytes(size) == words


def test_shapes() -> None:
    assert format_shape((512, 14, 14)) == "512×14×14"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"), (9e-5, "90 µs"), (9.96e-5, "100 µs"), (0.0004, "0.40 ms"),
        (0.038, "38 ms"), (0.0996, "0.1 s"), (3.24, "3.2 s"),
        (59.94, "59.9 s"), (59.96, "1 min 00 s"), (74, "1 min 14 s"), (3599.6, "1 h 00 min"),
        (7380, "2 h 03 min"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_durations(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"), (3, "3"), (1234, "1,234"), (0.1234, "0.123"), (0.00012345, "0.000123"),
        (1e-7, "1e-7"), (1.5e7, "1.5e7"), (12345.6, "12,346"), (-0.5, "-0.500"), (math.inf, "–"),
    ],
)  # fmt: skip
def test_numbers(value: float, words: str) -> None:
    assert format_number(value) == words


def test_percent_of_nothing() -> None:
    assert format_percent(math.nan) == "–"


@given(st.text())
def test_clean_text_is_one_line_without_controls(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) == len(text)
    assert cleaned.isprintable() or all(ord(mark) >= 0x20 for mark in cleaned)
    assert "\x1b" not in cleaned
    assert "\n" not in cleaned
    cleaned.encode("utf-8")


@given(st.text(max_size=80), st.integers(5, 40))
def test_shortened_names_fit_and_keep_their_ends(text: str, width: int) -> None:
    short = shorten(text, width)
    assert columns(short) <= width or short == clean(text)
    if columns(clean(text)) <= width:
        assert short == clean(text)


def test_names_that_differ_at_the_end_stay_apart() -> None:
    one, two = (shorten(f"the same long beginning of a name {n}") for n in (1, 2))
    assert one != two
