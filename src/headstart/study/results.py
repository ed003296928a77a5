"""The outcome of a study, as frozen values, and the part of it that every rerun repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.core.cards import Card, Grid, Shown
from headstart.core.records import CacheUse, Curve, Score, to_plain
from headstart.core.wording import format_number, format_percent
from headstart.data import Split
from headstart.evaluation import Difference
from headstart.evaluation.item_scores import ITEM_FIGURES, item_scores
from headstart.freezing import LayerDrift
from headstart.study.functions import Facts
from headstart.study.heads import HeadSpec
from headstart.study.inputs import InputCheck, InputRange, Trial
from headstart.study.measurements import Behaviour, Proof, Spread
from headstart.study.plan import Case, Plan, Tuning
from headstart.study.repetitions import Seeds
from headstart.study.terms import PYTORCH, Terms

FORMAT = 1


@dataclass(frozen=True)
class RunRecord:
    """One training of one configuration in one repetition.

    Attributes:
        repetition: from 0.
        seeds: all of its seeds.
        accuracy: on the test items, a fraction; of several labels the F1 of items, of numbers R².
        right, n_test: the counts behind it; of labels and numbers no item is right or wrong.
        held_out: accuracy on the held-out training items; None if there are none. Where they
            choose the epoch (a head by mini-batches, fine-tuning), the best of all epochs.
        chosen: hyper-parameters chosen in training.
        curves: loss and accuracy by epoch, of what is trained in epochs.
    """

    repetition: int
    seeds: Seeds
    accuracy: float
    right: int | None
    n_test: int
    held_out: float | None
    chosen: Mapping[str, float]
    curves: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What one configuration gave.

    Attributes:
        case: the configuration and what it computes.
        runs: one for each repetition.
        accuracy: mean over the repetitions, on the test items.
        held_out: the same on held-out training items, by which configurations are chosen.
        difference: from the reference on the test items; None for the reference itself.
        held_out_difference: likewise on the held-out items; None also for what fine-tunes, which
            is no candidate.
        same_as: other configurations that are the same function trained in the same way, so that
            all their figures are equal.
    """

    case: Case
    runs: tuple[RunRecord, ...]
    accuracy: Score
    held_out: Score | None
    difference: Difference | None
    held_out_difference: Difference | None
    same_as: tuple[str, ...]

    @property
    def name(self) -> str:
        """The configuration's name."""
        return self.case.name

    @property
    def gains(self) -> bool:
        """Whether it is better than the reference on the test items by more than noise."""
        return _is_clear(self.difference) > 0

    @property
    def held_out_sign(self) -> int:
        """1 or -1 where it is better or worse on held-out items by more than noise, else 0."""
        return _is_clear(self.held_out_difference)


def _is_clear(difference: Difference | None) -> int:
    if difference is None or not difference.significant:
        return 0
    return (difference.value > 0) - (difference.value < 0)


@dataclass(frozen=True)
class FrozenOutcome(Outcome):
    """The outcome of a frozen backbone.

    Attributes:
        head: that was trained.
        behaviour, spread: the measured causes.
    """

    head: HeadSpec
    behaviour: Behaviour
    spread: Spread

    @property
    def cacheable(self) -> bool:
        """Whether its rows are functions of their items alone."""
        return self.case.function.row_wise


@dataclass(frozen=True)
class TunedOutcome(Outcome):
    """The outcome of fine-tuning: a fresh copy of the backbone was trained in every repetition.

    Attributes:
        tuning: the recipe.
    """

    tuning: Tuning


@dataclass(frozen=True)
class Finding:
    """A cause in plain words, with the figures it rests on.

    Attributes:
        kind: a short name of the rule that found it.
        level: ``note``, ``advice`` or ``warning``.
        text: what was found, naming layers and figures.
        fix: what to do about it; empty if nothing needs doing.
        evidence: the figures.
    """

    kind: str
    level: Literal["note", "advice", "warning"]
    text: str
    fix: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recommendation:
    """What to use, why, and how certain that is.

    Attributes:
        configuration: the name of the recommended configuration; None where none of those compared
            can be used one item at a time.
        text: the advice in a few sentences.
        evidence: the figures it rests on, one sentence each.
        doubt: what speaks against relying on it.
        code: lines of Python that apply it; empty where nothing is recommended.
        options: what :func:`headstart.fit` needs for it, beside the options of this study.
    """

    configuration: str | None
    text: str
    evidence: tuple[str, ...]
    doubt: str
    code: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """Everything that was measured; what findings and recommendation are drawn from.

    Attributes:
        data, classes: name of the data, and of its classes.
        n_train, n_test, n_validation: items in a repetition.
        redrawn: whether every repetition draws its own test split.
        class_order: share of neighbours in the test split, in its own order, with the same class;
            and the share expected at random.
        backbone: its name.
        unit: what several items are called ("images").
        reference: the name of the configuration that the others are compared with.
        outcomes: in the order in which they were named.
        facts, inputs, drift, moved, proofs: the measured causes. ``drift`` has one entry for each
            preprocessing; ``inputs`` and ``moved`` are None without running statistics.
        given: what the network receives, where no running statistics show whether that is right.
        suggested: the configuration that was added because the inputs looked wrong.
        terms: the words of the framework that the network was written in.
        task: what the labels mean.
    """

    data: str
    classes: tuple[str, ...]
    n_train: int
    n_test: int
    n_validation: int
    redrawn: bool
    class_order: tuple[float, float]
    backbone: str
    unit: str
    reference: str
    outcomes: tuple[Outcome, ...]
    facts: Facts
    inputs: InputCheck | None
    given: InputRange | None
    drift: Mapping[str, tuple[LayerDrift, ...]]
    moved: Mapping[str, float] | None
    proofs: tuple[Proof, ...]
    suggested: str | None
    terms: Terms = PYTORCH
    task: str = "classification"

    @property
    def figure(self) -> str:
        """What configurations are compared by: accuracy, F1 of items, or R²; in per cent."""
        return ITEM_FIGURES[self.task]

    def way(self, outcome: Outcome) -> str:
        """Return what one writes for an outcome in the network's own framework, if it differs."""
        recipe = outcome.tuning.recipe if isinstance(outcome, TunedOutcome) else None
        return self.terms.way(outcome.case.configuration, recipe)

    @property
    def frozen(self) -> tuple[FrozenOutcome, ...]:
        """The outcomes with a frozen backbone, among which one is recommended."""
        return tuple(one for one in self.outcomes if isinstance(one, FrozenOutcome))

    @property
    def tuned(self) -> tuple[TunedOutcome, ...]:
        """The outcomes of fine-tuning."""
        return tuple(one for one in self.outcomes if isinstance(one, TunedOutcome))

    def outcome(self, name: str) -> Outcome:
        """Return the outcome of a configuration."""
        return next(outcome for outcome in self.outcomes if outcome.name == name)

    def frozen_outcome(self, name: str) -> FrozenOutcome:
        """Return the outcome of a configuration with a frozen backbone."""
        return next(outcome for outcome in self.frozen if outcome.name == name)

    @property
    def reference_outcome(self) -> FrozenOutcome:
        """The outcome of the reference, which is frozen."""
        return self.frozen_outcome(self.reference)


@dataclass(frozen=True, eq=False)
class Tested:
    """The test items, and what every configuration took them for.

    Attributes:
        split: where the items are.
        positions: ``(t,) int64`` in the split, for each repetition.
        predicted: by configuration ``(t,) int64`` classes, for each repetition; memberships or
            numbers ``(t, k)``.
    """

    split: Split
    positions: tuple[NDArray[np.int64], ...]
    predicted: Mapping[str, tuple[NDArray[Any], ...]]

    def worst(self, name: str) -> dict[int, list[float]]:
        """Return how far items are right by a configuration, by their position, least first."""
        found: dict[int, list[float]] = {}
        for positions, predicted in zip(self.positions, self.predicted[name], strict=True):
            scores = item_scores(self.split.task, self.split.y[positions], predicted)
            for position, score in zip(positions.tolist(), scores.tolist(), strict=True):
                found.setdefault(position, []).append(float(score))
        return dict(sorted(found.items(), key=lambda entry: sum(entry[1]) / len(entry[1])))

    def wrong(self, name: str) -> dict[int, list[int]]:
        """Return what a configuration took items for that it got wrong, by their position."""
        found: dict[int, list[int]] = {}
        for positions, predicted in zip(self.positions, self.predicted[name], strict=True):
            truth = self.split.labels[positions]
            for row in np.flatnonzero(predicted != truth):
                found.setdefault(int(positions[row]), []).append(int(predicted[row]))
        return found


def _figures(one: Outcome) -> tuple[str, str, str, str]:
    """Return accuracy, interval, difference from the reference and its p-value in words."""
    interval, apart = one.accuracy.interval, one.difference
    bounds = "–"
    if interval is not None:
        bounds = f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"
    return (
        format_percent(one.accuracy.value),
        bounds,
        "–" if apart is None else f"{100 * apart.value:+.1f} points",
        "–" if apart is None or apart.p_holm is None else format_number(apart.p_holm),
    )


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """A finished study.

    Attributes:
        evidence: what was measured.
        findings: causes in plain words, warnings first.
        recommendation: what to use.
        plan: the forward passes.
        settings: of the study, in plain values.
        notes: what was decided on the user's behalf.
        seconds_per_item: of the forward pass, by configuration with a frozen backbone; differs
            from run to run.
        seconds_range: by configuration, the fastest and the slowest of the passes whose median
            ``seconds_per_item`` is.
        seconds_per_run: by configuration, what one repetition takes on its own: fine-tuning as
            measured; else decoding and embedding the training items once, and the head. Empty
            where nothing is fine-tuned.
        seconds: wall time by step.
        cache: rows found in and added to the feature cache.
        resumed: passes and heads that an interrupted study had finished.
        tested: the test items with all predictions.
    """

    evidence: Evidence
    findings: tuple[Finding, ...]
    recommendation: Recommendation
    plan: Plan
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    seconds_per_item: Mapping[str, float]
    seconds_range: Mapping[str, tuple[float, float]]
    seconds_per_run: Mapping[str, float]
    seconds: Mapping[str, float]
    cache: CacheUse
    resumed: int
    tested: Tested = field(compare=False, repr=False)

    def card(self) -> Card:
        """Return what there is to see: one line a configuration, and what to use."""
        known = self.evidence
        rows = tuple((one.name, *_figures(one)) for one in known.outcomes)
        header = ("configuration", "accuracy", "95 % interval", "difference", "p (Holm)")
        facts = (
            ("data", f"{known.data}, {known.n_train:,} training and {known.n_test:,} test items"),
            ("reference", known.reference),
            ("advice", self.recommendation.text),
        )
        findings = tuple(f"{one.level}: {one.text}" for one in self.findings)
        return Card("Comparison", known.backbone, facts, (Grid(header, rows),), findings)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """One for each configuration."""
        return self.evidence.outcomes

    def document(self) -> dict[str, Any]:
        """Return what ``comparison.json`` holds: nothing that differs between equal studies.

        Times, cache use and the machine are in ``run.json``.
        """
        e = self.evidence
        return {
            "format": FORMAT,
            "data": {
                "name": e.data,
                "classes": list(e.classes),
                "n_train": e.n_train,
                "n_test": e.n_test,
                "n_validation": e.n_validation,
                "test_split": "redrawn in every repetition" if e.redrawn else "its own",
                "class_order": {"found": e.class_order[0], "by_chance": e.class_order[1]},
                **({} if e.task == "classification" else {"task": e.task, "figure": e.figure}),
            },
            "backbone": e.backbone,
            "settings": to_plain(dict(self.settings)),
            "reference": e.reference,
            "configurations": [_outcome(e, outcome) for outcome in e.outcomes],
            "equalities": [_plain(proof) for proof in e.proofs],
            "network": to_plain(e.facts),
            "inputs": None if e.inputs is None else _inputs(e.inputs),
            "input_range": None if e.given is None else _plain(e.given),
            "drift": to_plain(dict(e.drift)),
            "moved_by_training_mode": None if e.moved is None else dict(e.moved),
            "findings": to_plain(self.findings),
            "recommendation": to_plain(self.recommendation),
            "plan": {
                "images": self.plan.items,
                "images_alone": self.plan.alone,
                "images_saved": self.plan.saved,
                "passes": list(self.plan.lines()),
                "fine_tuning": [_plain(one) for one in self.plan.tunings],
            },
            "notes": list(self.notes),
        }

    def timing(self) -> dict[str, Any]:
        """Return what differs between equal studies."""
        return {
            "seconds": {key: round(value, 3) for key, value in self.seconds.items()},
            "seconds_per_image": dict(self.seconds_per_item),
            "seconds_per_image_range": to_plain(dict(self.seconds_range)),
            "seconds_per_run": dict(self.seconds_per_run),
            "cache": to_plain(self.cache),
            "resumed": self.resumed,
        }


def capital(figure: str) -> str:
    """Return the name of a figure as it begins a sentence."""
    return f"{figure[0].upper()}{figure[1:]}"


def _outcome(e: Evidence, outcome: Outcome) -> dict[str, Any]:
    configuration = outcome.case.configuration
    own: dict[str, Any] = {}
    if isinstance(outcome, FrozenOutcome):
        own = {
            "head": to_plain(outcome.head.describe()),
            "cacheable": outcome.cacheable,
            "behaviour": to_plain(outcome.behaviour),
            "spread": to_plain(outcome.spread),
        }
    elif isinstance(outcome, TunedOutcome):
        own = {"recipe": to_plain(dict(outcome.tuning.recipe))}
    return {
        "name": outcome.name,
        "about": configuration.about,
        **({e.terms.framework.lower(): way} if (way := e.way(outcome)) else {}),
        "settings": to_plain(configuration.settings()),
        "function": to_plain(outcome.case.function.describe()),
        "layer": outcome.case.cut[0],
        "pooling": outcome.case.cut[1],
        "same_as": list(outcome.same_as),
        "accuracy": to_plain(outcome.accuracy),
        "held_out": to_plain(outcome.held_out),
        "difference": to_plain(outcome.difference),
        "held_out_difference": to_plain(outcome.held_out_difference),
        **own,
        "runs": to_plain(outcome.runs),
    }


def _plain(record: object) -> dict[str, Any]:
    """Return a record in plain values; the format calls items images."""
    return {"images" if k == "items" else k: value for k, value in to_plain(record).items()}


def _inputs(check: InputCheck) -> dict[str, Any]:
    return {
        "layers": list(check.layers),
        "images": check.items,
        "image_side": None if check.enlarged is None else check.enlarged.side,
        "resized_side": None if check.enlarged is None else check.enlarged.resized,
        "given": _trial(check.given),
        "trials": [_trial(trial) for trial in check.trials],
        "correction": None if check.correction is None else check.correction.name,
        "own_size": None if check.own_size is None else _trial(check.own_size),
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.name,
        "preprocessing": str(trial.inputs),
        "first_layer": trial.first,
        "early_layers": trial.early,
    }


__all__ = [
    "Comparison",
    "Evidence",
    "Finding",
    "FrozenOutcome",
    "Outcome",
    "Recommendation",
    "RunRecord",
    "TunedOutcome",
]
