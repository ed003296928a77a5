"""The plan of a study: the forward passes and trainings it needs, and what sharing them saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headstart.core.fingerprints import canonical_json
from headstart.core.wording import count
from headstart.study.configurations import Configuration
from headstart.study.functions import Cut, Function
from headstart.study.heads import HeadSpec
from headstart.study.repetitions import StudyData

Kind = Literal["rows", "batches", "recompute"]
Part = Literal["all", "train", "validation", "test"]
Key = tuple[Function, Cut, str]
"""What is run, and how it is trained; configurations with equal keys share their runs."""

_KINDS: Mapping[Kind, str] = {
    "rows": "rows once per item (cached)",
    "batches": "loaders, again for every repetition",
    "recompute": "several passes in training mode",
}
"""The kinds of passes in the order in which they run, and what a plan calls them."""


@dataclass(frozen=True)
class Tuning:
    """A fine-tuning recipe that was found to fit the network.

    Attributes:
        name: the recipe's.
        recipe: all of it, in plain values.
        epochs: of all stages together, at most.
    """

    name: str
    recipe: Mapping[str, Any]
    epochs: int


@dataclass(frozen=True)
class Case:
    """One configuration with what it computes on this network.

    Attributes:
        configuration: the user's choice.
        function, cut: what it computes, and where the network is cut.
        tuning: how the backbone is trained; None where it is frozen.
    """

    configuration: Configuration
    function: Function
    cut: Cut
    tuning: Tuning | None = None

    @property
    def name(self) -> str:
        """The configuration's name."""
        return self.configuration.name

    def head(self, default: HeadSpec) -> HeadSpec:
        """Return its head; ``default`` where the configuration does not bring one."""
        return self.configuration.head or default

    def key(self, head: HeadSpec) -> Key:
        """Return what identifies its runs, given the head of configurations without their own."""
        trained = self.head(head).describe() if self.tuning is None else self.tuning.recipe
        return self.function, self.cut, canonical_json(trained, compact=False)


@dataclass(frozen=True)
class Pass:
    """Forward passes that belong together.

    Attributes:
        kind: ``rows``: rows that are functions of their items, kept in the feature cache.
            ``batches``: one loader's pass over a part. ``recompute``: several such passes over
            the training items, then one over the validation and one over the test items.
        function: what is computed.
        repetition: None where all repetitions share the rows.
        part: which items.
        rounds: passes over the training items.
    """

    kind: Kind
    function: Function
    repetition: int | None
    part: Part
    rounds: int = 1


@dataclass(frozen=True)
class PlannedPass:
    """Forward passes with where they are cut, how many items they take, and for whom."""

    what: Pass
    cuts: tuple[Cut, ...]
    items: int
    configurations: tuple[str, ...]


@dataclass(frozen=True)
class PlannedTuning:
    """Fine-tuning by one recipe, once in every repetition.

    Attributes:
        configurations: that share the runs.
        recipe: its name.
        runs: how many.
        epochs: of a run, at most.
        items: that train, in an epoch.
    """

    configurations: tuple[str, ...]
    recipe: str
    runs: int
    epochs: int
    items: int

    @property
    def steps(self) -> int:
        """Items that go forward and backward in all runs together, at most."""
        return self.runs * self.epochs * self.items


@dataclass(frozen=True)
class Plan:
    """All passes of a study, in the order in which they run.

    Attributes:
        passes: each once.
        alone: forward passes of single items if every configuration and repetition ran on its own.
        unit: what several items are called ("images").
        tunings: what is fine-tuned in addition; not counted in the others.
    """

    passes: tuple[PlannedPass, ...]
    alone: int
    unit: str
    tunings: tuple[PlannedTuning, ...] = ()

    @property
    def items(self) -> int:
        """Forward passes of single items, if no row is in the cache."""
        return sum(planned.items for planned in self.passes)

    @property
    def saved(self) -> int:
        """Forward passes of single items that sharing saves."""
        return self.alone - self.items

    def lines(self) -> tuple[str, ...]:
        """Return the plan as text, one line for each kind of pass and set of configurations."""
        items: dict[tuple[Kind, tuple[str, ...]], int] = {}
        for planned in self.passes:
            key = (planned.what.kind, planned.configurations)
            items[key] = items.get(key, 0) + planned.items
        passes = (
            f"{_KINDS[kind]} for {', '.join(names)}: {n:,} {self.unit}"
            for (kind, names), n in items.items()
        )
        tunings = (
            f"fine-tuning of a fresh copy for {', '.join(one.configurations)} (recipe"
            f" {one.recipe}): {count(one.runs, 'run')} of up to {count(one.epochs, 'epoch')} of"
            f" {one.items:,} {self.unit}"
            for one in self.tunings
        )
        return (*passes, *tunings)

    def __str__(self) -> str:
        lines = [
            f"{count(self.items, 'forward pass', 'forward passes')} of single {self.unit} instead"
            f" of {self.alone:,};"
            f" {self.saved:,} are shared",
            *(f"  {line}" for line in self.lines()),
        ]
        if self.tunings:
            lines.append(
                "  fine-tuning is the long part: up to"
                f" {sum(tuning.steps for tuning in self.tunings):,} {self.unit} go forward and"
                " backward"
            )
        return "\n".join(lines)


def passes_of(case: Case, data: StudyData, repetition: int, rounds: int) -> tuple[Pass, ...]:
    """Return the passes that one configuration needs in one repetition.

    Args:
        case: the configuration.
        data: the items.
        repetition: its number.
        rounds: passes over the training items of a function with ``recompute``.
    """
    function = case.function
    if function.recompute:
        return (Pass("recompute", function, repetition, "all", rounds),)
    if function.cached:
        own = function.measured_statistics and data.redrawn
        return (Pass("rows", function, repetition if own else None, "all"),)
    train = Pass("batches", function.but(order="shuffled"), repetition, "train")
    test = Pass("batches", function, repetition, "test")
    if function.order == "shuffled":
        return train, test
    # The held-out items must be met as the test items are, or the fault would not show there.
    return train, Pass("batches", function, repetition, "validation"), test


def make_plan(
    cases: Sequence[Case], data: StudyData, *, statistics_items: int, rounds: int, unit: str
) -> Plan:
    """Collect the passes of all configurations and repetitions, each once.

    Args:
        cases: the configurations, those that fine-tune among them.
        data: the items.
        statistics_items: training items that statistics are re-estimated on.
        rounds: passes over the training items of functions with ``recompute``.
        unit: what several items are called.
    """
    cuts: dict[Pass, dict[Cut, None]] = {}
    users: dict[Pass, dict[str, None]] = {}
    alone = 0
    for repetition in data.repetitions:
        for case in cases:
            if case.tuning is not None:
                continue
            for one in passes_of(case, data, repetition.number, rounds):
                cuts.setdefault(one, {})[case.cut] = None
                users.setdefault(one, {})[case.name] = None
            measured = statistics_items if case.function.measured_statistics else 0
            training = data.n_train * (rounds if case.function.recompute else 1)
            alone += training + data.n_test + measured
    order = sorted(cuts, key=lambda one: (list(_KINDS).index(one.kind), one.repetition or 0))
    passes = tuple(
        PlannedPass(one, tuple(cuts[one]), _items(one, data, statistics_items), tuple(users[one]))
        for one in order
    )
    return Plan(passes, alone, unit, tuple(_tunings(cases, data)))


def _items(one: Pass, data: StudyData, statistics_items: int) -> int:
    """Return how many items go through the network in a pass."""
    if one.kind == "recompute":
        return one.rounds * data.n_train + data.n_held_out + data.n_test
    if one.kind == "rows":
        measured = statistics_items if one.function.measured_statistics else 0
        return sum(len(split) for split in data.splits) + measured
    return {"train": data.n_train, "validation": data.n_held_out, "test": data.n_test}[one.part]


def _tunings(cases: Sequence[Case], data: StudyData) -> Iterator[PlannedTuning]:
    tunings: dict[Key, Tuning] = {}
    names: dict[Key, list[str]] = {}
    for case in cases:
        if case.tuning is not None:
            key = case.key(HeadSpec())
            tunings.setdefault(key, case.tuning)
            names.setdefault(key, []).append(case.name)
    training = data.n_train - data.n_held_out
    for key, one in tunings.items():
        repeats = len(data.repetitions)
        yield PlannedTuning(tuple(names[key]), one.name, repeats, one.epochs, training)


__all__ = [
    "Case",
    "Key",
    "Pass",
    "Plan",
    "PlannedPass",
    "PlannedTuning",
    "Tuning",
    "make_plan",
    "passes_of",
]  # fmt: skip
