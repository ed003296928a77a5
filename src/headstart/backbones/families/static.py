"""Static embeddings: one vector a token, and their mean; light backbones of texts.

``static/wordllama`` are the vectors that the package ``wordllama`` brings along; ``static/FOLDER``
is a folder of model2vec, or one of sentence-transformers that begins with a StaticEmbedding.
``hf/NAME`` finds such folders on the hub. Files are JSON and safetensors; no code of these
libraries runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.backbones.family import About, Built, Family, Request
from headstart.backbones.sentence_folder import read_json
from headstart.core.errors import BackboneError, MissingExtraError
from headstart.core.fingerprints import stamp
from headstart.core.wording import first_line

_UNLIMITED = 1_000_000
_USUAL_LENGTH = 512
"""That of model2vec, where its folder does not say one."""
_WORDLLAMA = "wordllama"
_ABOUT = About(licence="MIT", origin="package wordllama", data="embeddings of Llama 2, distilled")


def is_static(folder: Path) -> bool:
    """Return whether a folder holds static embeddings."""
    return _place(folder, str(folder)) is not None


def build_static(request: Request) -> Built:
    """Build static embeddings by name or folder."""
    who = f"static/{request.name}"
    if request.model_args:
        raise BackboneError(f"{who} has no arguments", hint="omit model_args")
    if request.name == _WORDLLAMA:
        return _wordllama()
    folder = Path(request.name).expanduser()
    if not folder.is_dir():
        raise BackboneError(
            f"there is no folder '{folder}'",
            hint=f"write static/{_WORDLLAMA}, or static/FOLDER for a model2vec folder",
        )
    return static_of(folder, who)


def static_of(folder: Path, who: str) -> Built:
    """Build the static embeddings of a folder.

    Args:
        folder: of model2vec, or of sentence-transformers with a StaticEmbedding.
        who: what to call it, in messages.

    Raises:
        BackboneError: it is none, or its files are damaged.
    """
    place = _place(folder, who)
    if place is None:
        raise BackboneError(
            f"'{folder}' holds no static embeddings",
            hint="expected a folder of model2vec (model_type 'model2vec' in config.json), or of"
            " sentence-transformers that begins with a StaticEmbedding",
        )
    weights, tokens = place / "model.safetensors", place / "tokenizer.json"
    tensors = _tensors(weights, who)
    written = _written(tokens, who)
    says = read_json(folder / "config.json", who) if (folder / "config.json").is_file() else {}
    if "embeddings" in tensors:  # model2vec's own: words that are not known are left out
        vectors, unknown = tensors["embeddings"], _unknown(written)
        normalise = bool(says.get("normalize", False))
        stated = says.get("max_length", _USUAL_LENGTH)
        longest = int(stated) if stated else _UNLIMITED
        characters = int(stated) * _median_token(written) if stated else 0
    elif "embedding.weight" in tensors:
        vectors, unknown, longest = tensors["embedding.weight"], None, _UNLIMITED
        characters = 0
        normalise = "Normalize" in _kinds(folder, who)
    else:
        raise BackboneError(f"'{weights}' holds neither 'embeddings' nor 'embedding.weight'")
    more = {name: tensors.get(name) for name in ("mapping", "weights")}
    return _built(vectors, written, longest, {**more, "unknown": unknown, "normalise": normalise},
                  files={"weights": stamp(weights)}, characters=characters)  # fmt: skip


def _wordllama() -> Built:
    """Read what the package brings along, without importing it."""
    spec = find_spec(_WORDLLAMA)
    if spec is None or spec.origin is None:
        raise MissingExtraError(_WORDLLAMA, "static", f"the backbone static/{_WORDLLAMA}")
    package, who = Path(spec.origin).parent, f"static/{_WORDLLAMA}"
    found = sorted((package / "weights").glob("l2_supercat_*.safetensors"))
    if not found:
        raise BackboneError(f"the package {_WORDLLAMA} contains no weights", hint="install it")
    tensors = _tensors(found[0], who)
    written = _written(package / "tokenizers" / "l2_supercat_tokenizer_config.json", who)
    return _built(tensors["embedding.weight"], written, _UNLIMITED, {}, about=_ABOUT)


def _built(
    vectors: Any,
    written: str,
    longest: int,
    options: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Any]] | None = None,
    about: About | None = None,
    characters: int = 0,
) -> Built:
    from headstart.backbones.static_network import StaticNetwork
    from headstart.data.tokenizers import keep_tokenizer

    known = {
        "tokenizer": keep_tokenizer(written), "max_length": longest, "pad": 0, "special": False,
        "characters": characters,
    }  # fmt: skip
    network = StaticNetwork(vectors, **options).eval()
    return Built(
        network, known, ("embed",), kind="text", loaded=True, files=files or {}, tokens="embed",
        about=about or About(),
    )  # fmt: skip


def _place(folder: Path, who: str) -> Path | None:
    """Return the folder of vectors and tokenizer; None where a folder has no static embeddings."""
    if (folder / "config.json").is_file():
        says = read_json(folder / "config.json", who)
        if isinstance(says, dict) and says.get("model_type") == "model2vec":
            return folder
    kinds = _kinds(folder, who)
    if not kinds or kinds[0] != "StaticEmbedding" or not set(kinds[1:]) <= {"Normalize"}:
        return None
    place = folder / str(read_json(folder / "modules.json", who)[0].get("path", ""))
    return place if place.resolve().is_relative_to(folder.resolve()) else None


def _kinds(folder: Path, who: str) -> list[str]:
    """Return the classes of a sentence-transformers folder; nothing where it is none."""
    if not (folder / "modules.json").is_file():
        return []
    parts = read_json(folder / "modules.json", who)
    names = [str(p.get("type", "")) for p in parts if isinstance(p, dict)]
    own = all(name.partition(".")[0] == "sentence_transformers" for name in names)
    return [name.rpartition(".")[2] for name in names] if own else []


def _tensors(file: Path, who: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except Exception as error:
        raise BackboneError(
            f"the weights of {who} cannot be read ('{file}'): {first_line(error)}",
            hint="check that the folder is complete",
        ) from error


def _written(file: Path, who: str) -> str:
    """Return a tokenizer as text, as the package ``tokenizers`` writes it."""
    try:
        return file.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"the tokenizer of {who} cannot be read: {first_line(error)}"
        ) from error


def _unknown(written: str) -> int | None:
    """Return the token of words that are not known, by which model2vec leaves them out."""
    model = json.loads(written)["model"]
    if model.get("unk_token") is None:
        found = model.get("unk_id")
        return found if isinstance(found, int) else None
    vocabulary = model.get("vocab")
    number = vocabulary.get(model["unk_token"]) if isinstance(vocabulary, dict) else None
    return number if isinstance(number, int) else None


def _median_token(written: str) -> int:
    """Return the median length of a token: model2vec reads so many characters for each."""
    import numpy as np

    from headstart.data.tokenizers import vocabulary_of

    return int(np.median([len(token) for token in vocabulary_of(written)]))


def _folder(name: str) -> Path | None:
    return None if name == _WORDLLAMA else Path(name)


STATIC = Family(
    "static",
    f"static/{_WORDLLAMA} or static/FOLDER",
    "static text embeddings: wordllama's, or a model2vec folder",
    build_static,
    names=lambda: (_WORDLLAMA,),
    folder=_folder,
)

__all__ = ["STATIC", "build_static", "is_static", "static_of"]
