"""The plan as a terminal shows it: few stages one by one, many beside one another."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from headstart.commands.finetune.job import plan_finetune
from headstart.commands.finetune.plan_table import plan_table
from headstart.core.progress import SilentReporter
from headstart.finetuning import Recipe, Stage
from headstart.finetuning.plan import Plan
from tests.finetuning.conftest import squares
from tests.finetuning.models import residual


def shown(plan: Plan) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(plan_table(plan))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def planned(cache: Path, stages: tuple[Stage, ...]) -> Plan:
    data = {"train": squares(60, 0), "test": squares(20, 1)}
    recipe = Recipe("r", stages, start="fresh")
    return plan_finetune(data, residual(), recipe, cache=cache, reporter=SilentReporter())


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    reach = (("head",), ("last:1",), ("last:2",), ("all",))
    stages = tuple(Stage(f"thaw {n}", groups, epochs=2) for n, groups in enumerate(reach))
    return planned(tmp_path_factory.mktemp("cache"), stages)


def test_few_stages_are_told_one_by_one_with_every_cut(tmp_path: Path) -> None:
    plan = planned(tmp_path, (Stage("head", ("head",)), Stage("two", ("last:2",))))
    text = shown(plan)
    assert text.count("nowhere: from the images") == 2
    for stage in plan.stages:
        assert stage.cut is not None
        assert all(f"{place.place} " in text for place in stage.cut.places)
    assert text.count("→ ") == 2


def test_many_stages_stand_beside_one_another(many: Plan) -> None:
    text = shown(many)
    assert text.count("the whole stage") == 1
    assert text.count("\nrate ") == 1
    # What every stage does is marked once: the last one trains everything, from the images.
    assert text.count("→ ") == 4
    assert "thaw 3: nothing is stored" in text
    places = [line.split("  ")[0] for line in text.splitlines() if line.startswith("behind ")]
    first = places[: len(places) // 2 + 1]
    assert first[:4] == ["behind stem", *(f"behind blocks.{n}" for n in range(3))]


def test_many_stages_are_divided_into_tables_that_can_be_read(many: Plan) -> None:
    renamed = [
        dataclasses.replace(stage, name=f"{stage.name}.{copy}")
        for copy in range(4)
        for stage in many.stages
    ]
    text = shown(dataclasses.replace(many, stages=tuple(renamed)))
    assert text.count("the whole stage") == 3
    assert all(len(line) <= 120 for line in text.splitlines())


def test_names_are_never_read_as_markup(many: Plan) -> None:
    odd = dataclasses.replace(many.stages[0], name="[bold]x[/nothing]")
    assert "[bold]x[/nothing]" in shown(dataclasses.replace(many, stages=(odd, *many.stages[1:])))
