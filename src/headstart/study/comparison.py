"""A finished study, and the part of it that every rerun repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headstart.core.cards import Card, Grid, Shown
from headstart.core.records import CacheUse, to_plain
from headstart.core.wording import format_number, format_percent
from headstart.study.inputs import InputCheck, Trial
from headstart.study.plan import Plan
from headstart.study.results import (
    Evidence,
    Finding,
    FrozenOutcome,
    Outcome,
    Recommendation,
    Tested,
    TunedOutcome,
)

FORMAT = 1


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


__all__ = ["FORMAT", "Comparison"]
