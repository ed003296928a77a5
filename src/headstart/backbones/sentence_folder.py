"""What a sentence-transformers folder says beside its transformer: pooling, projections, prompt.

Its files are JSON and safetensors. What headstart does not know how to do is refused; nothing that
a file names is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.errors import BackboneError

if TYPE_CHECKING:
    from torch import nn

_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
"""The switches of ``1_Pooling/config.json``, in the order in which the library joins their rows."""

_NAMES = {
    "lasttoken": "last", "weightedmean": "weighted_mean", "mean_sqrt_len_tokens": "mean_sqrt_len",
}  # fmt: skip
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")


@dataclass(frozen=True)
class SentenceFolder:
    """What a folder says.

    Attributes:
        transformer: the folder of the transformer.
        pooling: ways of pooling.
        after: settings and folders of what follows, in order.
        max_length: of a text, in tokens; None: not said.
        prompt: put before every text.
        lower: whether texts are put in lower case.
    """

    transformer: Path
    pooling: tuple[str, ...]
    after: tuple[tuple[str, Path], ...] = ()
    max_length: int | None = None
    prompt: str = ""
    lower: bool = False
    who: str = field(default="", repr=False)

    def modules(self) -> list[nn.Module]:
        """Build what follows the pooling, with its weights."""
        return [_built(kind, place, self.who) for kind, place in self.after]


def read_sentence_folder(folder: Path, who: str) -> SentenceFolder | None:
    """Read ``modules.json`` and what it names; None where a folder has none.

    Args:
        folder: of a model.
        who: what to call it, in messages.

    Raises:
        BackboneError: damaged files, or parts that are not known.
    """
    if not (folder / "modules.json").is_file():
        return None
    parts = read_json(folder / "modules.json", who)
    try:
        steps = [(str(part["type"]), folder / str(part["path"])) for part in parts]
    except (TypeError, KeyError):
        raise BackboneError(f"modules.json of {who} is not a list of modules") from None
    root = folder.resolve()
    if any(not place.resolve().is_relative_to(root) for _, place in steps):
        raise BackboneError(f"modules.json of {who} names folders outside of it")
    kinds = [_kind(name, who) for name, _ in steps]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise BackboneError(
            f"{who} begins with {' and '.join(kinds[:2]) or 'nothing'}, expected Transformer and"
            " Pooling",
            hint="only sentence-transformers can run such a model",
        )
    pooling = read_json(steps[1][1] / "config.json", who)
    place = steps[0][1]
    settings = _first_json(place, "sentence_bert_config.json", who)
    prompt = _prompt(_first_json(folder, "config_sentence_transformers.json", who))
    if prompt and pooling.get("include_prompt") is False:
        raise BackboneError(
            f"{who} excludes its prompt from the pooling, which headstart does not do"
        )
    longest = settings.get("max_seq_length")
    return SentenceFolder(
        transformer=place,
        pooling=_ways(pooling, who),
        after=tuple((kind, place) for kind, (_, place) in zip(kinds[2:], steps[2:], strict=True)),
        max_length=longest if isinstance(longest, int) and longest > 0 else None,
        prompt=prompt,
        lower=settings.get("do_lower_case") is True,
        who=who,
    )


def read_json(path: Path, who: str) -> Any:
    """Read a JSON file of a model's folder.

    Raises:
        BackboneError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BackboneError(f"{who} has no file {path.name} in '{path.parent}'") from None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BackboneError(f"{path.name} of {who} cannot be read: {reason}") from error


def _first_json(folder: Path, name: str, who: str) -> Mapping[str, Any]:
    found = read_json(folder / name, who) if (folder / name).is_file() else {}
    return found if isinstance(found, dict) else {}


def _kind(name: str, who: str) -> str:
    """Return the class of a module, if it is one of the library's that are known."""
    root, kind = name.partition(".")[0], name.rpartition(".")[2]
    if root != "sentence_transformers" or kind not in (
        "Transformer", "Pooling", "Normalize", "Dense", "Dropout",
    ):  # fmt: skip
        raise BackboneError(
            f"{who} has a part '{name}', expected Transformer, Pooling, Dense and Normalize of"
            " sentence-transformers",
            hint="code that comes with a model is not run",
        )
    return kind


def _ways(config: Mapping[str, Any], who: str) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    if named is not None:
        names = [named] if isinstance(named, str) else list(named)
        ways = [_NAMES.get(str(name), str(name)) for name in names]
    else:
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        ways = [_MODES[key] for key in _MODES if key in on]
        ways += [key for key in on if key not in _MODES]
    known = set(_MODES.values())
    if not ways or not set(ways) <= known:
        raise BackboneError(
            f"{who} pools by {', '.join(ways) or 'nothing'}, expected {', '.join(sorted(known))}"
        )
    return tuple(ways)


def _prompt(config: Mapping[str, Any]) -> str:
    prompts, name = config.get("prompts") or {}, config.get("default_prompt_name")
    found = prompts.get(name, "") if isinstance(prompts, dict) and name else ""
    return found if isinstance(found, str) else ""


def _built(kind: str, place: Path, who: str) -> nn.Module:
    from torch import nn

    from headstart.backbones.text_network import UnitLength

    if kind == "Normalize":
        return UnitLength()
    if kind == "Dropout":
        return nn.Dropout(float(read_json(place / "config.json", who).get("dropout", 0.1)))
    return _dense(place, who)


def _dense(place: Path, who: str) -> nn.Module:
    from safetensors.torch import load_file
    from torch import nn

    config = read_json(place / "config.json", who)
    activation = str(config.get("activation_function", "torch.nn.modules.linear.Identity"))
    name = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or name not in _ACTIVATIONS:
        raise BackboneError(
            f"a projection of {who} ends in '{activation}', expected one of"
            f" {', '.join(_ACTIVATIONS)}"
        )
    file = place / "model.safetensors"
    if not file.is_file():
        raise BackboneError(
            f"the weights of a projection of {who} are not in a safetensors file ('{file}')",
            hint="save the model again with the current sentence-transformers",
        )
    layer = nn.Linear(config["in_features"], config["out_features"], bool(config.get("bias", True)))
    weights = {key.removeprefix("linear."): value for key, value in load_file(file).items()}
    try:
        layer.load_state_dict(weights)
    except RuntimeError as error:
        raise BackboneError(f"'{file}' does not fit its config.json: {error}") from error
    return nn.Sequential(layer, getattr(nn, name)())


__all__ = ["SentenceFolder", "read_json", "read_sentence_folder"]
