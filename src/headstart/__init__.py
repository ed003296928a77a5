"""headstart: transfer learning on frozen backbones.

Embed once, train heads in seconds, thaw only what pays, and prove that what was frozen stayed
frozen. This module is the table of contents; every name loads its room on first use, so that
``import headstart`` itself imports no heavy library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headstart._version import __version__
from headstart.errors import HeadstartError

if TYPE_CHECKING:
    pass

_ROOMS: dict[str, str] = {}

__all__ = ["HeadstartError", "__version__", *_ROOMS]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    value = getattr(importlib.import_module(_ROOMS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
