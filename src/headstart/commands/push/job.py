"""``push``: an artefact, exported first where a run is named, to a folder or to the hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from headstart.commands.export.job import export
from headstart.commands.export.options import ExportConfig
from headstart.commands.push.options import PUSH, PushConfig
from headstart.commands.run import Run
from headstart.commands.run_place import RUN, whole_run
from headstart.commands.saved_run import SavedRun
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.core.errors import ConfigError, DataError
from headstart.core.scratch import scratch_folder
from headstart.core.settings import options_of
from headstart.export.artefact import DESCRIPTION
from headstart.export.hub import check_target, push_artefact


def push(
    source: Run | SavedRun | Path | str,
    target: Path | str,
    *,
    config: PushConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> str:
    """Push an artefact to a hub; a run is exported first.

    Args:
        source: the folder of an artefact, or a run, or its folder.
        target: a folder, which works offline; or ``hf:OWNER/NAME``, a repository of Hugging Face.
        config: the settings of ``push``.
        run, reading: as for :func:`headstart.export`.
        **overrides: single fields of these, such as ``to="onnx"`` or ``public=True``.

    Returns:
        Where it is: the folder, or the address of the repository.

    Raises:
        ConfigError: the folder holds something else, or the hub refuses.
        DataError, BackboneError, HeadError: as for :func:`headstart.export`.
    """
    config, run, reading, _ = PUSH.settle(overrides, config, run, reading)
    if config.output is not None:
        raise ConfigError(
            ("push does not take output: the artefact goes to the target",), hint="omit it"
        )
    hub = {"private": not config.public, "message": config.message}
    target = str(target)
    if isinstance(source, Path | str):
        folder = Path(source).expanduser()
        if (folder / DESCRIPTION).is_file():
            return push_artefact(folder, target, **hub)  # type: ignore[arg-type]
        if not (whole_run(folder) / RUN).is_file():
            raise DataError(
                f"'{source}' is neither a run nor an artefact: no run.json, no model.json",
                hint="fit, sweep and finetune make a run, export makes an artefact",
            )
    check_target(target)
    names = [each.name for each in options_of(ExportConfig)]
    own = ExportConfig(**{name: getattr(config, name) for name in names})
    with scratch_folder() as scratch:
        place = scratch / (_name_of(source) or "model")
        export(source, config=dataclasses.replace(own, output=place), run=run, reading=reading)
        return push_artefact(place, target, **hub)  # type: ignore[arg-type]


def _name_of(source: Any) -> str | None:
    folder = source if isinstance(source, Path | str) else getattr(source, "folder", None)
    return None if folder is None else Path(folder).expanduser().resolve().name


__all__ = ["push"]
