"""A model card: Markdown with the metadata that Hugging Face's hub reads.

Metadata: https://huggingface.co/docs/hub/model-cards; ``model-index`` as Papers with Code defined
it. The sections follow Mitchell et al. 2019 (Model Cards for Model Reporting).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart.core.records import (
    Baseline,
    ClassScores,
    Evaluation,
    NamedScore,
    Reference,
)
from headstart.core.wording import clean, count, format_percent
from headstart.report.markdown import code, plain, table
from headstart.report.task_text import TaskEvaluation, format_named, row_table

_MOST_ROWS = 100
_PIPELINES = {
    ("image", "classification"): "image-classification",
    ("image", "multi-label"): "image-classification",
    ("text", "classification"): "text-classification",
    ("text", "multi-label"): "text-classification",
    ("audio", "classification"): "audio-classification",
    ("audio", "multi-label"): "audio-classification",
}
"""Tasks of the hub; it has none for numbers that are predicted."""
_METRICS = {
    "accuracy": "accuracy",
    "macro F1": "f1",
    "micro F1": "f1",
    "mAP": "mean_average_precision",
    "MAE": "mae",
    "RMSE": "rmse",
    "R²": "r_squared",
    "Spearman": "spearmanr",
}
_LICENCES = frozenset((
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0",
    "bigcode-openrail-m", "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd",
    "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0",
    "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0",
    "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m", "ecl-2.0", "epl-1.0",
    "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0",
    "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2", "llama3", "llama3.1", "llama3.2",
    "llama3.3", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1",
    "openrail", "openrail++", "osl-3.0", "other", "pddl", "postgresql", "unknown", "unlicense",
    "wtfpl", "zlib",
))  # fmt: skip
"""Licences by the names of the hub; any other is ``other``, with its name beside it."""


_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""Data of the hub, by their owner; names of files and folders are none."""


@dataclass(frozen=True)
class CardContent:
    """What a card says.

    Attributes:
        title: of the model.
        task: ``classification``, ``multi-label`` or ``regression``.
        kind: of the items: ``image``, ``text``, ``audio`` or another.
        classes: names of classes, labels or targets.
        evaluation: scores on the test split, with intervals; None: there are none.
        baselines: what they are to be compared with.
        data: name of the data.
        n_train, n_test: items of both splits.
        backbone: its name.
        about: licence, origin and data of its weights, as far as they are stated.
        head: how the head was trained, in words.
        preprocessing: in words.
        tuned: whether layers of the backbone were fine-tuned.
        licence: of the model, by the user; empty: that of the weights.
        data_licence: of the data, by the user; empty: not known.
        limits: sentences beyond those that hold for every run.
        notes: what was decided on the user's behalf.
        use: lines of Markdown on how to use it.
        parity: a sentence on what was measured of an artefact; empty: nothing was.
        tags: further tags.
        made: versions and date.
    """

    title: str
    task: str
    kind: str
    classes: tuple[str, ...]
    evaluation: Evaluation | TaskEvaluation | None
    baselines: tuple[Baseline | Reference, ...]
    data: str
    n_train: int
    n_test: int
    backbone: str
    about: Mapping[str, str]
    head: str
    preprocessing: str
    tuned: bool = False
    licence: str = ""
    data_licence: str = ""
    limits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    use: tuple[str, ...] = ()
    parity: str = ""
    tags: tuple[str, ...] = ()
    made: Mapping[str, str] = field(default_factory=dict)


def model_card(content: CardContent) -> str:
    """Return the card."""
    import yaml  # type: ignore[import-untyped]

    metadata = yaml.safe_dump(
        card_metadata(content), sort_keys=False, allow_unicode=True, width=1_000
    )
    parts = [
        f"---\n{metadata}---",
        f"# {plain(content.title)}",
        _what(content),
        "## How to use it",
        *content.use,
        *([content.parity] if content.parity else []),
        "## Figures",
        *_figures(content),
        "## Data",
        _data(content),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(content)),
        "## Licence",
        _licence(content),
        "## How it was made",
        *_made(content),
    ]
    return "\n\n".join(parts) + "\n"


def card_metadata(content: CardContent) -> dict[str, Any]:
    """Return the metadata of a card, as plain values."""
    given = (content.licence or content.about.get("licence") or "unknown").strip()
    known = given.lower()
    licence: dict[str, Any] = {"license": known}
    if known not in _LICENCES:
        licence = {"license": "other", "license_name": clean(given)}
    pipeline = _PIPELINES.get((content.kind, content.task))
    tags = ["headstart", "transfer-learning", content.task, *content.tags]
    figures = _named(content.evaluation)
    metrics = list(dict.fromkeys(_METRICS[f.name] for f in figures if f.name in _METRICS))
    origin = content.about.get("origin", "")
    hub = origin.removeprefix("https://").removeprefix("huggingface.co/")
    on_hub = "huggingface.co/" in origin and hub.count("/") == 1
    return {
        **licence,
        "library_name": "headstart",
        **({"pipeline_tag": pipeline} if pipeline else {}),
        **({"base_model": hub} if on_hub else {}),
        "tags": list(dict.fromkeys(tags)),
        **({"datasets": [content.data]} if _ON_HUB.fullmatch(content.data) else {}),
        **({"metrics": metrics} if metrics else {}),
        **({"model-index": _index(content, figures, pipeline)} if figures else {}),
    }


def _named(evaluation: Evaluation | TaskEvaluation | None) -> tuple[NamedScore, ...]:
    if evaluation is None:
        return ()
    if isinstance(evaluation, Evaluation):
        named = [
            NamedScore("accuracy", evaluation.accuracy),
            NamedScore("balanced accuracy", evaluation.balanced_accuracy),
            NamedScore("macro F1", evaluation.macro_f1),
        ]
        if evaluation.top_5 is not None:
            named.append(NamedScore("top-5 accuracy", evaluation.top_5))
        return tuple(named)
    return evaluation.figures()


def _index(
    content: CardContent, figures: Sequence[NamedScore], pipeline: str | None
) -> list[dict[str, Any]]:
    """Return ``model-index``; intervals stand among the arguments of a metric."""
    metrics = []
    for figure in figures:
        if not math.isfinite(figure.score.value):
            continue
        interval = figure.score.interval
        args = {}
        if interval is not None:
            bounds = [round(interval.low, 6), round(interval.high, 6)]
            args = {"args": {"interval": bounds, "level": interval.level, "n": interval.n}}
        metrics.append({
            "type": _METRICS.get(figure.name, figure.name.lower().replace(" ", "_")),
            "name": figure.name,
            "value": round(figure.score.value, 6),
            **args,
        })  # fmt: skip
    result = {
        "task": {"type": pipeline or "other", "name": content.task},
        "dataset": {"name": clean(content.data), "type": "test split", "split": "test"},
        "metrics": metrics,
    }
    return [{"name": clean(content.title), "results": [result]}]


def _what(content: CardContent) -> str:
    nouns = {"classification": ("class", "classes"), "multi-label": ("label", "labels")}
    one, several = nouns.get(content.task, ("number", "numbers"))
    shown = ", ".join(code(name) for name in content.classes[:20])
    more = f" and {len(content.classes) - 20:,} more" if len(content.classes) > 20 else ""
    items = {"image": "an image", "text": "a text", "audio": "a sound"}.get(content.kind, "an item")
    how = {
        "classification": "Its probabilities of the classes add up to 1.",
        "multi-label": "Every label has its own probability and threshold.",
    }.get(content.task, "Values are in the units of the training data.")
    trained = "whose layers were trained with it" if content.tuned else "which was not changed"
    return (
        f"Predicts {count(len(content.classes), one, several)} of {items}: {shown}{more}. {how} A"
        f" head on features of {code(content.backbone)}, {trained}."
    )


def _figures(content: CardContent) -> list[str]:
    found = content.evaluation
    if found is None:
        return ["Nothing was measured: the run has no test items."]
    lines = [
        f"On {count(content.n_test, 'test item')} that were not used to choose anything, with 95"
        " % intervals.",
        table(
            ("figure", "value"),
            [(plain(f.name), plain(format_named(f, n=found.n))) for f in _named(found)],
        ),
    ]
    if content.baselines:
        lines.append(table(("to compare with", "value"), [_baseline(b) for b in content.baselines]))
    if isinstance(found, Evaluation):
        lines.append(_class_table(found.per_class))
    else:
        header, rows = row_table(found)
        cells = [[plain(cell) for cell in row] for row in rows[:_MOST_ROWS]]
        if len(rows) > _MOST_ROWS:
            cells.append([f"and {len(rows) - _MOST_ROWS:,} more", *[""] * (len(header) - 1)])
        lines.append(table(header, cells))
    return lines


def _baseline(baseline: Baseline | Reference) -> tuple[str, str]:
    figures = (
        (NamedScore("accuracy", baseline.accuracy),)
        if isinstance(baseline, Baseline)
        else baseline.figures
    )
    told = "; ".join(f"{f.name} {format_named(f)}" for f in figures[:2])
    return plain(f"{baseline.name}: {baseline.description}"), plain(told)


def _class_table(rows: Sequence[ClassScores]) -> str:
    def percent(value: float) -> str:
        return plain(format_percent(value)) if math.isfinite(value) else "not defined"

    shown = [
        (plain(r.label), f"{r.support:,}", percent(r.precision), percent(r.recall), percent(r.f1))
        for r in rows[:_MOST_ROWS]
    ]
    rest = len(rows) - len(shown)
    if rest:
        shown.append((f"and {rest:,} more", "", "", "", ""))
    return table(("class", "test items", "precision", "recall", "F1"), shown)


def _data(content: CardContent) -> str:
    licence = plain(content.data_licence) if content.data_licence else "not known to headstart"
    return (
        f"{code(content.data)}: {count(content.n_train, 'training item')},"
        f" {count(content.n_test, 'test item')}. Licence of the data: {licence}."
    )


def _limits(content: CardContent) -> list[str]:
    kept = "a class" if content.task == "classification" else "an answer"
    lines = [
        f"It gives {kept} for every item, even for items unlike anything it was trained on.",
        "The figures hold for items like the test items; measure how well they hold for other"
        " data with `headstart evaluate`.",
    ]
    if isinstance(content.evaluation, Evaluation):
        few = [row for row in content.evaluation.per_class if row.support < 10]
        if few:
            named = ", ".join(code(row.label) for row in few[:8])
            more = f" and {len(few) - 8:,} more" if len(few) > 8 else ""
            lines.append(
                f"Fewer than ten test items are of {named}{more}: their figures say little."
            )
    trained = content.about.get("data")
    if trained:
        lines.append(
            f"The network was pre-trained on {plain(trained)}, and may have inherited biases and"
            " errors from it."
        )
    return [*lines, *content.limits]


def _licence(content: CardContent) -> str:
    weights = content.about.get("licence")
    stated = f"Licence of the pre-trained weights: {plain(weights)}." if weights else (
        "The licence of the pre-trained weights is not stated."
    )  # fmt: skip
    origin = content.about.get("origin")
    where = f" Origin: {plain(origin)}." if origin else ""
    own = f"{plain(content.licence)}. " if content.licence else ""
    return f"{own}{stated}{where}"


def _made(content: CardContent) -> list[str]:
    settings = {
        "backbone": content.backbone,
        "preprocessing": content.preprocessing,
        "head": content.head,
        **content.made,
    }
    lines = [table(("what", "how"), [(plain(k), plain(v)) for k, v in settings.items()])]
    if content.notes:
        lines.append("\n".join(f"- {plain(note)}" for note in content.notes))
    return lines


__all__ = ["CardContent", "card_metadata", "model_card"]
