"""The epoch was chosen on the same data that the result is reported on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor, nn

from headstart.audit.check import Check
from headstart.audit.choosing import Choice, choices
from headstart.audit.events import Batch, Load, Pass, Step
from headstart.audit.held import looks
from headstart.audit.loaders import Sources
from headstart.audit.places import Trail, user_trail
from headstart.audit.records import Finding, Place, Severity
from headstart.audit.scene import Scene
from headstart.core.devices import doubled
from headstart.modules.observing import tensors_in

TIMES = 3
"""An early end is a choice after so many evaluations on one set; of two one is the better."""
_FIX = (
    "choose on a part of the training data, and evaluate the test data once:"
    " torch.utils.data.Subset(train, held_out)"
)
Data = tuple[object, ...]
State = tuple[float, ...]


@dataclass
class _Network:
    """Evaluations of a network: on what, in which state."""

    evaluated: list[tuple[Pass, Data, State]] = field(default_factory=list)
    latest: tuple[int, State] | None = None
    loads: list[tuple[Load, State, int]] = field(default_factory=list)


class TestDataSelects(Check):
    """A state of the network, or its score, is chosen and reported on the same data.

    The network was evaluated on these data several times during training. Then one of those states
    was loaded again, or the scores stopped the training, or the script reports the best of them;
    and nothing else was evaluated afterwards.
    """

    __test__ = False  # no test of pytest's
    code: ClassVar[str] = "test-data-selects"
    cost: ClassVar[str] = "the score is too optimistic: it is the best of several on the same data"

    def __init__(self) -> None:
        self.networks: dict[int, _Network] = {}
        self.steps: dict[Trail, None] = {}
        self.sources = Sources()

    def on_batch(self, seen: Batch, scene: Scene) -> None:
        """Remember which loaders read the same data."""
        self.sources.note(seen)

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Take note of what a network is evaluated on, and of its state."""
        module = seen.network.module
        if seen.grad or seen.failed or module is None:
            return
        known = self.networks.setdefault(seen.network.number, _Network())
        if known.latest is None or known.latest[0] != seen.step or known.loads:
            known.latest = (seen.step, _state(module))
        if len(known.evaluated) < 2000:
            known.evaluated.append((seen, self._data(seen), known.latest[1]))

    def before_step(self, seen: Step, scene: Scene) -> None:
        """Take note of where training steps."""
        if looks(seen.number) and len(self.steps) < 64:
            self.steps[user_trail()] = None

    def on_load(self, seen: Load, scene: Scene) -> None:
        """Take note of a state that is loaded after training has begun."""
        module = seen.module
        if not seen.step or module is None:
            return
        for network in scene.networks:
            if network.module is module and network.number in self.networks:
                known = self.networks[network.number]
                if len(known.loads) < 200:
                    known.loads.append((seen, _state(module), len(known.evaluated)))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every network whose last load went back to an evaluated state."""
        states, figures = [], []
        for number, known in self.networks.items():
            loaded = self._loaded(number, known, scene)
            chosen = self._chosen(number, known, scene)
            if loaded is not None and chosen is not None and chosen.severity == "warning":
                loaded = replace(loaded, severity=chosen.severity)
            states += [loaded] if loaded is not None else []
            figures += [chosen] if chosen is not None else []
        # Where a state is loaded, the figure by which it was chosen is the same mistake.
        files = {found.file for found in states}
        yield from states
        yield from (found for found in figures if found.file not in files)

    def _chosen(self, number: int, known: _Network, scene: Scene) -> Finding | None:
        """Look for an end of the training, or a best figure, that evaluations on one set decide."""
        trained = {self.sources.same(p.loader) for p in scene.passes if p.trained}
        held = [
            (seen, (seen.trail, self._data(seen)[:2]))
            for seen, _, _ in known.evaluated
            if seen.purpose == "evaluation"
            and (seen.loader is None or self.sources.same(seen.loader) not in trained)
        ]
        for group in dict.fromkeys(group for _, group in held):
            mine = [seen for seen, other in held if other == group]
            times = len({seen.step for seen in mine})
            last = max(seen.number for seen in mine)
            others = any(seen.number > last for seen, other in held if other != group)
            if times < 2 or others:
                continue
            for file, choice in (c for step in self.steps for c in choices(mine[0].trail, step)):
                if times >= TIMES or choice.how == "best":
                    return self._said(scene.networks[number].kind, file, choice, times)
        return None

    def _said(self, kind: str, file: str, choice: Choice, times: int) -> Finding:
        what = (
            f"The training of {kind} is stopped by its scores on a data set"
            if choice.how == "stop"
            else f"The best of {times} scores of {kind} on the same data is kept"
        )
        said = (
            "and the score that is reported is on the same data"
            if choice.reported
            else "and it is evaluated on nothing else afterwards"
        )
        return self.finding(
            f"{what}, {said}: chosen among {times}, it is too optimistic.",
            place=Place(file, choice.line),
            module=kind,
            severity="warning" if choice.reported else "info",
            confidence=0.7 if choice.reported else 0.5,
            evidence={"evaluations": times, "chosen by": choice.how, "reported": choice.reported},
            fix=_FIX,
        )

    def _loaded(self, number: int, known: _Network, scene: Scene) -> Finding | None:
        """Look for a state that was loaded again because of its figure."""
        if not known.loads:
            return None
        load, state, count = known.loads[-1]
        before, after = known.evaluated[:count], known.evaluated[count:]
        before = [each for each in before if each[0].purpose == "evaluation"]
        selecting = {data for _, data, at in before if at == state}
        times = {
            data: len({seen.step for seen, other, _ in before if other == data})
            for data in selecting
        }
        selecting = {data for data in selecting if times[data] > 1}
        last = max((seen.step for seen, _, _ in before), default=0)
        if not selecting or scene.steps > max(load.step, last):
            return None
        reported = {data for _, data, _ in after}
        if reported - selecting:
            return None
        severity: Severity = "warning" if reported else "info"
        said = (
            "and is then evaluated on the same data"
            if reported
            else "and is evaluated on nothing else afterwards"
        )
        most = max(times[data] for data in selecting)
        return self.finding(
            f"{scene.networks[number].kind} goes back to the best of {most} states by its scores"
            f" on one set of data, {said}: the best of {most} is too optimistic.",
            place=load.place,
            severity=severity,
            confidence=0.8,
            evidence={"states compared": most, "evaluated afterwards": bool(reported)},
            fix=_FIX,
        )

    def _data(self, seen: Pass) -> Data:
        if seen.loader is not None:
            return ("loader", self.sources.same(seen.loader))
        first = next((t for t in tensors_in([seen.args, seen.kwargs])), None)
        if first is None:
            return ("line", seen.place)
        return ("tensor", tuple(first.shape), round(float(doubled(first).sum()), 3))


def _state(module: nn.Module) -> State:
    """Return a few sums that tell states of a network apart."""
    tensors: list[Tensor] = list(module.parameters())
    few = [*tensors[:2], *tensors[-2:]]
    return tuple(float(doubled(each.detach()).sum()) for each in few)


__all__ = ["TestDataSelects"]
