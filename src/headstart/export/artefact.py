"""A run as a folder that needs no headstart: network, description, a script that predicts.

====================  =============================================================================
``model.*``           the network, from pixels of its size or tokens to probabilities
``model.json``        task, classes, temperature, thresholds, how items are read, measured parity
``predict.py``        reads image files or texts and runs the network
``tokenizer.json``    of texts
``README.md``         the model card
====================  =============================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart._version import __version__
from headstart.core.errors import BackboneError, DataError
from headstart.core.files import own_file, write_json, write_text
from headstart.core.fingerprints import sha256_of_file
from headstart.data import Preprocessing
from headstart.data.texts import Texts
from headstart.data.tokenizers import kept_tokenizer
from headstart.export.formats import Format, Written
from headstart.export.predictor import Predictor, told_name
from headstart.export.script import standalone_script
from headstart.extraction.engines.table import EngineUnfitError

FORMAT = 1
"""Of ``model.json``."""
DESCRIPTION = "model.json"


def write_artefact(predictor: Predictor, kind: Format, folder: Path) -> None:
    """Write the network, its description and the script into an empty folder.

    Raises:
        BackboneError, HeadError: the run cannot be written in this format.
    """
    predictor.alone()
    inputs = _reading(predictor)
    try:
        written = kind.writer()(predictor, folder)
    except EngineUnfitError as error:
        raise BackboneError(
            f"{predictor.backbone.name} cannot be exported to {kind.name}: {error}",
            hint="try another format, such as to='pt2', or use run.to_torch()",
        ) from error
    if isinstance(predictor.backbone.inputs, Texts):
        digest = predictor.backbone.inputs.tokenizer
        write_text(folder / "tokenizer.json", kept_tokenizer(digest))
    described = describe(predictor, kind.name, inputs, written)
    write_json(folder / DESCRIPTION, described)
    texts = predictor.backbone.inputs.kind == "text"
    needs = (*kind.packages, "numpy", "tokenizers" if texts else "pillow")
    what = '"A text" "Another"' if texts else "IMAGE.jpg ..."
    about = (
        f"Predict with the model in this folder: python predict.py {what}\n\n"
        f"Needs: pip install {' '.join(dict.fromkeys(needs))}\n\n"
        "From Python: import predict; predict.model.outputs([...]) returns an array of\n"
        "probabilities, whose columns predict.model.classes names. Exported by headstart, and\n"
        "independent of it."
    )
    reader = "texts" if texts else "images"
    write_text(folder / "predict.py", standalone_script((reader, kind.script, "predicting"), about))
    write_text(folder / "requirements.txt", "".join(f"{name}\n" for name in dict.fromkeys(needs)))


def finish_artefact(folder: Path, card: str, parity: Mapping[str, Any]) -> None:
    """Add the model card, the parity, and the digests of all files.

    Args:
        folder: of an artefact.
        card: Markdown.
        parity: what was measured, in plain values.
    """
    write_text(folder / "README.md", card)
    path = folder / DESCRIPTION
    described = json.loads(path.read_text(encoding="utf-8"))
    files = {
        found.name: sha256_of_file(found)
        for found in sorted(folder.iterdir())
        if found.is_file() and found != path
    }
    write_json(path, {**described, "parity": dict(parity), "files": files})


def read_artefact(folder: Path) -> dict[str, Any]:
    """Return what ``model.json`` says, if every file is the one that it names.

    Raises:
        DataError: it is no artefact, or it is damaged.
    """
    path = own_file(folder, DESCRIPTION)
    try:
        described = json.loads(path.read_bytes())
        files = described["files"]
        if described["format"] != FORMAT or not isinstance(files, dict):
            raise ValueError(f"its format is {described['format']!r:.40}, expected {FORMAT}")
        changed = [n for n, d in files.items() if sha256_of_file(own_file(folder, n)) != d]
    except FileNotFoundError as error:
        raise DataError(
            f"'{folder}' is not a complete artefact: it lacks '{error.filename}'"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"'{path}' cannot be used ({error})", hint="export the run again"
        ) from error
    if changed:
        raise DataError(
            f"'{folder / changed[0]}' is not the file that model.json was written with",
            hint="export the run again",
        )
    return dict(described)


def describe(
    predictor: Predictor, name: str, inputs: Mapping[str, Any], written: Written
) -> dict[str, Any]:
    """Return what ``model.json`` says; the parity is added once it is measured."""
    head, backbone = predictor.head, predictor.backbone
    thresholds = head.thresholds
    if thresholds is None and head.task == "multi-label":
        several: list[float] | None = [0.5] * len(predictor.classes)
    else:
        several = None if thresholds is None else thresholds.tolist()
    return {
        "format": FORMAT,
        "made_by": f"headstart {__version__}",
        "artefact": name,
        "task": head.task,
        "classes": list(predictor.classes),
        "temperature": head.temperature,
        "thresholds": several,
        "kind": backbone.inputs.kind,
        "input": dict(inputs),
        "inputs": list(written.inputs),
        "output": "values" if head.task == "regression" else "probabilities",
        "any_number": written.any_number,
        "backbone": told_name(backbone.name),
        "layer": backbone.layer,
        "pooling": backbone.pooling,
        "head": head.kind,
        "licence_of_the_weights": backbone.about.licence or None,
    }


def _reading(predictor: Predictor) -> dict[str, Any]:
    """Return how items are read, in plain values.

    Raises:
        BackboneError: the stand-alone script cannot read them so.
    """
    inputs, limits = predictor.backbone.inputs, predictor.value_range
    if limits is not None:
        low, high = limits
        raise BackboneError(
            f"the run reads values of {low:g} as black and {high:g} as white, which an"
            " artefact's script does not do",
            hint="use run.to_torch(), or save the images with 8 bits and fit again",
        )
    if isinstance(inputs, Preprocessing):
        values = inputs.values()
        decoder = values.pop("decoder")
        if decoder != "pillow":
            raise BackboneError(
                f"the run decodes its images by {decoder}, which an artefact's script does not do",
                hint="use run.to_torch(), or fit again with decoder='pillow'",
            )
        return {**values, "box": list(inputs.box)}
    if isinstance(inputs, Texts):
        values = inputs.values()
        del values["tokenizer"]
        return values
    raise BackboneError(
        f"{predictor.backbone.name} takes {inputs.extent}, which no artefact reads",
        hint="use run.to_torch()",
    )


__all__ = ["DESCRIPTION", "FORMAT", "finish_artefact", "read_artefact", "write_artefact"]
