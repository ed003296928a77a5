"""``headstart card``."""

from __future__ import annotations

from headstart.commands.card.options import CARD, CardFileConfig
from headstart.commands.console import Printing, print_json, print_lines, stdout
from headstart.commands.generate import RunFolder, generated
from headstart.core.terminal import say
from headstart.core.wording import clean


@generated(CARD)
def card(run: RunFolder, config: CardFileConfig, printing: Printing) -> None:
    """Write the model card of a run: Markdown with the metadata of Hugging Face's hub.

    Without --out it is printed.
    """
    from headstart.commands.card.job import card as card_job

    text = card_job(run, config=config)
    if printing.json:
        print_json({"card": text, "file": None if config.output is None else str(config.output)})
    elif config.output is None:
        say(text.rstrip("\n"))
    elif not printing.quiet:
        print_lines(stdout(), (f"model card: {clean(config.output)}",))


__all__ = ["card"]
