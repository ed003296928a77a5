"""Looking at a study's configurations: which are one function, how each behaves, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from headstart.backbones import Backbone
from headstart.core.progress import Reporter
from headstart.data import Preprocessing
from headstart.extraction import TOLERANCE
from headstart.freezing import LayerDrift
from headstart.study import measure, network
from headstart.study.configuration import Autograd, Configuration
from headstart.study.functions import Cut, Function, function_of
from headstart.study.inputs import whole_drift
from headstart.study.plan import Task
from headstart.study.results import Proof
from headstart.study.rows import RowMaker
from headstart.study.settings import StudySettings

GIVEN = "inputs as given"


@dataclass(eq=False)
class Causes:
    """Measurements on a sample of the training items.

    Attributes:
        maker: of the study's rows; gives networks in the modes of a function.
        sample: positions of training items.
        settings: of the study.
    """

    maker: RowMaker
    sample: np.ndarray
    settings: StudySettings

    @cached_property
    def batches(self) -> list[Tensor]:
        """Two loader batches of the sample, normalised as given."""
        return self._two_batches(self.maker.backbone.preprocessing)

    def tasks(
        self, configurations: Sequence[Configuration], cuts: Sequence[Cut]
    ) -> tuple[list[Task], tuple[Proof, ...]]:
        """Find what each configuration computes.

        Those that differ in autograd only are run, to see whether they compute the same rows;
        only then do they share them.
        """
        size = self.settings.extraction.batch_size
        backbone, facts = self.maker.backbone, self.maker.facts
        tasks = [
            Task(c, function_of(c, backbone, facts, size), cut)
            for c, cut in zip(configurations, cuts, strict=True)
        ]
        groups: dict[Function, list[Task]] = {}
        for task in tasks:
            plain = dataclasses.replace(task.function, autograd="inference", order="shuffled")
            groups.setdefault(plain, []).append(task)
        proofs: list[Proof] = []
        settled: dict[str, Autograd] = {}
        for function, members in groups.items():
            modes = list(dict.fromkeys(member.function.autograd for member in members))
            proof = self._prove(function, members, modes) if len(modes) > 1 else None
            proofs += [proof] if proof is not None else []
            same = proof is None or proof.equality.change <= TOLERANCE["float32"] / 10
            for member in members:
                settled[member.name] = "inference" if same else member.function.autograd
        final = [
            dataclasses.replace(
                task, function=dataclasses.replace(task.function, autograd=settled[task.name])
            )
            for task in tasks
        ]
        return final, tuple(proofs)

    def _prove(
        self, function: Function, members: Sequence[Task], modes: Sequence[Autograd]
    ) -> Proof:
        ready = self._network(function)
        batches = self._two_batches(function.preprocessing)
        cuts = list(dict.fromkeys(member.cut for member in members))
        equality = measure.equality(ready, cuts, modes, batches, self.settings.extraction)
        names = tuple(m.name for m in members if m.function.order == "shuffled")
        return Proof(names, equality)

    def behaviours(
        self, tasks: Sequence[Task], reporter: Reporter
    ) -> tuple[dict[str, measure.Behaviour], dict[str, float]]:
        """Measure how rows change, and what they cost.

        Returns:
            Behaviour by configuration, and seconds an image, which differ from run to run.
        """
        size = min(self.settings.extraction.batch_size, len(self.sample) // 2)
        changes: dict[tuple[Function, Cut], measure.Changes] = {}
        costs: dict[object, tuple[int, float]] = {}
        behaviours: dict[str, measure.Behaviour] = {}
        seconds: dict[str, float] = {}
        with reporter.task("measure causes", len(tasks), "configurations") as progress:
            for task in tasks:
                function = dataclasses.replace(task.function, order="shuffled", recompute=False)
                at = (function, task.cut)
                autograd = task.configuration.autograd
                # Other values of the inputs or of fixed statistics cost neither time nor memory.
                modes = (function.batch_dependent, function.dropout)
                cost = (modes, function.preprocessing.size, task.cut, autograd)
                if at not in changes or cost not in costs:
                    ready = self._network(function)
                    pixels = self._pixels(function.preprocessing, 2 * size)
                if at not in changes:
                    changes[at] = measure.changes(
                        ready, task.cut, function, pixels, self.settings.extraction
                    )
                if cost not in costs:
                    costs[cost] = self._cost(ready, task, pixels[:size])
                peak, time = costs[cost]
                rounds = self.settings.recompute_passes if task.function.recompute else 1
                seconds[task.name] = time * rounds
                behaviours[task.name] = measure.Behaviour(changes[at], peak, size)
                progress.advance()
        return behaviours, seconds

    def _cost(self, ready: Backbone, task: Task, pixels: Tensor) -> tuple[int, float]:
        autograd = task.configuration.autograd
        inputs = task.function.preprocessing.normalise(pixels.to(ready.device))
        extraction = self.settings.extraction
        cuts = network.at_cuts(ready, [task.cut])
        return (
            measure.peak_bytes(cuts, inputs, autograd, extraction),
            measure.seconds_per_image(cuts, inputs, autograd, extraction),
        )

    def drift(self, tasks: Sequence[Task]) -> dict[str, tuple[LayerDrift, ...]]:
        """Measure the drift of every layer, once a preprocessing."""
        if not self.maker.facts.norms:
            return {}
        given = self.maker.backbone.preprocessing
        names = {given: GIVEN}
        for task in tasks:
            names.setdefault(task.function.preprocessing, task.name)
        size = self.settings.extraction.batch_size
        return {
            name: whole_drift(
                self.maker.deepest,
                self.maker.facts.norms,
                torch.split(self.inputs(preprocessing), size),
            )
            for preprocessing, name in names.items()
        }

    def moved(self, tasks: Sequence[Task]) -> dict[str, float] | None:
        """Measure how far training mode moves the statistics, where a configuration uses it."""
        norms = self.maker.facts.norms
        if not norms or not any(task.function.batch_dependent for task in tasks):
            return None
        return measure.moved_statistics(self.maker.deepest, norms, self.batches)

    def inputs(self, preprocessing: Preprocessing) -> Tensor:
        """Return the sample as the network takes it, on its device."""
        pixels = self._pixels(preprocessing, len(self.sample))
        return preprocessing.normalise(pixels.to(self.maker.backbone.device))

    def _pixels(self, preprocessing: Preprocessing, count: int) -> Tensor:
        return self.maker.images.some(self.maker.material.train, self.sample[:count], preprocessing)

    def _two_batches(self, preprocessing: Preprocessing) -> list[Tensor]:
        size = self.settings.extraction.batch_size
        parts = torch.split(self.inputs(preprocessing), size)
        return [part for part in parts if len(part) > 1][:2]

    def _network(self, function: Function) -> Backbone:
        return self.maker.network_for(function, self.maker.material.divisions[0])


__all__ = ["GIVEN", "Causes"]
