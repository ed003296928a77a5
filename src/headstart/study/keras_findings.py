"""What a comparison says to the question of Keras's transfer-learning guide.

"Set the base model to inference mode", says the guide, and "this is not the same as freezing it".
The figures of a comparison tell the two apart on the user's own data.
"""

from __future__ import annotations

from collections.abc import Iterator

from headstart.core.wording import count, format_number, format_percent, listed, verb
from headstart.study.results import Evidence, Finding, FrozenOutcome
from headstart.study.terms import KERAS


def inference_mode_and_frozen(e: Evidence) -> Iterator[Finding]:
    """``training=False`` and ``trainable=False`` of a Keras base, with what each does here."""
    if e.terms is not KERAS or not (e.facts.norms or e.facts.random):
        return
    text = _while_frozen(e)
    evidence: dict[str, float] = {}
    trained = _in_training_mode(e)
    reference = e.reference_outcome
    if trained is not None and trained.difference is not None and _is_inference(reference):
        gap = trained.difference
        verdict = (
            f"{100 * gap.value:+.1f} points"
            if gap.significant
            else f"{100 * gap.value:+.1f} points, which is within noise"
        )
        text += (
            f" Features computed with training=True by a trainable base ({trained.name}) reach"
            f" {format_percent(trained.accuracy.value)}, with training=False ({reference.name})"
            f" {format_percent(reference.accuracy.value)}: {verdict}."
        )
        evidence |= {
            "training=True": trained.accuracy.value,
            "training=False": reference.accuracy.value,
        }
    text += _after_unfreezing(e)
    yield Finding("Keras: training and trainable", "note", text, evidence=evidence)


def _while_frozen(e: Evidence) -> str:
    facts = e.facts
    number = len(facts.norms)
    norms = (
        f"the {count(number, 'batch norm')} up to the cut {verb(number, 'uses', 'use')} the saved"
        " statistics, with training=False and without"
        if number
        else "no batch norm is affected, since there is none up to the cut"
    )
    text = f"As long as base.trainable is False, {norms}"
    if not facts.random:
        return (
            f"{text}; and nothing up to the cut draws random numbers. So base(x, training=False)"
            " changes nothing while the base is frozen. That is why many people omit it."
        )
    where = listed((name for name, _ in facts.chance), 4)
    source = f" ({where})" if where else ""
    return (
        f"{text}. Dropout{source} stays on in fit, though, unless the base is called with"
        " training=False: trainable=False alone does not turn it off."
    )


def _after_unfreezing(e: Evidence) -> str:
    moved = {name: shift for name, shift in (e.moved or {}).items() if shift > 0}
    if not moved:
        return ""
    worst = max(moved, key=lambda name: moved[name])
    return (
        " It matters once the base is unfrozen: a call with training=True then normalises by the"
        f" batch and moves the statistics of {len(moved)} of {count(len(e.moved or {}), 'layer')}"
        f" ({worst} by {format_number(moved[worst])} standard deviations within two batches)."
        " Keras's fit passes training=True to a functional base even where the model says"
        " base(x, training=False) (up to 3.15.1, issue 20285); headstart.freeze(model,"
        ' {base: "trainable-fixed-norm"}) holds there as well.'
    )


def _is_inference(outcome: FrozenOutcome) -> bool:
    configuration = outcome.case.configuration
    return configuration.normalises_by == "running" and not configuration.draws


def _in_training_mode(e: Evidence) -> FrozenOutcome | None:
    """Return what differs from the reference by training mode alone."""
    reference = e.reference_outcome
    for outcome in e.frozen:
        one, base = outcome.case, reference.case
        same = (one.cut, outcome.head) == (base.cut, reference.head)
        plain = one.function.inputs == base.function.inputs and not one.function.recompute
        batch = one.function.statistics == "batch" or not e.facts.norms
        training = one.configuration.draws and batch and one.function.order == "shuffled"
        if same and plain and training:
            return outcome
    return None


__all__ = ["inference_mode_and_frozen"]
