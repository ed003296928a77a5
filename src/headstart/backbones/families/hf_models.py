"""transformers: models of texts, with their tokenizer and their pooling.

``hf/NAME`` is a model of the Hugging Face hub, as it lies in the local cache or is downloaded;
``hf/PATH`` a folder. Weights are read from safetensors files alone, and code that comes with a
model is never run.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.family import Built, Family, Request, first_line
from headstart.backbones.sentence_folder import SentenceFolder, read_sentence_folder
from headstart.core.errors import BackboneError, MissingExtraError
from headstart.core.fingerprints import stamp

if TYPE_CHECKING:
    from torch import nn

_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt"]
"""What is downloaded: weights, configuration, tokenizer."""
_UNLIMITED = 10**6
"""Tokenizers without a limit state one of 10**30."""
_USUAL_LENGTH = 512
_TAKES = {
    "pixel_values": "images", "input_values": "sounds", "input_features": "sounds",
    "pixel_values_videos": "videos",
}  # fmt: skip


def build_hf(request: Request) -> Built:
    """Build a model of texts with its tokenizer and pooling."""
    transformers = _library()
    who = f"hf/{request.name}"
    folder = _folder(request)
    sentences = read_sentence_folder(folder, who)
    place = folder if sentences is None else sentences.transformer
    config = _config(transformers, place, who, request)
    _require_texts(transformers, config, who)
    model, notes = _model(transformers, place, config, who)
    digest, pad, segments, longest = _tokenizer(transformers, place, config, who)
    causal = _is_causal(model, config)
    folder_says = sentences or SentenceFolder(place, ("last",) if causal else ("mean",))
    if sentences is None:
        way = "the last token, since it reads from left to right" if causal else "the mean"
        notes.append(f"{who} does not say how it pools its tokens: {way} is taken")
    stated = folder_says.max_length or longest or _USUAL_LENGTH
    if folder_says.max_length is None and longest is None:
        notes.append(f"{who} states no longest text: {_USUAL_LENGTH} tokens are taken")
    network = _network(model, folder_says, config)
    known = {
        "tokenizer": digest,
        "max_length": min(stated, longest or stated),
        "pad": pad,
        "segments": segments,
        "prompt": folder_says.prompt,
        "lower": folder_says.lower,
    }
    return Built(
        network,
        known,
        tuple(f"model.{name}" for name in _blocks(model)),
        (),
        tuple(notes),
        kind="text",
        loaded=True,
        files=_stamps(place) if local_folder(request.name) is not None else {},
        tokens="model",
    )


def _library() -> Any:
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


def _folder(request: Request) -> Path:
    """Return the folder of a model: the user's own, or that of the hub's cache."""
    local = local_folder(request.name)
    if local is not None:
        if not local.is_dir():
            what = "is not a folder" if local.exists() else "does not exist"
            raise BackboneError(
                f"'{local}' {what}, and a model of transformers is a folder",
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


def _config(transformers: Any, folder: Path, who: str, request: Request) -> Any:
    """Read the configuration, with the arguments of the user."""
    if not (folder / "config.json").is_file():
        raise BackboneError(
            f"'{folder}' holds no config.json, expected a model of transformers",
            hint="give the folder that holds config.json, the tokenizer and model.safetensors",
        )
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        code = "trust_remote_code" in str(error)
        raise BackboneError(
            f"{who} brings code of its own, which is not run"
            if code
            else f"transformers cannot read config.json of {who}: {first_line(error)}",
            hint="use a model that transformers itself knows",
        ) from error
    _refuse_kernels(config, who)
    unknown = [name for name in request.model_args if not hasattr(config, name)]
    if unknown:
        raise BackboneError(
            f"the configuration of {who} has no {', '.join(unknown)}", hint="change model_args=…"
        )
    for name, value in request.model_args.items():
        setattr(config, name, value)
    _refuse_kernels(config, who)
    return config


def _refuse_kernels(config: Any, who: str) -> None:
    """Refuse a configuration that names code on the hub to compute attention or experts with."""
    for name, value in vars(config).items():
        if "_implementation" in name and "/" in str(value):
            raise BackboneError(
                f"config.json of {who} names code of others, '{value}', which is not run",
                hint=f"take {name.strip('_').removesuffix('_internal')} out of config.json",
            )


def _require_texts(transformers: Any, config: Any, who: str) -> None:
    """Refuse models that take something else, before their weights are read."""
    kind = _class_of(transformers, config, who)
    main = getattr(kind, "main_input_name", "input_ids")
    if main in _TAKES:
        raise BackboneError(
            f"{who} takes {_TAKES[main]}, and hf/ is for models of texts",
            hint="for images, use a backbone of timm or torchvision: 'headstart backbones'",
        )
    if hasattr(config, "vision_config") or hasattr(config, "audio_config"):
        raise BackboneError(
            f"{who} takes texts together with images or sounds",
            hint="hf/ is for models of texts alone",
        )


def _class_of(transformers: Any, config: Any, who: str) -> Any:
    try:
        found = transformers.AutoModel._model_mapping[type(config)]
    except KeyError:
        raise BackboneError(
            f"transformers has no bare model for '{config.model_type}' ({who})",
            hint="use a model that AutoModel knows",
        ) from None
    return found[0] if isinstance(found, tuple) else found


def _model(transformers: Any, folder: Path, config: Any, who: str) -> tuple[nn.Module, list[str]]:
    """Load the model in float32; of an encoder-decoder, the encoder."""
    import torch

    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise BackboneError(
            f"{who} has no safetensors file"
            + (f", only {pickled[0]}, which may hold code" if pickled else ""),
            hint="convert it: load it where you trust it, and model.save_pretrained(FOLDER)",
        )
    more = {}
    if "add_pooling_layer" in inspect.signature(_class_of(transformers, config, who)).parameters:
        more["add_pooling_layer"] = False
    with _quiet(transformers), torch.random.fork_rng(devices=[]):
        try:
            model, said = transformers.AutoModel.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **more,
            )
        except Exception as error:
            raise BackboneError(
                f"transformers cannot load {who}: {first_line(error)}",
                hint="check that the folder is whole",
            ) from error
    notes = []
    missing = {name for name in said["missing_keys"] if not name.startswith("pooler.")}
    if getattr(config, "is_encoder_decoder", False):
        used = {id(tensor) for tensor in model.get_encoder().parameters()}
        named = dict(model.named_parameters(remove_duplicate=False))
        missing = {name for name in missing if id(named.get(name)) in used}
        model = model.get_encoder()
        notes.append(f"{who} is an encoder and a decoder: the encoder alone is used")
    if missing or said.get("mismatched_keys"):
        wrong = sorted(missing) or [str(each[0]) for each in said["mismatched_keys"]]
        raise BackboneError(
            f"the weights of {who} lack {len(wrong)} tensors of the model, such as {wrong[0]}",
            hint="check that the folder is whole, and model_args=…",
        )
    for part in model.modules():  # where it lay is no part of what it computes
        if "name_or_path" in vars(part):
            part.name_or_path = ""
        if "config" in vars(part):
            part.config._name_or_path = ""
    model.eval()
    return model, notes


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
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


def _tokenizer(
    transformers: Any, folder: Path, config: Any, who: str
) -> tuple[str, int, bool, int | None]:
    """Keep the tokenizer.

    Returns:
        Its digest, the token that pads, whether the model needs segments, and the longest text
        that tokenizer and model state (None: neither does).
    """
    from headstart.data.tokenizers import keep_tokenizer, tokenize

    names = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "tokenizer_config.json")
    if not any(any(folder.glob(name)) for name in names):
        raise BackboneError(
            f"{who} has no tokenizer in '{folder}'",
            hint="save it beside the model: tokenizer.save_pretrained(FOLDER)",
        )
    try:
        with _quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, config=config
            )
    except Exception as error:
        raise BackboneError(
            f"the tokenizer of {who} cannot be loaded: {first_line(error)}",
            hint="save it beside the model: tokenizer.save_pretrained(FOLDER)",
        ) from error
    written = getattr(tokenizer, "backend_tokenizer", None)
    if written is None or not hasattr(written, "to_str"):
        raise BackboneError(
            f"the tokenizer of {who} ({type(tokenizer).__name__}) has no fast version, and"
            " headstart reads no other",
            hint="use a model with a tokenizer.json",
        )
    if tokenizer.pad_token_id is None:
        raise BackboneError(
            f"the tokenizer of {who} has no token that pads, and texts of one batch differ in"
            " length",
            hint="set it and save the tokenizer beside the model:"
            " tokenizer.pad_token = tokenizer.eos_token",
        )
    digest = keep_tokenizer(written.to_str())
    trial = tokenize("a short text", digest, _USUAL_LENGTH)
    segments = any(trial.segments) and "token_type_ids" in tokenizer.model_input_names
    limits = [tokenizer.model_max_length, _positions(config)]
    stated = [int(each) for each in limits if each and 0 < each < _UNLIMITED]
    return digest, int(tokenizer.pad_token_id), segments, min(stated, default=None)


def _positions(config: Any) -> int | None:
    """Return how many tokens a model has positions for; None where it does not say."""
    found = getattr(config, "max_position_embeddings", None)
    if not isinstance(found, int) or found <= 0:
        return None
    # RoBERTa and its kin count positions from behind the number of the token that pads
    behind = config.model_type in _FROM_PADDING and isinstance(config.pad_token_id, int)
    return found - config.pad_token_id - 1 if behind else found


_FROM_PADDING = frozenset((
    "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "mpnet",
    "longformer", "esm", "ibert", "data2vec-text", "luke", "xmod",
))  # fmt: skip


def _is_causal(model: nn.Module, config: Any) -> bool:
    """Whether every token sees only the tokens before it: found by changing the last one."""
    import torch

    if getattr(config, "is_encoder_decoder", False):
        return False
    tokens = torch.arange(5, 11).remainder(max(2, int(config.vocab_size) - 1)).unsqueeze(0)
    other = tokens.clone()
    other[0, -1] = (other[0, -1] + 1) % int(config.vocab_size)
    with torch.no_grad():
        try:
            first, second = (
                model(input_ids=each, attention_mask=torch.ones_like(each))[0][0, 0]
                for each in (tokens, other)
            )
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError):
            return False  # trying the whole network says what is wrong with it
    return bool(torch.equal(first, second))


def _network(model: nn.Module, says: SentenceFolder, config: Any) -> nn.Module:
    from headstart.backbones.text_network import TextNetwork, TokenPooling

    ignored = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
    plain = {key: value for key, value in config.to_dict().items() if key not in ignored}
    settings = json.dumps(plain, sort_keys=True, default=str)
    caches = "use_cache" in inspect.signature(model.forward).parameters
    network = TextNetwork(model, TokenPooling(says.pooling), says.modules(), settings, caches)
    return network.eval()


def _blocks(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the blocks: the longest list of modules of one class."""
    from torch import nn

    lists = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, nn.ModuleList)
        and len(part)
        and len({type(each) for each in part}) == 1
        and name.count(".") <= 2
    ]
    if not lists:
        return ()
    name, part = max(lists, key=lambda pair: (len(pair[1]), -pair[0].count(".")))
    return tuple(f"{name}.{i}" for i in range(len(part)))


def _stamps(folder: Path) -> dict[str, Any]:
    """Describe the weights of a folder, which a run folder may name only with their digest."""
    files: Sequence[Path] = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    chosen = index if index.is_file() else folder / "model.safetensors"
    file = chosen if chosen.is_file() else files[0]
    return {"weights": stamp(file)}


HF = Family(
    "hf",
    "hf/NAME or hf/FOLDER",
    "models of texts of transformers and sentence-transformers, with their tokenizer",
    build_hf,
    folder=local_folder,
)

__all__ = ["HF", "in_hub_cache"]
