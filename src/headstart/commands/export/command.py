"""``headstart export``."""

from __future__ import annotations

from headstart.commands.console import Printing, print_json, print_lines, stdout
from headstart.commands.export.options import EXPORT, ExportConfig
from headstart.commands.generate import RunFolder, generated
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.core.terminal import say
from headstart.core.wording import clean, count, format_bytes


@generated(EXPORT)
def export(
    run: RunFolder,
    config: ExportConfig,
    reading: ReadOptions,
    running: RunOptions,
    printing: Printing,
) -> None:
    """Write a run as an artefact that needs no headstart, and prove that it predicts the same.

    The folder holds the network, model.json, a script predict.py, and a model card.
    """
    import shlex

    from headstart.commands.export.job import export as export_job
    from headstart.core.records import to_plain

    made = export_job(run, config=config, run=running, reading=reading)
    if printing.json:
        print_json(to_plain(made))
        return
    if printing.quiet:
        say(str(made.folder))
        return
    parity = made.parity
    same = "" if parity.same is None else f", the same prediction for {parity.same}"
    sizes = ", ".join(f"{name} {format_bytes(size)}" for name, size in made.files.items())
    lines = (
        f"{clean(made.folder)}: {sizes}",
        f"checked on {count(parity.items, 'item')} in a process without headstart: differs by up"
        f" to {parity.largest:.1e} (allowed {parity.tolerance:g}){same}",
        f"\nto use it: pip install {' '.join(made.script_needs)}",
        f"           python {shlex.quote(clean(made.folder / 'predict.py'))} ITEM ...",
    )
    print_lines(stdout(), lines)


__all__ = ["export"]
