"""What is measured beside accuracy: how rows behave, why, and what they cost.

Everything here runs on a few training items, without labels, and on copies of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headstart.core.arguments import Arguments
from headstart.core.progress import Reporter
from headstart.data import Inputs
from headstart.extraction import TOLERANCE
from headstart.freezing import LayerDrift
from headstart.study import network
from headstart.study.configurations import Autograd
from headstart.study.functions import Cut, Function
from headstart.study.inputs import drift_up_to
from headstart.study.memory import peak_bytes
from headstart.study.plan import Case
from headstart.study.probing import (
    Changes,
    PassTime,
    changes,
    equality,
    moved_statistics,
    seconds_per_item,
)
from headstart.study.rows import Bench

GIVEN = "inputs as given"


@dataclass(frozen=True)
class Behaviour:
    """How a configuration treats its items, on two batches of training items.

    Attributes:
        changes: of its rows.
        peak_bytes: the most memory that tensors take at a time while one batch runs, without the
            weights; scratch memory inside kernels is not seen.
        batch: the items in that batch.
    """

    changes: Changes
    peak_bytes: int
    batch: int


@dataclass(frozen=True)
class Proof:
    """How far configurations that differ in autograd only compute the same rows.

    Attributes:
        configurations: their names. Those that differ in the order of the test items as well are
            not named, though they were run.
        modes: the autograd modes that were run, on the same batches with the same seeds.
        batches, items: how many.
        exact: whether all rows are equal bit for bit.
        change: else the largest difference, relative to the largest feature.
    """

    configurations: tuple[str, ...]
    modes: tuple[Autograd, ...]
    batches: int
    items: int
    exact: bool
    change: float


# ------------------------------------------------------------------------ all configurations


def share_functions(cases: Sequence[Case], bench: Bench) -> tuple[list[Case], tuple[Proof, ...]]:
    """Let configurations that differ in autograd only share their rows, if these are equal.

    They are run to find that out.

    Returns:
        The cases with one autograd mode for all equal ones, and how equal they were.
    """
    groups: dict[Function, list[Case]] = {}
    for case in cases:
        plain = case.function.but(autograd="inference", order="shuffled")
        groups.setdefault(plain, []).append(case)
    proofs: list[Proof] = []
    apart: set[str] = set()
    for function, members in groups.items():
        modes = list(dict.fromkeys(member.function.autograd for member in members))
        if len(modes) < 2:
            continue
        ready = bench.networks.ready(function, bench.data.repetitions[0])
        cuts = list(dict.fromkeys(member.cut for member in members))
        batches = _two_batches(bench, function.inputs)
        exact, change = equality(ready, cuts, modes, batches, bench.extraction)
        names = tuple(m.name for m in members if m.function.order == "shuffled")
        many = sum(map(len, batches))
        proofs.append(Proof(names, tuple(modes), len(batches), many, exact, change))
        if change > TOLERANCE["float32"] / 10:
            apart |= {member.name for member in members}
    shared = [
        case
        if case.name in apart
        else replace(case, function=case.function.but(autograd="inference"))
        for case in cases
    ]
    return shared, tuple(proofs)


def behaviours(
    cases: Sequence[Case], bench: Bench, reporter: Reporter
) -> tuple[dict[str, Behaviour], dict[str, PassTime]]:
    """Measure how rows change, and what they cost.

    Returns:
        Behaviour by configuration, and times per item, which differ from run to run.
    """
    size = min(bench.extraction.batch_size, len(bench.data.sample) // 2)
    measured: dict[tuple[Function, Cut], Changes] = {}
    costs: dict[object, tuple[int, PassTime]] = {}
    found: dict[str, Behaviour] = {}
    seconds: dict[str, PassTime] = {}
    with reporter.task("measure causes", len(cases), "configurations") as progress:
        for case in cases:
            function = case.function.but(order="shuffled", recompute=False)
            at = (function, case.cut)
            autograd = case.configuration.autograd
            # Other values of the inputs or of fixed statistics cost neither time nor memory.
            modes = (function.batch_dependent, function.dropout)
            cost = (modes, function.inputs.extent, case.cut, autograd)
            if at not in measured or cost not in costs:
                ready = bench.networks.ready(function, bench.data.repetitions[0])
                inputs = bench.data.look(function.inputs, ready.device)[: 2 * size]
            if at not in measured:
                measured[at] = changes(ready, case.cut, function, inputs, bench.extraction)
            if cost not in costs:
                how = (network.at_cuts(ready, [case.cut]), inputs[:size], autograd)
                costs[cost] = (
                    peak_bytes(*how, bench.extraction),
                    seconds_per_item(*how, bench.extraction),
                )
            peak, rate = costs[cost]
            seconds[case.name] = rate.times(bench.rounds if case.function.recompute else 1)
            found[case.name] = Behaviour(measured[at], peak, size)
            progress.advance()
    return found, seconds


def drifts(cases: Sequence[Case], bench: Bench) -> dict[str, tuple[LayerDrift, ...]]:
    """Measure how far every layer's input is from its running statistics, by preprocessing."""
    norms, base = bench.networks.facts.norms, bench.networks.deepest
    if not norms:
        return {}
    names: dict[Inputs, str] = {base.inputs: GIVEN}
    for case in cases:
        names.setdefault(case.function.inputs, case.name)
    size = bench.extraction.batch_size
    return {
        name: drift_up_to(base, norms, bench.data.look(inputs, base.device).split(size))
        for inputs, name in names.items()
    }


def moved(cases: Sequence[Case], bench: Bench) -> dict[str, float] | None:
    """Measure how far training mode moves the statistics, where a configuration uses it."""
    norms, base = bench.networks.facts.norms, bench.networks.deepest
    if not norms or not any(case.function.batch_dependent for case in cases):
        return None
    return moved_statistics(base, norms, _two_batches(bench, base.inputs))


def _two_batches(bench: Bench, inputs: Inputs) -> list[Arguments]:
    sample = bench.data.look(inputs, bench.networks.backbone.device)
    parts = sample.split(bench.extraction.batch_size)
    return [part for part in parts if len(part) > 1][:2]


__all__ = ["Behaviour", "Proof", "behaviours", "drifts", "moved", "share_functions"]
