"""The outcome of a study, as frozen values, and the part of it that every rerun repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.core.records import Curve, Score
from headstart.data import Split
from headstart.evaluation import Difference
from headstart.evaluation.item_scores import ITEM_FIGURES, item_scores
from headstart.freezing import LayerDrift
from headstart.study.functions import Facts
from headstart.study.heads import HeadSpec
from headstart.study.inputs import InputCheck, InputRange
from headstart.study.measurements import Behaviour, Proof
from headstart.study.plan import Case, Tuning
from headstart.study.probing import Spread
from headstart.study.repetitions import Seeds
from headstart.study.terms import PYTORCH, Terms


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


def capital(figure: str) -> str:
    """Return the name of a figure as it begins a sentence."""
    return f"{figure[0].upper()}{figure[1:]}"


__all__ = [
    "Evidence",
    "Finding",
    "FrozenOutcome",
    "Outcome",
    "Recommendation",
    "RunRecord",
    "TunedOutcome",
]
