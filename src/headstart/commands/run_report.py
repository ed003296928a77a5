"""What ``fit`` writes into its run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.fit.page import Mistake, fit_page
from headstart.commands.run_folder import Run
from headstart.commands.thumbnails import thumbnail
from headstart.core.files import write_json
from headstart.core.records import to_plain
from headstart.data import Split
from headstart.report import write_page

MISTAKES = 24


def write_run(
    run: Run, folder: Path, test: Split, probabilities: NDArray[np.floating[Any]]
) -> None:
    """Write head, ``run.json``, ``metrics.json``, figures and ``report.html``.

    Args:
        run: the run.
        folder: an existing folder.
        test: the test split that was evaluated.
        probabilities: ``(n_test, n_classes)``, what the head said of it.
    """
    from headstart.report.figures import (
        confusion_figure,
        curves_figure,
        reliability_figure,
        save_png,
    )

    run.head.save(folder)
    write_json(folder / "metrics.json", run.metrics())
    save_png(confusion_figure(run.evaluation), folder / "confusion.png")
    save_png(reliability_figure(run.evaluation), folder / "reliability.png")
    if run.curves:
        save_png(curves_figure(run.curves), folder / "curves.png")
    write_page(report_page(run, test, probabilities), folder / "report.html")
    # Last: a folder with a run.json is a whole run.
    write_json(folder / "run.json", run.description())


def report_page(run: Run, test: Split, probabilities: NDArray[np.floating[Any]]) -> Any:
    """Build the page of the run."""
    data = run.configuration["data"]
    cut = (
        run.backbone.name
        if run.backbone.layer is None
        else (f"{run.backbone.name} up to {run.backbone.layer}")
    )
    return fit_page(
        run.evaluation,
        title=f"{data}: {run.configuration['head']} head on {run.backbone.name}",
        subtitle=f"{run.n_train:,} training and {run.n_test:,} test images, "
        f"features of {cut}, embedded once",
        baselines=run.baselines,
        curves=run.curves,
        configuration=to_plain({"backbone": run.spec, **run.configuration}),
        environment=run.environment,
        timing={step: value for step, value in run.seconds.items() if step != "total"},
        images_per_second=run.images_per_second,
        cache=run.cache,
        notes=run.notes,
        mistakes=find_mistakes(run.classes, test, probabilities),
        commands=next_steps(run),
        head_name=f"{run.configuration['head']} head",
    )


def next_steps(run: Run) -> tuple[str, ...]:
    """Return commands that make sense after this run."""
    folder = run.folder or "RUN"
    return (
        f"headstart predict {folder} NEW_IMAGES --out predictions.csv",
        f"headstart evaluate {folder} OTHER_DATA",
        f"headstart compare DATA --backbone {run.spec.source}",
    )


def find_mistakes(
    classes: tuple[str, ...], test: Split, probabilities: NDArray[np.floating[Any]]
) -> tuple[Mistake, ...]:
    """Return the most confident wrong predictions, with thumbnails."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != test.labels)
    confidence = probabilities[wrong, predicted[wrong]]
    order = wrong[np.argsort(-confidence, kind="stable")][:MISTAKES]
    return tuple(
        Mistake(
            item=test.origins[i],
            true=classes[test.labels[i]],
            predicted=classes[predicted[i]],
            probability=float(probabilities[i, predicted[i]]),
            thumbnail=thumbnail(test.image(int(i))),
        )
        for i in order
    )
