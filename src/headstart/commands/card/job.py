"""``card``: what a run says of itself, as a model card in Markdown."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.commands.card.options import CARD, CardConfig, CardFileConfig
from headstart.commands.run import Run
from headstart.commands.run_description import guarded, read_description
from headstart.commands.run_place import RUN, whole_run
from headstart.commands.saved_run import SavedRun, open_run
from headstart.core.errors import ConfigError
from headstart.core.files import clear_errors, write_text
from headstart.core.records import INT8, Baseline, Reference, from_plain
from headstart.evaluation.tasks import task_named
from headstart.export.parity import Parity
from headstart.export.predictor import told_name
from headstart.report.markdown import code
from headstart.report.model_card import CardContent, model_card

_OF_THE_MACHINE = ("run folder", "preprocessing:", "this head was trained before", "all ")
"""How notes begin that belong in no card: of places, of the cache, or said elsewhere."""


def card(
    trained: Run | SavedRun | Path | str,
    *,
    config: CardFileConfig | None = None,
    **overrides: Any,
) -> str:
    """Return the model card of a run, and write it where a file is named.

    Args:
        trained: a run, or its folder.
        config: the settings of ``card``.
        **overrides: single fields of these, such as ``licence="mit"``.

    Raises:
        DataError: it is not a run folder, or it is damaged.
        ConfigError: the file cannot be written.
    """
    config, *_ = CARD.settle(overrides, config, None, None)
    place = None if isinstance(trained, Run) else str(getattr(trained, "folder", trained))
    use = (
        "Open the run with headstart:",
        f"```bash\nheadstart predict {_folder_name(place)} NEW_ITEMS\n```",
    )
    text = model_card(card_content(trained, config, use=use))
    if config.output is not None:
        target = Path(config.output).expanduser()
        with clear_errors(f"write '{target}'", ConfigError):
            write_text(target, text)
    return text


def _folder_name(place: str | None) -> str:
    name = "RUN" if place is None else Path(place).name
    return name if name.isascii() and name.replace("-", "").replace("_", "").isalnum() else "RUN"


def card_content(
    trained: Run | SavedRun | Path | str, config: CardConfig, **more: Any
) -> CardContent:
    """Return what the card of a run says.

    Args:
        trained: a run, or its folder.
        config: what the user adds.
        **more: further fields of :class:`~headstart.report.model_card.CardContent`.
    """
    if isinstance(trained, Run):
        head, said, scored = trained.head, trained.description(), trained.metrics()
        where = Path("run.json")
    else:
        saved = trained if isinstance(trained, SavedRun) else open_run(trained)
        place = whole_run(saved.folder)
        where = place / RUN
        head, scored = saved.head, dict(saved.metrics)
        said = dict(read_description(place, saved.folder).values)
    return guarded(where, lambda: _content(head, said, scored, config, more))


def _content(
    head: Any,
    said: Mapping[str, Any],
    scored: Mapping[str, Any],
    config: CardConfig,
    more: Mapping[str, Any],
) -> CardContent:
    made, spec = said["configuration"], said["backbone"]
    notes = [str(note) for note in said.get("notes", ())]
    task = task_named(head.task)
    reading = next((n[15:] for n in notes if n.startswith("preprocessing: ")), "not noted")
    kind = said.get("items") or spec.get("kind") or ("text" if " tokens" in reading else "image")
    backbone = _backbone(spec)
    data = str(made.get("data", "data"))
    found = scored.get("evaluation")
    environment = said.get("environment", {})
    packages = environment.get("packages", {})
    reference: type[Baseline | Reference] = Reference
    if head.task == "classification":
        reference = Baseline
    content = CardContent(
        title=config.title or f"{data} by {backbone.rpartition('/')[2]}",
        task=head.task,
        kind=kind,
        classes=tuple(said["classes"]),
        evaluation=None if found is None else from_plain(task.record, found),
        baselines=tuple(from_plain(reference, each) for each in scored.get("baselines", ())),
        data=data,
        n_train=int(scored["n_train"]),
        n_test=int(scored["n_test"]),
        backbone=backbone,
        about={k: str(v) for k, v in said.get("about", {}).items() if v and k != "made_for"},
        head=_head(made),
        preprocessing=reading,
        tuned="tuned" in said and made.get("precision") != INT8,
        licence=config.licence,
        data_licence=config.data_licence,
        limits=_limits(head, said),
        notes=tuple(note for note in notes if not _of_the_machine(note)),
        made={
            "headstart": str(environment.get("headstart", "")),
            "torch": str(packages.get("torch", "")),
            "date": str(environment.get("time", ""))[:10],
        },
    )
    return dataclasses.replace(content, **more)


def _backbone(spec: Mapping[str, Any]) -> str:
    """Return the backbone by name; of a file only the last part of its path."""
    name = told_name(str(spec["source"]))
    return name if spec.get("layer") is None else f"{name} up to {spec['layer']}"


def _of_the_machine(note: str) -> bool:
    paths = re.search(r"[^:]//", note) or any(
        word.strip("'\"(),;:").startswith(("/", "~", "\\\\")) for word in note.split()
    )
    return bool(paths) or note.startswith(_OF_THE_MACHINE) or "feature row" in note


def _head(made: Mapping[str, Any]) -> str:
    chosen = dict(made.get("chosen") or {})
    name = str(chosen.pop("head", made.get("head", "not noted")))
    values = ", ".join(
        f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in chosen.items()
    )
    return f"{name} ({values})" if values else name


def _limits(head: Any, said: Mapping[str, Any]) -> tuple[str, ...]:
    lines = []
    inner = getattr(head, "inner", head)
    if inner.kind == "neighbours":
        lines.append(
            "The head stores features of its training items, from which something about those"
            " items can be recovered."
        )
    if said.get("columns"):
        names = ", ".join(code(each.get("name", "")) for each in said["columns"])
        lines.append(f"Besides the item, it needs these columns of a table: {names}.")
    return tuple(lines)


def parity_sentence(parity: Parity) -> str:
    """Return what was measured of an artefact, as a sentence of Markdown."""
    same = "" if parity.same is None else f"; {parity.same} of them get the same prediction"
    rows = parity.rows
    if rows is not None:
        why, cost, _ = rows.sentences()
        half = f" {why[:1].upper()}{why[1:]}: {cost}."
    else:
        half = ""
    return (
        f"Measured on {parity.items} items of {code(parity.data)}, starting from their files, in"
        " a process without headstart: outputs differ from the run's by up to"
        f" {parity.largest:.1e} (allowed: {parity.tolerance:g}){same}.{half}"
    )


__all__ = ["card", "card_content", "parity_sentence"]
