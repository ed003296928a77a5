"""``export``: the artefact of a run, written only if it predicts what the run predicts."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from headstart.commands.card.job import card_content, parity_sentence
from headstart.commands.export.options import EXPORT, ExportConfig
from headstart.commands.predict.job import predicted
from headstart.commands.predictor import RunPredictor
from headstart.commands.run import Run
from headstart.commands.run_description import read_description
from headstart.commands.run_place import whole_run
from headstart.commands.saved_run import SavedRun, open_run
from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.core.errors import ConfigError, DataError, HeadstartError
from headstart.core.files import publishing_folder
from headstart.core.records import to_plain
from headstart.core.settings import options_of
from headstart.data import Split
from headstart.evaluation.tasks import task_named
from headstart.export.artefact import finish_artefact, write_artefact
from headstart.export.formats import FORMATS
from headstart.export.parity import Parity, difference, outputs_alone
from headstart.report.model_card import model_card

_DATA_AT = {"fit": 2, "finetune": 2, "sweep": 2, "update": 3}
"""Where the commands that make a run name its data."""


@dataclass(frozen=True)
class Exported:
    """An artefact that was written.

    Attributes:
        folder: where it is.
        format: its name.
        parity: how near it comes to the run.
        files: sizes in bytes by name.
        script_needs: packages that its script needs.
    """

    folder: Path
    format: str
    parity: Parity
    files: Mapping[str, int]
    script_needs: tuple[str, ...]


def export(
    trained: Run | SavedRun | Path | str,
    to: str | None = None,
    *,
    config: ExportConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Exported:
    """Write a run as an artefact that needs no headstart.

    The folder holds the network from pixels or tokens to probabilities, ``model.json``, a script
    ``predict.py``, and a model card. It appears once its script, in a process without headstart,
    has predicted real items as the run does.

    Args:
        trained: a run, or its folder.
        to: the format: ``onnx``, ``openvino``, ``pt2``.
        config: the settings of ``export``.
        run: batch size, device, cache.
        reading: how ``data`` are read.
        **overrides: single fields of these, such as ``output="ants-onnx"``.

    Raises:
        BackboneError, HeadError: the run cannot be written in this format.
        DataError: the artefact differs by more than the tolerance; nothing is written.
        ConfigError: the folder is taken, or the data of the run are not where they were.
    """
    given = {**({} if to is None else {"to": to}), **overrides}
    config, run, reading, _ = EXPORT.settle(given, config, run, reading)
    kind = FORMATS[config.to]
    missing = kind.missing()
    if missing is not None:
        raise missing
    folder = _folder(trained, config)
    session = Session(run)
    model = RunPredictor.of(trained, config, session)
    model.alone()
    split, name = _items(trained, config, reading, model, session)
    with (
        session.reporter.task(f"export to {kind.name}", 2, "steps") as task,
        publishing_folder(folder) as place,
    ):
        write_artefact(model, kind, place)
        task.advance(1)
        parity = _measured(place, model, split, name, config, session)
        task.advance(1)
        finish_artefact(place, _card(trained, model, config, parity), to_plain(parity))
        needs = (place / "requirements.txt").read_text(encoding="utf-8").split()
    return Exported(folder, kind.name, parity, _sizes(folder), tuple(needs))


def _card(trained: Any, model: RunPredictor, config: ExportConfig, parity: Parity) -> str:
    """Return the model card of an artefact."""
    item = '"A text"' if model.backbone.inputs.kind == "text" else "'image.jpg'"
    use = (
        "`predict.py` runs the model from the file on and needs no headstart:",
        f"```bash\npip install -r requirements.txt\npython predict.py {item}\n```",
        f"```python\nimport predict\n\npredict.model.classes\npredict.model.outputs([{item}])\n```",
    )
    content = card_content(
        trained,
        config,
        kind=model.backbone.inputs.kind,
        use=use,
        parity=parity_sentence(parity),
        tags=(config.to,),
    )
    return model_card(content)


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _folder(trained: Any, config: ExportConfig) -> Path:
    """Return the folder of the artefact, if it is free.

    Raises:
        ConfigError: it is not, or the run has no folder that names it.
    """
    if config.output is not None:
        folder = Path(config.output).expanduser()
    else:
        place = trained if isinstance(trained, Path | str) else getattr(trained, "folder", None)
        if place is None:
            raise ConfigError(("a run in memory has no folder",), hint="name output=DIR")
        made = Path(place).expanduser()
        folder = made.with_name(f"{made.resolve().name}-{config.to}")
    if folder.is_dir() and not any(folder.iterdir()):
        return folder
    if folder.exists() or folder.is_symlink():
        raise ConfigError(
            (f"'{folder}' is there already, and nothing is overwritten",),
            hint="remove it, or name another folder with output=DIR",
        )
    above = next(each for each in folder.absolute().parents if each.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        why = "cannot be written to" if above.is_dir() else "is a file"
        raise ConfigError(
            (f"'{folder}' cannot be made: '{above}' {why}",),
            hint="name another folder with output=DIR",
        )
    return folder


# -- the items that it is measured on ------------------------------------------------------------


def _items(
    trained: Any,
    config: ExportConfig,
    reading: ReadOptions,
    model: RunPredictor,
    session: Session,
) -> tuple[Split, str]:
    """Return some real items, and where they are from."""
    kind = model.backbone.inputs.kind
    data: Any = config.data
    if data is None:
        data, recorded = _made_with(trained)
        reading = dataclasses.replace(reading, **recorded)
    try:
        parts = session.open_parts(data, reading, kind=kind)
    except HeadstartError as error:
        if config.data is not None:
            raise
        raise _ask(f"the data of the run cannot be read again ({error.message})") from error
    held_out = [parts[name] for name in ("test", "validation") if name in parts]
    split = held_out[0] if held_out else max(parts.values(), key=len)
    if not len(split):
        raise DataError("there is no item to measure the artefact on", hint="name data=DATA")
    picked = np.unique(np.linspace(0, len(split) - 1, config.items).round().astype(np.int64))
    named = isinstance(data, str | Path)
    return split.take(picked), Path(data).name if named else "items in memory"


def _made_with(trained: Any) -> tuple[str, dict[str, Any]]:
    """Return the data that a run was made with, and how they were read."""
    if isinstance(trained, Run):
        command, made = trained.commands.made, trained.configuration
    else:
        saved = trained if isinstance(trained, SavedRun) else open_run(trained)
        values = read_description(whole_run(saved.folder), saved.folder).values
        command, made = str(values.get("command", "")), values["configuration"]
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    at = _DATA_AT.get(words[1], len(words)) if words[:1] == ["headstart"] and words[1:] else 0
    if not 0 < at < len(words):
        raise _ask("the run does not say where its data are")
    names = {each.name for each in options_of(ReadOptions)}
    found = {name: value for name, value in made.items() if name in names and value is not None}
    for each in fields(ReadOptions):
        if isinstance(found.get(each.name), list):
            found[each.name] = tuple(found[each.name])
    return words[at], {k: v for k, v in found.items() if k not in ("task", "test_fraction")}


def _ask(why: str) -> ConfigError:
    return ConfigError(
        (f"{why}, and an artefact is measured on real items",),
        hint="name some with data=DATA: a folder of images, a table, or one image",
    )


# -- parity --------------------------------------------------------------------------------------


def _measured(
    place: Path,
    model: RunPredictor,
    split: Split,
    name: str,
    config: ExportConfig,
    session: Session,
) -> Parity:
    """Return how near an artefact comes to its run.

    Raises:
        DataError: not near enough.
    """
    own = predicted(model, split, session)
    bad = {item.index for item in own.bad}
    kept = split.take(np.array([i for i in range(len(split)) if i not in bad], dtype=np.int64))
    expected = mine = np.asarray(own.probabilities)
    if model.precision not in ("float32", "tf32"):
        single = dataclasses.replace(model, precision="float32")
        expected = np.asarray(predicted(single, kept, session).probabilities)
    found = outputs_alone(place, [kept.content(i) for i in range(len(kept))])
    gap = difference(found, expected, model.head.task)
    worst = int(gap.argmax())
    if not gap[worst] <= config.tolerance:  # NaN fails, too
        raise DataError(
            f"the artefact differs from the run by {gap[worst]:.2g} for '{kept.origins[worst]}',"
            f" more than the tolerance of {config.tolerance:g}: nothing is written",
            hint=_remedy(model, float(gap[worst])),
        )
    stored = None
    if expected is not mine:
        stored = float(difference(found, mine, model.head.task).max())
        session.say(
            f"the run's features are computed in {model.precision}, the artefact's in float32:"
            f" their predictions differ by up to {stored:.2g}"
        )
    return Parity(
        len(kept), name, float(gap[worst]), config.tolerance, _same(model, found, expected), stored
    )


def _same(model: RunPredictor, found: np.ndarray, expected: np.ndarray) -> int | None:
    if task_named(model.head.task).probabilities is None:
        return None
    if model.head.task == "classification":
        return int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
    limits = 0.5 if model.head.thresholds is None else model.head.thresholds
    return int(((found > limits) == (expected > limits)).all(axis=1).sum())


def _remedy(model: RunPredictor, gap: float) -> str:
    if model.storage == "int8":
        return "its features are stored in 8 bits: fit with storage='float32'"
    return f"try another format, or allow it with tolerance={gap * 1.5:.1g}"


__all__ = ["Exported", "export"]
