"""Findings on the inputs of a network: whether they fit, and what changing them means."""

from __future__ import annotations

from collections.abc import Iterator

from headstart.core.wording import count as counted
from headstart.core.wording import format_number as number
from headstart.core.wording import format_percent
from headstart.study.finding_words import against
from headstart.study.inputs import InputCheck
from headstart.study.results import (
    Evidence,
    Finding,
    capital,
)


def inputs_look_wrong(e: Evidence) -> Iterator[Finding]:
    """Another preprocessing brings the early layers much nearer to their statistics."""
    check = e.inputs
    if check is None or check.correction is None:
        return
    correction = check.correction
    kind = kind_of_fault(check)
    symptom = {
        "unscaled": "Inputs look unscaled",
        "channels": "Red and blue look swapped",
        "normalisation": "Inputs look normalised by the wrong mean and standard deviation",
        "overscaled": "Inputs look scaled down too far",
    }[kind]
    text = (
        f"{symptom}: {correction.name}, the drift of {check.layers[0]} from its running statistics"
        f" falls from {number(check.given.first)} to {number(correction.first)} nats"
        f" ({counted(len(check.layers), 'early layer')}: {number(check.given.early)} to"
        f" {number(correction.early)})."
    )
    if kind == "unscaled":
        scaled = next((t for t in check.trials if t.name.startswith("divided by 255")), None)
        if scaled is not None and scaled is not correction:
            text += f" {scaled.name.capitalize()}: {number(scaled.first)}."
    mended = None if e.suggested is None else e.outcome(e.suggested)
    if mended is not None and mended.difference is not None:
        text += f" Accuracy with this change: {against(mended.difference)}."
    yield Finding(
        f"inputs: {kind}",
        "warning",
        text,
        fix=f"use {correction.inputs}",
        evidence={
            "layer": check.layers[0],
            "before": check.given.first,
            "after": correction.first,
            "early_before": check.given.early,
            "early_after": correction.early,
            "images": check.items,
        },
    )
    yield from _hidden_fault(e)


def _hidden_fault(e: Evidence) -> Iterator[Finding]:
    """Batch statistics do better than running ones only because the inputs are wrong."""
    given = e.reference_outcome.case.function.inputs
    for outcome in e.frozen:
        function = outcome.case.function
        other = function.inputs != given or function.statistics == "running"
        if other or outcome.difference is None or not outcome.gains:
            continue
        yield Finding(
            "hidden fault",
            "warning",
            f"{outcome.name} is better than {e.reference} by"
            f" {100 * outcome.difference.value:.1f} points because its statistics come from your"
            " data and absorb the mistake in the inputs. That hides the mistake but does not fix"
            " it.",
            fix="fix the inputs first, then compare again",
            evidence={outcome.name: outcome.difference.value},
        )
        return


def inputs_fit(e: Evidence) -> Iterator[Finding]:
    """No usual preprocessing suits the network clearly better."""
    check = e.inputs
    if check is None or check.correction is not None:
        return
    best = min(check.trials, key=lambda trial: trial.early)
    yield Finding(
        "inputs: fit",
        "note",
        f"The preprocessing fits: {check.layers[0]} drifts by {number(check.given.first)} nats"
        f" from its running statistics ({counted(len(check.layers), 'early layer')}:"
        f" {number(check.given.early)}), and none of {len(check.trials)} other common"
        f" preprocessings is clearly closer (best: {best.name}, {number(best.early)}).",
        evidence={"first": check.given.first, "early": check.given.early, "best": best.early},
    )


def inputs_unchecked(e: Evidence) -> Iterator[Finding]:
    """Without running statistics nothing in the network shows what inputs it knows."""
    given = e.given
    if given is None:
        return
    figures = (
        f"mean {number(given.mean)} and deviation {number(given.deviation)}"
        f" ({number(given.low)} to {number(given.high)}, on {given.items} training {e.unit})"
    )
    reason = f"up to its cut, {e.backbone} keeps no running statistics to compare them with"
    evidence = {"mean": given.mean, "deviation": given.deviation}
    if not given.unusual:
        yield Finding(
            "inputs: not checked",
            "note",
            "The mean and standard deviation of the inputs and the order of their channels could"
            f" not be checked: {reason}. After preprocessing they have {figures}, as common"
            " normalisations give.",
            evidence=evidence,
        )
        return
    yield Finding(
        "inputs: unusual range",
        "advice",
        f"After preprocessing the inputs have {figures}; usual pre-training had a mean near 0 and a"
        f" deviation near 1, or values from 0 to 1. Whether yours was different cannot be seen:"
        f" {reason}.",
        fix="find out what the weights were trained with, and set scale=…, mean=… and std=…",
        evidence=evidence,
    )


def images_are_tiny(e: Evidence) -> Iterator[Finding]:
    """Enlarged images lack the detail that the network was trained on."""
    check = e.inputs
    if check is None or check.own_size is None or check.enlarged is None:
        return
    own, size = check.own_size, check.enlarged
    base = check.correction or check.given
    if own.early * 1.5 > base.early:
        return
    yield Finding(
        "tiny images",
        "advice",
        f"Statistics differ because your images are {size.side} px and are enlarged to"
        f" {size.resized} px: {own.name}, the early drift falls from {number(base.early)} to"
        f" {number(own.early)} nats. Enlarging adds no detail, and no normalisation restores it.",
        fix="compare sizes (size=64, size=96, …) and earlier layers; a smaller size is also"
        " cheaper",
        evidence={"side": size.side, "drift": base.early, "drift_own_size": own.early},
    )


def kind_of_fault(check: InputCheck) -> str:
    """Name the mistake that the correction mends.

    It is ``unscaled``, ``overscaled``, ``channels`` or ``normalisation``.
    """
    assert check.correction is not None
    return check.correction.mends


def inputs_changed(e: Evidence) -> Iterator[Finding]:
    """What changed inputs mean for the items, with what they cost."""
    reference = e.reference_outcome
    given = reference.case.function.inputs
    for outcome in e.frozen:
        changed = outcome.case.function.inputs
        means = given.consequence(changed) if changed != given else ""
        gap = outcome.difference
        if not means or gap is None:
            continue
        noise = "" if gap.significant else ", which is within noise"
        yield Finding(
            "inputs changed",
            "warning" if gap.significant and gap.value < 0 else "note",
            f"With {outcome.name}, {means}."
            f" {capital(e.figure)}: {format_percent(outcome.accuracy.value)}"
            f" against {format_percent(reference.accuracy.value)} ({reference.name}),"
            f" {100 * gap.value:+.1f} points{noise}.",
            evidence={outcome.name: outcome.accuracy.value, reference.name: gap.value},
        )


__all__ = [
    "images_are_tiny",
    "inputs_changed",
    "inputs_fit",
    "inputs_look_wrong",
    "inputs_unchecked",
    "kind_of_fault",
]
