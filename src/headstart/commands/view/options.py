"""The options of ``view``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart.commands.settings import Signature
from headstart.commands.similar.options import LOOKED, LookConfig
from headstart.core.settings import option


@dataclass(frozen=True)
class ViewConfig(LookConfig):
    """The settings of :func:`headstart.view`.

    Attributes:
        map: ``pca``: the plane in which the features differ most, at once; ``umap``: UMAP on the
            graph of the fifteen nearest neighbours, which takes minutes and is kept in the cache.
        port: of the page on this machine; 0: a free one.
        open: open the page in the browser.
    """

    map: Literal["pca", "umap"] = option(
        "pca",
        "pca: the plane in which the features differ most, at once. umap: UMAP on the graph of"
        " nearest neighbours, which takes minutes and is kept in the cache.",
    )
    port: int = option(
        0, "Port on this machine.", shown="a free one", at_least=0, at_most=65535, record=False
    )
    open: bool = option(False, "Open the page in the browser.", record=False)


VIEW = Signature(
    "view",
    ViewConfig(),
    without={name: why for name, why in LOOKED.items() if name != "seed"},
)


__all__ = ["VIEW", "ViewConfig"]
