"""Models of transformers for images of other channels than three."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headstart.backbones.channels import COLOURS, adaptation, adapted_filters
from headstart.backbones.families.hf_folder import Loaded, load_model
from headstart.core.errors import BackboneError
from headstart.core.wording import count


def channels_of(config: Any) -> int:
    """Return how many channels the images of a model have."""
    found: Any = getattr(getattr(config, "vision_config", config), "num_channels", None)
    return COLOURS if found is None else int(found)


def load_for_channels(
    transformers: Any, folder: Path, config: Any, who: str
) -> tuple[Loaded, tuple[str, ...]]:
    """Load a model whose configuration may name other channels than its weights have.

    Args:
        transformers: the library.
        folder: of the model; its ``config.json`` says what the weights were made for.
        config: the configuration, with the user's ``num_channels``.
        who: what to call it, in messages.

    Returns:
        The model, and what was done, one sentence each.

    Raises:
        BackboneError: the weights are for other channels than three, and not for these.
    """
    channels = channels_of(config)
    own = transformers.AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    stated = channels_of(own)
    if stated == channels:
        return load_model(transformers, folder, config, who), ()
    if stated != COLOURS:
        raise BackboneError(
            f"the weights of {who} are for {count(stated, 'channel')}, not {channels}, and only"
            " three-colour filters can be converted to other channel counts",
            hint=f"omit num_channels, and choose bands={tuple(range(1, stated + 1))} or others"
            " of the images",
        )
    colours = load_model(transformers, folder, _with_channels(config, stated), who)
    made = load_model(
        transformers, folder, _with_channels(config, channels), who, ignore_mismatched_sizes=True
    )
    _fill(made, colours, channels, who)
    loaded = Loaded(made.model, colours.missing, colours.mismatched)
    return loaded, (adaptation(channels),)


def _with_channels(config: Any, channels: int) -> Any:
    """Return a copy of a configuration with other channels."""
    import copy

    made = copy.deepcopy(config)
    getattr(made, "vision_config", made).num_channels = channels
    return made


def _fill(made: Loaded, colours: Loaded, channels: int, who: str) -> None:
    """Copy tensors that have the same shape, and adapt the first filters."""
    import torch

    with torch.no_grad():
        theirs = colours.model.state_dict()
        for name, tensor in made.model.state_dict().items():
            source = theirs[name]
            if source.shape != tensor.shape:
                if source.ndim != 4 or source.shape[1] != COLOURS:
                    raise BackboneError(
                        f"'{name}' of {who} depends on the number of channels, and is not a"
                        " three-colour filter",
                        hint=f"choose three bands of the images, such as bands={(1,) * COLOURS}",
                    )
                source = adapted_filters(channels, source)
            tensor.copy_(source)


__all__ = ["channels_of", "load_for_channels"]
