"""What ``evaluate`` writes: a report, the scores, and the predictions for all items."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone
from headstart.commands.abstaining import set_columns
from headstart.commands.around import Around, mistake_cases
from headstart.commands.invocation import Commands
from headstart.commands.prediction_table import Probabilities
from headstart.commands.run_facts import describe_environment
from headstart.commands.run_page import fit_page
from headstart.commands.run_place import RUN, whole_run
from headstart.commands.run_report import looks, with_looks, write_tested
from headstart.commands.scoring import AnyEvaluation
from headstart.commands.session import Session
from headstart.commands.task_page import task_page
from headstart.commands.task_report import scored_items, write_task_tested
from headstart.commands.unlike import Strangeness
from headstart.core.errors import ConfigError
from headstart.core.files import write_json
from headstart.core.records import Evaluation, to_plain
from headstart.core.wording import count
from headstart.data import Split
from headstart.evaluation.sets import AnySets
from headstart.heads import Head
from headstart.report import write_page


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A run scored on labelled data.

    Attributes:
        evaluation: the scores.
        split: the items that were scored.
        probabilities: ``(n, n_classes)``, of these items.
        data: the name of the data.
        backbone, head: of the run.
        run: its folder; None for a run in memory.
        command: the call.
        around: the items with their features, and those that trained the run where it kept them.
        sets: what is plausible of each item at a coverage that was chosen; None: none was.
        strange: how far out each item is; None: nobody asked.
    """

    evaluation: AnyEvaluation
    split: Split
    probabilities: Probabilities
    data: str
    backbone: Backbone
    head: Head
    run: Path | None
    command: str
    around: Around
    sets: AnySets | None = None
    strange: Strangeness | None = None


def refuse_run_folder(folder: Path | str | None) -> None:
    """Refuse to write an evaluation over a run.

    Raises:
        ConfigError: the folder holds one.
    """
    place = None if folder is None else Path(folder).expanduser()
    if place is not None and (whole_run(place) / RUN).exists():
        raise ConfigError(
            (f"'{folder}' holds a run, whose report would be overwritten",),
            hint="choose another folder with out=DIR",
        )


def write_evaluation(found: Evaluated, folder: Path, session: Session) -> None:
    """Write ``report.html``, the predictions, and last ``evaluation.json``."""
    evaluation, classes = found.evaluation, found.split.classes
    configuration = {
        "run": None if found.run is None else str(found.run),
        "data": found.data,
        "backbone": found.backbone.name,
    }
    environment = describe_environment()
    nouns = {"multi-label": ("label", None), "regression": ("target", None)}
    noun, plural = nouns.get(found.head.task, ("class", "classes"))
    told: dict[str, Any] = {
        "title": f"{found.data}: {found.run or 'a run'} evaluated",
        "subtitle": f"{count(evaluation.n, 'labelled item')} of"
        f" {count(len(classes), noun, plural)}, features of {found.backbone.name}",
        "configuration": configuration,
        "environment": environment,
        "notes": tuple(session.notes),
        "commands": Commands(found.command),
    }
    coverages = () if found.sets is None else (found.sets.coverage,)
    told["coverages"] = coverages
    more = {} if found.sets is None else set_columns(found.sets, classes)
    if found.strange is not None:
        more |= found.strange.columns()
        told["strange"] = found.strange.examples(found.split, found.backbone.inputs)
    split, outputs, inputs = found.split, found.probabilities, found.backbone.inputs
    if isinstance(evaluation, Evaluation):
        write_tested(folder, classes, split, outputs, more=more)
        page = fit_page(
            evaluation,
            mistakes=mistake_cases(found.around),
            looks=looks(found.around),
            listed=True,
            **told,
        )
    else:
        write_task_tested(folder, found.head, split, outputs, more=more)
        scored = scored_items(evaluation, found.head, split, outputs, inputs)
        page = task_page(with_looks(scored, found.around), **told)
    write_page(page, folder / "report.html")
    document: dict[str, Any] = {
        **configuration,
        "command": found.command,
        "notes": list(session.notes),
        "evaluation": to_plain(evaluation),
        "environment": environment,
    }
    write_json(folder / "evaluation.json", document)


__all__ = ["Evaluated", "refuse_run_folder", "write_evaluation"]
