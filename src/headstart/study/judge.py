"""Trainings repetition by repetition, and what their figures are worth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headstart.core.progress import Reporter
from headstart.core.records import Curve, to_plain
from headstart.evaluation import Difference, holm, repeated_difference, repeated_mean
from headstart.evaluation.intervals import Correct
from headstart.study.heads import Fitted, HeadSpec, TaskRows, fit_head
from headstart.study.material import Division, digest_of
from headstart.study.measure import Behaviour, Spread, spread
from headstart.study.plan import Key, Task
from headstart.study.results import FrozenOutcome, Outcome, RunRecord, TunedOutcome
from headstart.study.rows import RowMaker
from headstart.study.workspace import Workspace


@dataclass(eq=False)
class Series:
    """The runs of one key over all repetitions.

    Attributes:
        right, held_out: which test and held-out items were classified rightly, a repetition each.
        runs: the records.
        seconds: wall time of every training.
        resumed: how many an interrupted study had finished.
        spread: of the rows; None where the backbone is trained.
    """

    right: list[Correct] = field(default_factory=list)
    held_out: list[Correct] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    resumed: int = 0
    spread: Spread | None = None

    def add(self, fitted: Fitted, maker: RowMaker, division: Division, *, resumed: bool) -> None:
        """Judge one training by the labels."""
        test = maker.material.test.labels[division.test]
        judged = maker.material.train.labels[division.train][division.validation]
        right, held = fitted.test == test, fitted.validation == judged
        self.right.append(right)
        self.held_out.append(held)
        self.seconds.append(fitted.seconds)
        self.resumed += resumed
        self.runs.append(
            RunRecord(
                repetition=division.repetition,
                seeds=division.seeds,
                accuracy=float(right.mean()),
                right=int(right.sum()),
                n_test=len(right),
                held_out=float(held.mean()) if len(held) else None,
                chosen=fitted.chosen,
                curves=fitted.curves,
            )
        )


def train_heads(
    tasks: Sequence[Task], maker: RowMaker, head: HeadSpec, reporter: Reporter
) -> dict[Key, Series]:
    """Train and test a head for every distinct configuration and repetition.

    Args:
        tasks: the configurations with a frozen backbone; equal keys share their runs.
        maker: has carried out the plan.
        head: of configurations without their own.
        reporter: shown progress.
    """
    first = {task.key(head): task for task in reversed(tasks)}
    series = {task.key(head): Series() for task in tasks}
    divisions = maker.material.divisions
    with reporter.task("heads", len(series) * len(divisions), "heads") as progress:
        for division in divisions:
            for key, one in series.items():
                task = first[key]
                rows = maker.rows_of(task, division)
                if one.spread is None:
                    one.spread = spread(rows.train[: len(division.train)])
                own = task.configuration.head or head
                name = digest_of("head 3", maker.run_key(task, division), key[2])
                fitted = kept(maker.workspace, name)
                resumed = fitted is not None
                if fitted is None:
                    fitted = _fit(own, rows, maker, division)
                    keep(maker.workspace, name, fitted)
                one.add(fitted, maker, division, resumed=resumed)
                progress.advance()
    return series


def _fit(head: HeadSpec, rows: TaskRows, maker: RowMaker, division: Division) -> Fitted:
    return fit_head(head, rows, len(maker.material.classes), division.seeds.head % 2**31)


def keep(workspace: Workspace, key: str, fitted: Fitted) -> None:
    """Keep what a training gave until the study is finished."""
    told = {
        "chosen": fitted.chosen,
        "curves": [to_plain(curve) for curve in fitted.curves],
        "seconds": fitted.seconds,
    }
    text = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
    workspace.put(key, {"validation": fitted.validation, "test": fitted.test, "told": text})


def kept(workspace: Workspace, key: str) -> Fitted | None:
    """Return what an interrupted study kept of a training."""
    arrays = workspace.get(key)
    if arrays is None:
        return None
    told: dict[str, Any] = json.loads(bytes(arrays["told"]))
    curves = tuple(_curve(values) for values in told["curves"])
    return Fitted(arrays["validation"], arrays["test"], told["chosen"], curves, told["seconds"])


def _curve(values: Mapping[str, Any]) -> Curve:
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    return Curve(**plain)


def judge(
    tasks: Sequence[Task],
    series: Mapping[Key, Series],
    maker: RowMaker,
    head: HeadSpec,
    reference: str,
    behaviours: Mapping[str, Behaviour],
) -> tuple[Outcome, ...]:
    """Return what every configuration gave, and its differences from the reference.

    Args:
        tasks: in the order of the outcomes.
        series: the runs of all of them.
        maker: knows the items.
        head: of configurations without their own.
        reference: name of the configuration to compare with; its backbone is frozen.
        behaviours: of those with a frozen backbone.
    """
    keys = {task.name: task.key(head) for task in tasks}
    frozen = {task.key(head) for task in tasks if task.tuning is None}
    against = series[keys[reference]]
    material = maker.material
    ratio = material.n_test / material.n_train if material.redrawn else None
    held = len(material.divisions[0].validation)
    held_ratio = held / max(material.n_train - held, 1)
    on_test: dict[Key, Difference] = {}
    on_held: dict[Key, Difference] = {}
    for key, one in series.items():
        if one is against:
            continue
        on_test[key] = repeated_difference(one.right, against.right, test_train_ratio=ratio)
        # Fine-tuning is no candidate, and its own correction must not blunt the choice.
        if held and key in frozen:
            on_held[key] = repeated_difference(
                one.held_out, against.held_out, test_train_ratio=held_ratio
            )
    on_test, on_held = _corrected(on_test), _corrected(on_held)
    outcomes: list[Outcome] = []
    for task in tasks:
        key = keys[task.name]
        one = series[key]
        shared: dict[str, Any] = {
            "task": task,
            "runs": tuple(one.runs),
            "accuracy": repeated_mean(one.right, test_train_ratio=ratio),
            "held_out": (
                repeated_mean(one.held_out, test_train_ratio=held_ratio) if held else None
            ),
            "difference": None if task.name == reference else on_test.get(key, _EQUAL),
            "held_out_difference": None if task.name == reference else on_held.get(key),
            "same_as": tuple(n for n, k in keys.items() if k == key and n != task.name),
        }
        if task.tuning is not None:
            outcomes.append(TunedOutcome(**shared, tuning=task.tuning))
            continue
        assert one.spread is not None
        own = task.configuration.head or head
        outcomes.append(
            FrozenOutcome(**shared, head=own, behaviour=behaviours[task.name], spread=one.spread)
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


__all__ = ["Series", "judge", "keep", "kept", "train_heads"]
