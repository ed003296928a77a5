"""Settings: what a field declares, how faults are collected, how overrides are settled."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.errors import ConfigError
from headstart.core.kinds import JSON_OBJECT, PER_CHANNEL, SIZE, listed
from headstart.core.settings import (
    Fault,
    check,
    command_line,
    faults,
    option,
    options_of,
    recorded,
    settle,
)

if TYPE_CHECKING:
    from nowhere import Oven

HEADS = ["linear", "mlp", "ridge"]


@dataclass(frozen=True)
class Baking:
    loaves: int = option(1, "How many.", at_least=1, at_most=12)
    heat: float = option(0.5, "Of the oven.", above=0, below=1)
    crust: Literal["thin", "thick"] = option("thin", "Of the loaf.")
    head: str = option("linear", "Kind of head.", choices=lambda: HEADS)
    seeds: tuple[int, ...] = option((0,), "Of the bread.", at_least=0)
    names: tuple[str, ...] = option((), "Of the loaves.", choices=("a", "b"))
    salted: bool = option(True, "Whether there is salt.")
    note: str | None = option(None, "Anything.")
    oven: Oven | None = option(None, "An oven.", cli=False, record=False)

    def __post_init__(self) -> None:
        check(self)

    def faults(self) -> list[str]:
        return ["a thick crust takes heat=0.5 or more"] if self.crust == "thick" > "a" else []


@dataclass(frozen=True)
class Place:
    out: Path | None = option(None, "Folder.", flags=("-o",), record=False)
    bad_flour: str = option("raise", "What to do.", choices=("raise", "skip"), flags=("--bad",))
    mean: Any = option(None, "Mean.", kind=PER_CHANNEL)
    more: Mapping[str, Any] = option({}, "More.")
    dry: bool = option(False, "Whether to bake at all.")

    def __post_init__(self) -> None:
        check(self)


def said(**values: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        Baking(**values)
    return raised.value.faults


def test_sound_settings_have_no_faults():
    assert faults(Baking()) == []
    assert faults(Baking(loaves=12, heat=1e-9, seeds=(1, 2), names=("a",), oven=object())) == []


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"loaves": 0}, "loaves must be at least 1 and at most 12, not 0"),
        ({"loaves": 13}, "loaves must be at least 1 and at most 12, not 13"),
        ({"loaves": "2"}, "loaves must be a whole number, not '2'"),
        ({"loaves": 1.0}, "loaves must be a whole number, not 1.0"),
        ({"loaves": True}, "loaves must be a whole number, not True"),
        ({"loaves": None}, "loaves must be a whole number, not None"),
        ({"heat": 0}, "heat must be above 0 and below 1, not 0"),
        ({"heat": float("nan")}, "heat must be above 0 and below 1, not nan"),
        ({"crust": "no"}, "crust must be thin or thick, not 'no'"),
        ({"head": "linaer"}, "head must be one of linear, mlp, ridge (did you mean 'linear'), "
         "not 'linaer'"),
        ({"seeds": (0, -1)}, "seeds must be at least 0, not -1"),
        ({"seeds": 3}, "seeds must be a list, not 3"),
        ({"names": ("a", "c")}, "names must be a or b, not 'c'"),
        ({"salted": 1}, "salted must be True or False, not 1"),
        ({"note": 1}, "note must be text, not 1"),
    ],
)  # fmt: skip
def test_a_fault_names_the_option_what_is_expected_and_what_was_found(values, fault):
    assert said(**values) == (fault,)


def test_all_faults_are_reported_together():
    assert len(said(loaves=0, heat=2, head="x")) == 3


def test_a_rule_between_options_is_looked_at_when_each_is_sound_alone():
    assert said(crust="thick") == ("a thick crust takes heat=0.5 or more",)
    assert said(crust="thick", loaves=0) == ("loaves must be at least 1 and at most 12, not 0",)


def test_choices_of_a_registry_are_read_when_they_are_needed():
    HEADS.append("toy")
    try:
        assert Baking(head="toy").head == "toy"
    finally:
        HEADS.remove("toy")
    assert said(head="toy")


def test_lists_become_tuples():
    assert Baking(seeds=[1, 2]).seeds == (1, 2)
    assert Baking(seeds=[1, 2]) == Baking(seeds=(1, 2))


def test_settle_gives_every_override_to_the_group_that_has_it():
    baking, place = settle("bake", {"loaves": 2, "out": Path("x")}, Baking(), Place(dry=True))
    assert baking == Baking(loaves=2)
    assert place == Place(dry=True, out=Path("x"))


def test_settle_reports_unknown_names_and_faults_of_all_groups_together():
    with pytest.raises(ConfigError) as raised:
        settle("bake", {"loafs": 1, "heat": 3, "bad_flour": "eat"}, Baking(), Place())
    assert raised.value.faults == (
        "bake has no setting 'loafs' (did you mean 'loaves')",
        "heat must be above 0 and below 1, not 3",
        "bad_flour must be raise or skip, not 'eat'",
    )
    with pytest.raises(ConfigError, match=r"bake has no setting 'zzz'; it has loaves, heat, .*dry"):
        settle("bake", {"zzz": 1}, Baking(), Place())


def test_settle_refuses_what_is_no_settings_object():
    with pytest.raises(ConfigError, match=r"not as dict .*; give single settings as keywords"):
        settle("bake", {}, {"loaves": 2})


def test_a_name_in_two_groups_is_a_mistake_of_the_programmer():
    with pytest.raises(TypeError, match="bake have the option bad_flour, dry"):
        settle("bake", {}, Place(), Place())


def test_flags_are_made_from_names_or_given():
    flags = {each.name: each.flags for each in options_of(Place)}
    assert flags["out"] == ("--out", "-o")
    assert flags["bad_flour"] == ("--bad",)
    assert flags["dry"] == ("--dry",)


def test_an_instance_lends_its_values_as_defaults():
    defaults = {each.name: each.default for each in options_of(Place(dry=True))}
    assert defaults["dry"] is True
    assert defaults["more"] == {}


def test_the_command_line_of_settings_says_what_differs_from_the_defaults():
    assert command_line(Baking(), Place()) == []
    words = command_line(
        Baking(seeds=(1, 2), note="a b"),
        Place(mean=(0.1, 0.2, 0.3), more={"k": 1}, bad_flour="skip", dry=True),
    )
    assert words == ["--seeds", "1,2", "--note", "a b", "--bad", "skip", "--mean", "0.1,0.2,0.3",
                     "--more", '{"k": 1}', "--dry"]  # fmt: skip
    assert command_line(Place(), against=(Place(bad_flour="skip"),)) == ["--bad", "raise"]


def test_a_record_leaves_out_what_is_no_property_of_the_result():
    assert "out" not in recorded(Place())
    assert recorded(Baking(loaves=3))["loaves"] == 3
    assert "oven" not in recorded(Baking())


def test_defaults_that_could_change_are_not_shared():
    assert Place().more is not Place().more


def test_a_fault_survives_pickling():
    fault = pickle.loads(pickle.dumps(Fault("loaves", "must be few")))
    assert (fault, fault.name, fault.text) == ("loaves must be few", "loaves", "must be few")


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(st.one_of(numbers, st.tuples(numbers, numbers, numbers)))
def test_values_a_channel_are_read_as_they_were_written(value):
    read = PER_CHANNEL.parse(PER_CHANNEL.write(value))
    expected = value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value
    assert read == expected


@given(st.one_of(st.integers(1), st.tuples(st.integers(1), st.integers(1))))
def test_sizes_are_read_as_they_were_written(value):
    read = SIZE.parse(SIZE.write(value))
    expected = value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value
    assert read == expected


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.booleans(), st.none())))
def test_json_objects_are_read_as_they_were_written(value):
    assert JSON_OBJECT.parse(JSON_OBJECT.write(value)) == value


@given(st.lists(st.integers()))
def test_lists_are_read_as_they_were_written(values):
    kind = listed(int)
    assert kind.parse(kind.write(tuple(values))) == tuple(values)


@pytest.mark.parametrize(
    ("kind", "text"),
    [(PER_CHANNEL, "a,b"), (PER_CHANNEL, "1,,2"), (PER_CHANNEL, ""), (SIZE, "-3"), (SIZE, "0"),
     (SIZE, "1,2,3"), (JSON_OBJECT, "{"), (JSON_OBJECT, "[1]"), (listed(int), "1,a")],
)  # fmt: skip
def test_what_is_malformed_is_a_value_error(kind, text):
    with pytest.raises(ValueError):
        kind.parse(text)


def test_settings_import_nothing_heavy():
    code = (
        "import sys, headstart.core.settings\n"
        "print(sorted({'torch', 'numpy', 'typer', 'rich', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
