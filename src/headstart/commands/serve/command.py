"""``headstart serve``: a run behind HTTP."""

from __future__ import annotations

from headstart.commands.console import Printing, print_json, print_lines, stdout
from headstart.commands.generate import RunFolder, generated
from headstart.commands.serve.options import SERVE, ServeConfig
from headstart.commands.settings import RunOptions
from headstart.core.terminal import say
from headstart.core.wording import clean


@generated(SERVE)
def serve(run: RunFolder, config: ServeConfig, running: RunOptions, printing: Printing) -> None:
    """Answer requests over HTTP with what predict says, until told to stop.

    POST /predict takes one image or many, as JSON, as a form or as they are; GET / says what is
    served. Only this machine is let in, unless --host says otherwise.
    """
    from headstart.commands.serve.job import serve as serve_job

    def ready(url: str) -> None:
        if printing.json:
            print_json({"url": url, "run": str(run)})
        elif printing.quiet:
            say(url)
        else:
            lines = (
                f"{clean(run)} answers at {url}; Ctrl+C stops it",
                f"  curl -F images=@photo.jpg {url}/predict",
            )
            print_lines(stdout(), lines)

    serve_job(run, config=config, run=running, ready=ready)


__all__ = ["serve"]
