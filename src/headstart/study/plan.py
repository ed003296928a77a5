"""The plan of a study: which forward passes it needs, which are shared, how many that saves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headstart.core.fingerprints import canonical_json
from headstart.study.configuration import Configuration
from headstart.study.functions import Cut, Function
from headstart.study.heads import HeadSpec
from headstart.study.material import Material

Kind = Literal["rows", "batches", "recompute"]
Part = Literal["all", "train", "validation", "test"]
Key = tuple[Function, Cut, str]
"""What is run, and how it is trained; configurations with equal keys share their runs."""


@dataclass(frozen=True)
class Pass:
    """Some forward passes that belong together.

    Attributes:
        kind: ``rows``: rows that are functions of their items, kept in the feature cache.
            ``batches``: one loader's walk over a part. ``recompute``: several such walks over the
            training items, then validation and test items.
        function: what is computed.
        repetition: None where all repetitions share the rows.
        part: which items.
    """

    kind: Kind
    function: Function
    repetition: int | None
    part: Part


@dataclass(frozen=True)
class Tuning:
    """A recipe of fine-tuning that was found to fit the network.

    Attributes:
        name: the recipe's.
        recipe: all of it, in plain values.
        epochs: of all stages together, at most.
    """

    name: str
    recipe: Mapping[str, Any]
    epochs: int

    @property
    def text(self) -> str:
        """The recipe as one line, for keys."""
        return canonical_json(self.recipe, compact=False)


@dataclass(frozen=True)
class Task:
    """One configuration, as it is carried out.

    Attributes:
        configuration: what was asked for.
        function, cut: what it computes, and where it is cut.
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

    def key(self, head: HeadSpec) -> Key:
        """Return what identifies its runs.

        Args:
            head: of configurations that neither bring their own nor fine-tune.
        """
        if self.tuning is not None:
            return self.function, self.cut, self.tuning.text
        own = self.configuration.head or head
        return self.function, self.cut, canonical_json(own.describe(), compact=False)


@dataclass(frozen=True)
class PlannedPass:
    """A pass with its cost and its users."""

    what: Pass
    cuts: tuple[Cut, ...]
    images: int
    configurations: tuple[str, ...]


@dataclass(frozen=True)
class PlannedTuning:
    """Fine-tuning by one recipe, once a repetition.

    Attributes:
        configurations: that share the runs.
        recipe: its name.
        runs: how many.
        epochs: of a run, at most.
        images: that train, an epoch.
    """

    configurations: tuple[str, ...]
    recipe: str
    runs: int
    epochs: int
    images: int

    @property
    def steps(self) -> int:
        """Single images that go forward and backward in all runs, at most."""
        return self.runs * self.epochs * self.images


@dataclass(frozen=True)
class Plan:
    """All passes of a study, in the order in which they run.

    Attributes:
        passes: each once.
        images: forward passes of single images that they make, unless rows are in the cache.
        alone: how many it would be if every configuration and repetition ran on its own.
        tunings: what is fine-tuned beside; not counted in the others.
    """

    passes: tuple[PlannedPass, ...]
    images: int
    alone: int
    tunings: tuple[PlannedTuning, ...] = ()

    @property
    def saved(self) -> int:
        """Forward passes of single images that sharing saves."""
        return self.alone - self.images

    def lines(self) -> tuple[str, ...]:
        """Return the plan as text, one line a kind of pass and set of configurations."""
        groups: dict[tuple[str, tuple[str, ...]], list[PlannedPass]] = {}
        for planned in self.passes:
            what = planned.what
            groups.setdefault((what.kind, planned.configurations), []).append(planned)
        lines = []
        for (kind, names), members in groups.items():
            images = sum(member.images for member in members)
            lines.append(f"{_KINDS[kind]} for {', '.join(names)}: {images:,} images")
        return (*lines, *map(_tuning_line, self.tunings))

    def __str__(self) -> str:
        total = (
            f"{self.images:,} forward passes of one image instead of {self.alone:,};"
            f" {self.saved:,} are shared"
        )
        lines = [total, *(f"  {line}" for line in self.lines())]
        if self.tunings:
            steps = sum(tuning.steps for tuning in self.tunings)
            lines.append(
                f"  fine-tuning is the long part: up to {steps:,} images go forward and backward"
            )
        return "\n".join(lines)


def _tuning_line(tuning: PlannedTuning) -> str:
    runs = "1 run" if tuning.runs == 1 else f"{tuning.runs} runs"
    epochs = "1 epoch" if tuning.epochs == 1 else f"{tuning.epochs} epochs"
    return (
        f"fine-tuning of a fresh copy for {', '.join(tuning.configurations)} (recipe"
        f" {tuning.recipe}): {runs} of up to {epochs} of {tuning.images:,} images"
    )


_KINDS = {
    "rows": "rows once an item (cached)",
    "batches": "loaders, anew for every repetition",
    "recompute": "several passes in training mode",
}


def passes_of(task: Task, material: Material, repetition: int) -> tuple[Pass, ...]:
    """Return the passes that one configuration needs in one repetition."""
    function = task.function
    if function.recompute:
        return (Pass("recompute", function, repetition, "all"),)
    if is_cached(function):
        own = function.measured_statistics and material.redrawn
        return (Pass("rows", function, repetition if own else None, "all"),)
    train = Pass("batches", dataclasses.replace(function, order="shuffled"), repetition, "train")
    if function.order == "shuffled":
        return (train, Pass("batches", function, repetition, "test"))
    # The held-out items must be met as the test items are, or the fault would not be seen there.
    return (
        train,
        Pass("batches", function, repetition, "validation"),
        Pass("batches", function, repetition, "test"),
    )


def is_cached(function: Function) -> bool:
    """Whether rows go through the feature cache, whose extraction runs in inference mode."""
    return function.row_wise and function.autograd == "inference"


def make_plan(
    tasks: Sequence[Task], material: Material, *, statistics_items: int, recompute_passes: int
) -> Plan:
    """Collect the passes of all configurations and repetitions, each once.

    Args:
        tasks: the configurations, those that fine-tune among them.
        material: the items.
        statistics_items: training items that statistics are re-estimated on.
        recompute_passes: walks over the training items of ``recompute``.
    """
    cuts: dict[Pass, dict[Cut, None]] = {}
    users: dict[Pass, dict[str, None]] = {}
    alone = 0
    for division in material.divisions:
        for task in tasks:
            if task.tuning is not None:
                continue
            needed = passes_of(task, material, division.repetition)
            for one in needed:
                cuts.setdefault(one, {})[task.cut] = None
                users.setdefault(one, {})[task.name] = None
            alone += _alone(task, material, statistics_items, recompute_passes)
    sizes = {one: _images(one, material, statistics_items, recompute_passes) for one in cuts}
    order = sorted(cuts, key=lambda one: (_ORDER[one.kind], one.repetition or 0))
    planned = tuple(
        PlannedPass(one, tuple(cuts[one]), sizes[one], tuple(users[one])) for one in order
    )
    return Plan(planned, sum(sizes.values()), alone, _tunings(tasks, material))


def _tunings(tasks: Sequence[Task], material: Material) -> tuple[PlannedTuning, ...]:
    names: dict[Key, list[str]] = {}
    tunings: dict[Key, Tuning] = {}
    for task in tasks:
        if task.tuning is not None:
            key = (task.function, task.cut, task.tuning.text)
            names.setdefault(key, []).append(task.name)
            tunings.setdefault(key, task.tuning)
    images = material.n_train - len(material.divisions[0].validation)
    return tuple(
        PlannedTuning(
            tuple(names[key]), tuning.name, len(material.divisions), tuning.epochs, images
        )
        for key, tuning in tunings.items()
    )


_ORDER: Mapping[str, int] = {"rows": 0, "batches": 1, "recompute": 2}


def _images(one: Pass, material: Material, statistics: int, rounds: int) -> int:
    validation = len(material.divisions[0].validation)
    if one.kind == "recompute":
        return rounds * material.n_train + validation + material.n_test
    if one.kind == "rows":
        extra = statistics if one.function.measured_statistics else 0
        return sum(len(part) for part in material.parts) + extra
    return {"train": material.n_train, "validation": validation, "test": material.n_test}[one.part]


def _alone(task: Task, material: Material, statistics: int, rounds: int) -> int:
    """Images that one configuration would run in one repetition on its own."""
    train = material.n_train * (rounds if task.function.recompute else 1)
    extra = statistics if task.function.measured_statistics else 0
    return train + material.n_test + extra


__all__ = [
    "Key",
    "Pass",
    "Plan",
    "PlannedPass",
    "PlannedTuning",
    "Task",
    "Tuning",
    "is_cached",
    "make_plan",
    "passes_of",
]
