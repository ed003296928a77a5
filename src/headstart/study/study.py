"""A study from beginning to end: look, plan, run, judge."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.core.errors import ConfigError
from headstart.core.progress import Clock, Reporter, SilentReporter
from headstart.core.records import to_plain
from headstart.core.seeds import seed_faults
from headstart.data import Dataset
from headstart.data.reading import OnBad
from headstart.extraction import Extraction
from headstart.extraction.engines import AUTO, EAGER
from headstart.heads.registry import head_fault
from headstart.modules.pooling import towards_rows
from headstart.study import network
from headstart.study.comparison import Comparison
from headstart.study.configurations import Configuration
from headstart.study.findings import find_causes
from headstart.study.functions import Facts, cut_of, function_of
from headstart.study.inputs import InputCheck, InputRange, check_inputs, input_range
from headstart.study.judging import judge, tested, train_heads
from headstart.study.measurements import behaviours, drifts, moved, share_functions
from headstart.study.names import REFERENCE, resolve, with_reference
from headstart.study.network import Networks
from headstart.study.plan import Case, make_plan
from headstart.study.probing import find_facts
from headstart.study.recommendation import recommend, suggestion
from headstart.study.repetitions import StudyData, class_order, divide, drop_unreadable
from headstart.study.results import Evidence
from headstart.study.rows import Bench, Kept, run_passes
from headstart.study.settings import CompareConfig
from headstart.study.terms import terms_of
from headstart.study.tuning import Tuner, fine_tune, plan_tunings, seconds_per_run, tuned_cases

STATISTICS_BYTES = 2 * 2**30
"""Re-estimation keeps the activations of one depth in memory, up to this many bytes of them."""

BATCH_SIZE = 32
"""Items in a batch unless the settings say otherwise, as in most tutorials."""

MENDED = "inputs mended"


def run_study(
    dataset: Dataset,
    backbone: Backbone,
    config: CompareConfig | None = None,
    *,
    extraction: Extraction | None = None,
    seed: int = 0,
    on_bad: OnBad = "raise",
    cache: FeatureCache | None = None,
    reporter: Reporter | None = None,
    tuner: Tuner | None = None,
    finish: Callable[[Comparison], None] | None = None,
) -> Comparison:
    """Compare ways of running a frozen backbone on a data set, and of fine-tuning it.

    The module itself is never run in training mode and never changed: what might change it runs
    on a copy. The random state is restored. An interrupted study goes on where it stopped when it
    is started again with the same cache.

    Args:
        dataset: with a training and a test split.
        backbone: the network with its preprocessing and cut.
        config: configurations, repetitions, head and so on.
        extraction: precision and device; its ``batch_size`` is that of the loaders. None: batches
            of 32.
        seed: of everything.
        on_bad: ``raise`` or ``skip`` items that cannot be read.
        cache: where rows are kept that are functions of their items; its folder also holds the
            state of an unfinished study.
        reporter: shown the plan and progress.
        tuner: trains for configurations that fine-tune.
        finish: called with the comparison before the study's state is removed, to write it where
            an interruption cannot lose it. If it fails, the same call goes on from that state.

    Returns:
        The comparison: figures, causes and a recommendation.

    Raises:
        ConfigError: unknown or contradictory configurations or recipes, all faults together.
        DataError, BadFilesError, BackboneError, StoreError: as raised by the packages that read
            the data, run the network and keep its rows.
    """
    config, extraction = config or CompareConfig(), extraction or Extraction(batch_size=BATCH_SIZE)
    cache, clock = cache or FeatureCache(), Clock()
    log = _Log(reporter or SilentReporter())
    _check(extraction, seed)
    chosen, config = _for_task(resolve(config.configs), config, dataset.task, log)
    chosen = with_reference(chosen, config.reference)
    backbone = _on_device(backbone, extraction)
    _check_inputs(chosen, backbone)
    tunings = plan_tunings(chosen, backbone, len(dataset.classes), tuner, config.epochs)
    with clock("look"):
        readable = drop_unreadable(dataset, backbone.inputs, on_bad, log.reporter)
        data = divide(readable, config, seed=seed, workers=extraction.workers)
        if data.redrawn:
            log.note("the data has no test split of its own, so every repetition draws another one")
        frozen = [c for c in chosen if c.recipe is None]
        first = _look(backbone, frozen, data, extraction.batch_size)
        added, suggested = _suggest(first, frozen, backbone, log) if config.suggest else ([], None)
        items = _statistics_items(first.facts, config, chosen, data, backbone, log)
        bench = Bench(
            Networks(backbone, first.deepest, first.facts, data, items, extraction.batch_size),
            data,
            extraction,
            config.recompute_passes,
            cache,
            Kept(cache.store.results("study")),
        )
        cases, proofs = share_functions(_frozen_cases([*frozen, *added], bench), bench)
        tuned = tuned_cases(chosen, tunings, backbone, first.facts, data)
        places = {c.name: place for place, c in enumerate(chosen)}
        everything = sorted([*cases, *tuned], key=lambda t: places.get(t.name, len(places)))
        plan = make_plan(
            everything,
            data,
            statistics_items=items,
            rounds=bench.rounds,
            unit=backbone.inputs.unit,
        )
    log.reporter.note(f"plan: {plan}")
    with clock("measure causes"):
        behaved, times = behaviours(cases, bench, log.reporter)
        rates = {name: each.median for name, each in times.items()}
        drift, shifts = drifts(cases, bench), moved(cases, bench)
    with clock("forward passes"):
        rows = run_passes(plan, bench, log.reporter)
    head, reference = config.head_spec, config.reference or REFERENCE
    with clock("heads"):
        series = train_heads(cases, rows, bench, head, log.reporter)
    if tuned:
        assert tuner is not None
        with clock("fine-tuning"):
            series |= fine_tune(tuned, plan.tunings, bench, tuner, log.reporter)
    evidence = Evidence(
        data=data.name,
        classes=data.classes,
        n_train=data.n_train,
        n_test=data.n_test,
        n_validation=data.n_held_out,
        redrawn=data.redrawn,
        class_order=class_order(readable.test.labels)
        if readable.test.targets is None
        else (0.0, 0.0),
        task=dataset.task,
        backbone=backbone.name,
        unit=backbone.inputs.unit,
        reference=reference,
        outcomes=judge(everything, series, data, head, reference, behaved),
        facts=first.facts,
        inputs=first.inputs,
        given=first.given,
        drift=drift,
        moved=shifts,
        proofs=proofs,
        suggested=suggested,
        terms=terms_of(backbone.module),
    )
    comparison = Comparison(
        evidence=evidence,
        findings=find_causes(evidence),
        recommendation=recommend(evidence),
        plan=plan,
        settings=_settings(config, bench, seed),
        notes=tuple(log.notes),
        seconds_per_item=rates,
        seconds_range={name: (each.fastest, each.slowest) for name, each in times.items()},
        seconds_per_run=seconds_per_run(everything, series, rates, data, head),
        seconds=clock.seconds(),
        cache=rows.use,
        resumed=rows.resumed + sum(one.resumed for one in series.values()),
        tested=tested(everything, series, data, head),
    )
    if finish is not None:
        finish(comparison)
    bench.kept.clear()
    return comparison


def _for_task(
    chosen: Sequence[Configuration], config: CompareConfig, task: str, log: _Log
) -> tuple[list[Configuration], CompareConfig]:
    """Return the configurations and settings that have a meaning for a task.

    Raises:
        ConfigError: what was asked for by name has none; all of it together.
    """
    faults = []
    if task == "regression" and config.head == CompareConfig.head:
        config = dataclasses.replace(config, head="ridge")
        log.note("head: ridge, since logistic regression is for classes and labels")
    fault = head_fault(config.head, task)
    if fault is not None:
        faults.append(fault)
    own = [c.name for c in chosen if c.head and (said := head_fault(c.head.kind, task)) and said]
    faults += [f"the head of '{name}' cannot be trained for {task}" for name in own]
    ordered = [c for c in chosen if c.order == "class"] if task != "classification" else []
    if ordered and config.configs is not None:
        faults += [
            f"'{c.name}' does not apply to {task}: items have no single class" for c in ordered
        ]
    elif ordered:
        names = ", ".join(c.name for c in ordered)
        log.note(f"{names} is skipped: items of {task} have no class to be ordered by")
    if faults:
        raise ConfigError(tuple(faults))
    return [c for c in chosen if c not in ordered], config


def _check(extraction: Extraction, seed: int) -> None:
    faults = seed_faults(seed)
    if extraction.batch_size < 2:
        faults.append("batch_size must be at least 2: a batch of one has no statistics")
    if extraction.engine not in (AUTO, EAGER):
        faults.append(
            f"a comparison runs the network in ways that the engine '{extraction.engine}'"
            " cannot; omit engine"
        )
    if faults:
        raise ConfigError(tuple(faults))


def _check_inputs(chosen: Sequence[Configuration], backbone: Backbone) -> None:
    """Refuse inputs that the backbone cannot have, before any work; all faults together."""
    faults: list[str] = []
    hint = None
    for configuration in chosen:
        try:
            configuration.inputs_from(backbone.inputs)
        except ConfigError as error:
            faults += error.faults
            hint = hint or error.hint
    if faults:
        raise ConfigError(tuple(faults), hint=hint)


def _on_device(backbone: Backbone, extraction: Extraction) -> Backbone:
    device = extraction.resolve_device()
    if backbone.device != device:
        backbone.module.to(device)
    return backbone


@dataclass(frozen=True)
class _Look:
    """The first look at network and inputs.

    Attributes:
        deepest: the backbone at its deepest cut.
        facts: what the network contains up to there.
        inputs: what its running statistics say of the inputs; None if it has none.
        given: else what the network receives.
    """

    deepest: Backbone
    facts: Facts
    inputs: InputCheck | None
    given: InputRange | None


def _look(
    backbone: Backbone, frozen: Sequence[Configuration], data: StudyData, batch_size: int
) -> _Look:
    """Look at the network and its inputs.

    Raises:
        ConfigError: cuts that give an item no single row; all of them together.
    """
    faults, hint = [], ""
    cuts = [cut_of(configuration, backbone) for configuration in frozen]
    for configuration, at in zip(frozen, network.at_cuts(backbone, cuts), strict=True):
        at.check_layer()
        shape = at.feature_shape()
        if len(shape) != 1:
            faults.append(
                f"'{configuration.name}' gives features of {len(shape)} dimensions per item, and"
                " a head needs one row"
            )
            hint = hint or towards_rows(shape)
    if faults:
        raise ConfigError(tuple(faults), hint=hint)
    deepest = backbone.at(backbone.deepest(layer for layer, _ in cuts))
    sample = data.look(backbone.inputs, backbone.device)
    facts = find_facts(deepest, sample[:8])
    if facts.norms:
        checked = check_inputs(backbone, facts.norms, data, batch_size)
        return _Look(deepest, facts, checked, None)
    return _Look(deepest, facts, None, input_range(sample))


def _suggest(
    first: _Look, frozen: Sequence[Configuration], backbone: Backbone, log: _Log
) -> tuple[list[Configuration], str | None]:
    """Return a configuration with mended inputs, so that the advice is measured too.

    Returns:
        What has to be added, and the name of the configuration that is suggested; nothing and
        None where the inputs look right.
    """
    if first.inputs is None or first.inputs.correction is None:
        return [], None
    correction, given = first.inputs.correction, backbone.inputs
    for configuration in frozen:
        plain = configuration.normalises_by == "running" and not configuration.draws
        if plain and configuration.inputs_from(given) == correction.inputs:
            return [], configuration.name
    log.note(f"the inputs look wrong, so '{MENDED}' was added: {correction.name}")
    return [suggestion(MENDED, correction.inputs, given)], MENDED


def _statistics_items(
    facts: Facts,
    config: CompareConfig,
    chosen: Sequence[Configuration],
    data: StudyData,
    backbone: Backbone,
    log: _Log,
) -> int:
    """Choose how many training items statistics are measured on, by the memory it takes."""
    most = data.n_train
    if config.statistics_items is not None:
        return min(config.statistics_items, most)
    if not facts.norms:
        return 0
    sizes = {name: math.prod(shape) for name, _, shape in backbone.call_order()}
    # Input, output and the place where the next activation is made: three at a time.
    largest = 3 * 4 * max(sizes.get(name, 1) for name in facts.norms)
    items = min(most, max(128, STATISTICS_BYTES // largest))
    if items < most and any(c.statistics in ("reestimated", "blend") for c in chosen):
        log.note(
            f"statistics are re-estimated on {items:,} of {most:,} training"
            f" {backbone.inputs.unit}, whose"
            " activations fit into memory together"
        )
    return items


def _frozen_cases(configurations: Sequence[Configuration], bench: Bench) -> list[Case]:
    backbone, facts = bench.networks.backbone, bench.networks.facts
    size = bench.extraction.batch_size
    return [
        Case(c, function_of(c, backbone, facts, size), cut_of(c, backbone)) for c in configurations
    ]


def _settings(config: CompareConfig, bench: Bench, seed: int) -> dict[str, Any]:
    """Return the settings in plain values, for the record."""
    backbone = bench.networks.backbone
    return {
        "repeats": config.repeats,
        "seed": seed,
        "head": config.head_spec.describe(),
        "batch_size": bench.extraction.batch_size,
        "precision": bench.extraction.precision,
        "recompute_passes": config.recompute_passes,
        "epochs": config.epochs,
        "statistics_items": bench.networks.statistics_items,
        "preprocessing": to_plain(backbone.inputs.describe()),
        "layer": backbone.layer,
        "pooling": backbone.pooling,
    }


class _Log:
    """A reporter's notes, kept for the record of the study."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep a note, and show it."""
        self.notes.append(text)
        self.reporter.note(text)


__all__ = ["run_study"]
