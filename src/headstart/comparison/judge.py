"""Heads on rows, repetition by repetition, and what their figures are worth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.comparison.functions import Cut, Function
from headstart.comparison.heads import Fitted, HeadSpec, TaskRows, fit_head
from headstart.comparison.material import Division, digest_of
from headstart.comparison.measure import Behaviour, Spread, spread
from headstart.comparison.plan import Task
from headstart.comparison.results import Outcome, RunRecord
from headstart.comparison.rows import RowMaker
from headstart.comparison.statistics import Difference, Right, difference, holm, mean_accuracy
from headstart.progress import Reporter

Key = tuple[Function, Cut, str]


@dataclass(frozen=True)
class Judgement:
    """All outcomes, and how many heads an interrupted study had trained."""

    outcomes: tuple[Outcome, ...]
    resumed: int


@dataclass(eq=False)
class _Series:
    """One distinct function with one head, over all repetitions."""

    head: HeadSpec
    right: list[Right]
    held_out: list[Right]
    runs: list[RunRecord]
    spread: Spread | None = None


def judge(
    tasks: Sequence[Task],
    maker: RowMaker,
    head: HeadSpec,
    reference: str,
    behaviours: Mapping[str, Behaviour],
    reporter: Reporter,
) -> Judgement:
    """Train and test a head for every distinct configuration and repetition.

    Args:
        tasks: the configurations; those of one function with one head share their runs.
        maker: has carried out the plan.
        head: of configurations without their own.
        reference: name of the configuration to compare with.
        behaviours: by configuration.
        reporter: shown progress.
    """
    series: dict[Key, _Series] = {}
    for task in tasks:
        own = task.configuration.head or head
        series.setdefault(_key(task, own), _Series(own, [], [], []))
    resumed = 0
    divisions = maker.material.divisions
    with reporter.task("heads", len(series) * len(divisions), "heads") as progress:
        for division in divisions:
            for key, one in series.items():
                task = next(t for t in tasks if _key(t, t.configuration.head or head) == key)
                resumed += _run(one, task, maker, division)
                progress.advance()
    return Judgement(_outcomes(tasks, maker, head, reference, behaviours, series), resumed)


def _key(task: Task, head: HeadSpec) -> Key:
    return task.function, task.cut, json.dumps(head.describe(), sort_keys=True)


def _run(one: _Series, task: Task, maker: RowMaker, division: Division) -> bool:
    """Train one head, or take it from an interrupted study; return which."""
    rows = maker.rows_of(task, division)
    if one.spread is None:
        one.spread = spread(rows.train[: len(division.train)])
    key = digest_of("head", maker.run_key(task, division), _key(task, one.head)[2])
    fitted, resumed = _fit_or_resume(key, one.head, rows, maker, division)
    test = maker.material.test.labels[division.test]
    judged = maker.material.train.labels[division.train][division.validation]
    right, held = fitted.test == test, fitted.validation == judged
    one.right.append(right)
    one.held_out.append(held)
    one.runs.append(
        RunRecord(
            repetition=division.repetition,
            seeds=division.seeds,
            accuracy=float(right.mean()),
            right=int(right.sum()),
            n_test=len(right),
            held_out=float(held.mean()) if len(held) else None,
            chosen=fitted.chosen,
        )
    )
    return resumed


def _fit_or_resume(
    key: str, head: HeadSpec, rows: TaskRows, maker: RowMaker, division: Division
) -> tuple[Fitted, bool]:
    kept = maker.workspace.get(key)
    if kept is not None:
        names = bytes(kept["names"]).decode().split("\n") if len(kept["names"]) else []
        chosen = dict(zip(names, (float(v) for v in kept["values"]), strict=True))
        return Fitted(kept["validation"], kept["test"], chosen), True
    fitted = fit_head(head, rows, len(maker.material.classes), division.seeds.head % 2**31)
    maker.workspace.put(
        key,
        {
            "validation": fitted.validation,
            "test": fitted.test,
            "names": np.frombuffer("\n".join(fitted.chosen).encode(), dtype=np.uint8),
            "values": np.array(list(fitted.chosen.values()), dtype=np.float64),
        },
    )
    return fitted, False


def _outcomes(
    tasks: Sequence[Task],
    maker: RowMaker,
    head: HeadSpec,
    reference: str,
    behaviours: Mapping[str, Behaviour],
    series: Mapping[Key, _Series],
) -> tuple[Outcome, ...]:
    keys = {task.name: _key(task, task.configuration.head or head) for task in tasks}
    against = series[keys[reference]]
    material = maker.material
    ratio = material.n_test / material.n_train
    held = len(material.divisions[0].validation)
    held_ratio = held / max(material.n_train - held, 1)
    on_test: dict[Key, Difference] = {}
    on_held: dict[Key, Difference] = {}
    for key, one in series.items():
        if one is against:
            continue
        on_test[key] = difference(one.right, against.right, redrawn=material.redrawn, ratio=ratio)
        if held:
            on_held[key] = difference(
                one.held_out, against.held_out, redrawn=True, ratio=held_ratio
            )
    on_test, on_held = _corrected(on_test), _corrected(on_held)
    outcomes = []
    for task in tasks:
        key = keys[task.name]
        one = series[key]
        assert one.spread is not None
        outcomes.append(
            Outcome(
                task=task,
                head=one.head,
                runs=tuple(one.runs),
                accuracy=mean_accuracy(one.right, redrawn=material.redrawn, ratio=ratio),
                held_out=mean_accuracy(one.held_out, redrawn=True, ratio=held_ratio)
                if held
                else None,
                difference=None if task.name == reference else on_test.get(key, _EQUAL),
                held_out_difference=None if task.name == reference else on_held.get(key),
                same_as=tuple(n for n, k in keys.items() if k == key and n != task.name),
                behaviour=behaviours[task.name],
                spread=one.spread,
            )
        )
    return tuple(outcomes)


_EQUAL = Difference(0.0, None, 1.0, 1.0)
"""The difference from the reference of what is the same function with the same head."""


def _corrected(differences: Mapping[Key, Difference]) -> dict[Key, Difference]:
    """Correct for the number of distinct comparisons; equal configurations count once."""
    names = {str(number): key for number, key in enumerate(differences)}
    p_holm = holm({name: differences[key].p for name, key in names.items()})
    return {
        key: dataclasses.replace(differences[key], p_holm=p_holm[name])
        for name, key in names.items()
    }


__all__ = ["Judgement", "judge"]
