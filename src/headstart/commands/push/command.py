"""``headstart push``."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.commands.console import Printing, print_json
from headstart.commands.generate import generated
from headstart.commands.push.options import PUSH, PushConfig
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.core.terminal import say

Source = Annotated[
    str,
    typer.Argument(help="A run folder, or the folder of an artefact.", show_default=False),
]
Target = Annotated[
    str,
    typer.Argument(
        help="A folder, or hf:OWNER/NAME, a repository of Hugging Face.", show_default=False
    ),
]


@generated(PUSH)
def push(
    source: Source,
    target: Target,
    config: PushConfig,
    reading: ReadOptions,
    running: RunOptions,
    printing: Printing,
) -> None:
    """Push an artefact to a folder or to Hugging Face's hub; a run is exported first."""
    from headstart.commands.push.job import push as push_job

    place = push_job(source, target, config=config, run=running, reading=reading)
    if printing.json:
        print_json({"place": place})
        return
    say(place if printing.quiet else f"pushed to {place}")


__all__ = ["push"]
