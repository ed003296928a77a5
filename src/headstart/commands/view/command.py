"""``headstart view``."""

from __future__ import annotations

from headstart.commands.console import Printing, command_seconds, print_json, print_lines, stdout
from headstart.commands.generate import RunOrData, generated
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.commands.view.options import VIEW, ViewConfig
from headstart.core.terminal import say
from headstart.core.wording import format_seconds


@generated(VIEW)
def view(
    items: RunOrData,
    config: ViewConfig,
    backbone: BackboneSpec,
    reading: ReadOptions,
    run: RunOptions,
    printing: Printing,
) -> None:
    """Look at the items of a run, or of data, on a page of this machine: a map of their features,
    the mistakes, and what each item is nearest to.

    The page is served until Ctrl+C, to this machine alone.
    """
    import sys
    import webbrowser

    from headstart.commands.view.job import view as view_job

    with view_job(items, backbone, config=config, run=run, reading=reading) as viewer:
        if printing.json:
            print_json({"url": viewer.url, "items": viewer.items})
        elif printing.quiet:
            say(viewer.url)
        else:
            print_lines(stdout(), (f"view: {viewer.url}",))
            took = format_seconds(command_seconds(0.0))
            print_lines(stdout(), (f"ready after {took}; Ctrl+C ends it",))
        sys.stdout.flush()
        if config.open:
            webbrowser.open(viewer.url)
        try:
            viewer.wait()
        except KeyboardInterrupt:
            if not printing.quiet and not printing.json:
                say("ended")


__all__ = ["view"]
