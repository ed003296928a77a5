"""A map of the items of a run, or of data, on a page of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headstart.commands.settings import BackboneLike, ReadOptions, RunOptions
from headstart.commands.view.kept import shelf_for
from headstart.commands.view.options import VIEW, ViewConfig
from headstart.commands.view.server import Viewer
from headstart.commands.view.stage import Stage

if TYPE_CHECKING:
    from headstart.commands.view.scene import Scene


def view(
    items: Any,
    backbone: BackboneLike = "auto",
    *,
    config: ViewConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Viewer:
    """Serve a page on this machine with a map of items, their predictions and their neighbours.

    The page can be reached only from this machine, at an address with a secret in it. It is
    served in a thread until :meth:`Viewer.close`, or until its ``with`` block ends. What it showed
    last time is cached and appears at once; the items are opened in the background, and if they
    have changed the page reloads.

    Args:
        items: a run or its folder, or data as :func:`headstart.load_items` takes them, divided
            into splits or not, labelled or not.
        backbone: of data; a run has its own.
        config: the map, the port.
        run, reading: how to run the backbone, and how to read data.
        **overrides: single fields of these, such as ``map="umap"``.

    Returns:
        The page that is served; ``viewer.url`` is its address.

    Raises:
        ConfigError: impossible settings, or a port that is taken.
        DataError, BackboneError, StoreError: something cannot be read or computed; where the page
            began with what was kept, :meth:`Viewer.wait` and ``viewer.scene`` raise it.
    """
    config, run, reading, spec = VIEW.settle(overrides, config, run, reading, backbone)
    shelf = shelf_for(items, config, run, reading, spec)
    kept = None if shelf is None else shelf.get()

    def make() -> Scene:
        from headstart.commands.view.opening import open_scene

        scene = open_scene(items, config, run, reading, spec)
        if shelf is not None and (kept is None or scene.identity != kept.identity):
            shelf.put(scene)
        return scene

    return Viewer(Stage(make(), None) if kept is None else Stage(make, kept), config.port)


__all__ = ["ViewConfig", "view"]
