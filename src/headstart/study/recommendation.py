"""What to use: chosen on held-out training items, shown with the test figures."""

from __future__ import annotations

from typing import Any

from headstart.core.wording import count, format_percent
from headstart.core.wording import count as counted
from headstart.data import Inputs
from headstart.study.configurations import Configuration
from headstart.study.finding_words import against
from headstart.study.input_findings import kind_of_fault
from headstart.study.names import REFERENCE
from headstart.study.results import Evidence, FrozenOutcome, Outcome, Recommendation


def recommend(e: Evidence) -> Recommendation:
    """Return the configuration to use.

    Candidates are those whose rows are functions of their items: rows that depend on the batch or
    on randomness cannot be cached, and change from one evaluation to the next. The reference
    stays, unless a candidate is better on the held-out training items by more than noise
    (Holm-corrected p below 0.05). Fine-tuning answers another question and is never among them.
    The test items choose nothing; they show what the choice is worth. Without a candidate nothing
    is recommended.
    """
    chosen = _choose(e)
    if not chosen.cacheable:
        return _nothing_to_use(e)
    evidence = [_figures(e, chosen)]
    if chosen.name != e.reference:
        evidence.append(_held_out(e, chosen))
    rivals = [o for o in e.frozen if not o.cacheable]
    if rivals:
        best = max(rivals, key=lambda o: o.accuracy.value)
        evidence.append(
            f"The best of those that depend on batch or randomness, {best.name}, has"
            f" {format_percent(best.accuracy.value)} on the test items."
        )
    return Recommendation(
        configuration=chosen.name,
        text=_mend_inputs(e) if chosen.name == e.suggested else _text(e, chosen),
        evidence=(*evidence, *_of_tuning(e)),
        doubt=_doubt(e, chosen),
        code=code_for(e, chosen),
        options=options_for(e, chosen),
    )


def _choose(e: Evidence) -> FrozenOutcome:
    if e.suggested is not None and e.frozen_outcome(e.suggested).held_out_sign >= 0:
        # Statistics of the target may absorb the mistake just as well; but a mistake that is known
        # and mended costs nothing to carry along.
        return e.frozen_outcome(e.suggested)
    reference = e.reference_outcome
    candidates = [o for o in e.frozen if o.cacheable and o.head == reference.head]
    better = [o for o in candidates if o.held_out_sign > 0]
    if not better and (reference.cacheable or not candidates):
        return reference
    return max(better or candidates, key=lambda o: o.held_out.value if o.held_out else 0.0)


def _nothing_to_use(e: Evidence) -> Recommendation:
    """Say what is missing where no configuration gives each item a row of its own."""
    reference = e.reference_outcome
    same = " that trains this head" if any(o.cacheable for o in e.frozen) else ""
    names = ",".join(outcome.name for outcome in e.outcomes)
    best = max(e.frozen, key=lambda o: o.accuracy.value)
    return Recommendation(
        configuration=None,
        text=(
            f"There is nothing to recommend: no configuration compared here{same} gives each"
            " item a row of its own, and other rows can be neither cached nor served one at a"
            f" time. Add {REFERENCE} to the comparison (configs='{names},{REFERENCE}'), or omit"
            f" reference='{reference.name}'."
        ),
        evidence=(_figures(e, best), *_of_tuning(e)),
        doubt=_doubt(e, reference),
        code="",
    )


def _of_tuning(e: Evidence) -> tuple[str, ...]:
    if not e.tuned:
        return ()
    return (
        "Fine-tuning is a separate question and not a candidate here: every run of it gives"
        " another network. The findings say what it gains and what it costs.",
    )


def _mend_inputs(e: Evidence) -> str:
    assert e.inputs is not None
    fault = {
        "unscaled": "are not scaled",
        "overscaled": "are scaled down too far",
        "channels": "have red and blue swapped",
        "normalisation": "are normalised by the wrong mean and deviation",
    }[kind_of_fault(e.inputs)]
    return (
        f"Fix the inputs, which by all signs {fault}; then use evaluation mode with its running"
        " statistics, and embed once."
    )


def _text(e: Evidence, chosen: FrozenOutcome) -> str:
    name = chosen.name
    if name == e.reference:
        if not e.facts.norms and not e.facts.random:
            return f"Use {name}: all modes compute the same rows, so take the cheapest."
        return (
            f"Use {name}: nothing that gives each item a row of its own is better by more than"
            " noise, and its rows can be computed once, cached, and served one at a time."
        )
    if chosen.case.function.measured_statistics:
        return (
            f"Use {name}: measure the statistics of your training split once and keep them fixed."
            " Rows stay functions of their items."
        )
    if chosen.held_out_sign > 0:
        return f"Use {name}, which is better on held-out training items by more than noise."
    return (
        f"Use {name}: each of its rows is a function of its item alone, which is not true of"
        f" {e.reference}."
    )


def _figures(e: Evidence, chosen: Outcome) -> str:
    text = f"{chosen.name}: {format_percent(chosen.accuracy.value)} on"
    text += f" {counted(e.n_test, 'test item')}"
    interval = chosen.accuracy.interval
    if interval is not None:
        text += f" (95 % interval {100 * interval.low:.1f}–{100 * interval.high:.1f})"
    if chosen.difference is not None:
        text += f"; against {e.reference} {against(chosen.difference)}"
    return text + "."


def _held_out(e: Evidence, chosen: Outcome) -> str:
    if chosen.held_out is None or chosen.held_out_difference is None:
        return "There were no held-out training items to choose on."
    basis = "" if chosen.name == e.suggested else ", by which it was chosen"
    return (
        f"On held-out training items{basis}: {format_percent(chosen.held_out.value)};"
        f" against {e.reference} {against(chosen.held_out_difference)}."
    )


def _doubt(e: Evidence, chosen: Outcome) -> str:
    repeats = len(chosen.runs)
    basis = f"This rests on {count(repeats, 'repetition')} and {counted(e.n_test, 'test item')}"
    if repeats < 3:
        return f"{basis}: too few repetitions to see small differences; use repeats=5 or more."
    if chosen.difference is None or chosen.difference.significant:
        return f"{basis}, and on this backbone and this data only."
    return (
        f"{basis}. On the test items the difference from {e.reference} is within noise, so"
        " nothing is lost by staying with that."
    )


def code_for(e: Evidence, chosen: Outcome) -> str:
    """Return lines of Python that apply a configuration to any loop over batches."""
    function, terms = chosen.case.function, e.terms
    imports, lines = [*terms.imports], []
    if function.measured_statistics:
        imports += ["from headstart.freezing import blend, reestimate"]
        lines += ["done = reestimate(backbone, training_batches)  # once, without augmentation"]
        if function.alpha is not None:
            lines += [f"blend(backbone, done, {function.alpha:g})"]
    mended = function.inputs != e.reference_outcome.case.function.inputs
    changed = function.inputs if mended else None
    lines += terms.code(changed, e.unit, chosen.case.configuration.autograd)
    return "\n".join([*imports, "", *lines] if imports else lines)


def options_for(e: Evidence, chosen: FrozenOutcome) -> dict[str, Any]:
    """Return the options that :func:`headstart.fit` needs beside those of this study."""
    if chosen.case.function.measured_statistics or not chosen.cacheable:
        return {}
    reference = e.reference_outcome.case
    options = reference.function.inputs.differences(chosen.case.function.inputs)
    layer, pooling = chosen.case.cut
    if chosen.case.cut != reference.cut:
        options |= {"layer": layer, "pooling": pooling}
    return options


def suggestion(name: str, correction: Inputs, given: Inputs) -> Configuration:
    """Return the configuration that a study adds when inputs look wrong."""
    return Configuration(
        name,
        preprocessing=given.differences(correction),
        about="the inputs fixed, as suggested",
    )


__all__ = ["code_for", "options_for", "recommend", "suggestion"]
