"""``export``: the artefact of a run, written only if it predicts what the run predicts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.commands.card.job import card_content, parity_sentence
from headstart.commands.export.items import items_to_measure
from headstart.commands.export.measured import parity_of
from headstart.commands.export.options import EXPORT, ExportConfig
from headstart.commands.predict.model import Model
from headstart.commands.predictor import RunPredictor
from headstart.commands.run import Run
from headstart.commands.saved_run import SavedRun
from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.core.errors import BackboneError, ConfigError
from headstart.core.files import publishing_folder
from headstart.core.records import INT8, to_plain
from headstart.export.artefact import finish_artefact, write_artefact
from headstart.export.formats import FORMATS
from headstart.export.parity import Parity
from headstart.report.model_card import model_card


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
    """Write a run as an artefact that does not need headstart.

    The folder holds the network from pixels or tokens to probabilities, ``model.json``, a script
    ``predict.py``, and a model card. It is created only after its script, in a process without
    headstart, has predicted real items as the run does.

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
    opened = Model.of(trained, config, session)
    model = opened.predictor
    _require_floats(model)
    model.alone()
    items = items_to_measure(trained, config, reading, opened, session)
    with (
        session.reporter.task(f"export to {kind.name}", 2, "steps") as task,
        publishing_folder(folder) as place,
    ):
        write_artefact(model, kind, place)
        task.advance(1)
        parity = parity_of(place, model, items, config, session)
        task.advance(1)
        finish_artefact(place, _card(trained, model, config, parity), to_plain(parity))
        needs = (place / "requirements.txt").read_text(encoding="utf-8").split()
    return Exported(folder, kind.name, parity, _sizes(folder), tuple(needs))


def _card(trained: Any, model: RunPredictor, config: ExportConfig, parity: Parity) -> str:
    """Return the model card of an artefact."""
    item = '"A text"' if model.backbone.inputs.kind == "text" else "'image.jpg'"
    use = (
        "`predict.py` runs the model on files and does not need headstart:",
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


def _require_floats(model: RunPredictor) -> None:
    """Refuse a run whose network is calibrated in int8: its operations are OpenVINO's alone.

    Raises:
        BackboneError: it is.
    """
    if model.precision == INT8:
        raise BackboneError(
            f"the run computes {model.backbone.name} in int8, with operations of OpenVINO that no"
            " artefact takes over, and in float32 its rows are others than the head was fitted on",
            hint="fit with precision='float32', and export that run",
        )


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
            (f"'{folder}' already exists, and nothing is overwritten",),
            hint="remove it, or choose another folder with output=DIR",
        )
    above = next(each for each in folder.absolute().parents if each.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        why = "cannot be written to" if above.is_dir() else "is a file"
        raise ConfigError(
            (f"'{folder}' cannot be created: '{above}' {why}",),
            hint="choose another folder with output=DIR",
        )
    return folder


__all__ = ["Exported", "export"]
