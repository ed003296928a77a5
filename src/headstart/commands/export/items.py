"""The real items that an artefact is measured on."""

from __future__ import annotations

import ast
import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.export.options import ExportConfig
from headstart.commands.kept_rows import KeptItems
from headstart.commands.predict.model import Model
from headstart.commands.run import Run
from headstart.commands.run_description import read_description
from headstart.commands.run_place import whole_run
from headstart.commands.saved_run import SavedRun, open_run
from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions
from headstart.core.errors import ConfigError, DataError, HeadstartError
from headstart.core.settings import options_of
from headstart.data import Split

_DATA_AT = {"fit": 2, "finetune": 2, "sweep": 2, "update": 3}
"""Where the commands that make a run name its data."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Items that an artefact is measured on.

    Attributes:
        split: the items.
        name: where they are from.
        tested: items that tested the run, with their content, in the order of ``truth``; None:
            the data do not hold them, or the run does not say which they were.
        truth: the same items with their labels, and without content.
    """

    split: Split
    name: str
    tested: Split | None = None
    truth: Split | None = None


def items_to_measure(
    trained: Any, config: ExportConfig, reading: ReadOptions, model: Model, session: Session
) -> Measured:
    """Return some real items: those that tested the run, where the data still hold them.

    Args:
        trained: a run, or its folder.
        config: which items, and how many.
        reading: how they are read.
        model: the run, opened.
        session: of the call.

    Raises:
        ConfigError: the data of the run are not where they were.
        DataError: there is no item.
    """
    data: Any = config.data
    if data is None:
        data, recorded = _made_with(trained)
        reading = dataclasses.replace(reading, **recorded)
    try:
        parts = session.open_parts(data, reading, kind=model.predictor.backbone.inputs.kind)
    except HeadstartError as error:
        if config.data is not None:
            raise
        raise _ask(f"the data of the run cannot be read again ({error.message})") from error
    tested, truth = _tested(parts, model)
    held_out = [parts[name] for name in ("test", "validation") if name in parts]
    split = held_out[0] if held_out else max(parts.values(), key=len)
    if config.data is None and tested is not None:
        split = tested
    if not len(split):
        raise DataError("there is no item to check the artefact on", hint="name data=DATA")
    named = isinstance(data, str | Path)
    name = Path(data).name if named else "items in memory"
    return Measured(spread_over(split, config.items), name, tested, truth)


def spread_over(split: Split, most: int) -> Split:
    """Return so many items, spread evenly over a split."""
    return split.take(picked(len(split), most))


def picked(count: int, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` of ``count`` positions, spread evenly."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def _tested(parts: Mapping[str, Split], model: Model) -> tuple[Split | None, Split | None]:
    """Return the items that tested the run, with content and with labels."""
    kept = model.kept()
    if kept is None or not kept.test.ids:
        return None, None
    wanted = {key: at for at, key in enumerate(kept.test.ids)}
    best: tuple[Split | None, dict[int, int]] = (None, {})
    for split in parts.values():
        if split.items.far:  # ids of what lies elsewhere would be read for it
            continue
        places = {wanted[key]: at for at, key in enumerate(split.ids) if key in wanted}
        if len(places) > len(best[1]):
            best = (split, places)
    source, places = best
    if source is None:
        return None, None
    order = sorted(places)
    found = source.take(np.array([places[at] for at in order], dtype=np.int64))
    whole = KeptItems.split(kept.test, model.classes, model.head.task)
    return found, whole.take(np.array(order, dtype=np.int64))


def _made_with(trained: Any) -> tuple[str, dict[str, Any]]:
    """Return the data that a run was made with, and how they were read."""
    if isinstance(trained, Run):
        command, made = trained.commands.made, trained.configuration
    else:
        saved = trained if isinstance(trained, SavedRun) else open_run(trained)
        values = read_description(whole_run(saved.folder), saved.folder).values
        command, made = str(values.get("command", "")), values["configuration"]
    data = _data_in(command)
    if data is None:
        raise _ask("the run does not say where its data are")
    names = {each.name for each in options_of(ReadOptions)}
    found = {name: value for name, value in made.items() if name in names and value is not None}
    for each in fields(ReadOptions):
        if isinstance(found.get(each.name), list):
            found[each.name] = tuple(found[each.name])
    return data, {k: v for k, v in found.items() if k not in ("task", "test_fraction")}


def _data_in(command: str) -> str | None:
    """Return the data that a command names, which made a run; None where it names none."""
    if "(" in command.partition(" ")[0]:  # a call from Python: the data come first
        try:
            call = ast.parse(command, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        first = call.args[0] if isinstance(call, ast.Call) and call.args else None
        found = first.value if isinstance(first, ast.Constant) else None
        return found if isinstance(found, str) else None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    at = _DATA_AT.get(words[1], len(words)) if words[:1] == ["headstart"] and words[1:] else 0
    return words[at] if 0 < at < len(words) else None


def _ask(why: str) -> ConfigError:
    return ConfigError(
        (f"{why}, and an artefact is checked on real items",),
        hint="pass some with data=DATA: a folder of images, a table, or one image",
    )


__all__ = ["Measured", "items_to_measure", "picked", "spread_over"]
