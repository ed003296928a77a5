"""Heads trained in every repetition, and what their figures are worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core.progress import Reporter
from headstart.core.records import Curve, to_plain
from headstart.evaluation import Difference, holm, repeated_difference, repeated_mean
from headstart.evaluation.item_scores import item_scores, of_groups
from headstart.evaluation.repetitions import Correct
from headstart.study.heads import Fitted, HeadSpec, fit_head
from headstart.study.measurements import Behaviour
from headstart.study.plan import Case, Key
from headstart.study.probing import Spread, spread_of
from headstart.study.repetitions import Repetition, StudyData
from headstart.study.results import FrozenOutcome, Outcome, RunRecord, Tested, TunedOutcome
from headstart.study.rows import Bench, Kept, PassRows, digest_of, rows_key, rows_of


@dataclass(frozen=True, eq=False)
class Series:
    """What one configuration was trained to in every repetition.

    Attributes:
        fitted: one training for each repetition.
        resumed: how many an interrupted study had finished.
        spread: of the rows; None where the backbone is trained.
    """

    fitted: tuple[Fitted, ...]
    resumed: int
    spread: Spread | None = None


def train_heads(
    cases: Sequence[Case], rows: PassRows, bench: Bench, head: HeadSpec, reporter: Reporter
) -> dict[Key, Series]:
    """Train a head for every distinct configuration in every repetition.

    Args:
        cases: the configurations with a frozen backbone; equal keys share their runs.
        rows: of their plan.
        bench: that the rows were made with.
        head: of configurations without their own.
        reporter: shown progress.
    """
    distinct = {case.key(head): case for case in reversed(cases)}
    total = len(distinct) * len(bench.data.repetitions)
    n_classes = len(bench.data.classes)
    first, n_train = bench.data.repetitions[0], bench.data.n_train
    with reporter.task("heads", total, "heads") as progress:

        def train(case: Case, repetition: Repetition, _name: str) -> Fitted:
            seen = rows_of(rows, bench, case, repetition)
            seed = repetition.seeds.head % 2**31
            fitted = fit_head(case.head(head), seen, n_classes, seed)
            progress.advance()
            return fitted

        series = train_all(cases, bench, head, "head 3", train, lambda _case: progress.advance())
    return {
        key: dataclasses.replace(
            one, spread=spread_of(rows_of(rows, bench, distinct[key], first).train[:n_train])
        )
        for key, one in series.items()
    }


def train_all(
    cases: Sequence[Case],
    bench: Bench,
    head: HeadSpec,
    kind: str,
    train: Callable[[Case, Repetition, str], Fitted],
    skip: Callable[[Case], None],
) -> dict[Key, Series]:
    """Train every distinct configuration in every repetition, unless an interrupted study has.

    What a training gave is kept until the study is finished.

    Args:
        cases: the configurations; equal keys share their runs.
        bench: the items, and where trainings are kept.
        head: of configurations without their own.
        kind: of training, with its version, for keys.
        train: trains one configuration in one repetition; its last argument is the key.
        skip: called instead for what was kept.
    """
    first = {case.key(head): case for case in reversed(cases)}
    keys = list(dict.fromkeys(case.key(head) for case in cases))
    fitted: dict[Key, list[Fitted]] = {key: [] for key in keys}
    resumed = dict.fromkeys(keys, 0)
    for repetition in bench.data.repetitions:
        for key in keys:
            case = first[key]
            name = digest_of(kind, rows_key(bench, case, repetition), key[2])
            found = _kept(bench.kept, name)
            if found is None:
                found = train(case, repetition, name)
                _keep(bench.kept, name, found)
                bench.kept.remove_folder(name)
            else:
                resumed[key] += 1
                skip(case)
            fitted[key].append(found)
    return {key: Series(tuple(fitted[key]), resumed[key]) for key in keys}


def _keep(kept: Kept, key: str, fitted: Fitted) -> None:
    values = {"chosen": fitted.chosen, "curves": fitted.curves, "seconds": fitted.seconds}
    kept.put(key, {"validation": fitted.validation, "test": fitted.test}, to_plain(values))


def _kept(kept: Kept, key: str) -> Fitted | None:
    found = kept.get(key)
    if found is None:
        return None
    values, arrays = found.values, found.arrays
    curves = tuple(map(Curve.from_plain, values["curves"]))
    return Fitted(arrays["validation"], arrays["test"], values["chosen"], curves, values["seconds"])


def judge(
    cases: Sequence[Case],
    series: Mapping[Key, Series],
    data: StudyData,
    head: HeadSpec,
    reference: str,
    behaviours: Mapping[str, Behaviour],
) -> tuple[Outcome, ...]:
    """Return what every configuration gave, and its differences from the reference.

    Args:
        cases: in the order of the outcomes.
        series: the trainings of all of them.
        data: the items.
        head: of configurations without their own.
        reference: name of the configuration to compare with; its backbone is frozen.
        behaviours: of those with a frozen backbone.
    """
    keys = {case.name: case.key(head) for case in cases}
    frozen = {keys[case.name] for case in cases if case.tuning is None}
    on_test = {key: _correct(one, data, "test") for key, one in series.items()}
    on_held = {key: _correct(one, data, "validation") for key, one in series.items()}
    counted = {key: _by_group(correct, data, "test") for key, correct in on_test.items()}
    chosen_by = {key: _by_group(correct, data, "validation") for key, correct in on_held.items()}
    share = data.task != "regression"
    ratio = data.n_test / data.n_train if data.redrawn else None
    held_ratio = data.n_held_out / max(data.n_train - data.n_held_out, 1)
    gaps = _differences(counted, keys[reference], ratio, share)
    held_gaps: Mapping[Key, Difference] = {}
    if data.n_held_out:
        # Fine-tuning is no candidate, and its own correction must not blunt the choice.
        candidates = {key: correct for key, correct in chosen_by.items() if key in frozen}
        held_gaps = _differences(candidates, keys[reference], held_ratio, share)
    outcomes: list[Outcome] = []
    for case in cases:
        key = keys[case.name]
        held = None
        if data.n_held_out:
            held = repeated_mean(chosen_by[key], test_train_ratio=held_ratio, share=share)
        shared: dict[str, Any] = {
            "case": case,
            "runs": _records(series[key], on_test[key], on_held[key], data),
            "accuracy": repeated_mean(counted[key], test_train_ratio=ratio, share=share),
            "held_out": held,
            "difference": None if case.name == reference else gaps.get(key, _EQUAL),
            "held_out_difference": None if case.name == reference else held_gaps.get(key),
            "same_as": tuple(n for n, k in keys.items() if k == key and n != case.name),
        }
        if case.tuning is not None:
            outcomes.append(TunedOutcome(**shared, tuning=case.tuning))
            continue
        spread = series[key].spread
        assert spread is not None
        outcomes.append(
            FrozenOutcome(
                **shared, head=case.head(head), behaviour=behaviours[case.name], spread=spread
            )
        )
    return tuple(outcomes)


def tested(
    cases: Sequence[Case], series: Mapping[Key, Series], data: StudyData, head: HeadSpec
) -> Tested:
    """Return the test items with what every configuration predicted for them.

    Args:
        cases: all configurations.
        series: what each was trained to.
        data: with the repetitions.
        head: of configurations without their own.
    """
    return Tested(
        data.test,
        tuple(repetition.test for repetition in data.repetitions),
        {case.name: tuple(one.test for one in series[case.key(head)].fitted) for case in cases},
    )


_EQUAL = Difference(0.0, None, 1.0, 1.0)
"""The difference from the reference of what is the same function with the same head."""


def _correct(one: Series, data: StudyData, part: str) -> list[Correct]:
    """Return how far items of a part are right, one array for each repetition."""
    predicted = [fitted.test if part == "test" else fitted.validation for fitted in one.fitted]
    pairs = zip(predicted, data.repetitions, strict=True)
    return [
        item_scores(data.task, data.labels(repetition, part), found) for found, repetition in pairs
    ]


def _by_group(correct: Sequence[Correct], data: StudyData, part: str) -> list[Correct]:
    """Return what intervals count: items, or one value a group where items belong to groups.

    Where all repetitions test the same items, the groups of all of them have one order.
    """
    found: list[Correct] = []
    for one, repetition in zip(correct, data.repetitions, strict=True):
        groups = data.groups(repetition, part)
        found.append(one if groups is None else of_groups(one.astype(np.float64), groups))
    return found


def _differences(
    correct: Mapping[Key, Sequence[Correct]], reference: Key, ratio: float | None, share: bool
) -> dict[Key, Difference]:
    """Compare with the reference, and correct for the number of distinct comparisons."""
    found = {
        key: repeated_difference(one, correct[reference], test_train_ratio=ratio, share=share)
        for key, one in correct.items()
        if key != reference
    }
    names = {str(number): key for number, key in enumerate(found)}
    p_holm = holm({name: found[key].p for name, key in names.items()})
    return {
        key: dataclasses.replace(found[key], p_holm=p_holm[name]) for name, key in names.items()
    }


def _records(
    one: Series, on_test: Sequence[Correct], on_held: Sequence[Correct], data: StudyData
) -> tuple[RunRecord, ...]:
    return tuple(
        RunRecord(
            repetition=repetition.number,
            seeds=repetition.seeds,
            accuracy=float(right.mean()),
            right=int(right.sum()) if right.dtype == bool else None,
            n_test=len(right),
            held_out=float(held.mean()) if len(held) else None,
            chosen=fitted.chosen,
            curves=fitted.curves,
        )
        for repetition, right, held, fitted in zip(
            data.repetitions, on_test, on_held, one.fitted, strict=True
        )
    )


__all__ = ["Series", "judge", "tested", "train_all", "train_heads"]
