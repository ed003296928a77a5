"""The choice among the possible cuts, from costs that are given."""

from __future__ import annotations

import dataclasses

import pytest

from headstart.finetuning import Stage
from headstart.finetuning.costs import choose_cut, choose_rows
from headstart.finetuning.plan import PlannedPlace

STAGE = Stage("s")
PLACE = PlannedPlace("", (), 100, 1000, 10, True, True, 5.0, 0.1, 5.0, 1.0, 10.0)


def places(*seconds: float) -> list[PlannedPlace]:
    return [
        dataclasses.replace(PLACE, place=f"behind {number}", seconds=value)
        for number, value in enumerate(seconds)
    ]


@pytest.mark.parametrize(("other", "taken"), [(20.0, 1), (9.0, 1), (8.1, 1), (7.9, 0)])
def test_the_boundary_moves_only_where_another_is_much_cheaper(other: float, taken: int) -> None:
    number, why = choose_cut(places(other, 10.0), 1, STAGE, "")
    assert number == taken
    assert ("much cheaper" in why) == (taken == 0)


def test_the_boundary_moves_where_its_rows_do_not_fit_on_the_disk() -> None:
    full = [dataclasses.replace(one, on_disk=False) for one in places(30.0, 10.0)]
    assert choose_cut([places(30.0)[0], full[1]], 1, STAGE, "") == (
        0,
        "the rows behind 1 do not fit on the disk",
    )
    assert choose_cut(full, 1, STAGE, "") == (1, "")


def test_what_an_unfinished_run_decided_goes_before_everything() -> None:
    assert choose_cut(places(1.0, 10.0, 10.0), 1, STAGE, "behind 2") == (2, "")


@pytest.mark.parametrize("act", ["mixup", "noise"])
def test_what_acts_on_the_boundary_keeps_it_where_it_is(act: str) -> None:
    stage = Stage("s", **{act: 0.5})  # type: ignore[arg-type]
    assert choose_cut(places(1.0, 10.0), 1, stage, "") == (1, "")


def test_rows_that_are_stored_decide_nothing() -> None:
    for number in (0, 1):
        listed = places(9.0, 10.0)
        listed[number] = dataclasses.replace(listed[number], missing=0, seconds_storing=0.0)
        assert choose_cut(listed, 1, STAGE, "") == (1, "")


@pytest.mark.parametrize(
    ("epochs", "stored", "images", "read"),
    [
        (10, 10.0, 9.0, True), (10, 10.0, 7.9, False), (10, 10.0, 50.0, True),
        (1, 9.0, 10.0, False), (1, 7.9, 10.0, True), (1, 10.0, 9.0, False),
    ],
)  # fmt: skip
def test_measured_times_that_are_about_the_same_do_not_decide(
    epochs: int, stored: float, images: float, read: bool
) -> None:
    stage = Stage("s", epochs=epochs)
    taken, why = choose_rows(places(stored)[0], images, stage, "auto", None, 10**9)
    assert taken is read
    assert ("about the same" in why) == ((stored <= images) != read)
