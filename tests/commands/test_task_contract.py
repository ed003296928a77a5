"""Every command × every task × columns and groups: it works, or it is refused with a reason.

A command that reads data and is not in the walk fails the first test, so that no gap is silent.
"""

from __future__ import annotations

import csv
import dataclasses
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import headstart
from headstart.commands import cli
from headstart.commands.audit.job import audit_data
from headstart.commands.extract.job import extract_features
from headstart.commands.invocation import signature_of
from headstart.commands.settings import ReadOptions
from headstart.core.errors import ConfigError
from headstart.core.progress import SilentReporter

GLYPHS = "headstart/glyphs"
TASKS = {"classification": "digit", "multi-label": "tags", "regression": "ink"}
N = 96


@dataclasses.dataclass(frozen=True)
class Place:
    """A table of digits beside a patient, an age and one column of labels for each task."""

    table: Path
    more: Path
    cache: Path
    runs: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("contract")
    digits, rng = load_digits(), np.random.default_rng(0)
    few = np.flatnonzero(digits.target < 3)[: N + 24]
    for name, chosen in (("train", few[:N]), ("more", few[N:])):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "digit", "tags", "ink", "age", "patient"])
            for i in chosen.tolist():
                tile = np.rint(digits.images[i] * rng.uniform(6, 15.9)).astype(np.uint8)
                Image.fromarray(tile).save(folder / f"{i}.png")
                digit, dark = int(digits.target[i]), tile.mean() > 50
                tags = "|".join([f"d{digit}", *(["dark"] if dark else [])])
                patient = f"p{i % 17}" if name == "train" else f"q{i % 5}"
                age = int(rng.integers(20, 80))
                rows.writerow(
                    [f"{i}.png", digit, tags, round(float(tile.mean()) + 0.005, 3), age, patient]
                )
    return Place(folder / "train.csv", folder / "more.csv", folder / "cache", folder / "runs")


def reading(task: str, **more: Any) -> dict[str, Any]:
    return {"label_column": TASKS[task], "task": task, "reporter": SilentReporter(), **more}


def _fit(place: Place, task: str, **more: Any) -> Any:
    """The run that predict, evaluate and update take."""
    wanted = {n: v for n, v in more.items() if n in ("columns", "group_column")}
    out = place.runs / f"{task}-{'-'.join(wanted) or 'plain'}"
    if not (out / "run.json").exists():
        headstart.fit(
            place.table, GLYPHS, layer="stem", out=out, cache=place.cache, baselines=False,
            **reading(task, **wanted),
        )  # fmt: skip
    return out


def _of_run(job: Callable[..., Any], data: str, **own: Any) -> Callable[..., Any]:
    """A command on a run; columns and groups are those that the run was made with."""

    def call(place: Place, task: str, **more: Any) -> Any:
        run = _fit(place, task, **more)
        given = {"reporter": SilentReporter(), "cache": place.cache, **own}
        if job is not headstart.predict:
            given["label_column"] = TASKS[task]
        return job(getattr(place, data), run, **given)

    return call


def _on_data(job: Callable[..., Any], *names: Any, **own: Any) -> Callable[..., Any]:
    def call(place: Place, task: str, **more: Any) -> Any:
        return job(place.table, *names, cache=place.cache, **own, **reading(task, **more))

    return call


def _extract(place: Place, task: str, **more: Any) -> Any:
    return extract_features(
        place.table, GLYPHS, cache=place.cache, reporter=SilentReporter(), **more
    )


def _audit(place: Place, task: str, **more: Any) -> Any:
    return audit_data(place.table, GLYPHS, cache=place.cache, **reading(task, **more))


WALK: dict[str, Callable[..., Any]] = {
    "fit": _on_data(headstart.fit, GLYPHS, layer="stem", write=False),
    "sweep": _on_data(headstart.sweep, GLYPHS, layers=("stem",), folds=3, write=False),
    "sweep --backbones": _on_data(headstart.rank, (GLYPHS,), layer="stem", folds=2, write=False),
    "examine": _on_data(headstart.examine, GLYPHS, layer="stem", repetitions=2, write=False),
    "finetune": _on_data(
        headstart.finetune, GLYPHS, "lp-ft", epochs=1, write=False, baselines=False
    ),
    "advise": _on_data(headstart.advise, GLYPHS, epochs=1, repetitions=2),
    "compare": _on_data(
        headstart.compare, GLYPHS, configs="eval+inference_mode,eval+no_grad", repeats=2,
        write=False,
    ),
    "predict": _of_run(headstart.predict, "more"),
    "evaluate": _of_run(headstart.evaluate, "more"),
    "update": _of_run(headstart.update, "more", write=False),
    "extract": _extract,
    "audit": _audit,
}  # fmt: skip

REFUSED = {
    ("finetune", "columns"): "the network itself is trained, and it takes only items",
    ("advise", "columns"): "the trial trains the network, which takes only items",
    ("compare", "columns"): "the same for every way of running the network",
    ("extract", "columns"): "only the network's features are stored",
    ("extract", "group_column"): "the data are not split",
    ("audit", "columns"): "which columns do not affect",
}
"""What is refused, and the reason that is said; of all tasks alike."""

WITHOUT_LABELS = {"export", "push", "similar", "suggest", "view"}
"""Commands that look at items and learn from no labels; joined columns and groups they refuse."""


def test_every_command_that_reads_data_is_in_the_walk() -> None:
    walked = {name.split()[0] for name in WALK}
    reading = set()
    for info in cli.app.registered_commands:
        assert info.callback is not None
        hints = typing.get_type_hints(inspect.unwrap(info.callback))
        if ReadOptions in hints.values():
            reading.add(info.callback.__name__)
    assert reading - WITHOUT_LABELS == walked
    for name in WITHOUT_LABELS:
        assert {"columns", "group_column", "group_pattern"} <= set(signature_of(name).without)


def _shown(extras: tuple[str, ...]) -> dict[str, str]:
    return {name: {"columns": "age", "group_column": "patient"}[name] for name in extras}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("command", WALK)
def test_a_command_takes_a_task_with_columns_and_groups(
    command: str, task: str, place: Place
) -> None:
    refused = [name for name in ("columns", "group_column") if (command, name) in REFUSED]
    for name in refused:
        with pytest.raises(ConfigError) as caught:
            WALK[command](place, task, **_shown((name,)))
        assert REFUSED[command, name] in str(caught.value)
    taken = tuple(name for name in ("columns", "group_column") if name not in refused)
    assert WALK[command](place, task, **_shown(taken)) is not None


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("command", WALK)
def test_a_command_takes_a_task_alone(command: str, task: str, place: Place) -> None:
    assert WALK[command](place, task) is not None
