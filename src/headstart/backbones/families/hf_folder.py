"""Loading a model of transformers from a folder: configuration, class, weights, blocks.

Weights are read from safetensors files alone, and code that comes with a model is never run.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.family import Request
from headstart.core.errors import BackboneError, MissingExtraError
from headstart.core.wording import first_line

if TYPE_CHECKING:
    from torch import nn


_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt"]
"""What is downloaded: weights, configuration, tokenizer, image processor."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model with its weights.

    Attributes:
        model: in float32 and evaluation mode.
        missing: names of its tensors that the weights lack.
        mismatched: names of its tensors that have another shape in the weights.
    """

    model: nn.Module
    missing: frozenset[str]
    mismatched: tuple[str, ...] = ()

    def used_by(self, part: nn.Module) -> frozenset[str]:
        """Return those of the missing tensors that a part of the model holds."""
        held = {id(tensor) for tensor in (*part.parameters(), *part.buffers())}
        named = {
            **dict(self.model.named_parameters(remove_duplicate=False)),
            **dict(self.model.named_buffers(remove_duplicate=False)),
        }
        return frozenset(name for name in self.missing if id(named.get(name)) in held)

    def refuse(self, who: str, missing: frozenset[str]) -> None:
        """Refuse weights that lack tensors, or have some of another shape.

        Raises:
            BackboneError: naming the first of them.
        """
        if missing or self.mismatched:
            wrong = sorted(missing) or list(self.mismatched)
            raise BackboneError(
                f"the weights of {who} lack {len(wrong)} tensors of the model, such as {wrong[0]}",
                hint="check that the folder is complete, and check model_args=…",
            )


def library() -> Any:
    """Import transformers.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("transformers", "transformers", "a backbone hf/NAME") from None
    return transformers


def local_folder(name: str) -> Path | None:
    """Return the folder that ``hf/NAME`` names; None where NAME is one of the hub."""
    try:
        path = Path(name).expanduser()
        return path if path.is_dir() or _is_path(name) else None
    except (OSError, RuntimeError):
        return None


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name


def find_folder(request: Request) -> Path:
    """Return the folder of a model: the user's own, or that of the hub's cache."""
    local = local_folder(request.name)
    if local is not None:
        if not local.is_dir():
            what = "is not a folder" if local.exists() else "does not exist"
            raise BackboneError(
                f"'{local}' {what}, expected the folder of a transformers model",
                hint="give the folder that holds config.json",
            )
        return local
    return _from_hub(request.name)


def in_hub_cache(name: str) -> Path | None:
    """Return the folder of a model in the hub's cache on this machine; None: it is not there."""
    try:
        import huggingface_hub as hub

        found = Path(hub.snapshot_download(name, allow_patterns=_FILES, local_files_only=True))
    except Exception:
        return None
    whole = (found / "config.json").is_file() and any(found.rglob("*.safetensors"))
    return found if whole else None


def _from_hub(name: str) -> Path:
    import huggingface_hub as hub

    found = in_hub_cache(name)
    if found is not None:
        return found
    try:
        return Path(hub.snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:
        raise BackboneError(
            f"hf/{name} is not on this machine and cannot be downloaded"
            f" ({first_line(error)[:160]})",
            hint="give a folder that holds it: backbone='hf/FOLDER'",
        ) from error


def read_config(transformers: Any, folder: Path, who: str, request: Request) -> Any:
    """Read the configuration, with the arguments of the user."""
    if not (folder / "config.json").is_file():
        raise BackboneError(
            f"'{folder}' holds no config.json, expected a transformers model",
            hint="give the folder that holds config.json, the tokenizer and model.safetensors",
        )
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        code = "trust_remote_code" in str(error)
        raise BackboneError(
            f"{who} comes with its own code, which is not run"
            if code
            else f"transformers cannot read config.json of {who}: {first_line(error)}",
            hint="use a model that transformers itself supports",
        ) from error
    _refuse_kernels(config, who)
    images = getattr(config, "vision_config", config)  # of a model that has a tower for texts, too
    unknown = [n for n in request.model_args if not (hasattr(config, n) or hasattr(images, n))]
    if unknown:
        raise BackboneError(
            f"the configuration of {who} has no {', '.join(unknown)}", hint="change model_args=…"
        )
    for name, value in request.model_args.items():
        setattr(config if hasattr(config, name) else images, name, value)
    _refuse_kernels(config, who)
    return config


def _refuse_kernels(config: Any, who: str) -> None:
    """Refuse a configuration that names code on the hub to compute attention or experts with."""
    for name, value in vars(config).items():
        if "_implementation" in name and "/" in str(value):
            raise BackboneError(
                f"config.json of {who} refers to external code, '{value}', which is not run",
                hint=f"take {name.strip('_').removesuffix('_internal')} out of config.json",
            )


def class_of(transformers: Any, config: Any, who: str) -> Any:
    """Return the class of the bare model of a configuration.

    Raises:
        BackboneError: the library has none.
    """
    try:
        found = transformers.AutoModel._model_mapping[type(config)]
    except KeyError:
        raise BackboneError(
            f"transformers has no bare model for '{config.model_type}' ({who})",
            hint="use a model that AutoModel supports",
        ) from None
    return found[0] if isinstance(found, tuple) else found


def load_model(transformers: Any, folder: Path, config: Any, who: str, **arguments: Any) -> Loaded:
    """Load a model in float32.

    Args:
        transformers: the library.
        folder: of the model.
        config: its configuration.
        who: what to call it, in messages.
        arguments: further ones of the class.
    """
    import torch

    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise BackboneError(
            f"{who} has no safetensors file"
            + (f", only {pickled[0]}, which may hold code" if pickled else ""),
            hint="convert it: load it where you trust it, and model.save_pretrained(FOLDER)",
        )
    with quiet(transformers), torch.random.fork_rng(devices=[]):
        try:
            model, said = transformers.AutoModel.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **arguments,
            )
        except Exception as error:
            raise BackboneError(
                f"transformers cannot load {who}: {first_line(error)}",
                hint="check that the folder is complete",
            ) from error
    for part in model.modules():  # where it lay is no part of what it computes
        if "name_or_path" in vars(part):
            part.name_or_path = ""
        if "config" in vars(part):
            part.config._name_or_path = ""
    model.eval()
    wrong = tuple(str(each[0]) for each in said.get("mismatched_keys") or ())
    return Loaded(model, frozenset(said["missing_keys"]), wrong)


def takes(kind: Any, name: str) -> bool:
    """Return whether a class, a function or a method has an argument of this name."""
    return name in inspect.signature(kind).parameters


def settings_of(config: Any) -> str:
    """Return what a configuration says of the computation, as text."""
    ignored = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
    plain = {key: value for key, value in config.to_dict().items() if key not in ignored}
    return json.dumps(plain, sort_keys=True, default=str)


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Keep the library's progress bars and loading reports off the terminal."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def blocks_of(model: nn.Module, without: str = "") -> tuple[str, ...]:
    """Return the names of the blocks: the longest list of modules of one class.

    Args:
        model: of transformers.
        without: a part of the names of lists that hold no blocks; empty: none do.
    """
    from torch import nn

    lists = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, nn.ModuleList)
        and len(part)
        and len({type(each) for each in part}) == 1
        and name.count(".") <= 2
        and not (without and without in name)
    ]
    if not lists:
        return ()
    name, part = max(lists, key=lambda pair: (len(pair[1]), -pair[0].count(".")))
    return tuple(f"{name}.{i}" for i in range(len(part)))


__all__ = [
    "Loaded", "blocks_of", "class_of", "find_folder", "in_hub_cache", "library", "load_model",
    "local_folder", "quiet", "read_config", "settings_of", "takes",
]  # fmt: skip
