"""The page of a comparison: what to use, figures, causes, costs, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart.commands.compare import tables
from headstart.commands.compare.figures import (
    accuracy_figure,
    drift_by_layer_figure,
    mean_curves,
    time_figure,
)
from headstart.commands.invocation import Commands
from headstart.commands.page_blocks import command_blocks
from headstart.core.wording import (
    NOT_DEFINED,
    count,
    format_number,
    format_percent,
    format_seconds,
    shorten,
    verb,
)
from headstart.report.page import (
    Block,
    Callout,
    Code,
    Headline,
    Notes,
    Page,
    Picture,
    Section,
    Table,
)
from headstart.report.text import flatten
from headstart.study.comparison import Comparison
from headstart.study.probing import REPEATS
from headstart.study.repetitions import Seeds
from headstart.study.results import Finding, capital

if TYPE_CHECKING:
    pass


def comparison_page(
    comparison: Comparison,
    *,
    title: str,
    subtitle: str = "",
    environment: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    commands: Commands | None = None,
    mistakes: Sequence[Block] = (),
) -> Page:
    """Build the report of ``compare``.

    Args:
        comparison: the finished study.
        title: the page's title.
        subtitle: one line below it.
        environment: versions and hardware.
        notes: what was decided in reading data and backbone.
        mistakes: what the recommended configuration got wrong.
        commands: what to do next, and the command that made the comparison.
    """
    commands = commands or Commands()
    sections = (
        Section("Recommendation", tuple(_advice(comparison, commands.next))),
        Section(capital(comparison.evidence.figure), tuple(_accuracy(comparison))),
        Section("Training", tuple(_training(comparison))),
        Section("Causes", tuple(_causes(comparison))),
        Section("Cost", tuple(_cost(comparison))),
        Section("Mistakes", tuple(mistakes)),
        Section("Every run", (_runs(comparison),)),
        Section(
            "How to reproduce this", tuple(_settings(comparison, environment, notes, commands))
        ),
    )
    return Page(
        title=title,
        subtitle=subtitle,
        verdict=comparison.recommendation.text,
        headlines=_headlines(comparison),
        sections=tuple(section for section in sections if section.blocks),
    )


def _headlines(comparison: Comparison) -> tuple[Headline, ...]:
    e, plan = comparison.evidence, comparison.plan
    name = comparison.recommendation.configuration
    shown = e.reference_outcome if name is None else e.outcome(name)
    share = plan.saved / plan.alone if plan.alone else 0.0
    return (
        Headline("Recommended", "none of these", "what is missing is listed below")
        if name is None
        else Headline("Recommended", shorten(name), "chosen on held-out training items"),
        Headline(
            f"Its test {e.figure}" if name else f"The reference's test {e.figure}",
            format_percent(shown.accuracy.value),
            f"95 % interval {tables.interval_text(shown.accuracy.interval) or NOT_DEFINED}",
        ),
        Headline(
            "Basis",
            f"{len(shown.runs)} × {e.n_test:,}",
            "repetitions × test items" + (", redrawn" if e.redrawn else ""),
        ),
        Headline(
            "Forward passes saved",
            f"{plan.saved:,}",
            f"{format_percent(share)} of {plan.alone:,}; equal functions share rows",
        ),
    )


def _advice(comparison: Comparison, commands: Sequence[str]) -> list[Block]:
    advice = comparison.recommendation
    blocks: list[Block] = [
        " ".join([*advice.evidence, advice.doubt]),
    ]
    warnings = sum(finding.level == "warning" for finding in comparison.findings)
    if warnings:
        stand = f"{count(warnings, 'warning')} {verb(warnings)} listed under Causes."
        blocks.append(Callout(stand, "warning"))
    if advice.code:
        blocks.append(Code(advice.code, "In a loop of your own"))
    if commands:
        blocks.append(Code("\n".join(commands), "On the command line", wrapped=True))
    return blocks


def _findings(comparison: Comparison, *, warnings: bool) -> list[Block]:
    def text(finding: Finding) -> str:
        found = tables.finding_text(comparison, finding)
        return f"{found} What to do: {finding.fix}." if finding.fix else found

    chosen = [f for f in comparison.findings if (f.level == "warning") == warnings]
    return [Callout(text(finding), finding.level) for finding in chosen]


def _accuracy(comparison: Comparison) -> list[Block]:
    e, outcomes = comparison.evidence, comparison.outcomes
    basis = (
        "Every repetition draws its own test split; the intervals allow for the items that"
        " repetitions share (Nadeau and Bengio 2003)."
        if e.redrawn
        else "The intervals cover both the repetitions and the choice of the test items."
    )
    _, rows = tables.comparison_rows(comparison)
    width = len(tables.ACCURACY)
    behaviour = tuple((row[0], *row[width:]) for row in rows)
    ways = tables.framework_rows(comparison)
    words = ("configurations", f"in {e.terms.framework}")
    return [
        Picture(
            accuracy_figure(comparison),
            "; ".join(f"{o.name}: {format_percent(o.accuracy.value)}" for o in outcomes),
            f"Each light dot is a repetition, each diamond a mean. {basis} The dashed line goes"
            f" through {e.reference}.",
            "comparison.png",
        ),
        Table(
            tables.accuracy_header(comparison),
            tuple(row[:width] for row in rows),
            "All configurations",
            "lrrrr",
        ),
        "Differences are paired, from the reference; p-values are Holm-corrected over all"
        " distinct comparisons.",
        Table(
            ("configuration", *tables.BEHAVIOUR),
            behaviour,
            "How rows change, and what they cost",
            "lrrrr",
        ),
        f"“Other batch” is the largest change of a feature when the same {e.unit} are in another"
        " batch, “2nd pass” that between two passes over one batch, both relative to the largest"
        " feature. Time and memory (of tensors, without weights) are for one batch of"
        f" {e.reference_outcome.behaviour.batch}, without decoding; the time is the median of"
        f" {REPEATS} passes, and the range from the fastest to the slowest covers the true median"
        " in 97 of 100 cases."
        + (f" {NOT_DEFINED}: fine-tuning; how it was trained is shown below." if e.tuned else ""),
        *([Table(words, ways, f"The same in {e.terms.framework}'s words", "ll")] if ways else []),
    ]


def _training(comparison: Comparison) -> list[Block]:
    """Return the table, and loss and accuracy by epoch of every configuration that has them."""
    from headstart.report.figures import curves_figure

    trained = [outcome for outcome in comparison.outcomes if tables.has_curves(outcome)]
    if not trained:
        return []
    caption = (
        "How it was trained. Validation: the held-out training items, the mean over the"
        " repetitions; where they choose the epoch, the best of all epochs (0: the start, where no"
        " epoch of a fine-tuning was better). Time: one repetition on its own; for a frozen"
        " backbone decoding and embedding the training items once, and the head"
    )
    rows = tables.training_rows(comparison)
    blocks: list[Block] = [Table(tables.TRAINING, rows, caption, "lrrrr")]
    for outcome in trained:
        curves = mean_curves([run.curves for run in outcome.runs])
        text = f"{outcome.name}: loss and figure by epoch."
        if comparison.evidence.task == "classification":
            text = f"{outcome.name}: loss and accuracy by epoch."
        if len(outcome.runs) > 1:
            text += (
                " Lines are means over the repetitions; bands range from the lowest to the highest."
            )
        ends = "; ".join(f"{curve.name} ends at {curve.y[-1]:.3g}" for curve in curves)
        blocks.append(Picture(curves_figure(curves), f"{outcome.name}: {ends}", text))
    return blocks


def _causes(comparison: Comparison) -> list[Block]:
    blocks = _findings(comparison, warnings=True) + _findings(comparison, warnings=False)
    e = comparison.evidence
    if e.drift:
        first = ((name, found[0].symmetric_kl) for name, found in e.drift.items())
        blocks.append(
            Picture(
                drift_by_layer_figure(comparison),
                "; ".join(f"{name}: first layer {format_number(kl)} nats" for name, kl in first),
                "Symmetric Kullback–Leibler divergence between what a layer receives and its"
                " running statistics, the mean over its channels. Near zero, the data look to the"
                " layer like those of pre-training.",
                "drift.png",
            )
        )
    if e.inputs is not None:
        check = e.inputs
        trials = [check.given, *check.trials, *([check.own_size] if check.own_size else [])]
        blocks.append(
            Table(
                ("inputs", f"drift of {check.layers[0]}", "early layers", "preprocessing"),
                tuple((t.name, t.first, t.early, str(t.inputs)) for t in trials),
                f"Inputs tried on {check.items} training {e.unit}, without labels",
                "lrrl",
                folded=True,
            )
        )
    spreads = Table(
        ("configuration", "features", "standard deviation", "constant", "effective dimension"),
        tuple(
            (o.name, o.spread.width, o.spread.scale, o.spread.constant, o.spread.dimension)
            for o in e.frozen
        ),
        "How the features of the training items are spread",
        "lrrrr",
        folded=True,
    )
    return [*blocks, spreads]


def _cost(comparison: Comparison) -> list[Block]:
    plan, cache = comparison.plan, comparison.cache
    rates = comparison.seconds_per_item.items()
    steps = tuple((name, format_seconds(value)) for name, value in comparison.seconds.items())
    return [
        Picture(
            time_figure(comparison),
            "; ".join(f"{name}: {format_seconds(value)} per item" for name, value in rates),
            f"Time of the forward pass alone, the median of {REPEATS} passes, with lines from the"
            " fastest to the slowest; memory is in the table above.",
            "cost.png",
        ),
        f"The study needed {count(plan.items, 'forward pass', 'forward passes')} of single"
        f" {plan.unit} instead of"
        f" {plan.alone:,}: configurations that compute the same function share rows."
        f" {count(cache.hits, 'row')} {verb(cache.hits, 'was', 'were')} in the cache"
        f" already, {cache.misses:,} {verb(cache.misses, 'was', 'were')} added to it.",
        Table(("pass",), tuple((line,) for line in plan.lines()), "The plan", "l", folded=True),
        Table(("step", "time"), steps, "Time by step", "lr", folded=True),
    ]


def _runs(comparison: Comparison) -> Table:
    rows = tuple(
        (
            outcome.name,
            run.repetition,
            format_percent(run.accuracy, digits=2),
            NOT_DEFINED if run.right is None else f"{run.right:,} of {run.n_test:,}",
            NOT_DEFINED if run.held_out is None else format_percent(run.held_out, digits=2),
            ", ".join(f"{key} {value:g}" for key, value in run.chosen.items()),
            _seeds(run.seeds),
        )
        for outcome in comparison.outcomes
        for run in outcome.runs
    )
    figure = comparison.evidence.figure
    header = ("configuration", "repetition", figure, "right", "held out", "chosen", "seeds")
    return Table(
        header, rows, f"All {count(len(rows), 'run')} with their seeds", "lrrrrll", folded=True
    )


def _seeds(seeds: Seeds) -> str:
    named = {
        "split": seeds.split,
        "held out": seeds.validation,
        "order": seeds.order,
        "dropout": seeds.chance,
        "head": seeds.head,
    }
    return ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)


def _settings(
    comparison: Comparison,
    environment: Mapping[str, Any] | None,
    notes: Sequence[str],
    commands: Commands,
) -> list[Block]:
    said = (*notes, *comparison.notes)
    blocks: list[Block] = [Notes(said)] if said else []
    described = tuple(
        (o.name, o.case.configuration.about or NOT_DEFINED, ", ".join(o.same_as) or NOT_DEFINED)
        for o in comparison.outcomes
    )
    header = ("configuration", "what it is", "the same function as")
    blocks.append(Table(header, described, "Configurations", "lll", folded=True))
    for caption, values in (("Settings", comparison.settings), ("Environment", environment)):
        if values:
            rows = tuple(flatten(values))
            blocks.append(Table(("setting", "value"), rows, caption, "ll", folded=True))
    return [*blocks, *command_blocks(Commands(commands.made))]


__all__ = ["comparison_page"]
