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
from urllib.parse import urlparse

from headstart.backbones.backbone import Backbone
from headstart.core.errors import BackboneError
from headstart.core.wording import count
from headstart.data.dataset import Split
from headstart.data.looking import DRAWINGS, PHOTOGRAPHS, Look, look_at

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
    if look.kind and look.kind not in DEFAULTS:
        raise BackboneError(
            f"the data are {look.about}, and there is no default backbone for {look.kind} yet",
            hint="name one that takes them, such as backbone='hf/NAME'; 'headstart backbones' lists"
            " the families",
        )
    name = DEFAULTS[look.kind or PHOTOGRAPHS]
    why = (
        f"since the data are {look.about} ({count(look.looked, 'item')} looked at)"
        if look.kind
        else "the default where none of the items looked at can be read"
    )
    reason = f"backbone: {name}, {why}; backbone='NAME' takes another"
    larger = LARGER.get(name)
    if larger is not None and hub_is_reachable():
        reason += f", such as the larger {larger}"
    return Choice(name, look, reason)


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
        f"warning: {backbone.name} was made for {' and '.join(made_for)}, and the data are"
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
