"""The command line: arguments → function calls → printing. One file a command.

Nothing heavy is imported before a command runs, so that ``headstart --help`` answers at once.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

_BEGUN = time.perf_counter()  # before the imports: they are a part of the time of a command

import typer
from typer.core import TyperGroup

from headstart.commands.advise.command import advise
from headstart.commands.audit.command import audit
from headstart.commands.backbones.command import backbones
from headstart.commands.cache.command import app as cache_app
from headstart.commands.card.command import card
from headstart.commands.compare.command import compare
from headstart.commands.console import timed_command
from headstart.commands.examine.command import examine
from headstart.commands.export.command import export
from headstart.commands.extract.command import extract
from headstart.commands.finetune.command import finetune
from headstart.commands.fit.command import fit
from headstart.commands.predict.command import evaluate, predict
from headstart.commands.push.command import push
from headstart.commands.serve.command import serve
from headstart.commands.signals import EndedBySignal, end_on_signals
from headstart.commands.similar.command import similar
from headstart.commands.suggest.command import suggest
from headstart.commands.sweep.command import sweep
from headstart.commands.update.command import update
from headstart.commands.view.command import view
from headstart.core.errors import HeadstartError
from headstart.core.files import reason_of
from headstart.core.terminal import say
from headstart.core.wording import clean

_IMPORTED = time.perf_counter() - _BEGUN


class _Commands(TyperGroup):
    """Commands whose complaints about a line, which may hold names of files, are harmless."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if hasattr(error, "format_message"):  # an error of usage
                error.message = clean(error.message)  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    cls=_Commands,
    name="headstart",
    help="Transfer learning on frozen backbones: embed once, train heads in seconds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
app.command()(fit)
app.command()(extract)
app.command()(predict)
app.command()(evaluate)
app.command()(serve)
app.command()(update)
app.command()(export)
app.command()(card)
app.command()(push)
app.command()(suggest)
app.command()(sweep)
app.command()(examine)
app.command()(similar)
app.command()(view)
app.command()(finetune)
app.command()(advise)
app.command()(compare)
app.command()(audit)
app.command()(backbones)
app.add_typer(cache_app)


def _version(asked: bool) -> None:
    if asked:
        from headstart._version import __version__

        say(f"headstart {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 1."""
    end_on_signals()
    try:
        with timed_command(_IMPORTED):
            app()
    except EndedBySignal as ended:
        _fail(f"ended by {ended.name}; features that were computed are kept", ended.code)
    except HeadstartError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; features that were computed are kept", 130)
    except BrokenPipeError:
        # The reader of our output has gone (as in `headstart ... | head`): not a mistake.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        where = f"'{error.filename}': " if error.filename else ""
        reason, hint = reason_of(error)
        known = reason not in (error.strerror, str(error))
        _fail(f"{where}{reason}; {hint}" if known else f"{where}{reason}")


def _fail(message: str, status: int = 1) -> None:
    line = " ".join(message.split())
    say(f"error: {line}", error=True)
    sys.exit(status)


__all__ = ["app", "main"]
