"""What a run of ``fit``, ``sweep`` or ``finetune`` records, writes, and shows in the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.commands.around import (
    Around,
    examined_section,
    map_section,
    mistake_cases,
    slice_section,
)
from headstart.commands.packed_file import CALIBRATION_FILE, OUTLIERS_FILE, save_packed
from headstart.commands.prediction_table import Probabilities, prediction_columns, write_predictions
from headstart.commands.run import Run
from headstart.commands.run_page import Mistake, fit_page
from headstart.commands.run_place import file_digests
from headstart.commands.task_page import Scored, task_page
from headstart.commands.task_report import scored_items, write_task_tested
from headstart.commands.training_items import save_training_items
from headstart.commands.tuned import save_tuned
from headstart.commands.unlike import Strangeness
from headstart.core.errors import BadFilesError
from headstart.core.files import write_json
from headstart.core.records import (
    Baseline,
    Evaluation,
    Excerpt,
    Reference,
    to_plain,
)
from headstart.core.wording import count as counted
from headstart.core.wording import format_percent, singular
from headstart.data import Inputs, Split
from headstart.evaluation import most_likely
from headstart.report import Page, save_pictures, write_page
from headstart.report.page import Example, Section

MISTAKES = 24
EXAMPLES = 12
_BRIEF = 1e-3
"""Steps of fewer seconds are not worth a line: they did nothing."""


def write_run(
    run: Run,
    folder: Path,
    test: Split,
    probabilities: Probabilities,
    page: Page | None = None,
    strange: Strangeness | None = None,
) -> None:
    """Write head, tuned weights, ``run.json``, metrics, predictions, figures and ``report.html``.

    Args:
        run: the run.
        folder: an empty folder, as :func:`~headstart.commands.run_place.publishing_run` yields it.
        test: the test split that was evaluated.
        probabilities: ``(n_test, n_classes)``, what the head predicts for it.
        page: the report; None: that of a run on frozen features.
        strange: how far out the test items are; None: nobody asked.
    """
    run.head.save(folder)
    save_training_items(folder, run.trained_on)
    if run.rows is not None:
        run.rows.save(folder)
    if run.calibration is not None:
        save_packed(folder, CALIBRATION_FILE, run.calibration.pack())
    if run.outliers is not None:
        save_packed(folder, OUTLIERS_FILE, run.outliers.pack())
    if run.tuned:
        save_tuned(folder, run.tuned)
    write_json(folder / "metrics.json", run.metrics())
    more = {} if strange is None else strange.columns()
    examples = () if strange is None else strange.examples(test, run.backbone.inputs)
    if isinstance(run.evaluation, Evaluation):
        write_tested(folder, run.classes, test, probabilities, more=more)
        page = page or report_page(run, test, probabilities, examples)
    else:
        scored = scored_items(run.evaluation, run.head, test, probabilities, run.backbone.inputs)
        write_task_tested(folder, run.head, test, probabilities, more=more)
        page = page or task_report_page(run, scored, examples)
    save_pictures(page, folder)
    write_page(page, folder / "report.html")
    # Last: a folder with a run.json is a whole run.
    write_json(folder / "run.json", {**run.description(), "files": file_digests(folder)})


def write_tested(
    folder: Path,
    classes: tuple[str, ...],
    test: Split,
    probabilities: Probabilities,
    *,
    split: str = "test",
    more: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Write what was predicted for every test item: ``predictions.parquet`` and ``.csv``.

    Args:
        folder, classes, test, probabilities: as for :func:`write_run`.
        split: what the items are of the data.
        more: further columns.
    """
    truth = [classes[label] for label in test.labels]
    columns = prediction_columns(test.origins, truth, classes, probabilities, split=split)
    write_predictions(folder, {**columns, **(more or {})}, classes, probabilities)


def report_page(
    run: Run,
    test: Split,
    probabilities: Probabilities,
    strange: tuple[Example, ...] = (),
    told: Mapping[str, Any] | None = None,
) -> Page:
    """Build the page of the run of a classifier.

    Args:
        run: the run.
        test: the test items.
        probabilities: ``(n_test, n_classes)``, what was said of them.
        strange: those that are unlike the training items.
        told: what the page says otherwise than that of a frozen backbone: title, subtitle, ...
    """
    assert isinstance(run.evaluation, Evaluation)
    return fit_page(
        run.evaluation,
        baselines=[each for each in run.baselines if isinstance(each, Baseline)],
        mistakes=find_mistakes(run.classes, test, probabilities, run.backbone.inputs)
        if run.around is None
        else mistake_cases(run.around),
        examples=find_examples(run.classes, test, probabilities, run.backbone.inputs),
        looks=looks(run.around),
        listed=True,
        strange=strange,
        **{**_told(run), **(told or {})},
    )


def task_report_page(
    run: Run,
    scored: Scored,
    strange: tuple[Example, ...] = (),
    told: Mapping[str, Any] | None = None,
) -> Page:
    """Build the page of the run of another task than classification; arguments as above."""
    known = [each for each in run.baselines if isinstance(each, Reference)]
    if run.around is not None:
        scored = with_looks(scored, run.around)
    return task_page(scored, baselines=known, strange=strange, **{**_told(run), **(told or {})})


def looks(around: Around | None) -> tuple[Section, ...]:
    """Return the sections of a page on the tested items: their map, and slices of them."""
    if around is None:
        return ()
    found = (map_section(around), slice_section(around), examined_section(around))
    return tuple(section for section in found if section is not None)


def with_looks(scored: Scored, around: Around) -> Scored:
    """Return what a page shows with the map, the slices, and why each mistake."""
    return dataclasses.replace(scored, cases=mistake_cases(around), looks=looks(around))


def _told(run: Run) -> dict[str, Any]:
    """Return what the page of any task says of how the run was made."""
    data = run.configuration["data"]
    # The head that trained, where it was chosen among several.
    head = run.configuration.get("chosen", {}).get("head", run.configuration["head"])
    cut = (
        run.backbone.name
        if run.backbone.layer is None
        else (f"{run.backbone.name} up to {run.backbone.layer}")
    )
    return {
        "title": f"{data}: {head} head on {run.backbone.name}",
        "subtitle": f"{run.n_train:,} training and "
        f"{counted(run.n_test, f'test {singular(run.backbone.inputs.unit)}')}, "
        f"features of {cut}, embedded once",
        "curves": run.curves,
        "configuration": {"backbone": run.spec.plain(), **to_plain(dict(run.configuration))},
        "environment": run.environment,
        "timing": {
            step: value
            for step, value in run.seconds.items()
            if step != "total" and value >= _BRIEF
        },
        "images_per_second": run.images_per_second,
        "cache": run.cache,
        "notes": run.notes,
        "commands": run.commands,
        "head_name": f"{head} head",
    }


def find_mistakes(
    classes: tuple[str, ...],
    test: Split,
    probabilities: Probabilities,
    inputs: Inputs,
) -> tuple[Mistake, ...]:
    """Return the most confident wrong predictions, each with an excerpt of its item."""
    best, values = most_likely(probabilities)
    predicted, confidence = best[:, 0], values[:, 0]
    wrong = np.flatnonzero(predicted != test.labels)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return tuple(
        Mistake(
            item=test.origins[i],
            true=classes[test.labels[i]],
            predicted=classes[predicted[i]],
            probability=float(confidence[i]),
            excerpt=_excerpt(test, int(i), inputs),
        )
        for i in order
    )


def find_examples(
    classes: tuple[str, ...],
    test: Split,
    probabilities: Probabilities,
    inputs: Inputs,
) -> tuple[Example, ...]:
    """Return up to 12 test items, spread over the classes, with what was predicted for each."""
    each = max(1, EXAMPLES // max(1, len(np.unique(test.labels))))
    spread = []
    for label in np.unique(test.labels)[:EXAMPLES]:
        same = np.flatnonzero(test.labels == label)
        spread.append(same[np.linspace(0, len(same) - 1, num=min(each, len(same)), dtype=np.int64)])
    chosen = np.concatenate(spread) if spread else np.empty(0, dtype=np.int64)
    best, values = most_likely(probabilities)
    found = []
    for i in chosen.tolist():
        glimpse = _excerpt(test, i, inputs)
        if glimpse is None:
            continue
        facts = (
            ("true", classes[test.labels[i]]),
            ("predicted", classes[best[i, 0]]),
            ("probability", format_percent(float(values[i, 0]))),
        )
        found.append(Example(test.origins[i], facts, glimpse))
    return tuple(found)


def _excerpt(test: Split, i: int, inputs: Inputs) -> Excerpt | None:
    """Return a glimpse of an item; None where it is gone, as the old items of an update are."""
    try:
        return inputs.excerpt(test.content(i))
    except BadFilesError:
        return None
